//! gemma4: Gemma 4, text (`src/models/gemma4.cpp` in llama.cpp).
//!
//! As gemma3, with heads that differ between windowed and full layers, v normed (and made of k where a layer has no v),
//! last layers that read earlier ones' keys and values, a vector of the token's for each layer, and in some models experts
//! beside each network. Full layers turn few of their pairs.

use super::{Keys, Result, Spec, decoder, windowed_layers, with_experts};
use crate::spec::rope::{RopeFactors, RopeScaling, RopeStyle};
use crate::spec::{Activation, FeedForward, PerLayerInput, QkNorm};

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    spec.embedding_scale = (spec.embedding as f32).sqrt();
    spec.activation = Activation::Gelu;
    spec.post_norms = true;
    spec.qk_norm = QkNorm::Heads;
    spec.value_norm = true;
    let cap = keys.number("final_logit_softcapping")?.unwrap_or(30.0);
    spec.logit_softcap = Some(cap).filter(|&cap| cap != 0.0);

    let window = keys.required("attention.sliding_window")?;
    let layers = spec.layers.len();
    if keys.flags("attention.sliding_window_pattern", layers)?.is_none() {
        return Err(keys.error("gemma4.attention.sliding_window_pattern is no array of yes and no"));
    }
    let windowed = windowed_layers(keys, layers, 0)?;
    let of_window = |name: &str, full: usize| -> Result<usize> {
        Ok(keys.count(&format!("{name}_swa"))?.unwrap_or(full))
    };
    let (key_length, value_length) = (spec.layers[0].key_length, spec.layers[0].value_length);
    let window_lengths = (
        of_window("attention.key_length", key_length)?,
        of_window("attention.value_length", value_length)?,
    );
    let mut rope = spec.ropes[0].clone();
    rope.base = keys.number("rope.freq_base_swa")?.map_or(10000.0, f64::from);
    rope.dimensions = of_window("rope.dimension_count", rope.dimensions)?;
    rope.scaling = RopeScaling::Linear { factor: 1.0, magnitude: 1.0 };
    rope.factors = RopeFactors::None;
    spec.ropes.push(rope);
    for (layer, &windowed) in spec.layers.iter_mut().zip(&windowed) {
        layer.attention_scale = 1.0;
        // Without a causal mask windowed layers alone see later tokens.
        layer.causal |= !windowed;
        if windowed {
            layer.window = Some(window);
            layer.rope = Some(1);
            (layer.key_length, layer.value_length) = window_lengths;
        }
    }

    // The last layers read the last window layer's and the last full layer's before them, by position.
    let sharing = keys.count("attention.shared_kv_layers")?.unwrap_or(0);
    if sharing > 0 {
        let Some(own) = layers.checked_sub(sharing).filter(|&own| own >= 2) else {
            return Err(keys.error(format!("{sharing} of {layers} layers share keys and values")));
        };
        for (index, layer) in spec.layers.iter_mut().enumerate().skip(own) {
            layer.reads_layer = Some(if windowed[index] { own - 2 } else { own - 1 });
        }
        if !windowed[own - 2] || windowed[own - 1] {
            return Err(keys.error(
                "the layers with keys of their own do not end with a window and a full one",
            ));
        }
    }
    let width = keys.count("embedding_length_per_layer_input")?.filter(|&width| width > 0);
    spec.per_layer = width.map(|width| PerLayerInput { width, padded: width.next_multiple_of(32) });
    experts(keys, &mut spec)?;
    Ok(spec)
}

/// Experts beside the networks of the layers that have a router.
fn experts(keys: &Keys, spec: &mut Spec) -> Result<()> {
    let widths: Vec<usize> = spec.layers.iter().map(|l| l.feed_forward.width()).collect();
    let Some(width) = keys.count("expert_feed_forward_length")? else { return Ok(()) };
    with_experts(keys, spec, width, true)?;
    for (index, (layer, width)) in spec.layers.iter_mut().zip(widths).enumerate() {
        let routed = keys.file().tensor(&format!("blk.{index}.ffn_gate_inp.weight")).is_some();
        if let (FeedForward::Experts(experts), true) = (&layer.feed_forward, routed) {
            let experts = experts.clone();
            layer.feed_forward = FeedForward::GatedAndExperts { width, experts };
        } else {
            layer.feed_forward = FeedForward::Gated { width };
        }
    }
    Ok(())
}
