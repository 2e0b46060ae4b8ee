//! BPE by merges: text cut by regexes, bytes as characters (or the text as it is), pairs merged by rank.

mod pre;

use std::cmp::Reverse;

use gguf::Metadata;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
    SplitDelimiterBehavior,
};

use super::bytes::byte_characters;
use super::merge::{NONE, Symbol, merge, symbols};
use super::vocabulary::{SPACE, Vocabulary};
use crate::{Error, Result};
pub use pre::WITHOUT_BOS;
use pre::{PRES, Pre, SPACES_KEPT};

/// What merging two symbols gives: the rank of the merge and the symbol's id.
type Merged = (u32, u32);

/// Merges, and the way of cutting.
pub struct Bpe {
    /// How the text is cut before merging.
    pub pre: &'static Pre,
    /// Whether ids made text keep their spaces before punctuation.
    pub keeps_spaces: bool,
    splitter: Sequence,
    /// By the ids of the two symbols. Symbols that are no tokens have ids from the vocabulary's size up.
    merges: ahash::AHashMap<(u32, u32), Merged>,
    /// The ids of symbols that are no tokens.
    others: ahash::AHashMap<Vec<u8>, u32>,
    /// Each byte as the vocabulary writes it: GPT-2's character, or `<0xE2>`.
    characters: Vec<String>,
    /// The symbol of each byte's character; [`NONE`]: there is none.
    bytes: [u32; 256],
    /// Whether text is made lower case and white space left out, each word alone.
    words: Option<Words>,
}

/// Words between white space (`tokenizer.ggml.model` is `whitespace`).
struct Words {
    lowercase: bool,
}

