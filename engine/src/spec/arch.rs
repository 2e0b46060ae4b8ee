//! The architectures: each reads its metadata into a [`Spec`]. A new one is a file and a line here.

mod bert;
mod cohere;
mod deepseek2;
mod falcon_h1;
mod gemma;
mod gemma4;
mod glm4;
mod gpt_oss;
mod granite;
mod lfm2;
mod llama;
mod mamba2;
mod mistral3;
mod olmo2;
mod phi;
mod qwen;
mod qwen35;
mod smollm3;
mod starcoder2;

use gguf::Gguf;

use super::keys::Keys;
use super::rope::{RopeFactors, RopeScaling, RopeSpec, RopeStyle};
use super::{
    Activation, DeltaNet, Experts, FeedForward, Gating, Latent, LayerSpec, Mamba2, NormKind,
    Pooling, QkNorm, Recurrent, Routing, Spec,
};
use crate::{Error, Result};

/// Reads a file's metadata into numbers and choices.
type ReadSpec = fn(&Keys) -> Result<Spec>;

/// Every architecture by its name in `general.architecture`.
const ARCHITECTURES: &[(&str, ReadSpec)] = &[
    ("bert", bert::bert),
    ("cohere2", cohere::cohere2),
    ("command-r", cohere::command_r),
    ("deepseek2", deepseek2::spec),
    ("falcon-h1", falcon_h1::spec),
    ("gemma", gemma::gemma),
    ("gemma2", gemma::gemma2),
    ("gemma3", gemma::gemma3),
    ("gemma4", gemma4::spec),
    ("glm4", glm4::spec),
    ("gpt-oss", gpt_oss::spec),
    ("granite", granite::spec),
    ("granitemoe", granite::spec),
    ("lfm2", lfm2::spec),
    ("llama", llama::spec),
    ("mamba2", mamba2::spec),
    ("mistral3", mistral3::spec),
    ("nomic-bert", bert::nomic_bert),
    ("olmo2", olmo2::spec),
    ("phi2", phi::phi2),
    ("phi3", phi::phi3),
    ("qwen2", qwen::qwen2),
    ("qwen2moe", qwen::qwen2moe),
    ("qwen3", qwen::qwen3),
    ("qwen35", qwen35::qwen35),
    ("qwen35moe", qwen35::qwen35),
    ("qwen3moe", qwen::qwen3moe),
    ("qwen3next", qwen35::qwen3next),
    ("smollm3", smollm3::spec),
    ("starcoder2", starcoder2::spec),
];

/// The names of all known architectures.
pub fn known() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name)
}

/// Reads the file's architecture; the numbers are yet to be checked.
pub fn read_spec(file: &Gguf) -> Result<Spec> {
    let key = "general.architecture";
    let name = file.metadata.text(key).ok_or_else(|| file.metadata.missing(key))?;
    let Some(&(name, read)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) else {
        return Err(Error::UnknownArchitecture {
            file: file.file().into(),
            architecture: name.into(),
            known: known().collect::<Vec<_>>().join(", "),
        });
    };
    read(&Keys::new(file, name))
}

/// The vocabulary's size: the token list's length, or the embedding's rows in a file without one.
fn vocabulary(keys: &Keys) -> Result<usize> {
    let tokens = keys.file().metadata.strings("tokenizer.ggml.tokens")?;
    match tokens {
        Some(tokens) => Ok(tokens.len()),
        None => Ok(keys.file().require("token_embd.weight")?.rows() as usize),
    }
}

/// What most decoders share before an architecture changes it: RMS norms before both branches, gated SiLU, one
/// rotation, no windows.
fn decoder(keys: &Keys, style: RopeStyle) -> Result<Spec> {
    decoder_with(keys, style, NormKind::Rms)
}

