//! qwen2, qwen3 and their mixtures of experts (`src/models/qwen2.cpp` and its neighbours in llama.cpp).
//!
//! As llama, but with rope on halves; qwen2 has biases of q, k and v (read wherever a file has them), qwen3
//! norms q and k. qwen2moe has a gated expert that every token passes and does not renormalise weights.

use super::{Keys, Result, Spec, decoder, experts_of, with_experts};
use crate::spec::rope::RopeStyle;
use crate::spec::{QkNorm, SharedExpert};

pub(super) fn qwen2(keys: &Keys) -> Result<Spec> {
    decoder(keys, RopeStyle::Halves)
}

pub(super) fn qwen3(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    spec.qk_norm = QkNorm::Heads;
    Ok(spec)
}

pub(super) fn qwen2moe(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    let dense = spec.layers[0].feed_forward.width();
    let width = expert_width(keys, dense)?;
    with_experts(keys, &mut spec, width, false)?;
    let shared = keys.count("expert_shared_feed_forward_length")?.filter(|&width| width > 0);
    for experts in experts_of(&mut spec) {
        experts.shared = Some(SharedExpert { width: shared.unwrap_or(dense), gated: true });
    }
    Ok(spec)
}

pub(super) fn qwen3moe(keys: &Keys) -> Result<Spec> {
    let mut spec = qwen3(keys)?;
    let width = expert_width(keys, spec.layers[0].feed_forward.width())?;
    with_experts(keys, &mut spec, width, true)?;
    Ok(spec)
}

/// An expert's width: in a file that does not say, the dense width shared out among those used.
fn expert_width(keys: &Keys, dense: usize) -> Result<usize> {
    let used = keys.count("expert_used_count")?.unwrap_or(1).max(1);
    Ok(keys.count("expert_feed_forward_length")?.filter(|&width| width > 0).unwrap_or(dense / used))
}