impl Bpe {
    /// Reads merges and the way of cutting from the metadata.
    pub fn new(metadata: &Metadata, vocabulary: &Vocabulary, model: &str) -> Result<Self> {
        let error = |why: String| Error::Tokenizer { file: metadata.file().into(), why };
        let name = metadata.str("tokenizer.ggml.pre")?.filter(|name| !name.is_empty());
        let name = if model == "gemma4" { "gemma4" } else { name.unwrap_or("default") };
        let pre = PRES.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
            let known: Vec<_> = PRES.iter().flat_map(|pre| pre.names).copied().collect();
            Error::UnknownPreTokenizer {
                file: metadata.file().into(),
                name: name.into(),
                known: known.join(", "),
            }
        })?;
        let words = (model == "whitespace").then_some(()).map(|()| {
            let key = "tokenizer.ggml.normalizer.lowercase";
            Ok::<_, Error>(Words { lowercase: metadata.bool(key)?.unwrap_or(!pre.words) })
        });
        let mut steps = Vec::new();
        for regex in pre.regexes {
            let pattern = SplitPattern::Regex((*regex).to_string());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .map_err(|why| error(format!("the vocabulary cannot be used: {why}")))?;
            steps.push(PreTokenizerWrapper::Split(split));
        }
        let characters: Vec<String> = if pre.raw {
            (0..=255).map(|byte: u8| format!("<0x{byte:02X}>")).collect()
        } else {
            byte_characters().map(String::from).collect()
        };
        let mut bpe = Self {
            pre,
            keeps_spaces: SPACES_KEPT.contains(&name),
            splitter: Sequence::new(steps),
            merges: ahash::AHashMap::new(),
            others: ahash::AHashMap::new(),
            characters,
            bytes: [NONE; 256],
            words: words.transpose()?,
        };
        let key = "tokenizer.ggml.merges";
        match metadata.strings(key)? {
            Some(merges) => {
                bpe.merges.reserve(merges.len());
                for (merge, rank) in merges.iter().zip(0u32..) {
                    bpe.add_merge(vocabulary, merge, rank);
                }
            }
            // Its tokens are found whole.
            None if name == "kimi-k2" => {}
            None => return Err(metadata.missing(key).into()),
        }
        if !pre.raw {
            for byte in 0..256 {
                bpe.bytes[byte] = bpe.symbol(vocabulary, bpe.characters[byte].as_bytes());
            }
        }
        Ok(bpe)
    }

    /// Adds `first second`; the first part may itself begin with a space. What is no such pair is ignored, as
    /// is a pair that is there already. Neither parts nor result need be tokens: they may be on the way to one.
    fn add_merge(&mut self, vocabulary: &Vocabulary, merge: &[u8], rank: u32) {
        let Some(at) = merge.iter().skip(1).position(|&byte| byte == b' ') else { return };
        let (first, second) = (&merge[..=at], &merge[at + 2..]);
        if second.is_empty() || second.contains(&b' ') {
            return;
        }
        let pair = (self.add_symbol(vocabulary, first), self.add_symbol(vocabulary, second));
        if !self.merges.contains_key(&pair) {
            let result = self.add_symbol(vocabulary, &[first, second].concat());
            self.merges.insert(pair, (rank, result));
        }
    }

    /// The id of a symbol, a new one if need be.
    fn add_symbol(&mut self, vocabulary: &Vocabulary, text: &[u8]) -> u32 {
        match self.symbol(vocabulary, text) {
            NONE => {
                let id = (vocabulary.len() + self.others.len()) as u32;
                self.others.insert(text.to_vec(), id);
                id
            }
            id => id,
        }
    }

    /// The id of a symbol; [`NONE`] if neither a token nor a merge has it.
    fn symbol(&self, vocabulary: &Vocabulary, text: &[u8]) -> u32 {
        vocabulary.id(text).or_else(|| self.others.get(text).copied()).unwrap_or(NONE)
    }

    /// Appends the ids of a text without special tokens.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let Some(words) = &self.words else { return self.encode_text(vocabulary, text, ids) };
        let text = if words.lowercase { text.to_lowercase() } else { text.into() };
        text.split_whitespace().try_for_each(|word| self.encode_text(vocabulary, word, ids))
    }

    fn encode_text(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let escaped = self.pre.escape.then(|| text.replace(' ', SPACE));
        let mut words = PreTokenizedString::from(escaped.as_deref().unwrap_or(text));
        self.splitter.pre_tokenize(&mut words).map_err(|why| Error::Tokenizer {
            file: "the text".into(),
            why: format!("cannot be tokenized: {why}"),
        })?;
        for (word, ..) in words.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            let newlines = word.bytes().all(|byte| byte == b'\n');
            if self.pre.metaspace && !newlines {
                self.encode_metaspace(vocabulary, word, ids);
            } else {
                self.encode_word(vocabulary, word, newlines, ids);
            }
        }
        Ok(())
    }

    /// A line in words that each begin with U+2581, the first too.
    fn encode_metaspace(&self, vocabulary: &Vocabulary, line: &str, ids: &mut Vec<u32>) {
        for (number, word) in line.split(SPACE).enumerate() {
            // Before the first one there is nothing where the line begins with it.
            if number > 0 || !word.is_empty() {
                self.encode_word(vocabulary, &format!("{SPACE}{word}"), false, ids);
            }
        }
    }

    /// A word, or a run of newlines.
    fn encode_word(&self, vocabulary: &Vocabulary, word: &str, newlines: bool, ids: &mut Vec<u32>) {
        let written = |range: std::ops::Range<usize>| -> Vec<u8> {
            let bytes = &word.as_bytes()[range];
            if self.pre.raw {
                bytes.to_vec()
            } else {
                bytes.iter().flat_map(|&byte| self.characters[usize::from(byte)].bytes()).collect()
            }
        };
        let as_a_whole = self.pre.ignore_merges || (self.pre.newlines && newlines);
        if as_a_whole && let Some(id) = vocabulary.id(&written(0..word.len())) {
            ids.push(id);
            return;
        }
        let mut symbols = if self.pre.raw {
            let mut text = [0; 4];
            symbols(word.chars().map(|c| {
                let text = c.encode_utf8(&mut text).as_bytes();
                (text.len(), self.symbol(vocabulary, text))
            }))
        } else {
            symbols(word.bytes().map(|byte| (1, self.bytes[usize::from(byte)])))
        };
        merge(&mut symbols, |a: &Symbol, b: &Symbol| {
            self.merges.get(&(a.id, b.id)).map(|&(rank, id)| (Reverse(rank), id))
        });
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            if (symbol.id as usize) < vocabulary.len() {
                ids.push(symbol.id);
                continue;
            }
            // No token: byte by byte, and what has none is left out.
            let text = written(symbol.start..symbol.start + symbol.length);
            let token = |byte: &u8| {
                if self.pre.raw {
                    vocabulary.id(self.characters[usize::from(*byte)].as_bytes())
                } else {
                    vocabulary.id(&[*byte])
                }
            };
            ids.extend(text.iter().filter_map(token));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_cutting_compiles_and_loses_nothing() {
        let text = "It's 1234567 words,\r\n\n  naïve 東京タワー한국어 + x_y z!?\t\u{1F600} ";
        let mut seen = std::collections::HashSet::new();
        for pre in PRES {
            for name in pre.names {
                assert!(seen.insert(name), "{name} is there twice");
            }
            for regex in pre.regexes {
                let pattern = SplitPattern::Regex((*regex).to_string());
                let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                    .unwrap_or_else(|error| panic!("{:?}: {regex}: {error}", pre.names));
                let mut text_of = tokenizers::PreTokenizedString::from(text);
                tokenizers::PreTokenizer::pre_tokenize(&split, &mut text_of).unwrap();
                let pieces: String = text_of
                    .get_splits(
                        tokenizers::OffsetReferential::Original,
                        tokenizers::OffsetType::Byte,
                    )
                    .into_iter()
                    .map(|(piece, ..)| piece)
                    .collect();
                assert_eq!(pieces, text, "{:?}", pre.names);
            }
        }
    }
}
