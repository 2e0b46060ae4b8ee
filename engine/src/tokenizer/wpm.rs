//! WordPiece, as BERT has it: text normalised and cut into words, each word the longest tokens from its left.

use std::collections::HashMap;

use gguf::{Metadata, StringArray};
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use crate::{Error, Result};

/// What stands before a word in the vocabulary.
const START: &str = "\u{2581}";

/// A vocabulary of words and their parts.
pub struct Wpm {
    ids: HashMap<Vec<u8>, u32>,
    longest: usize,
    unknown: u32,
    normalizer: BertNormalizer,
}

impl Wpm {
    /// Reads options from the metadata.
    pub fn new(metadata: &Metadata, texts: &StringArray) -> Result<Self> {
        let flag = |name: &str| -> Result<bool> {
            Ok(metadata.bool(&format!("tokenizer.ggml.normalizer.{name}"))?.unwrap_or(true))
        };
        let unknown = metadata.u32("tokenizer.ggml.unknown_token_id")?.unwrap_or(100);
        if unknown as usize >= texts.len() {
            return Err(Error::Tokenizer {
                file: metadata.file().into(),
                why: format!(
                    "the unknown token is {unknown}, the vocabulary has {} tokens",
                    texts.len()
                ),
            });
        }
        let ids: HashMap<Vec<u8>, u32> =
            texts.iter().enumerate().map(|(id, text)| (text.to_vec(), id as u32)).collect();
        let longest = texts.iter().map(<[u8]>::len).max().unwrap_or(0);
        let (accents, lowercase) = (flag("strip_accents")?, flag("lowercase")?);
        let normalizer = BertNormalizer::new(true, true, Some(accents), lowercase);
        Ok(Self { ids, longest, unknown, normalizer })
    }

    /// Appends the ids of a text without special tokens.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let failed = |why: tokenizers::Error| Error::Tokenizer {
            file: "the text".into(),
            why: format!("cannot be tokenized: {why}"),
        };
        let mut normalized = NormalizedString::from(text);
        self.normalizer.normalize(&mut normalized).map_err(failed)?;
        let mut words = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut words).map_err(failed)?;
        let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        for (word, ..) in splits.into_iter().filter(|(word, ..)| !word.is_empty()) {
            self.word(&format!("{START}{word}"), ids);
        }
        Ok(())
    }

    /// The longest tokens of a word from its left; the unknown token if they do not cover it.
    fn word(&self, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word.as_bytes();
        while !rest.is_empty() {
            let lengths = (1..=rest.len().min(self.longest)).rev();
            let mut lengths = lengths;
            let found = lengths.find_map(|n| Some((n, *self.ids.get(&rest[..n])?)));
            let Some((length, id)) = found else {
                ids.truncate(before);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            rest = &rest[length..];
        }
    }
}
