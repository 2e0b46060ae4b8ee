//! mamba2: Mamba 2 (`src/models/mamba2.cpp` in llama.cpp): nothing but recurrent mixers.

use super::{Keys, Result, Spec, decoder};
use crate::spec::rope::RopeStyle;
use crate::spec::{FeedForward, Mamba2, Recurrent};

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    let mamba = mixer(keys)?;
    for layer in &mut spec.layers {
        layer.attention = false;
        layer.recurrent = Some(Recurrent::Mamba2(mamba));
        layer.feed_forward = FeedForward::None;
    }
    Ok(spec)
}

/// The numbers of the mixer.
pub(super) fn mixer(keys: &Keys) -> Result<Mamba2> {
    let heads = keys.required("ssm.time_step_rank")?;
    Ok(Mamba2 {
        taps: keys.required("ssm.conv_kernel")?,
        heads,
        head_size: keys.required("ssm.inner_size")? / heads,
        state: keys.required("ssm.state_size")?,
        groups: keys.required("ssm.group_count")?,
    })
}
