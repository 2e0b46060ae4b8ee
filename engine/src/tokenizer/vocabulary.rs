//! The tokens of a file: their texts, kinds and scores, and the ids with a meaning of their own.

use gguf::{Metadata, StringArray};

use super::TokenType;
use super::bytes::decode_characters;
use crate::{Error, Result};

/// What stands for a space in a token.
pub const SPACE: &str = "\u{2581}";

/// The tokens of a file.
pub struct Vocabulary {
    /// The text of each as the file has it.
    pub texts: StringArray,
    ids: ahash::AHashMap<Box<[u8]>, u32>,
    /// Empty: every score is 0.
    scores: Vec<f32>,
}

impl Vocabulary {
    /// Reads the texts and scores, and the kinds as the file has them. Things to be told of that are no
    /// errors are appended to `warnings`.
    pub fn read(metadata: &Metadata, warnings: &mut Vec<String>) -> Result<(Self, Vec<TokenType>)> {
        let error = |why: String| Error::Tokenizer { file: metadata.file().into(), why };
        let key = "tokenizer.ggml.tokens";
        let texts = metadata.strings(key)?.ok_or_else(|| metadata.missing(key))?;
        if texts.is_empty() {
            return Err(error("the vocabulary is empty; the file is damaged".into()));
        }
        let texts = without_empty_texts(texts);
        let tokens = texts.len();
        let too_few = |what: &str, number: usize| {
            error(format!("{number} {what} for {tokens} tokens; the file is damaged"))
        };
        let mut scores = metadata.f32s("tokenizer.ggml.scores")?.unwrap_or_default();
        if metadata.get("tokenizer.ggml.scores").is_some() && scores.len() < tokens {
            return Err(too_few("scores", scores.len()));
        }
        scores.truncate(tokens);
        let types = read_types(metadata, tokens)?;
        if types.len() < tokens {
            return Err(too_few("token types", types.len()));
        }
        let mut ids = ahash::AHashMap::with_capacity(tokens);
        for (id, text) in texts.iter().enumerate() {
            ids.insert(Box::from(text), id as u32);
        }
        let twice = tokens - ids.len();
        if twice > 0 {
            warnings.push(format!(
                "{twice} texts of the vocabulary are there twice: the last token of a text is used"
            ));
        }
        Ok((Self { texts, ids, scores }, types))
    }

    /// The id of a text; of several the last.
    pub fn id(&self, text: &[u8]) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The score of a token; 0 where the file has no scores.
    pub fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// The bytes that each token stands for. `byte_characters`: characters stand for bytes, as GPT-2 has it;
    /// else the text is as it is, U+2581 for a space. Unused and undefined tokens stand for nothing.
    pub fn pieces(&self, types: &[TokenType], byte_characters: bool) -> StringArray {
        let mut pieces = StringArray::new();
        for (text, kind) in self.texts.iter().zip(types) {
            match kind {
                TokenType::Control | TokenType::UserDefined | TokenType::Unknown => {
                    pieces.push(text);
                }
                TokenType::Unused | TokenType::Undefined => pieces.push(b""),
                TokenType::Byte => match text.get(3..) {
                    Some(hexadecimal) => pieces.push(&[byte_of(hexadecimal)]),
                    None => pieces.push(text),
                },
                TokenType::Normal if byte_characters => {
                    let decoded = decode_characters(text);
                    pieces.push(decoded.as_deref().unwrap_or(text));
                }
                TokenType::Normal => pieces.push(&unescaped(text)),
            }
        }
        pieces
    }
}

/// Texts as the file has them; an empty one could stand for nothing and is given a name, as llama.cpp does.
fn without_empty_texts(texts: &StringArray) -> StringArray {
    if texts.iter().all(|text| !text.is_empty()) {
        return texts.clone();
    }
    let mut named = StringArray::new();
    for (id, text) in texts.iter().enumerate() {
        if text.is_empty() {
            named.push(format!("[EMPTY_{id}]").as_bytes());
        } else {
            named.push(text);
        }
    }
    named
}

/// The kinds of the first `tokens` tokens, or of fewer where the file has fewer; without the key all are
/// normal.
fn read_types(metadata: &Metadata, tokens: usize) -> Result<Vec<TokenType>> {
    let key = "tokenizer.ggml.token_type";
    let Some(value) = metadata.get(key) else { return Ok(vec![TokenType::Normal; tokens]) };
    let wrong = || metadata.wrong(key, value, "an array of integers");
    let array = value.as_array().ok_or_else(wrong)?;
    (0..array.len().min(tokens))
        .map(|index| {
            let element = array.get(index).ok_or_else(wrong)?;
            match element.as_u64() {
                Some(number) => Ok(TokenType::from_id(number)),
                // A negative one is no kind that there is; a text or a fraction is no array of kinds.
                None if element.as_f64().is_some_and(|number| number.fract() == 0.0) => {
                    Ok(TokenType::Undefined)
                }
                None => Err(wrong().into()),
            }
        })
        .collect()
}

/// The byte that two hexadecimal digits write, as C's strtol reads them: up to what is no digit.
fn byte_of(text: &[u8]) -> u8 {
    let digits = text.iter().take(2).map_while(|&digit| char::from(digit).to_digit(16));
    digits.fold(0, |byte, digit| byte * 16 + digit) as u8
}

/// A text with spaces for U+2581.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let space = SPACE.as_bytes();
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(&byte) = rest.first() {
        if let Some(after) = rest.strip_prefix(space) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(byte);
            rest = &rest[1..];
        }
    }
    out
}
