//! Unigram, as T5 and XLM-RoBERTa have it: the likeliest way of cutting a text into tokens.

use gguf::{Array, Metadata, StringArray};
use tokenizers::models::unigram::Unigram as Model;
use tokenizers::normalizers::{Precompiled, Replace, Sequence as Normalizers, Strip};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{NormalizerWrapper, Tokenizer};

use super::TokenType;
use crate::{Error, Result};

/// A vocabulary with the logarithms of probabilities.
pub struct Unigram {
    tokenizer: Tokenizer,
}

impl Unigram {
    /// Reads scores and normalisation from the metadata.
    pub fn new(metadata: &Metadata, texts: &StringArray, types: &[TokenType]) -> Result<Self> {
        let error = |why: String| Error::Tokenizer { file: metadata.file().into(), why };
        let key = "tokenizer.ggml.scores";
        let scores = metadata.f32s(key)?.ok_or_else(|| metadata.missing(key))?;
        if scores.len() != texts.len() {
            return Err(error(format!(
                "{} scores for {} tokens; the file is damaged",
                scores.len(),
                texts.len()
            )));
        }
        let unknown = types.iter().position(|kind| *kind == TokenType::Unknown);
        let vocabulary = texts
            .iter()
            .zip(&scores)
            .map(|(text, &score)| (String::from_utf8_lossy(text).into_owned(), f64::from(score)))
            .collect();
        let failed =
            |why: tokenizers::Error| error(format!("the vocabulary cannot be used: {why}"));
        let model = Model::from(vocabulary, unknown, false).map_err(failed)?;
        let mut tokenizer = Tokenizer::new(model);
        let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
        let map = metadata.get("tokenizer.ggml.precompiled_charsmap");
        if let Some(map) = map.and_then(|value| value.as_array()) {
            let bytes = match map {
                Array::U8(bytes) => bytes.clone(),
                Array::I8(bytes) => bytemuck::cast_slice(bytes).to_vec(),
                _ => return Err(error("precompiled_charsmap is no array of bytes".into())),
            };
            let precompiled = Precompiled::from(&bytes)
                .map_err(|why| error(format!("precompiled_charsmap cannot be used: {why:?}")))?;
            normalizers.push(precompiled.into());
        }
        if metadata.bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false) {
            normalizers.push(Strip::new(true, true).into());
            let runs = tokenizers::normalizers::replace::ReplacePattern::Regex(" {2,}".into());
            normalizers.push(Replace::new(runs, " ").map_err(failed)?.into());
        }
        if !normalizers.is_empty() {
            tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(failed)?;
        }
        let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let scheme = if prefix { PrependScheme::First } else { PrependScheme::Never };
        tokenizer.with_pre_tokenizer(Some(Metaspace::new('\u{2581}', scheme, false)));
        Ok(Self { tokenizer })
    }

    /// Appends the ids of a text without special tokens.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        super::encode_plain(&self.tokenizer, text, ids)
    }
}

#[cfg(test)]
mod tests {
    use gguf::{Gguf, Value, Writer};

    use super::*;

    #[test]
    fn the_likeliest_cut_is_chosen() {
        let words = ["<unk>", "\u{2581}", "a", "b", "ab", "\u{2581}ab", "c", "bc"];
        let scores: [f32; 8] = [0.0, -3.0, -2.0, -2.0, -2.5, -2.2, -2.0, -1.0];
        let mut writer = Writer::new();
        let texts: StringArray = {
            let mut texts = StringArray::new();
            for word in words {
                texts.push(word.as_bytes());
            }
            texts
        };
        writer.set("tokenizer.ggml.scores", Value::Array(Array::F32(scores.to_vec())));
        writer.set("tokenizer.ggml.tokens", Value::Array(Array::String(texts.clone())));
        let source = std::sync::Arc::new(gguf::BytesSource::new("words", writer.to_bytes()));
        let file = Gguf::from_sources(vec![source]).unwrap();
        let mut types = vec![TokenType::Normal; 8];
        types[0] = TokenType::Unknown;
        let unigram = Unigram::new(&file.metadata, &texts, &types).unwrap();
        let ids = |text: &str| {
            let mut ids = Vec::new();
            unigram.encode(text, &mut ids).unwrap();
            ids
        };
        // ▁ab c: -4.2; ▁ a bc: -6.
        assert_eq!(ids("abc"), [5, 6]);
        // Within a word ab c: -4.5; a bc: -3.
        assert_eq!(ids("cabc"), [1, 6, 2, 7]);
        assert_eq!(ids("ax"), [1, 2, 0]);
    }
}
