//! WordPiece, as BERT has it: text normalised and cut into words, each word the longest tokens from its left.

use gguf::Metadata;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::vocabulary::{SPACE, Vocabulary};
use crate::{Error, Result};

/// How a vocabulary of words and their parts is applied.
pub struct Wpm {
    longest: usize,
    normalizer: BertNormalizer,
}

impl Wpm {
    /// Reads options from the metadata. Accents are stripped where letters are made lower case, unless the file
    /// says otherwise.
    pub fn new(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self> {
        let flag = |name: &str| metadata.bool(&format!("tokenizer.ggml.normalizer.{name}"));
        let lowercase = flag("lowercase")?.unwrap_or(true);
        let accents = flag("strip_accents")?.unwrap_or(lowercase);
        let longest = vocabulary.texts.iter().map(<[u8]>::len).max().unwrap_or(0);
        Ok(Self { longest, normalizer: BertNormalizer::new(true, true, Some(accents), lowercase) })
    }

    /// Appends the ids of a text without special tokens; a word without tokens is `unknown`.
    pub fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        unknown: Option<u32>,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
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
            let before = ids.len();
            if !self.word(vocabulary, &format!("{SPACE}{word}"), ids) {
                ids.truncate(before);
                ids.extend(unknown);
            }
        }
        Ok(())
    }

    /// Appends the longest tokens of a word from its left; whether they cover it.
    fn word(&self, vocabulary: &Vocabulary, word: &str, ids: &mut Vec<u32>) -> bool {
        let mut rest = word.as_bytes();
        while !rest.is_empty() {
            let mut lengths = (1..=rest.len().min(self.longest)).rev();
            let found = lengths.find_map(|length| Some((length, vocabulary.id(&rest[..length])?)));
            let Some((length, id)) = found else { return false };
            ids.push(id);
            rest = &rest[length..];
        }
        true
    }
}
