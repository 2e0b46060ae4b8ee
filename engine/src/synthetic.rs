//! Models made up for measurements: the shapes of real ones, plausible random blocks.
//!
//! Nothing is downloaded or stored: the header is written in memory, a tensor's bytes are one stretch of random
//! blocks over and over, made when they are read.

mod shapes;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use gguf::{Array, Format, Gguf, Source, StringArray, TensorType, Value, Writer, quantize};

pub use shapes::{SHAPES, Shape};

use self::shapes::Mix;
use crate::spec::ModelFile;
use crate::{Error, Result};

/// Opens the model of a name like `llama-8b:q4_k_m`, or `llama-8b/2:q4_k_m` for its first two layers alone; without a
/// format it has the one that the model is usually run in.
pub fn open(name: &str) -> Result<ModelFile> {
    ModelFile::from_gguf(Gguf::from_sources(vec![Arc::new(source(name)?)])?)
}

/// The bytes of the model's file.
pub fn source(name: &str) -> Result<Synthetic> {
    let (model, format) = match name.split_once(':') {
        Some((model, format)) => (model, Some(format)),
        None => (name, None),
    };
    let unknown = |what: &str, known: Vec<String>| {
        Error::Option(format!("{name:?} names no {what} (known: {})", known.join(", ")))
    };
    let shape = Shape::named(model).ok_or_else(|| {
        let layers = |shape: &Shape| format!("{} of {} layers", shape.name, shape.layers);
        unknown("model", SHAPES.iter().map(layers).collect())
    })?;
    let mix = Mix::named(format.unwrap_or(shape.usual_mix()))
        .ok_or_else(|| unknown("format", Mix::names().collect()))?;
    Synthetic::new(&shape, mix, name)
}

/// A made-up model's file.
pub struct Synthetic {
    name: String,
    header: Vec<u8>,
    /// Where each tensor starts, in order, its length and format.
    tensors: Vec<(u64, u64, Format)>,
    length: u64,
    /// What a format's tensors repeat: whole blocks.
    stretches: BTreeMap<Format, Vec<u8>>,
}

crate::opaque::opaque_debug!(Synthetic { name, length });

/// Weights of a stretch.
const STRETCH: usize = 1 << 20;
/// Where tensors' data is aligned.
const ALIGNMENT: u64 = 32;

impl Synthetic {
    fn new(shape: &Shape, mix: Mix, name: &str) -> Result<Self> {
        let mut writer = Writer::new();
        write_metadata(&mut writer, shape, mix);
        let mut tensors = Vec::new();
        let mut start = 0;
        for (tensor, dimensions, format) in tensor_list(shape, mix) {
            writer.tensor_without_data(&tensor, &dimensions, TensorType(format.id()))?;
            let bytes = format.bytes(dimensions.iter().product::<u64>() as usize) as u64;
            tensors.push((start, bytes, format));
            start = (start + bytes).next_multiple_of(ALIGNMENT);
        }
        let header = writer.header();
        let mut stretches = BTreeMap::new();
        for &(_, _, format) in &tensors {
            stretches.entry(format).or_insert_with(|| format.sample(17, STRETCH));
        }
        let length = header.len() as u64 + start;
        Ok(Self { name: format!("synthetic {name}"), header, tensors, length, stretches })
    }
}

impl Source for Synthetic {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let header = self.header.len() as u64;
            let written = if at < header {
                copy_some(&self.header[at as usize..], rest)
            } else {
                let data = at - header;
                let index = self.tensors.partition_point(|tensor| tensor.0 <= data) - 1;
                let (start, bytes, format) = self.tensors[index];
                if data < start + bytes {
                    let stretch = &self.stretches[&format];
                    let within = (data - start) % stretch.len() as u64;
                    let left = (start + bytes - data).min(rest.len() as u64) as usize;
                    copy_some(&stretch[within as usize..], &mut rest[..left])
                } else {
                    let next = self.tensors.get(index + 1).map_or(self.length - header, |t| t.0);
                    let count = rest.len().min((next - data) as usize);
                    rest[..count].fill(0);
                    count
                }
            };
            at += written as u64;
            rest = &mut rest[written..];
        }
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn repeats(&self) -> bool {
        true
    }
}

