//! Text to ids and back, by the vocabulary in a model's file.
//!
//! - [`Tokenizer::from_metadata`] reads `tokenizer.ggml.*`; [`Tokenizer::encode`] is equal to llama.cpp's.
//! - [`Detokenizer`] turns ids into text as they come and never prints half a character.

mod bpe;
mod detokenize;
mod special;
mod spm;
mod unigram;
mod wpm;

use std::collections::HashSet;

use gguf::{Metadata, StringArray};

use crate::{Error, Result};

/// Appends the ids that a library's tokenizer gives a text without special tokens.
fn encode_plain(tokenizer: &tokenizers::Tokenizer, text: &str, ids: &mut Vec<u32>) -> Result<()> {
    let encoding = tokenizer.encode_fast(text, false).map_err(|why| Error::Tokenizer {
        file: "the text".into(),
        why: format!("cannot be tokenized: {why}"),
    })?;
    ids.extend_from_slice(encoding.get_ids());
    Ok(())
}
pub use detokenize::Detokenizer;

/// What kind of token an id is, as `tokenizer.ggml.token_type` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of text.
    Normal,
    /// Stands for text that has no token.
    Unknown,
    /// A mark that is no text: begin, end, turn.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// Not in use.
    Unused,
    /// One byte, written `<0xE2>`.
    Byte,
}

impl TokenType {
    fn from_id(id: u32) -> Self {
        match id {
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            _ => TokenType::Normal,
        }
    }
}

/// What [`Tokenizer::encode`] adds and recognises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add BOS and EOS where the file asks for them.
    pub add_special: bool,
    /// Recognise control tokens written in the text.
    pub parse_special: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { add_special: true, parse_special: true }
    }
}

/// The algorithm that cuts plain text into tokens.
enum Algorithm {
    Bpe(Box<bpe::Bpe>),
    Spm(Box<spm::Spm>),
    Wpm(Box<wpm::Wpm>),
    Unigram(Box<unigram::Unigram>),
}

/// A vocabulary and how it is applied.
pub struct Tokenizer {
    algorithm: Algorithm,
    /// The texts as the file has them.
    texts: StringArray,
    /// The bytes that each token stands for.
    pieces: StringArray,
    types: Vec<TokenType>,
    special: special::SpecialTokens,
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// Whether BOS is put before a text.
    pub add_bos: bool,
    /// Separator: ends a text for encoders.
    pub sep: Option<u32>,
    /// Whether EOS is put after a text.
    pub add_eos: bool,
    /// Whether the separator is put after a text.
    pub add_sep: bool,
    ends: HashSet<u32>,
}

/// Tokens that end a generation, by their text, and that are control tokens whatever the file says of them:
/// the list that llama.cpp keeps (`special_eog_ids` in llama-vocab.cpp), for files that were converted
/// carelessly.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    // Padding, repository and file marks of fill-in-the-middle models.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

