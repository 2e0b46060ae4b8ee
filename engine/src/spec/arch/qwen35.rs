//! qwen35, qwen35moe and qwen3next: Qwen 3.5 and Qwen3-Next (`src/models/qwen35.cpp` and its neighbours in llama.cpp).
//!
//! Gated delta nets in most layers; in every fourth attention whose q comes with a gate, normed q and k, and rope on part
//! of a head. Networks are gated SiLU, or experts with a gated one that every token passes. The second norm is named
//! `post_attention_norm`.

use super::{Keys, Result, Spec, decoder, experts_of, with_experts};
use crate::spec::rope::RopeStyle;
use crate::spec::{DeltaNet, QkNorm, Recurrent, SharedExpert};

pub(super) fn qwen35(keys: &Keys) -> Result<Spec> {
    let mut spec = hybrid(keys, false)?;
    let sections = keys.counts("rope.dimension_sections")?;
    let Ok(sections) = <[usize; 4]>::try_from(sections) else {
        return Err(keys.error("rope.dimension_sections is no array of 4 numbers"));
    };
    spec.ropes[0].sections = Some(sections);
    Ok(spec)
}

pub(super) fn qwen3next(keys: &Keys) -> Result<Spec> {
    hybrid(keys, true)
}

fn hybrid(keys: &Keys, grouped: bool) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    spec.qk_norm = QkNorm::Heads;
    spec.ffn_norm = "post_attention_norm";
    let net = DeltaNet {
        taps: keys.required("ssm.conv_kernel")?,
        key_heads: keys.required("ssm.group_count")?,
        value_heads: keys.required("ssm.time_step_rank")?,
        size: keys.required("ssm.state_size")?,
        grouped,
    };
    let interval = keys.count("full_attention_interval")?.filter(|&n| n > 0).unwrap_or(4);
    let listed = keys.flags("attention.recurrent_layers", spec.layers.len())?;
    for (index, layer) in spec.layers.iter_mut().enumerate() {
        let recurrent = listed.as_ref().map_or((index + 1) % interval != 0, |listed| listed[index]);
        if recurrent {
            layer.attention = false;
            layer.recurrent = Some(Recurrent::DeltaNet(net));
        } else {
            layer.query_gate = true;
        }
    }
    let dense = spec.layers[0].feed_forward.width();
    let used = keys.count("expert_used_count")?.unwrap_or(1).max(1);
    let width = keys.count("expert_feed_forward_length")?.filter(|&width| width > 0);
    with_experts(keys, &mut spec, width.unwrap_or(dense / used), true)?;
    let shared = keys.count("expert_shared_feed_forward_length")?.filter(|&width| width > 0);
    for experts in experts_of(&mut spec) {
        experts.shared = Some(SharedExpert { width: shared.unwrap_or(dense), gated: true });
    }
    Ok(spec)
}
