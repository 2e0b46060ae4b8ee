//! Models made up for measurements: the shapes of real ones, plausible random blocks.
//!
//! Nothing is downloaded or stored: the header is written in memory, a tensor's bytes are one stretch of random
//! blocks over and over, made when they are read.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use gguf::{Array, Format, Gguf, Source, StringArray, TensorType, Value, Writer, quantize};

use crate::model::ModelFile;
use crate::{Error, Result};

/// A model's shape.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The name that users give.
    pub name: &'static str,
    /// What it is, for lists.
    pub what: &'static str,
    architecture: &'static str,
    layers: u32,
    embedding: u32,
    feed_forward: u32,
    heads: u32,
    kv_heads: u32,
    head_length: u32,
    vocabulary: u32,
    context: u32,
    rope_base: f32,
    /// Whether the embeddings are the head too.
    tied: bool,
    /// Experts, and how many of them a token uses; 0: a dense model.
    experts: (u32, u32),
    /// The window of most layers; 0: none.
    window: u32,
}

/// The shapes there are, each as the model's own files give it.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "smollm2-135m",
        what: "SmolLM2 135M",
        architecture: "llama",
        layers: 30,
        embedding: 576,
        feed_forward: 1536,
        heads: 9,
        kv_heads: 3,
        head_length: 64,
        vocabulary: 49_152,
        context: 8192,
        rope_base: 100_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "llama-1b",
        what: "Llama 3.2 1B",
        architecture: "llama",
        layers: 16,
        embedding: 2048,
        feed_forward: 8192,
        heads: 32,
        kv_heads: 8,
        head_length: 64,
        vocabulary: 128_256,
        context: 131_072,
        rope_base: 500_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "llama-3b",
        what: "Llama 3.2 3B",
        architecture: "llama",
        layers: 28,
        embedding: 3072,
        feed_forward: 8192,
        heads: 24,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 128_256,
        context: 131_072,
        rope_base: 500_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "llama-8b",
        what: "Llama 3.1 8B",
        architecture: "llama",
        layers: 32,
        embedding: 4096,
        feed_forward: 14_336,
        heads: 32,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 128_256,
        context: 131_072,
        rope_base: 500_000.0,
        tied: false,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "llama-70b",
        what: "Llama 3.1 70B",
        architecture: "llama",
        layers: 80,
        embedding: 8192,
        feed_forward: 28_672,
        heads: 64,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 128_256,
        context: 131_072,
        rope_base: 500_000.0,
        tied: false,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "qwen3-0.6b",
        what: "Qwen3 0.6B",
        architecture: "qwen3",
        layers: 28,
        embedding: 1024,
        feed_forward: 3072,
        heads: 16,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 151_936,
        context: 40_960,
        rope_base: 1_000_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "qwen3-4b",
        what: "Qwen3 4B",
        architecture: "qwen3",
        layers: 36,
        embedding: 2560,
        feed_forward: 9728,
        heads: 32,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 151_936,
        context: 40_960,
        rope_base: 1_000_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "gemma3-4b",
        what: "Gemma 3 4B",
        architecture: "gemma3",
        layers: 34,
        embedding: 2560,
        feed_forward: 10_240,
        heads: 8,
        kv_heads: 4,
        head_length: 256,
        vocabulary: 262_208,
        context: 131_072,
        rope_base: 1_000_000.0,
        tied: true,
        experts: (0, 0),
        window: 1024,
    },
    Shape {
        name: "mixtral-8x7b",
        what: "Mixtral 8x7B, a mixture of experts",
        architecture: "llama",
        layers: 32,
        embedding: 4096,
        feed_forward: 14_336,
        heads: 32,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 32_000,
        context: 32_768,
        rope_base: 1_000_000.0,
        tied: false,
        experts: (8, 2),
        window: 0,
    },
];

/// A mix of formats: most matrices' format, and that of the head, the values' projection and half of the down
/// projections.
#[derive(Clone, Copy)]
struct Mix {
    most: Format,
    better: Format,
}

/// Mixes that llama.cpp has names of its own for; any format's name is a mix of that one alone.
const MIXES: &[(&str, Mix)] = &[
    ("q4_k_m", Mix { most: Format::Q4_K, better: Format::Q6_K }),
    ("q5_k_m", Mix { most: Format::Q5_K, better: Format::Q6_K }),
    ("q4_k_s", Mix { most: Format::Q4_K, better: Format::Q4_K }),
    ("q5_k_s", Mix { most: Format::Q5_K, better: Format::Q5_K }),
];

impl Mix {
    /// By name, in small letters.
    fn named(name: &str) -> Option<Self> {
        if let Some((_, mix)) = MIXES.iter().find(|(known, _)| *known == name) {
            return Some(*mix);
        }
        let format = Format::ALL.iter().find(|format| format.file_stem() == name)?;
        Some(Self { most: *format, better: *format })
    }

    /// All names.
    fn names() -> impl Iterator<Item = &'static str> {
        MIXES.iter().map(|(name, _)| *name).chain(Format::ALL.iter().map(|f| f.file_stem()))
    }

    /// What the file says of itself (`llama_ftype` in llama.h); none where no number fits.
    fn file_type(self) -> Option<u32> {
        let named = |mix: &&quantize::Mix| {
            mix.format == self.most && mix.name.ends_with("_M") == (self.most != self.better)
        };
        // Of a format's mixes the purest is the last.
        quantize::MIXES.iter().rfind(named).map(|mix| mix.file_type)
    }
}

/// Opens the model of a name like `llama-8b:q4_k_m`; without a format it is q4_k_m.
pub fn open(name: &str) -> Result<ModelFile> {
    ModelFile::from_gguf(Gguf::from_sources(vec![Arc::new(source(name)?)])?)
}

/// The bytes of the model's file.
pub fn source(name: &str) -> Result<Synthetic> {
    let (model, format) = name.split_once(':').unwrap_or((name, "q4_k_m"));
    let unknown = |what: &str, known: Vec<&str>| {
        Error::Option(format!("{name:?} names no {what} (known: {})", known.join(", ")))
    };
    let shape = SHAPES
        .iter()
        .find(|shape| shape.name == model.to_lowercase())
        .ok_or_else(|| unknown("model", SHAPES.iter().map(|shape| shape.name).collect()))?;
    let mix = Mix::named(&format.to_lowercase())
        .ok_or_else(|| unknown("format", Mix::names().collect()))?;
    Synthetic::new(shape, mix, name)
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
        weight("ffn_norm", &[embedding], Format::F32);
        if experts > 0 {
            weight("ffn_gate_inp", &[embedding, experts], Format::F32);
            weight("ffn_gate_exps", &[embedding, feed_forward, experts], mix.most);
            weight("ffn_up_exps", &[embedding, feed_forward, experts], mix.most);
            weight("ffn_down_exps", &[feed_forward, embedding, experts], more);
        } else {
            weight("ffn_gate", &[embedding, feed_forward], mix.most);
            weight("ffn_up", &[embedding, feed_forward], mix.most);
            weight("ffn_down", &[feed_forward, embedding], more);
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
    fn shapes_are_those_of_the_models() {
        for (name, millions) in [
            ("smollm2-135m", 135),
            ("llama-1b", 1236),
            ("llama-8b", 8030),
            ("mixtral-8x7b", 46_703),
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