impl Tokenizer {
    /// Builds the tokenizer that a file's metadata describes.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let error = |why: String| Error::Tokenizer { file: metadata.file().into(), why };
        let model_key = "tokenizer.ggml.model";
        let model = metadata.str(model_key)?.ok_or_else(|| metadata.missing(model_key))?;
        let tokens_key = "tokenizer.ggml.tokens";
        let texts =
            metadata.strings(tokens_key)?.ok_or_else(|| metadata.missing(tokens_key))?.clone();
        if texts.is_empty() {
            return Err(error("the vocabulary is empty; the file is damaged".into()));
        }
        let mut types: Vec<TokenType> = match metadata.u32s("tokenizer.ggml.token_type")? {
            Some(types) if types.len() != texts.len() => {
                return Err(error(format!(
                    "{} token types for {} tokens; the file is damaged",
                    types.len(),
                    texts.len()
                )));
            }
            Some(types) => types.into_iter().map(TokenType::from_id).collect(),
            None => vec![TokenType::Normal; texts.len()],
        };
        let end_texts: HashSet<&[u8]> = END_TEXTS.iter().map(|text| text.as_bytes()).collect();
        let mut ends = HashSet::new();
        for (index, _) in texts.iter().enumerate().filter(|(_, text)| end_texts.contains(text)) {
            types[index] = TokenType::Control;
            ends.insert(index as u32);
        }
        let (algorithm, pieces) = match model {
            "gpt2" | "gemma4" => {
                let bpe = bpe::Bpe::new(metadata, &texts, model == "gemma4")?;
                let pieces = if bpe.is_raw() {
                    spm::pieces(&texts, &types)
                } else {
                    bpe::pieces(&texts, &types)
                };
                (Algorithm::Bpe(Box::new(bpe)), pieces)
            }
            "bert" => {
                let wpm = wpm::Wpm::new(metadata, &texts)?;
                (Algorithm::Wpm(Box::new(wpm)), spm::pieces(&texts, &types))
            }
            "t5" => {
                let unigram = unigram::Unigram::new(metadata, &texts, &types)?;
                (Algorithm::Unigram(Box::new(unigram)), spm::pieces(&texts, &types))
            }
            "llama" => {
                let spm = spm::Spm::new(metadata, &texts, &types)?;
                let pieces = spm::pieces(&texts, &types);
                (Algorithm::Spm(Box::new(spm)), pieces)
            }
            other => {
                return Err(error(format!(
                    "the tokenizer {other:?} is unknown (known: gpt2, llama, bert, t5, gemma4)"
                )));
            }
        };
        let id = |key: &str| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{key}_token_id");
            // Some files say 2^32 - 1 for none.
            let id = metadata.u32(&key)?.filter(|&id| id != u32::MAX);
            if let Some(id) = id.filter(|&id| id as usize >= texts.len()) {
                return Err(error(format!(
                    "{key} is {id}, the vocabulary has {} tokens",
                    texts.len()
                )));
            }
            Ok(id)
        };
        let (bos, eos) = (id("bos")?, id("eos")?);
        // The key is misspelt in the format itself.
        let sep = id("seperator")?;
        let (bos_by_default, eos_by_default, sep_by_default) = match &algorithm {
            Algorithm::Bpe(bpe) => (bpe.bos_by_default, false, bpe.sep_by_default),
            Algorithm::Spm(_) => (true, false, false),
            Algorithm::Wpm(_) => (true, false, true),
            Algorithm::Unigram(_) => (false, true, false),
        };
        let of_bert = |id: u32| {
            (matches!(algorithm, Algorithm::Wpm(_)) && texts.len() > id as usize).then_some(id)
        };
        // What BERT's own vocabulary has, where the file does not say.
        let (bos, sep) = (bos.or_else(|| of_bert(101)), sep.or_else(|| of_bert(102)));
        let bos_always = matches!(&algorithm, Algorithm::Bpe(bpe) if bpe.bos_always);
        let add = |name: &str| metadata.bool(&format!("tokenizer.ggml.add_{name}_token"));
        ends.extend([eos, id("eot")?, id("eom")?].into_iter().flatten());
        Ok(Self {
            special: special::SpecialTokens::new(&texts, &types).map_err(error)?,
            add_bos: add("bos")?.unwrap_or(bos_by_default) || bos_always,
            add_eos: add("eos")?.unwrap_or(eos_by_default),
            add_sep: add("sep")?.unwrap_or(sep_by_default),
            sep,
            algorithm,
            texts,
            pieces,
            types,
            bos,
            eos,
            ends,
        })
    }

    /// The ids of a text.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        if options.add_special && self.add_bos {
            ids.extend(self.bos);
        }
        // Whether the text so far ends in a special token, or there is none: where SPM puts its space.
        let mut after_special = true;
        for fragment in self.special.partition(text, options.parse_special) {
            match fragment {
                special::Fragment::Token(id) => {
                    ids.push(id);
                    after_special = true;
                }
                special::Fragment::Text(text) => {
                    match &self.algorithm {
                        Algorithm::Bpe(bpe) => bpe.encode(text, &mut ids)?,
                        Algorithm::Spm(spm) => spm.encode(text, after_special, &mut ids),
                        Algorithm::Wpm(wpm) => wpm.encode(text, &mut ids)?,
                        Algorithm::Unigram(unigram) => unigram.encode(text, &mut ids)?,
                    }
                    after_special = false;
                }
            }
        }
        if options.add_special && self.add_sep {
            ids.extend(self.sep);
        }
        if options.add_special && self.add_eos {
            ids.extend(self.eos);
        }
        Ok(ids)
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// The text of a token as the file has it, for display.
    pub fn text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.texts.get(id as usize).unwrap_or_default()).into_owned()
    }

    /// The bytes that a token stands for in a text; none for control tokens.
    pub fn piece(&self, id: u32) -> &[u8] {
        match self.types.get(id as usize) {
            None | Some(TokenType::Control | TokenType::Unknown) => &[],
            Some(_) => self.pieces.get(id as usize).unwrap_or_default(),
        }
    }

    /// The bytes of a token, control tokens as they are written.
    pub fn piece_with_special(&self, id: u32) -> &[u8] {
        self.pieces.get(id as usize).unwrap_or_default()
    }

    /// The kind of a token.
    pub fn token_type(&self, id: u32) -> TokenType {
        self.types.get(id as usize).copied().unwrap_or(TokenType::Unused)
    }

    /// Whether a token ends a generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The text of ids as one: control tokens left out, and the space that SPM put in front removed.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes: Vec<u8> = ids.iter().flat_map(|&id| self.piece(id)).copied().collect();
        let prefixed = match &self.algorithm {
            Algorithm::Spm(spm) => spm.add_space_prefix,
            Algorithm::Wpm(_) | Algorithm::Unigram(_) => true,
            Algorithm::Bpe(_) => false,
        };
        if prefixed && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
