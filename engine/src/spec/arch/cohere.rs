//! command-r and cohere2: Command R, R+ and R7B (`src/models/command-r.cpp` and `cohere2.cpp` in llama.cpp).
//!
//! Norms by mean and variance without bias, both branches on the same normed stream, scaled logits. Command R+ norms
//! each head of q and k; cohere2 has windows, and turns q and k in layers with one only.

use super::{Keys, Result, Spec, decoder_with, with_windows};
use crate::spec::rope::RopeStyle;
use crate::spec::{NormKind, QkNorm};

/// From so many layers on (Command R+) heads are normed.
const LAYERS_WITH_QK_NORM: usize = 64;

pub(super) fn command_r(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder_with(keys, RopeStyle::Interleaved, NormKind::Layer)?;
    spec.parallel = true;
    spec.logit_scale = keys.number("logit_scale")?.filter(|&scale| scale != 0.0).unwrap_or(1.0);
    if spec.layers.len() >= LAYERS_WITH_QK_NORM {
        spec.qk_norm = QkNorm::LayerHeads;
    }
    Ok(spec)
}

pub(super) fn cohere2(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder_with(keys, RopeStyle::Interleaved, NormKind::Layer)?;
    spec.parallel = true;
    spec.logit_scale = keys.required_number("logit_scale")?;
    let window = keys.required("attention.sliding_window")?;
    for layer in &mut spec.layers {
        layer.rope = None;
    }
    with_windows(keys, &mut spec, window, 4, 0)?;
    Ok(spec)
}
