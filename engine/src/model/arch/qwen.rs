//! qwen2 and qwen3: Qwen 2, 2.5 and 3, dense (`src/models/qwen2.cpp` and `qwen3.cpp` in llama.cpp).
//!
//! As llama, but with rope on halves; qwen2 has biases of q, k and v (read wherever a file has them), qwen3
//! norms q and k.

use super::{Keys, Result, Spec, layers, rope_factors, rope_scaling, vocabulary};
use crate::model::rope::{RopeSpec, RopeStyle};
use crate::model::spec::Activation;

pub(super) fn qwen2(keys: &Keys) -> Result<Spec> {
    spec(keys, false)
}

pub(super) fn qwen3(keys: &Keys) -> Result<Spec> {
    spec(keys, true)
}

fn spec(keys: &Keys, qk_norm: bool) -> Result<Spec> {
    let layers = layers(keys)?;
    let dimensions = keys.count("rope.dimension_count")?.unwrap_or(layers[0].key_length);
    Ok(Spec {
        architecture: keys.architecture(),
        vocabulary: vocabulary(keys)?,
        context_length: keys.required("context_length")?,
        embedding: keys.required("embedding_length")?,
        embedding_scale: 1.0,
        norm_epsilon: keys.required_number("attention.layer_norm_rms_epsilon")?,
        sandwich_norms: false,
        qk_norm,
        activation: Activation::Silu,
        ropes: vec![RopeSpec {
            style: RopeStyle::Halves,
            dimensions,
            base: keys.number("rope.freq_base")?.map_or(10000.0, f64::from),
            scaling: rope_scaling(keys)?,
            factors: rope_factors(keys)?,
        }],
        layers,
    })
}
