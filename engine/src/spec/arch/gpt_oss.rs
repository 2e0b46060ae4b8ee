//! gpt-oss: OpenAI's open models (`src/models/openai-moe.cpp` in llama.cpp).
//!
//! Experts whose weights are a softmax over the chosen, a clamped activation, biases everywhere, a logit a head in the
//! softmax of attention, windows in every other layer, YaRN. The norm before the experts is named
//! `post_attention_norm`.

use super::{Keys, Result, Spec, decoder, experts_of, with_experts, with_windows};
use crate::spec::rope::RopeStyle;
use crate::spec::{Activation, Gating};

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    spec.ffn_norm = "post_attention_norm";
    spec.activation = Activation::ClampedSwiglu;
    let scale = 1.0 / (spec.ropes[0].dimensions as f32).sqrt();
    for layer in &mut spec.layers {
        layer.attention_scale = scale;
        layer.sinks = true;
    }
    let mut window_rope = spec.ropes[0].clone();
    window_rope.base = keys.number("rope.freq_base_swa")?.map_or(window_rope.base, f64::from);
    spec.ropes.push(window_rope);
    let window = keys.required("attention.sliding_window")?;
    with_windows(keys, &mut spec, window, 2, 1)?;
    let width = keys.required("expert_feed_forward_length")?;
    with_experts(keys, &mut spec, width, false)?;
    for experts in experts_of(&mut spec) {
        experts.routing.gating = Gating::SoftmaxOfChosen;
    }
    Ok(spec)
}