/// The same with norms of another kind, whose epsilon has a key of its own.
fn decoder_with(keys: &Keys, style: RopeStyle, norm: NormKind) -> Result<Spec> {
    let layers = layers(keys)?;
    let dimensions = keys.count("rope.dimension_count")?.unwrap_or(layers[0].key_length);
    let rope = RopeSpec {
        style,
        dimensions,
        base: rope_base(keys)?,
        scaling: rope_scaling(keys)?,
        factors: RopeFactors::File { original_context: original_context(keys)? },
        sections: None,
    };
    Ok(Spec {
        architecture: keys.architecture(),
        vocabulary: vocabulary(keys)?,
        context_length: keys.required("context_length")?,
        embedding: keys.required("embedding_length")?,
        embedding_numbers: keys.required("embedding_length")?,
        embedding_scale: 1.0,
        norm,
        norm_epsilon: norm_epsilon(keys, norm)?,
        pre_norms: true,
        post_norms: false,
        parallel: false,
        ffn_norm: "ffn_norm",
        output_norm: "output_norm",
        qk_norm: QkNorm::None,
        residual_scale: 1.0,
        logit_scale: 1.0,
        logit_softcap: None,
        norm_sums: false,
        value_norm: false,
        positions: None,
        pooling: pooling(keys)?,
        per_layer: None,
        activation: Activation::Silu,
        ropes: vec![rope],
        layers,
    })
}

/// How an embedding model makes one vector of a text's.
fn pooling(keys: &Keys) -> Result<Option<Pooling>> {
    match keys.count("pooling_type")?.unwrap_or(0) {
        0 => Ok(None),
        1 => Ok(Some(Pooling::Mean)),
        2 => Ok(Some(Pooling::First)),
        3 => Ok(Some(Pooling::Last)),
        4 => Err(keys.error(
            "it is a reranker (pooling_type 4), which scores a document for a query; this engine computes embeddings and text only",
        )),
        other => Err(keys.error(format!("pooling_type {other} is unknown (known: 0 to 3)"))),
    }
}

/// What norms add: one of two keys, by what they compute. A file may have both; the other says nothing.
fn norm_epsilon(keys: &Keys, norm: NormKind) -> Result<f32> {
    keys.required_number(match norm {
        NormKind::Layer => "attention.layer_norm_epsilon",
        NormKind::Rms | NormKind::L2 => "attention.layer_norm_rms_epsilon",
    })
}

fn rope_base(keys: &Keys) -> Result<f64> {
    Ok(keys.number("rope.freq_base")?.map_or(10000.0, f64::from))
}

/// The layers before an architecture changes them: heads, widths, no window, the first rotation.
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
    // Models of experts alone need not have it.
    let expert_width = keys.count("expert_feed_forward_length")?.map(|width| vec![width; count]);
    let feed_forward = keys
        .per_layer("feed_forward_length", count)?
        .or(expert_width)
        // Models without such networks need not have it; the others' width is checked.
        .unwrap_or_else(|| vec![0; count]);
    let key_length = keys.count("attention.key_length")?;
    let value_length = keys.count("attention.value_length")?;
    let causal = keys.flag("attention.causal")?.unwrap_or(true);
    (0..count)
        .map(|layer| {
            let heads = heads[layer];
            // Layers without heads have something else in the place of attention.
            let attention = heads > 0 && kv_heads[layer] > 0;
            if attention && !heads.is_multiple_of(kv_heads[layer]) {
                return Err(keys.error(format!(
                    "layer {layer} has {heads} heads for {} key heads, which do not divide evenly",
                    kv_heads[layer]
                )));
            }
            let key_length = key_length.unwrap_or(embedding / heads.max(1));
            let value_length = value_length.unwrap_or(embedding / heads.max(1));
            Ok(LayerSpec {
                attention,
                causal,
                recurrent: None,
                reads_layer: None,
                latent: None,
                query_gate: false,
                heads,
                kv_heads: kv_heads[layer],
                key_length,
                value_length,
                key_numbers: key_length,
                value_numbers: value_length,
                feed_forward: FeedForward::Gated { width: feed_forward[layer] },
                window: None,
                rope: Some(0),
                attention_scale: 1.0 / (key_length.max(1) as f32).sqrt(),
                softcap: None,
                sinks: false,
                temperature: None,
            })
        })
        .collect()
}

