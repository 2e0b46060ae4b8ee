//! llama: Llama 1 to 3, Mistral 7B, Mixtral, SmolLM2 and their kind (`src/models/llama.cpp` in llama.cpp).
//!
//! RMS norms before both branches, interleaved rope, gated SiLU, alone or as experts.
//! `attention.sliding_window` is ignored, as llama.cpp does for this architecture.

use super::{Keys, Result, Spec, decoder, with_experts};
use crate::spec::rope::RopeStyle;

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Interleaved)?;
    let (turned, key_length) = (spec.ropes[0].dimensions, spec.layers[0].key_length);
    if turned != key_length {
        return Err(keys.error(format!(
            "llama.rope.dimension_count is {turned}, but heads have {key_length} elements; the file was converted wrongly"
        )));
    }
    let width = spec.layers[0].feed_forward.width();
    with_experts(keys, &mut spec, width, true)?;
    Ok(spec)
}