/// Copies as much as fits; answers how much.
fn copy_some(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

fn write_metadata(writer: &mut Writer, shape: &Shape, mix: Mix) {
    let architecture = shape.architecture;
    let text = |text: &str| Value::String(text.as_bytes().into());
    writer.set("general.architecture", text(architecture));
    writer.set("general.name", text(&format!("{} (synthetic)", shape.what)));
    if let Some(file_type) = mix.file_type() {
        writer.set("general.file_type", Value::U32(file_type));
    }
    write_vocabulary(writer, shape.vocabulary);
    let mut set = |key: &str, value| {
        writer.set(format!("{architecture}.{key}"), value);
    };
    for (key, value) in [
        ("block_count", shape.layers),
        ("context_length", shape.context),
        ("embedding_length", shape.embedding),
        ("feed_forward_length", shape.feed_forward),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("attention.key_length", shape.head_length),
        ("attention.value_length", shape.head_length),
        ("rope.dimension_count", shape.head_length),
        ("vocab_size", shape.vocabulary),
    ] {
        set(key, Value::U32(value));
    }
    set("attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    set("rope.freq_base", Value::F32(shape.rope_base));
    if shape.experts.0 > 0 {
        set("expert_count", Value::U32(shape.experts.0));
        set("expert_used_count", Value::U32(shape.experts.1));
    }
    if shape.window > 0 {
        set("attention.sliding_window", Value::U32(shape.window));
    }
    if shape.is_gpt_oss() {
        set("expert_feed_forward_length", Value::U32(shape.feed_forward));
        set("rope.scaling.type", text("yarn"));
        set("rope.scaling.factor", Value::F32(32.0));
        set("rope.scaling.original_context_length", Value::U32(4096));
    }
}

/// A byte-level vocabulary of the right length, as other programs want one: the bytes in GPT-2's alphabet, one
/// merge, and names.
fn write_vocabulary(writer: &mut Writer, length: u32) {
    // Printable bytes stand for themselves, the others for characters from 256 on.
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..=255).filter(|byte| !printable(byte)).zip(256..);
    let mut letters: Vec<(u8, u32)> =
        (0..=255).filter(printable).map(|byte| (byte, u32::from(byte))).chain(others).collect();
    letters.sort_unstable();
    let letters = letters.into_iter().filter_map(|(_, letter)| char::from_u32(letter));
    let tokens = letters
        .map(String::from)
        .chain(std::iter::once("th".to_string()))
        .chain((257..length).map(|id| format!("<{id}>")));
    let strings = |words: &mut dyn Iterator<Item = String>| {
        let mut array = StringArray::new();
        words.for_each(|word| array.push(word.as_bytes()));
        Value::Array(Array::String(array))
    };
    let text = |text: &str| Value::String(text.as_bytes().into());
    writer.set("tokenizer.ggml.model", text("gpt2"));
    writer.set("tokenizer.ggml.pre", text("gpt-2"));
    writer.set("tokenizer.ggml.tokens", strings(&mut tokens.take(length as usize)));
    writer.set("tokenizer.ggml.merges", strings(&mut std::iter::once("t h".to_string())));
    for (key, back) in [("bos_token_id", 2), ("eos_token_id", 1)] {
        writer.set(format!("tokenizer.ggml.{key}"), Value::U32(length - back));
    }
}

/// Every tensor: name, dimensions innermost first, format.
fn tensor_list(shape: &Shape, mix: Mix) -> Vec<(String, Vec<u64>, Format)> {
    let mut tensors = Vec::new();
    let mut add = |name: String, dimensions: &[u32], format: Format| {
        let format = quantize::fitting(format, u64::from(dimensions[0]));
        tensors.push((name, dimensions.iter().map(|&n| u64::from(n)).collect(), format));
    };
    let embedding = shape.embedding;
    let head = if shape.tied { mix.better } else { mix.most };
    add("token_embd.weight".into(), &[embedding, shape.vocabulary], head);
    let query = shape.heads * shape.head_length;
    let key = shape.kv_heads * shape.head_length;
    let (experts, feed_forward) = (shape.experts.0, shape.feed_forward);
    let qk_norm = matches!(shape.architecture, "qwen3" | "gemma3");
    let sandwich = shape.architecture == "gemma3";
    for layer in 0..shape.layers {
        // llama.cpp's rule for the layers whose values and down projections get more bits.
        let (eighth, n) = (shape.layers / 8, shape.layers);
        let better =
            layer < eighth || layer >= 7 * n / 8 || (layer.saturating_sub(eighth)) % 3 == 2;
        let more = if better { mix.better } else { mix.most };
        let mut weight = |name: &str, dimensions: &[u32], format: Format| {
            add(format!("blk.{layer}.{name}.weight"), dimensions, format);
        };
        weight("attn_norm", &[embedding], Format::F32);
        weight("attn_q", &[embedding, query], mix.most);
        weight("attn_k", &[embedding, key], mix.most);
        weight("attn_v", &[embedding, key], more);
        weight("attn_output", &[query, embedding], mix.most);
        if qk_norm {
            weight("attn_q_norm", &[shape.head_length], Format::F32);
            weight("attn_k_norm", &[shape.head_length], Format::F32);
        }
        if sandwich {
            weight("post_attention_norm", &[embedding], Format::F32);
            weight("post_ffw_norm", &[embedding], Format::F32);
        }
        if shape.is_gpt_oss() {
            // Its norm before the experts has this name.
            weight("post_attention_norm", &[embedding], Format::F32);
            weight("attn_sinks", &[shape.heads], Format::F32);
        } else {
            weight("ffn_norm", &[embedding], Format::F32);
        }
        if experts > 0 {
            let (most, more) = (mix.experts.unwrap_or(mix.most), mix.experts.unwrap_or(more));
            weight("ffn_gate_inp", &[embedding, experts], Format::F32);
            weight("ffn_gate_exps", &[embedding, feed_forward, experts], most);
            weight("ffn_up_exps", &[embedding, feed_forward, experts], most);
            weight("ffn_down_exps", &[feed_forward, embedding, experts], more);
        } else {
            weight("ffn_gate", &[embedding, feed_forward], mix.most);
            weight("ffn_up", &[embedding, feed_forward], mix.most);
            weight("ffn_down", &[feed_forward, embedding], more);
        }
        if shape.is_gpt_oss() {
            let mut bias = |name: &str, dimensions: &[u32]| {
                add(format!("blk.{layer}.{name}.bias"), dimensions, Format::F32);
            };
            for (name, length) in
                [("attn_q", query), ("attn_k", key), ("attn_v", key), ("attn_output", embedding)]
            {
                bias(name, &[length]);
            }
            bias("ffn_gate_inp", &[experts]);
            bias("ffn_gate_exps", &[feed_forward, experts]);
            bias("ffn_up_exps", &[feed_forward, experts]);
            bias("ffn_down_exps", &[embedding, experts]);
        }
    }
    add("output_norm.weight".into(), &[embedding], Format::F32);
    if !shape.tied {
        add("output.weight".into(), &[embedding, shape.vocabulary], mix.better);
    }
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_agree_wherever_they_start() {
        let source = source("smollm2-135m:q4_k_m").unwrap();
        let whole = {
            let mut bytes = vec![0; 3 << 20];
            source.read_at(0, &mut bytes).unwrap();
            bytes
        };
        for (start, length) in [(0, 100), (1000, 50_000), (777_777, 1_500_001), (31, 3_000_000)] {
            let mut part = vec![1; length];
            source.read_at(start as u64, &mut part).unwrap();
            assert!(part == whole[start..start + length], "{start}");
        }
        let mut past = [0; 2];
        assert!(source.read_at(source.len() - 1, &mut past).is_err());
    }

    #[test]
    fn gpt_oss_has_what_sets_it_apart() {
        let model = open("gpt-oss-20b").unwrap();
        assert_eq!(model.spec.layers.iter().filter(|layer| layer.window == Some(128)).count(), 12);
        assert!(model.spec.layers.iter().all(|layer| layer.sinks));
        let format = |name: &str| {
            model.gguf.require(name).unwrap().tensor_type.info().unwrap().format.unwrap()
        };
        assert_eq!(format("blk.23.ffn_down_exps.weight"), Format::MXFP4);
        assert_eq!(format("blk.23.attn_q.weight"), Format::Q8_0);
        assert_eq!(model.gguf.metadata.u32("general.file_type").unwrap(), Some(38));
    }

    #[test]
    fn a_shape_can_be_cut() {
        let layers = |name: &str| open(name).unwrap().spec.layers.len();
        assert_eq!((layers("llama-8b/2:q4_0"), layers("gpt-oss-20b/3")), (2, 3));
        for wrong in ["llama-8b/0", "llama-8b/33", "llama-8b/", "llama-8b/x", "llama-8b/-1"] {
            assert!(source(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shapes_are_those_of_the_models() {
        for (name, millions) in [
            ("smollm2-135m", 135),
            ("llama-1b", 1236),
            ("llama-8b", 8030),
            ("mixtral-8x7b", 46_703),
            ("gpt-oss-20b", 20_915),
        ] {
            let file = Gguf::from_sources(vec![Arc::new(source(name).unwrap())]).unwrap();
            let parameters: u64 = file.tensors.iter().map(gguf::TensorInfo::elements).sum();
            assert_eq!((parameters + 500_000) / 1_000_000, millions, "{name}");
        }
        let error = source("llama-9b").err().unwrap().to_string();
        assert!(error.contains("llama-8b"), "{error}");
        for format in Format::ALL {
            let name = format!("llama-8b:{}", format.file_stem());
            let file = Gguf::from_sources(vec![Arc::new(source(&name).unwrap())]).unwrap();
            let query = file.require("blk.0.attn_q.weight").unwrap();
            assert_eq!(query.tensor_type.info().unwrap().format, Some(*format), "{name}");
        }
        for name in ["llama-8b:q4_k_s", "llama-8b:Q5_K_S"] {
            assert!(source(name).is_ok(), "{name}");
        }
        assert!(source("llama-8b:q3").err().unwrap().to_string().contains("q4_k_m"));
    }
}
