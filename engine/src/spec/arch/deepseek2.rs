//! deepseek2: DeepSeek V2 to V3.1, Kimi K2, GigaChat and their kind (`src/models/deepseek2.cpp` in llama.cpp).
//!
//! Attention over a compressed cache; experts in groups after the first layers, chosen with a bias, and one that every
//! token passes; YaRN whose magnitude goes into the scale of scores.

use super::{Keys, Result, Spec, decoder, experts_of, with_experts, yarn_magnitude};
use crate::spec::rope::{RopeScaling, RopeStyle};
use crate::spec::{FeedForward, Gating, Latent, SharedExpert, Temperature};

/// Layers and tokens of a model whose files do not say that its router is a sigmoid.
const SIGMOID_LAYERS: [usize; 2] = [47, 48];
const SIGMOID_TOKENS: usize = 154_880;

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Interleaved)?;
    let turned = keys.required("rope.dimension_count")?;
    let rank = keys.required("attention.kv_lora_rank")?;
    let compressed = keys.count("attention.key_length_mla")?.is_some_and(|length| length > 0);
    let suffix = if compressed { "_mla" } else { "" };
    let length = keys.required(&format!("attention.key_length{suffix}"))?;
    let value = keys.required(&format!("attention.value_length{suffix}"))?;
    let Some(plain) = length.checked_sub(turned).filter(|&plain| plain > 0) else {
        return Err(keys.error(format!("heads of {length} elements cannot turn {turned}")));
    };
    let query_rank = keys.count("attention.q_lora_rank")?.filter(|&rank| rank > 0);

    let attention_scale = scale(keys, &mut spec, length)?;
    let temperature = match keys.number("attention.temperature_scale")?.filter(|&t| t != 0.0) {
        Some(scale) => {
            Some(Temperature { scale, length: keys.required("attention.temperature_length")? })
        }
        None => None,
    };
    for (index, layer) in spec.layers.iter_mut().enumerate() {
        // Small models compress q nowhere: the tensors tell.
        let low = format!("blk.{index}.attn_q_a.weight");
        let query_rank = query_rank
            .filter(|_| keys.file().tensor(&low).is_some())
            .map(|rank| (rank, rank.next_multiple_of(32)));
        layer.latent =
            Some(Latent { query_rank, rank, rank_numbers: rank, plain, turned, value, compressed });
        if compressed {
            (layer.kv_heads, layer.key_length, layer.value_length) = (1, rank + turned, rank);
        } else {
            (layer.kv_heads, layer.key_length, layer.value_length) = (layer.heads, length, value);
        }
        layer.attention_scale = attention_scale;
        layer.temperature = temperature;
    }
    experts(keys, &mut spec)?;
    Ok(spec)
}

/// The factor of scores: m^2 / sqrt(length), m being what YaRN would multiply cosine and sine by; those keep
/// `attn_factor` alone.
fn scale(keys: &Keys, spec: &mut Spec, length: usize) -> Result<f32> {
    // Converters write a tenth of what the formula has.
    let multiplier =
        keys.number("rope.scaling.yarn_log_multiplier")?.map_or(0.0, |l| f64::from(l) / 0.1);
    let attn_factor = keys.number("rope.scaling.attn_factor")?.map_or(1.0, f64::from);
    let (factor, own) = match &mut spec.ropes[0].scaling {
        RopeScaling::Yarn { factor, magnitude, .. } => {
            let own = yarn_magnitude(*factor, 1.0);
            if multiplier == 0.0 {
                (*factor, attn_factor)
            } else {
                *magnitude = attn_factor;
                (*factor, attn_factor / own)
            }
        }
        RopeScaling::Linear { factor, .. } => (*factor, attn_factor),
    };
    let m = own * yarn_magnitude(factor, 1.0) * yarn_magnitude(factor, multiplier);
    Ok((m * m / (length as f64).sqrt()) as f32)
}

fn experts(keys: &Keys, spec: &mut Spec) -> Result<()> {
    let dense: Vec<FeedForward> =
        spec.layers.iter().map(|layer| layer.feed_forward.clone()).collect();
    let Some(width) = keys.count("expert_feed_forward_length")?.filter(|&width| width > 0) else {
        return Ok(());
    };
    let normalize = keys.flag("expert_weights_norm")?.unwrap_or(false);
    with_experts(keys, spec, width, normalize)?;
    let known = SIGMOID_LAYERS.contains(&spec.layers.len()) && spec.vocabulary == SIGMOID_TOKENS;
    let gating = match keys.count("expert_gating_func")?.filter(|&number| number > 0) {
        Some(1) => Gating::Softmax,
        Some(2) => Gating::Sigmoid,
        None => {
            if known {
                Gating::Sigmoid
            } else {
                Gating::Softmax
            }
        }
        Some(other) => {
            return Err(keys.error(format!("expert_gating_func {other} is unknown (known: 1, 2)")));
        }
    };
    let scale = keys.number("expert_weights_scale")?.filter(|&scale| scale != 0.0).unwrap_or(1.0);
    let shared = keys.count("expert_shared_count")?.unwrap_or(0);
    let groups = keys.count("expert_group_count")?.unwrap_or(1).max(1);
    let groups_used = keys.count("expert_group_used_count")?.filter(|&n| n > 0).unwrap_or(groups);
    for experts in experts_of(spec) {
        experts.routing.gating = gating;
        experts.routing.scale = scale;
        (experts.routing.groups, experts.routing.groups_used) = (groups, groups_used);
        experts.shared = (shared > 0)
            .then(|| SharedExpert { width: width.saturating_mul(shared), gated: false });
    }
    let leading = keys.count("leading_dense_block_count")?.unwrap_or(0);
    for (layer, dense) in spec.layers.iter_mut().zip(dense).take(leading) {
        layer.feed_forward = dense;
    }
    Ok(())
}
