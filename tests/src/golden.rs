//! Goldens: what llama.cpp computes, and how near we must come.

use std::path::PathBuf;

use engine::KvType;
use serde::Deserialize;

/// The folder of this repository's goldens; `ENGINE_TEST_GOLDENS` names it where a test runs on another machine than
/// it was built on.
pub fn folder() -> PathBuf {
    std::env::var_os("ENGINE_TEST_GOLDENS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("goldens"), PathBuf::from)
}

/// A tiny model's golden (`tiny/NAME.json`).
#[derive(Debug, Deserialize)]
pub struct Tiny {
    /// The model's file beside it.
    pub file: String,
    /// The context that llama.cpp ran with.
    pub n_ctx: usize,
    /// How far llama.cpp itself moves.
    pub tolerance: Moves,
    /// What it computed.
    pub sequences: Vec<Sequence>,
    /// What its tokenizer says of a few texts.
    pub tokenize: Vec<Tokenized>,
}

/// How far llama.cpp itself moves under one change.
#[derive(Debug, Deserialize)]
pub struct Moves {
    /// With an F16 cache and flash attention.
    pub f32weights_kvf16_fa: Move,
    /// With activations rounded to bytes, F32 cache; none for weights of floats.
    pub native_kvf32: Option<Move>,
}

/// One measure of a move.
#[derive(Debug, Deserialize)]
pub struct Move {
    /// The largest difference of a logit.
    pub max_abs: f64,
    /// The root of the mean square difference, over that of the logits.
    pub rel_rms: f64,
    /// The mean Kullback-Leibler divergence of the probabilities.
    pub kl_mean: f64,
}

/// One sequence of a golden.
#[derive(Debug, Deserialize)]
pub struct Sequence {
    /// The ids fed.
    pub ids: Vec<u32>,
    /// The most likely id after each.
    pub argmax: Vec<u32>,
    /// Its logit.
    pub argmax_logit: Vec<f64>,
    /// All logits of the last position.
    pub last_logits: Vec<f64>,
    /// Ids decoded greedily after the sequence.
    pub greedy: Vec<u32>,
    /// Their logits.
    pub greedy_logit: Vec<f64>,
    /// How far each was ahead of the second.
    pub greedy_margin: Vec<f64>,
}

/// A text and its ids.
#[derive(Debug, Deserialize)]
pub struct Tokenized {
    /// The text.
    pub text: String,
    /// Its ids without special tokens.
    pub ids: Vec<u32>,
    /// Its ids with the special tokens that the file asks for.
    pub ids_special: Vec<u32>,
}

/// A tiny embedding model's golden.
#[derive(Debug, Deserialize)]
pub struct Embedding {
    /// The model's file beside it.
    pub file: String,
    /// The context that llama.cpp ran with.
    pub n_ctx: usize,
    /// What it computed.
    pub sequences: Vec<Embedded>,
}

/// One text's vector.
#[derive(Debug, Deserialize)]
pub struct Embedded {
    /// The ids fed.
    pub ids: Vec<u32>,
    /// The pooled states.
    pub embedding: Vec<f64>,
}

/// Reads a golden by its name.
fn load<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = folder().join("tiny").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("golden {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("golden {}: {error}", path.display()))
}

impl Embedding {
    /// Loads a golden by its name.
    ///
    /// # Panics
    /// If it is missing or unreadable: a missing golden is a failure.
    pub fn load(name: &str) -> Self {
        load(name)
    }

    /// The path of the model's file.
    pub fn path(&self) -> PathBuf {
        folder().join("tiny").join(&self.file)
    }
}

impl Tiny {
    /// Loads a golden by its name.
    ///
    /// # Panics
    /// If it is missing or unreadable: a missing golden is a failure.
    pub fn load(name: &str) -> Self {
        load(name)
    }

    /// The path of the model's file.
    pub fn path(&self) -> PathBuf {
        folder().join("tiny").join(&self.file)
    }
}

/// The names of the tiny goldens in this repository that are of one kind.
fn names_of(embeddings: bool) -> Vec<String> {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    let mut names: Vec<String> = std::fs::read_dir(folder().join("tiny"))
        .expect("the folder of tiny goldens")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(String::from))
        .filter(|name| (load::<Kind>(name).kind == "embedding") == embeddings)
        .collect();
    names.sort();
    names
}

/// The names of all tiny goldens in this repository that give logits.
///
/// # Panics
/// If the folder cannot be read.
pub fn tiny_names() -> Vec<String> {
    names_of(false)
}

/// The names of all tiny goldens of embedding models.
///
/// # Panics
/// If the folder cannot be read.
pub fn embedding_names() -> Vec<String> {
    names_of(true)
}

/// THE tolerance rule for tiny models: how far a logit of ours may be from llama.cpp's.
///
/// F32 cache: 5e-4 (an independent f64 forward pass agrees with the llama files to 5e-5). F16 cache: the
/// larger of 1e-3 and twice what llama.cpp itself moves with an F16 cache.
pub fn tolerance(golden: &Tiny, key_type: KvType, value_type: KvType) -> f64 {
    if key_type == KvType::F32 && value_type == KvType::F32 {
        5e-4
    } else {
        f64::max(1e-3, 2.0 * golden.tolerance.f32weights_kvf16_fa.max_abs)
    }
}

/// The same for the class f16-tiles: the larger of 1e-3 and twice what llama.cpp itself moves with an F16 cache,
/// whatever the cache.
pub fn tolerance_f16_tiles(golden: &Tiny) -> f64 {
    tolerance(golden, KvType::F16, KvType::F16)
}
