//! smollm3: SmolLM3 (`src/models/smollm3.cpp` in llama.cpp): as llama, but every fourth layer does not turn q and k.

use super::{Keys, Result, Spec, decoder};
use crate::spec::rope::RopeStyle;

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Interleaved)?;
    for layer in spec.layers.iter_mut().skip(3).step_by(4) {
        layer.rope = None;
    }
    Ok(spec)
}
