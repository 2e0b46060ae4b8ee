//! What the targets share: small vocabularies of each kind.

use engine::Tokenizer;
use gguf::{Array, Metadata, StringArray, Value};

/// The values of `tokenizer.ggml.model` that are known.
pub const MODELS: [&str; 6] = ["gpt2", "llama", "bert", "t5", "gemma4", "whitespace"];

/// The vocabularies of [`tokenizers`]: model, and the way of cutting text where the model is gpt2. The ways of the first two
/// leave spaces as they are when ids become text.
pub const VOCABULARIES: [(&str, &str); 9] = [
    ("gpt2", "qwen2"),
    ("gpt2", "gpt-4o"),
    ("gpt2", "default"),
    ("gpt2", "bloom"),
    ("llama", ""),
    ("bert", ""),
    ("t5", ""),
    ("gemma4", ""),
    ("whitespace", ""),
];

/// A vocabulary in the making.
#[derive(Default)]
pub struct Tokens {
    texts: StringArray,
    scores: Vec<f32>,
    types: Vec<i32>,
}

impl Tokens {
    /// Adds a token: text, score, kind as `tokenizer.ggml.token_type` numbers it.
    pub fn push(&mut self, text: &[u8], score: f32, kind: i32) {
        self.texts.push(text);
        self.scores.push(score);
        self.types.push(kind);
    }

    /// The metadata of a file with this vocabulary.
    pub fn metadata(self, model: &str, merges: StringArray) -> Metadata {
        let mut metadata = Metadata::new("fuzzed.gguf");
        let mut set = |key: &str, value| metadata.set(&format!("tokenizer.ggml.{key}"), value);
        set("model", Value::from(model));
        set("tokens", Value::Array(Array::String(self.texts)));
        set("scores", Value::Array(Array::F32(self.scores)));
        set("token_type", Value::Array(Array::I32(self.types)));
        set("merges", Value::Array(Array::String(merges)));
        metadata
    }
}

/// The character by which GPT-2 writes a byte: visible ones stand for themselves, the others are U+0100 and on.
fn byte_character(byte: u8) -> char {
    let is_visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_visible(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&byte| !is_visible(byte)).count();
    char::from_u32(256 + before as u32).unwrap_or_default()
}

/// Each of [`VOCABULARIES`], small; each byte has a token.
pub fn tokenizers() -> Vec<Tokenizer> {
    VOCABULARIES.iter().map(|(model, pre)| tokenizer(model, pre)).collect()
}

fn tokenizer(model: &str, pre: &str) -> Tokenizer {
    let mut tokens = Tokens::default();
    for mark in ["<unk>", "<s>", "</s>"] {
        tokens.push(mark.as_bytes(), 0.0, if mark == "<unk>" { 2 } else { 3 });
    }
    for byte in 0..=255 {
        match model {
            "gpt2" => tokens.push(byte_character(byte).to_string().as_bytes(), 0.0, 1),
            _ => tokens.push(format!("<0x{byte:02X}>").as_bytes(), 0.0, 6),
        }
    }
    // GPT-2 writes a space as U+0120, SentencePiece as U+2581.
    let space = if model == "gpt2" { "\u{120}" } else { "\u{2581}" };
    let pairs = [("t", "h"), ("th", "e"), (space, "the"), ("l", "l"), (space, space), ("1", "2")];
    let mut merges = StringArray::new();
    if model != "gpt2" {
        for text in [space, "t", "h", "e", "l", "1", "2", "##t", "日", "é"] {
            tokens.push(text.as_bytes(), -10.0, 1);
        }
    }
    for (rank, (first, second)) in pairs.iter().enumerate() {
        merges.push(format!("{first} {second}").as_bytes());
        tokens.push(format!("{first}{second}").as_bytes(), -(rank as f32), 1);
    }
    for mark in ["<|im_start|>", "<|im_end|>", "<|im"] {
        tokens.push(mark.as_bytes(), 0.0, 3);
    }
    tokens.push(b"[tool]", 0.0, 4);
    let mut metadata = tokens.metadata(model, merges);
    metadata.set("tokenizer.ggml.pre", Value::from(pre));
    for (id, name) in ["unknown", "bos", "eos"].iter().enumerate() {
        metadata.set(&format!("tokenizer.ggml.{name}_token_id"), Value::U32(id as u32));
    }
    Tokenizer::from_metadata(&metadata).unwrap_or_else(|error| panic!("{model}: {error}"))
}
