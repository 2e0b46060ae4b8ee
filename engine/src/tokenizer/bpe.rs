//! Byte-level BPE: text cut by regexes, bytes as characters, pairs merged by rank.

mod pre;

use gguf::{Metadata, StringArray};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use super::TokenType;
use crate::{Error, Result};
use pre::PRES;

/// A vocabulary with merges.
pub struct Bpe {
    tokenizer: Tokenizer,
    /// Tokens of newlines alone, in a vocabulary of text as it is; none where tokens are bytes as characters.
    newlines: Option<ahash::AHashMap<String, u32>>,
    /// Whether BOS is added where the file does not say.
    pub bos_by_default: bool,
    /// Whether the separator is added where the file does not say.
    pub sep_by_default: bool,
    /// Whether BOS is added whatever the file says: gemma4's files say no, its model needs it.
    pub bos_always: bool,
}

impl Bpe {
    /// Reads merges and the way of cutting from the metadata.
    pub fn new(metadata: &Metadata, texts: &StringArray, raw_model: bool) -> Result<Self> {
        let error = |why: String| Error::Tokenizer { file: metadata.file().into(), why };
        let name = metadata.str("tokenizer.ggml.pre")?.unwrap_or("default");
        let name = if raw_model { "gemma4" } else { name };
        let pre = PRES.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
            let known: Vec<_> = PRES.iter().flat_map(|pre| pre.names).copied().collect();
            error(format!(
                "the pre-tokenizer {name:?} (tokenizer.ggml.pre) is unknown; --override tokenizer.ggml.pre=NAME takes another (known: {})",
                known.join(", ")
            ))
        })?;
        let key = "tokenizer.ggml.merges";
        let merges = metadata.strings(key)?.ok_or_else(|| metadata.missing(key))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let merges = merges
            .iter()
            .map(|merge| {
                let merge = text(merge);
                // The first part may itself start with a space.
                let first = merge.chars().next().map_or(0, char::len_utf8);
                let at = merge[first..].find(' ').map(|at| at + first);
                at.map(|at| (merge[..at].to_string(), merge[at + 1..].to_string()))
                    .ok_or_else(|| error(format!("the merge {merge:?} has no second part")))
            })
            .collect::<Result<Vec<_>>>()?;
        let newlines = pre.raw.then(|| {
            let texts = texts.iter().enumerate().map(|(id, bytes)| (text(bytes), id as u32));
            texts.filter(|(text, _)| !text.is_empty() && text.chars().all(|c| c == '\n')).collect()
        });
        let vocabulary: ahash::AHashMap<String, u32> =
            texts.iter().enumerate().map(|(id, bytes)| (text(bytes), id as u32)).collect();
        let failed =
            |why: tokenizers::Error| error(format!("the vocabulary cannot be used: {why}"));
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .ignore_merges(pre.ignore_merges)
            .byte_fallback(pre.raw)
            .build()
            .map_err(failed)?;
        let mut steps = Vec::new();
        for regex in pre.regexes {
            let pattern = SplitPattern::Regex((*regex).to_string());
            let split =
                Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
            steps.push(PreTokenizerWrapper::Split(split));
        }
        if !pre.raw {
            steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
        }
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
        Ok(Self {
            tokenizer,
            newlines,
            bos_by_default: pre.add_bos,
            sep_by_default: pre.add_sep,
            bos_always: pre.raw && pre.add_bos,
        })
    }

    /// Appends the ids of a text without special tokens.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let Some(newlines) = &self.newlines else { return self.merge(text, ids) };
        let text = text.replace(' ', "\u{2581}");
        // A run of newlines that is a token is that token, whatever its merges.
        let is_newline = |text: &str| text.starts_with('\n');
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let end = rest.find(|c| (c == '\n') != (first == '\n')).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            match newlines.get(run).filter(|_| is_newline(run)) {
                Some(&id) => ids.push(id),
                None => self.merge(run, ids)?,
            }
            rest = after;
        }
        Ok(())
    }

    fn merge(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        super::encode_plain(&self.tokenizer, text, ids)
    }

    /// Whether tokens are text as it is, with U+2581 for spaces.
    pub fn is_raw(&self) -> bool {
        self.newlines.is_some()
    }
}

/// The bytes of each token: its characters taken back to the bytes they stand for. Control and
/// user-defined tokens are written as they are.
pub fn pieces(texts: &StringArray, types: &[TokenType]) -> StringArray {
    let bytes_of = byte_characters();
    let mut pieces = StringArray::new();
    for (text, kind) in texts.iter().zip(types) {
        let plain = !matches!(kind, TokenType::Normal | TokenType::Unused | TokenType::Byte);
        let decoded = std::str::from_utf8(text).ok().filter(|_| !plain).and_then(|text| {
            text.chars().map(|c| bytes_of.get(&c).copied()).collect::<Option<Vec<u8>>>()
        });
        pieces.push(decoded.as_deref().unwrap_or(text));
    }
    pieces
}

/// GPT-2's characters for bytes: printable Latin-1 stands for itself, the rest for 256 and up in order.
fn byte_characters() -> std::collections::HashMap<char, u8> {
    let mut next = 256;
    (0..=255u8)
        .map(|byte| {
            let itself = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if itself {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            (char::from_u32(code).unwrap_or_default(), byte)
        })
        .collect()
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
