//! gemma3: Gemma 3 text models (`src/models/gemma3.cpp` in llama.cpp).
//!
//! Scaled embeddings, norms before and after both branches, normed q and k, gated GELU, and windows in
//! all but every sixth layer, which turn by a rope of their own.

use super::{Keys, Result, Spec, layers, rope_scaling, vocabulary};
use crate::model::rope::{RopeFactors, RopeScaling, RopeSpec, RopeStyle};
use crate::model::spec::Activation;

/// Of this many layers the last sees everything.
const DEFAULT_PATTERN: usize = 6;
/// The layers of the 27B model, whose scale llama.cpp chooses by this number.
const LAYERS_27B: usize = 62;

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let embedding = keys.required("embedding_length")?;
    let mut layers = layers(keys)?;
    let window = keys.count("attention.sliding_window")?.filter(|&window| window > 0);
    let count = layers.len();
    let windowed = windowed_layers(keys, count)?;
    for (index, layer) in layers.iter_mut().enumerate() {
        if let Some(window) = window.filter(|_| windowed[index]) {
            layer.window = Some(window);
            layer.rope = 1;
        }
        if count == LAYERS_27B {
            layer.attention_scale = 1.0 / ((embedding / layer.heads) as f32).sqrt();
        }
    }
    let key_length = layers[0].key_length;
    let rope = |base: f64, scaling| -> Result<RopeSpec> {
        Ok(RopeSpec {
            style: RopeStyle::Halves,
            dimensions: keys.count("rope.dimension_count")?.unwrap_or(key_length),
            base,
            scaling,
            factors: RopeFactors::None,
        })
    };
    let base = keys.number("rope.freq_base")?.map_or(10000.0, f64::from);
    let window_base = keys.number("rope.freq_base_swa")?.map_or(10000.0, f64::from);
    Ok(Spec {
        architecture: keys.architecture(),
        vocabulary: vocabulary(keys)?,
        context_length: keys.required("context_length")?,
        embedding,
        embedding_scale: (embedding as f32).sqrt(),
        norm_epsilon: keys.required_number("attention.layer_norm_rms_epsilon")?,
        sandwich_norms: true,
        qk_norm: true,
        activation: Activation::Gelu,
        ropes: vec![
            rope(base, rope_scaling(keys)?)?,
            rope(window_base, RopeScaling::Linear { factor: 1.0, magnitude: 1.0 })?,
        ],
        layers,
    })
}

/// Which layers have the window: by the file's array, or by period (the last of each period is full;
/// 0: all, 1: none).
fn windowed_layers(keys: &Keys, layers: usize) -> Result<Vec<bool>> {
    let name = "attention.sliding_window_pattern";
    let full_key = format!("{}.{name}", keys.architecture());
    if let Some(gguf::Array::Bool(flags)) =
        keys.file().metadata.get(&full_key).and_then(|value| value.as_array())
    {
        if flags.len() < layers {
            return Err(
                keys.error(format!("{full_key} has {} entries for {layers} layers", flags.len()))
            );
        }
        return Ok(flags[..layers].to_vec());
    }
    let period = keys.count(name)?.unwrap_or(DEFAULT_PATTERN);
    Ok((0..layers).map(|layer| period == 0 || layer % period < period - 1).collect())
}
