//! SentencePiece BPE: characters merged into tokens, the best score first; bytes for what has no token.

use super::merge::{NONE, Symbol, merge, symbols};
use super::vocabulary::{SPACE, Vocabulary};

/// How a vocabulary of scores is applied.
pub struct Spm {
    bytes: [Option<u32>; 256],
    /// Whether a space is put before a text that follows no other text.
    add_space_prefix: bool,
}

/// A score, in its order; two zeros of different signs are equal.
#[derive(PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.partial_cmp(&other.0).unwrap_or(std::cmp::Ordering::Equal)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The token of a byte, `<0xE2>`, or the byte itself.
pub fn byte_token(vocabulary: &Vocabulary, byte: u8) -> Option<u32> {
    let written = format!("<0x{byte:02X}>");
    vocabulary.id(written.as_bytes()).or_else(|| vocabulary.id(&[byte]))
}

impl Spm {
    /// Finds the tokens of bytes.
    pub fn new(vocabulary: &Vocabulary, add_space_prefix: bool) -> Self {
        let bytes = std::array::from_fn(|byte| byte_token(vocabulary, byte as u8));
        Self { bytes, add_space_prefix }
    }

    /// Appends the ids of a text without special tokens; `first` if no other text comes before it. A byte
    /// without a token is `unknown`.
    pub fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        first: bool,
        unknown: Option<u32>,
        ids: &mut Vec<u32>,
    ) {
        let mut escaped = text.replace(' ', SPACE);
        if first && self.add_space_prefix {
            escaped.insert_str(0, SPACE);
        }
        let bytes = escaped.as_bytes();
        let characters = escaped.char_indices().map(|(at, c)| {
            let length = c.len_utf8();
            (length, vocabulary.id(&bytes[at..at + length]).unwrap_or(NONE))
        });
        let mut symbols = symbols(characters);
        merge(&mut symbols, |a: &Symbol, b: &Symbol| {
            let id = vocabulary.id(&bytes[a.start..b.start + b.length])?;
            Some((Score(vocabulary.score(id)), id))
        });
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            if symbol.id == NONE {
                let text = &bytes[symbol.start..symbol.start + symbol.length];
                ids.extend(text.iter().filter_map(|&b| self.bytes[usize::from(b)].or(unknown)));
            } else {
                ids.push(symbol.id);
            }
        }
    }
}
