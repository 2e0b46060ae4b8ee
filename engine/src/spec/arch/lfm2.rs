//! lfm2: LFM 2 (`src/models/lfm2.cpp` in llama.cpp): short convolutions in most layers, attention with normed q and k
//! in those that have key heads, gated SiLU.

use super::{Keys, Result, Spec, decoder};
use crate::spec::rope::RopeStyle;
use crate::spec::{QkNorm, Recurrent};

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    spec.qk_norm = QkNorm::Heads;
    spec.output_norm = "token_embd_norm";
    let taps = keys.required("shortconv.l_cache")?;
    let window = keys.count("attention.sliding_window")?.filter(|&window| window > 0);
    for layer in &mut spec.layers {
        if layer.attention {
            layer.window = window;
        } else {
            layer.recurrent = Some(Recurrent::ShortConv { taps });
        }
    }
    Ok(spec)
}