/// Makes every layer a mixture of experts of `width`, where the file has experts.
fn with_experts(keys: &Keys, spec: &mut Spec, width: usize, normalize: bool) -> Result<()> {
    let Some(count) = keys.count("expert_count")?.filter(|&count| count > 0) else {
        return Ok(());
    };
    let routing = Routing {
        count,
        used: keys.required("expert_used_count")?,
        gating: Gating::Softmax,
        normalize,
        scale: 1.0,
        groups: 1,
        groups_used: 1,
    };
    let experts = Experts { width, routing, shared: None };
    for layer in &mut spec.layers {
        layer.feed_forward = FeedForward::Experts(experts.clone());
    }
    Ok(())
}

/// The mixture of every layer, to be changed.
fn experts_of(spec: &mut Spec) -> impl Iterator<Item = &mut Experts> {
    spec.layers.iter_mut().filter_map(|layer| match &mut layer.feed_forward {
        FeedForward::Experts(experts) => Some(experts),
        _ => None,
    })
}

/// Gives layers a window: which ones the file's array says, or the period (the last of each is full; 0: all have
/// one, 1: none). Those turn by rotation `rope`.
fn with_windows(
    keys: &Keys,
    spec: &mut Spec,
    window: usize,
    default_period: usize,
    rope: usize,
) -> Result<()> {
    let windowed = windowed_layers(keys, spec.layers.len(), default_period)?;
    for (layer, _) in spec.layers.iter_mut().zip(windowed).filter(|(_, windowed)| *windowed) {
        layer.window = Some(window);
        layer.rope = Some(rope);
    }
    Ok(())
}

fn windowed_layers(keys: &Keys, layers: usize, default_period: usize) -> Result<Vec<bool>> {
    let name = "attention.sliding_window_pattern";
    if let Some(flags) = keys.flags(name, layers)? {
        return Ok(flags);
    }
    let period = keys.count(name)?.unwrap_or(default_period);
    Ok((0..layers).map(|layer| period == 0 || layer % period < period - 1).collect())
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
            magnitude: magnitude * yarn_magnitude(factor, 1.0),
            original_context: original_context(keys)? as f64,
            beta_fast: 32.0,
            beta_slow: 1.0,
        }),
        other => Err(keys.error(format!(
            "the rope scaling {other:?} is unknown (known: none, linear, yarn, longrope)"
        ))),
    }
}

/// What YaRN multiplies cosine and sine by: 1 + 0.1 x ln(factor).
fn yarn_magnitude(factor: f64, x: f64) -> f64 {
    if factor > 1.0 { 1.0 + 0.1 * x * factor.ln() } else { 1.0 }
}

/// The context the model was first trained for.
fn original_context(keys: &Keys) -> Result<usize> {
    match keys.count("rope.scaling.original_context_length")? {
        Some(n) if n > 0 => Ok(n),
        _ => keys.required("context_length"),
    }
}

/// The largest width or count that any model has, with room: what bounds sizes computed from metadata.
const LARGEST: usize = 1 << 24;

