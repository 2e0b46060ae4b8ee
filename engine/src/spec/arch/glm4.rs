//! glm4: GLM 4 (`src/models/glm4.cpp` in llama.cpp): norms before and after both branches, interleaved rope on part of
//! a head, biases of q, k and v, gate and up fused.

use super::{Keys, Result, Spec, decoder};
use crate::spec::rope::RopeStyle;

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    // With sections (vision) text turns as without, but on halves: t, h and w are all the position.
    let sections = keys.counts("rope.dimension_sections")?;
    let style = if sections.iter().any(|&pairs| pairs > 0) {
        RopeStyle::Halves
    } else {
        RopeStyle::Interleaved
    };
    let mut spec = decoder(keys, style)?;
    spec.post_norms = true;
    Ok(spec)
}
