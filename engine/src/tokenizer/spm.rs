//! SentencePiece BPE: characters merged into tokens, the best score first; bytes for what has no token.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use gguf::{Metadata, StringArray};

use super::TokenType;
use crate::{Error, Result};

/// What stands for a space in the vocabulary.
const SPACE: &str = "\u{2581}";

/// A vocabulary with scores.
pub struct Spm {
    ids: HashMap<Vec<u8>, u32>,
    scores: Vec<f32>,
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
    /// Whether a space is put before a text that follows no other text.
    pub add_space_prefix: bool,
}

/// A stretch of the text that may become one token, in a doubly linked list.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    length: usize,
    previous: usize,
    next: usize,
}

/// No symbol.
const NONE: usize = usize::MAX;

/// Two neighbours that could be merged. The best score first, then the leftmost.
#[derive(PartialEq)]
struct Bigram {
    score: f32,
    left: Reverse<usize>,
    right: usize,
    length: usize,
}

impl Eq for Bigram {}

impl Ord for Bigram {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then(self.left.cmp(&other.left))
    }
}

impl PartialOrd for Bigram {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Spm {
    /// Reads scores and options from the metadata.
    pub fn new(metadata: &Metadata, texts: &StringArray, types: &[TokenType]) -> Result<Self> {
        let key = "tokenizer.ggml.scores";
        let scores = metadata.f32s(key)?.ok_or_else(|| metadata.missing(key))?;
        if scores.len() != texts.len() {
            return Err(Error::Tokenizer {
                file: metadata.file().into(),
                why: format!(
                    "{} scores for {} tokens; the file is damaged",
                    scores.len(),
                    texts.len()
                ),
            });
        }
        let ids: HashMap<Vec<u8>, u32> =
            texts.iter().enumerate().map(|(id, text)| (text.to_vec(), id as u32)).collect();
        let bytes = std::array::from_fn(|byte| {
            let written = format!("<0x{byte:02X}>").into_bytes();
            let plain = vec![byte as u8];
            ids.get(&written).or_else(|| ids.get(&plain)).copied()
        });
        let unknown = metadata.u32("tokenizer.ggml.unknown_token_id")?;
        let unknown = unknown
            .filter(|&id| (id as usize) < texts.len())
            .or_else(|| types.iter().position(|t| *t == TokenType::Unknown).map(|id| id as u32));
        let add_space_prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        Ok(Self { ids, scores, bytes, unknown, add_space_prefix })
    }

    /// Appends the ids of a text without special tokens; `first` if no other text comes before it.
    pub fn encode(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        let mut escaped = text.replace(' ', SPACE);
        if first && self.add_space_prefix {
            escaped.insert_str(0, SPACE);
        }
        let bytes = escaped.as_bytes();
        let mut symbols: Vec<Symbol> = escaped
            .char_indices()
            .enumerate()
            .map(|(index, (start, c))| Symbol {
                start,
                length: c.len_utf8(),
                previous: index.wrapping_sub(1),
                next: index + 1,
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let mut queue = BinaryHeap::new();
        for right in 1..symbols.len() {
            self.consider(bytes, &symbols, right - 1, right, &mut queue);
        }
        while let Some(bigram) = queue.pop() {
            let (left, right) = (bigram.left.0, bigram.right);
            let (a, b) = (symbols[left], symbols[right]);
            // One of them may have been merged with another since.
            if a.length == 0 || b.length == 0 || a.length + b.length != bigram.length {
                continue;
            }
            symbols[left].length += b.length;
            symbols[right].length = 0;
            symbols[left].next = b.next;
            if b.next != NONE {
                symbols[b.next].previous = left;
            }
            if a.previous != NONE {
                self.consider(bytes, &symbols, a.previous, left, &mut queue);
            }
            if b.next != NONE {
                self.consider(bytes, &symbols, left, b.next, &mut queue);
            }
        }
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            let text = &bytes[symbol.start..symbol.start + symbol.length];
            match self.ids.get(text) {
                Some(&id) => ids.push(id),
                None => ids.extend(
                    text.iter().filter_map(|&byte| self.bytes[usize::from(byte)].or(self.unknown)),
                ),
            }
        }
    }

    /// Queues two neighbours if together they are a token.
    fn consider(
        &self,
        bytes: &[u8],
        symbols: &[Symbol],
        left: usize,
        right: usize,
        queue: &mut BinaryHeap<Bigram>,
    ) {
        let (a, b) = (symbols[left], symbols[right]);
        let length = a.length + b.length;
        if let Some(&id) = self.ids.get(&bytes[a.start..a.start + length]) {
            let score = self.scores[id as usize];
            queue.push(Bigram { score, left: Reverse(left), right, length });
        }
    }
}

/// The bytes of each token: spaces unescaped, byte tokens as their byte.
pub fn pieces(texts: &StringArray, types: &[TokenType]) -> StringArray {
    let mut pieces = StringArray::new();
    for (text, kind) in texts.iter().zip(types) {
        let written = std::str::from_utf8(text).unwrap_or_default();
        let byte = || u8::from_str_radix(written.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok();
        match kind {
            TokenType::Byte => match byte() {
                Some(byte) => pieces.push(&[byte]),
                None => pieces.push(text),
            },
            TokenType::Control | TokenType::UserDefined | TokenType::Unknown => pieces.push(text),
            _ => pieces.push(written.replace(SPACE, " ").as_bytes()),
        }
    }
    pieces
}