/// Checks the numbers that every architecture has, so that no later size can overflow.
pub fn check(file: &Gguf, spec: &Spec) -> Result<()> {
    let keys = &Keys::new(file, spec.architecture);
    let within = |what: &str, n: usize, multiple: usize| {
        if n == 0 || n > LARGEST {
            return Err(keys.error(format!("{what} is {n}, expected 1 to {LARGEST}")));
        }
        if !n.is_multiple_of(multiple) {
            return Err(keys.error(format!(
                "{what} is {n}, expected a multiple of {multiple} up to {LARGEST}"
            )));
        }
        Ok(())
    };
    within("the vocabulary", spec.vocabulary, 1)?;
    within("the embedding length", spec.embedding, 32)?;
    for (index, layer) in spec.layers.iter().enumerate() {
        if !layer.attention && layer.recurrent.is_none() {
            return Err(keys.error(format!(
                "layer {index} has {} heads for {} key heads, expected at least one of each",
                layer.heads, layer.kv_heads
            )));
        }
        if layer.feed_forward != FeedForward::None {
            let width = layer.feed_forward.width();
            within(&format!("layer {index}'s feed-forward width"), width, 32)?;
        }
        if let Some(experts) = layer.feed_forward.experts() {
            check_experts(keys, index, experts)?;
        }
        if let Some(Latent { rank, plain, turned, value, .. }) = layer.latent {
            within(&format!("layer {index}'s compressed width"), rank, 32)?;
            within(&format!("layer {index}'s plain width of q"), plain, 32)?;
            within(&format!("layer {index}'s turned width of q"), turned, 2)?;
            within(&format!("layer {index}'s value width"), value, 4)?;
        }
        if let Some(recurrent) = &layer.recurrent {
            check_recurrent(keys, index, recurrent)?;
        }
        if !layer.attention {
            continue;
        }
        within(&format!("layer {index}'s key length"), layer.key_length, 4)?;
        within(&format!("layer {index}'s value length"), layer.value_length, 4)?;
        within(&format!("layer {index}'s query width"), layer.heads * layer.key_length, 1)?;
        within(&format!("layer {index}'s attention width"), layer.heads * layer.value_length, 32)?;
        let Some(rope) = layer.rope else { continue };
        let turned = spec.ropes[rope].dimensions;
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

/// Checks the numbers of a recurrent mixer, which bound its state.
fn check_recurrent(keys: &Keys, index: usize, recurrent: &Recurrent) -> Result<()> {
    let wrong = |what: &str| keys.error(format!("layer {index}'s {what}"));
    let taps = match *recurrent {
        Recurrent::ShortConv { taps } => taps,
        Recurrent::Mamba2(mamba) => {
            let Mamba2 { heads, head_size, state, groups, .. } = mamba;
            if [heads, head_size, state, groups].iter().any(|&n| n == 0 || n > 1 << 16)
                || head_size > 256
                || state > 256
                || !heads.is_multiple_of(groups)
                || !mamba.inner().is_multiple_of(32)
            {
                return Err(wrong(&format!(
                    "state has {heads} heads of {head_size}, {state} numbers an element, {groups} groups: expected heads of up to 256, up to 256 numbers, groups that divide the heads"
                )));
            }
            mamba.taps
        }
        Recurrent::DeltaNet(net) => {
            let DeltaNet { key_heads, value_heads, size, .. } = net;
            if [key_heads, value_heads, size].iter().any(|&n| n == 0 || n > 1 << 12)
                || size > 256
                || !size.is_multiple_of(4)
                || !value_heads.is_multiple_of(key_heads)
                || !net.inner().is_multiple_of(32)
            {
                return Err(wrong(&format!(
                    "delta net has {value_heads} heads of {size} for {key_heads} key heads: expected heads of up to 256, key heads that divide the others"
                )));
            }
            net.taps
        }
    };
    if !(2..=LARGEST).contains(&taps) {
        return Err(wrong(&format!("convolution has {taps} taps, expected 2 to {LARGEST}")));
    }
    Ok(())
}

/// The most experts of a layer that a file is believed: the choice goes through all of them for each that is chosen.
const MOST_EXPERTS: usize = 1 << 16;

fn check_experts(keys: &Keys, index: usize, experts: &Experts) -> Result<()> {
    let Routing { count, used, groups, groups_used, .. } = experts.routing;
    let per_group = count / groups.max(1);
    if count > MOST_EXPERTS || used == 0 || used > count {
        return Err(keys.error(format!(
            "layer {index} chooses {used} of {count} experts, expected at least one of at most {MOST_EXPERTS}"
        )));
    }
    if groups == 0
        || groups_used == 0
        || groups_used > groups
        || !count.is_multiple_of(groups)
        || used > per_group * groups_used
        || (groups > 1 && per_group < 2)
    {
        return Err(keys.error(format!(
            "layer {index} chooses {used} of {count} experts out of {groups_used} of {groups} groups, which do not divide evenly"
        )));
    }
    match experts.shared {
        Some(shared) if shared.width == 0 || !shared.width.is_multiple_of(32) => {
            Err(keys.error(format!("layer {index}'s shared expert has the width {}", shared.width)))
        }
        _ => Ok(()),
    }
}
