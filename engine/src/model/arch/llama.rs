//! llama: Llama 1 to 3, Mistral 7B, SmolLM2 and their kind (`src/models/llama.cpp` in llama.cpp).
//!
//! RMS norms before both branches, interleaved rope, gated SiLU. `attention.sliding_window` is ignored,
//! as llama.cpp does for this architecture.

use super::{Keys, Result, Spec, layers, rope_factors, rope_scaling, vocabulary};
use crate::model::rope::{RopeSpec, RopeStyle};
use crate::model::spec::Activation;

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    if keys.count("expert_count")?.unwrap_or(0) > 0 {
        return Err(keys.error("mixture-of-experts models are not supported yet; try a dense one"));
    }
    let layers = layers(keys)?;
    let key_length = layers[0].key_length;
    let turned = keys.count("rope.dimension_count")?.unwrap_or(key_length);
    if turned != key_length {
        return Err(keys.error(format!(
            "llama.rope.dimension_count is {turned}, but heads have {key_length} elements; the file was converted wrongly"
        )));
    }
    Ok(Spec {
        architecture: keys.architecture(),
        vocabulary: vocabulary(keys)?,
        context_length: keys.required("context_length")?,
        embedding: keys.required("embedding_length")?,
        embedding_scale: 1.0,
        norm_epsilon: keys.required_number("attention.layer_norm_rms_epsilon")?,
        sandwich_norms: false,
        qk_norm: false,
        activation: Activation::Silu,
        ropes: vec![RopeSpec {
            style: RopeStyle::Interleaved,
            dimensions: turned,
            base: keys.number("rope.freq_base")?.map_or(10000.0, f64::from),
            scaling: rope_scaling(keys)?,
            factors: rope_factors(keys)?,
        }],
        layers,
    })
}
