//! The architectures: each reads its metadata into a [`Spec`]. A new one is a file and a line here.

mod gemma3;
mod llama;
mod qwen;

use gguf::Gguf;

use super::keys::Keys;
use super::rope::{RopeFactors, RopeScaling};
use super::spec::{LayerSpec, Spec};
use crate::{Error, Result};

/// Reads a file's metadata into numbers and choices.
type ReadSpec = fn(&Keys) -> Result<Spec>;

/// Every architecture by its name in `general.architecture`.
const ARCHITECTURES: &[(&str, ReadSpec)] = &[
    ("gemma3", gemma3::spec),
    ("llama", llama::spec),
    ("qwen2", qwen::qwen2),
    ("qwen3", qwen::qwen3),
];

/// The names of all known architectures.
pub fn known() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name)
}

/// Reads the file's architecture and checks the numbers that every architecture has.
pub fn read_spec(file: &Gguf) -> Result<Spec> {
    let key = "general.architecture";
    let name = file.metadata.str(key)?.ok_or_else(|| file.metadata.missing(key))?;
    let Some(&(name, read)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) else {
        return Err(Error::UnknownArchitecture {
            file: file.file().into(),
            architecture: name.into(),
            known: known().collect::<Vec<_>>().join(", "),
        });
    };
    let keys = Keys::new(file, name);
    let spec = read(&keys)?;
    check(&keys, &spec)?;
    Ok(spec)
}

/// The vocabulary's size: the token list's length, or the embedding's rows in a file without one.
fn vocabulary(keys: &Keys) -> Result<usize> {
    let tokens = keys.file().metadata.strings("tokenizer.ggml.tokens")?;
    match tokens {
        Some(tokens) => Ok(tokens.len()),
        None => Ok(keys.file().require("token_embd.weight")?.rows() as usize),
    }
}

/// What all layers share before an architecture changes it: heads, widths, no window, rope 0.
fn layers(keys: &Keys) -> Result<Vec<LayerSpec>> {
    let count = keys.layers()?;
    let embedding = keys.required("embedding_length")?;
    let missing = |name: &str| {
        keys.error(format!("the metadata key {}.{name} is missing", keys.architecture()))
    };
    let heads = keys
        .per_layer("attention.head_count", count)?
        .ok_or_else(|| missing("attention.head_count"))?;
    let kv_heads =
        keys.per_layer("attention.head_count_kv", count)?.unwrap_or_else(|| heads.clone());
    let feed_forward = keys
        .per_layer("feed_forward_length", count)?
        .ok_or_else(|| missing("feed_forward_length"))?;
    let key_length = keys.count("attention.key_length")?;
    let value_length = keys.count("attention.value_length")?;
    (0..count)
        .map(|layer| {
            let heads = heads[layer];
            if heads == 0 || kv_heads[layer] == 0 || !heads.is_multiple_of(kv_heads[layer]) {
                return Err(keys.error(format!(
                    "layer {layer} has {heads} heads for {} key heads, which do not divide evenly",
                    kv_heads[layer]
                )));
            }
            let key_length = key_length.unwrap_or(embedding / heads);
            let value_length = value_length.unwrap_or(embedding / heads);
            Ok(LayerSpec {
                heads,
                kv_heads: kv_heads[layer],
                key_length,
                value_length,
                feed_forward: feed_forward[layer],
                window: None,
                rope: 0,
                attention_scale: 1.0 / (key_length.max(1) as f32).sqrt(),
            })
        })
        .collect()
}

/// The scaling of positions from `rope.scaling.*`.
fn rope_scaling(keys: &Keys) -> Result<RopeScaling> {
    let factor = match keys.number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.number("rope.scale_linear")?,
    };
    let factor = factor.filter(|&f| f != 0.0).map_or(1.0, f64::from);
    let magnitude = keys.number("rope.scaling.attn_factor")?.map_or(1.0, f64::from);
    match keys.text("rope.scaling.type")?.unwrap_or("linear") {
        "none" => Ok(RopeScaling::Linear { factor: 1.0, magnitude }),
        "linear" | "longrope" => Ok(RopeScaling::Linear { factor, magnitude }),
        "yarn" => Ok(RopeScaling::Yarn {
            factor,
            magnitude,
            original_context: original_context(keys)? as f64,
            beta_fast: 32.0,
            beta_slow: 1.0,
        }),
        other => Err(keys.error(format!(
            "the rope scaling {other:?} is unknown (known: none, linear, yarn, longrope)"
        ))),
    }
}

/// The context the model was first trained for.
fn original_context(keys: &Keys) -> Result<usize> {
    match keys.count("rope.scaling.original_context_length")? {
        Some(n) if n > 0 => Ok(n),
        _ => keys.required("context_length"),
    }
}

/// Divisors of the frequencies that the file may hold.
fn rope_factors(keys: &Keys) -> Result<RopeFactors> {
    Ok(RopeFactors::File { original_context: original_context(keys)? })
}

/// The largest width or count that any model has, with room: what bounds sizes computed from metadata.
const LARGEST: usize = 1 << 24;

/// Checks the numbers that every architecture has, so that no later size can overflow.
fn check(keys: &Keys, spec: &Spec) -> Result<()> {
    let within = |what: &str, n: usize, multiple: usize| {
        if n == 0 || n > LARGEST || !n.is_multiple_of(multiple) {
            return Err(keys.error(format!(
                "{what} is {n}, expected a multiple of {multiple} up to {LARGEST}"
            )));
        }
        Ok(())
    };
    within("the vocabulary", spec.vocabulary, 1)?;
    within("the embedding length", spec.embedding, 32)?;
    for (index, layer) in spec.layers.iter().enumerate() {
        within(&format!("layer {index}'s key length"), layer.key_length, 4)?;
        within(&format!("layer {index}'s value length"), layer.value_length, 4)?;
        within(&format!("layer {index}'s query width"), layer.heads * layer.key_length, 32)?;
        within(&format!("layer {index}'s attention width"), layer.heads * layer.value_length, 32)?;
        within(&format!("layer {index}'s feed-forward width"), layer.feed_forward, 32)?;
        let turned = spec.ropes[layer.rope].dimensions;
        if turned == 0 || !turned.is_multiple_of(2) || turned > layer.key_length {
            return Err(keys.error(format!(
                "rope turns {turned} elements of heads of {}, expected an even number up to that",
                layer.key_length
            )));
        }
    }
    for rope in &spec.ropes {
        if rope.base.is_nan() || rope.base <= 1.0 {
            return Err(keys.error(format!("the rope base is {}, expected more than 1", rope.base)));
        }
    }
    Ok(())
}
