//! granite and granitemoe: Granite 3 and 4 without recurrent layers (`src/models/granite.cpp` in llama.cpp).
//!
//! As llama, with four factors: embeddings, attention scores, branches, logits (divided).

use super::{Keys, Result, Spec, decoder, experts_of, with_experts};
use crate::spec::SharedExpert;
use crate::spec::rope::RopeStyle;

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Interleaved)?;
    let factor = |name: &str| -> Result<Option<f32>> {
        Ok(keys.number(name)?.filter(|&factor| factor != 0.0))
    };
    spec.embedding_scale = factor("embedding_scale")?.unwrap_or(1.0);
    spec.residual_scale = factor("residual_scale")?.unwrap_or(1.0);
    spec.logit_scale = match keys.required_number("logit_scale")? {
        0.0 => return Err(keys.error("granite's logit_scale is 0, logits cannot be divided by it")),
        scale => 1.0 / scale,
    };
    let attention_scale = factor("attention.scale")?;
    let turns = keys.flag("rope.scaling.finetuned")?.unwrap_or(true);
    for layer in &mut spec.layers {
        layer.attention_scale = attention_scale.unwrap_or(layer.attention_scale);
        layer.rope = layer.rope.filter(|_| turns);
    }
    let width = spec.layers[0].feed_forward.width();
    with_experts(keys, &mut spec, width, true)?;
    let shared = keys.count("expert_shared_feed_forward_length")?.filter(|&width| width > 0);
    for experts in experts_of(&mut spec) {
        experts.shared = shared.map(|width| SharedExpert { width, gated: false });
    }
    Ok(spec)
}
