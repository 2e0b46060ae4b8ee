//! Text to ids and back, by the vocabulary in a model's file.
//!
//! - [`Tokenizer::from_metadata`] reads `tokenizer.ggml.*`; [`Tokenizer::encode`] is equal to llama.cpp's.
//! - [`Detokenizer`] turns ids into text as they come and never prints half a character.

mod bpe;
mod bytes;
mod charsmap;
mod decode;
mod detokenize;
mod marks;
mod merge;
mod special;
mod spm;
mod unigram;
mod vocabulary;
mod wpm;

use std::collections::BTreeSet;

use gguf::{Metadata, StringArray};

use crate::{Error, Result};

pub use decode::DecodeOptions;
pub use detokenize::Detokenizer;
pub use marks::SpecialIds;
use vocabulary::Vocabulary;

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
    /// None of these; stands for nothing.
    Undefined,
}

impl TokenType {
    fn from_id(id: u64) -> Self {
        match id {
            1 => TokenType::Normal,
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            _ => TokenType::Undefined,
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
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each its own")]
pub struct Tokenizer {
    algorithm: Algorithm,
    vocabulary: Vocabulary,
    /// The bytes that each token stands for.
    pieces: StringArray,
    types: Vec<TokenType>,
    special: special::SpecialTokens,
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// Whether BOS is put before a text (WordPiece does so in any case).
    pub add_bos: bool,
    /// Separator: ends a text for encoders.
    pub sep: Option<u32>,
    /// Whether EOS is put after a text (never by WordPiece).
    pub add_eos: bool,
    /// Whether the separator belongs after a text. WordPiece puts it there in any case, the others leave it to
    /// who joins texts, as in llama.cpp.
    pub add_sep: bool,
    ids: SpecialIds,
    ends: BTreeSet<u32>,
    /// User-defined tokens that the file has as control tokens: no text for people.
    marks: BTreeSet<u32>,
    /// Whether a space stands before the first word, to be removed again.
    add_space_prefix: bool,
    /// Whether spaces before punctuation are removed from ids made text.
    clean_spaces: bool,
    warnings: Vec<String>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("tokens", &self.types.len())
            .finish_non_exhaustive()
    }
}

/// What llama.cpp takes where the file does not say.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each its own")]
#[derive(Default)]
struct Defaults {
    ids: SpecialIds,
    add_bos: bool,
    add_eos: bool,
    add_sep: bool,
    clean_spaces: bool,
}

impl Tokenizer {
    /// Builds the tokenizer that a file's metadata describes.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let error = |why: String| Error::Tokenizer { file: metadata.file().into(), why };
        let model_key = "tokenizer.ggml.model";
        let model = metadata.str(model_key)?.ok_or_else(|| metadata.missing(model_key))?;
        if !KNOWN.contains(&model) {
            let known = KNOWN.join(", ");
            return Err(error(if matches!(model, "none" | "no_vocab") {
                "it has no vocabulary (tokenizer.ggml.model is none): only ids can be given".into()
            } else {
                format!("the tokenizer {model:?} is unknown (known: {known})")
            }));
        }
        let flag = |name: &str| metadata.bool(&format!("tokenizer.ggml.{name}"));
        let mut warnings = Vec::new();
        let (vocabulary, mut types) = Vocabulary::read(metadata, &mut warnings)?;
        let prefix = flag("add_space_prefix")?;
        let add_space_prefix = prefix.unwrap_or(model == "llama");
        let algorithm = match model {
            "llama" => Algorithm::Spm(Box::new(spm::Spm::new(&vocabulary, add_space_prefix))),
            "bert" => Algorithm::Wpm(Box::new(wpm::Wpm::new(metadata, &vocabulary)?)),
            "t5" => {
                let unigram =
                    unigram::Unigram::new(metadata, &vocabulary, &types, add_space_prefix)?;
                Algorithm::Unigram(Box::new(unigram))
            }
            _ => Algorithm::Bpe(Box::new(bpe::Bpe::new(metadata, &vocabulary, model)?)),
        };
        let mut defaults = algorithm.defaults(model);
        defaults.ids.newline = algorithm.newline(&vocabulary, &defaults.ids)?;
        let ids = marks::read_ids(metadata, &vocabulary, defaults.ids, &mut warnings)?;
        let meanings = marks::find_meanings(&vocabulary, &mut types, ids);
        let (ids, characters) = (meanings.ids, algorithm.has_byte_characters());
        let special = special::SpecialTokens::new(metadata, &vocabulary, &types, &meanings.marks);
        // gemma4's files say no, its model needs it.
        let bos_always =
            matches!(&algorithm, Algorithm::Bpe(bpe) if bpe.pre.names.contains(&"gemma4"));
        Ok(Self {
            special: special.map_err(error)?,
            pieces: vocabulary.pieces(&types, characters),
            add_bos: flag("add_bos_token")?.unwrap_or(defaults.add_bos) || bos_always,
            add_eos: flag("add_eos_token")?.unwrap_or(defaults.add_eos),
            add_sep: flag("add_sep_token")?.unwrap_or(defaults.add_sep),
            bos: ids.bos,
            eos: ids.eos,
            sep: ids.separator,
            ends: meanings.ends,
            marks: meanings.marks,
            clean_spaces: defaults.clean_spaces,
            ids,
            algorithm,
            vocabulary,
            types,
            add_space_prefix,
            warnings,
        })
    }

    /// The ids of a text.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        self.encode_broken(text, &[], options)
    }

    /// Where control tokens begin that a text spells, in bytes; with `at_end` also those that it begins and
    /// what comes after it may finish.
    pub(crate) fn spelled(&self, text: &str, at_end: bool) -> Vec<usize> {
        self.special.spelled(text, at_end)
    }

    /// The ids of a text in which no control token holds a character that begins at one of `breaks`.
    pub(crate) fn encode_broken(
        &self,
        text: &str,
        breaks: &[usize],
        options: EncodeOptions,
    ) -> Result<Vec<u32>> {
        let wpm = matches!(self.algorithm, Algorithm::Wpm(_));
        let mut ids = Vec::new();
        if options.add_special && (self.add_bos || wpm) {
            ids.extend(self.bos);
        }
        // Whether the text so far ends in a special token, or there is none: where SPM puts its space.
        let mut after_special = true;
        for fragment in self.special.partition(text, options.parse_special, breaks) {
            match fragment {
                special::Fragment::Token(id) => {
                    ids.push(id);
                    after_special = true;
                }
                special::Fragment::Text(range) => {
                    let before = ids.len();
                    self.encode_text(&text[range.clone()], after_special, &mut ids)?;
                    if !breaks.is_empty() && ids[before..].iter().any(|&id| self.is_mark(id)) {
                        ids.truncate(before);
                        self.encode_apart(text, range, breaks, after_special, &mut ids)?;
                    }
                    after_special = false;
                }
            }
        }
        if options.add_special && wpm {
            ids.extend(self.sep);
        } else if options.add_special && self.add_eos {
            ids.extend(self.eos);
        }
        Ok(ids)
    }

    /// Appends the ids of a range of a text, cut after the first character of each spelling of a mark: there are
    /// vocabularies whose merges lead to one.
    fn encode_apart(
        &self,
        text: &str,
        range: std::ops::Range<usize>,
        breaks: &[usize],
        mut first: bool,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let mut start = range.start;
        for &at in breaks.iter().filter(|at| range.contains(at)) {
            let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
            self.encode_text(&text[start..end], first, ids)?;
            (start, first) = (end, false);
        }
        self.encode_text(&text[start..range.end], first, ids)
    }

    /// Appends the ids of a text without special tokens; `first` where no other text comes before it.
    fn encode_text(&self, text: &str, first: bool, ids: &mut Vec<u32>) -> Result<()> {
        let (vocabulary, unknown) = (&self.vocabulary, self.ids.unknown);
        if text.is_empty() {
            return Ok(());
        }
        match &self.algorithm {
            Algorithm::Bpe(bpe) => bpe.encode(vocabulary, text, ids),
            Algorithm::Spm(spm) => {
                spm.encode(vocabulary, text, first, unknown, ids);
                Ok(())
            }
            Algorithm::Wpm(wpm) => wpm.encode(vocabulary, text, unknown, ids),
            Algorithm::Unigram(unigram) => unigram.encode(vocabulary, text, unknown, ids),
        }
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
        let text = self.vocabulary.texts.get(id as usize).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// The bytes that a token stands for in a text; none for control tokens and other marks.
    pub fn piece(&self, id: u32) -> &[u8] {
        let hidden = self.is_mark(id) || self.token_type(id) == TokenType::Unknown;
        if hidden { &[] } else { self.piece_with_special(id) }
    }

    /// The bytes of a token, control tokens as they are written.
    pub fn piece_with_special(&self, id: u32) -> &[u8] {
        self.pieces.get(id as usize).unwrap_or_default()
    }

    /// The kind of a token.
    pub fn token_type(&self, id: u32) -> TokenType {
        self.types.get(id as usize).copied().unwrap_or(TokenType::Unused)
    }

    /// Whether a token is a mark of the conversation and no text for people: control tokens, and gpt-oss's marks
    /// of messages, which count as user-defined where a text is cut.
    pub fn is_mark(&self, id: u32) -> bool {
        self.token_type(id) == TokenType::Control || self.marks.contains(&id)
    }

    /// Whether a token ends a generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The tokens that end a generation, in order.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        self.ends.iter().copied()
    }

    /// The ids with a meaning of their own.
    pub fn special_ids(&self) -> &SpecialIds {
        &self.ids
    }

    /// What is odd about the vocabulary, for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The values of `tokenizer.ggml.model` that can be applied.
const KNOWN: &[&str] = &["gpt2", "llama", "bert", "t5", "gemma4", "whitespace"];

impl Algorithm {
    /// Whether the characters of tokens stand for bytes.
    fn has_byte_characters(&self) -> bool {
        matches!(self, Algorithm::Bpe(bpe) if !bpe.pre.raw)
    }

    /// What holds where the file does not say otherwise.
    fn defaults(&self, model: &str) -> Defaults {
        let none = SpecialIds::default();
        match self {
            Algorithm::Spm(_) => Defaults {
                ids: SpecialIds { bos: Some(1), eos: Some(2), unknown: Some(0), ..none },
                add_bos: true,
                ..Defaults::default()
            },
            Algorithm::Wpm(_) => Defaults {
                ids: SpecialIds {
                    bos: Some(101),
                    unknown: Some(100),
                    separator: Some(102),
                    padding: Some(0),
                    mask: Some(103),
                    ..none
                },
                add_bos: true,
                add_sep: true,
                clean_spaces: true,
                ..Defaults::default()
            },
            Algorithm::Unigram(_) => Defaults {
                ids: SpecialIds { eos: Some(1), unknown: Some(2), padding: Some(0), ..none },
                add_eos: true,
                ..Defaults::default()
            },
            Algorithm::Bpe(bpe) => {
                let named = |names: &[&str]| names.iter().any(|name| bpe.pre.names.contains(name));
                // GPT-2's token beyond its texts, in the vocabulary that came first.
                let (eos, bos) = (Some(11), Some(11).filter(|_| !named(bpe::WITHOUT_BOS)));
                Defaults {
                    ids: if model == "gemma4" { none } else { SpecialIds { bos, eos, ..none } },
                    add_bos: bpe.pre.add_bos,
                    add_sep: bpe.pre.add_sep,
                    clean_spaces: !bpe.keeps_spaces,
                    ..Defaults::default()
                }
            }
        }
    }

    /// The token of a newline, by the default ids alone as in llama.cpp.
    fn newline(&self, vocabulary: &Vocabulary, ids: &SpecialIds) -> Result<Option<u32>> {
        let unknown = ids.unknown.filter(|&id| (id as usize) < vocabulary.len());
        let mut tokens = Vec::new();
        match self {
            Algorithm::Spm(_) => tokens.extend(spm::byte_token(vocabulary, b'\n')),
            Algorithm::Wpm(_) => {}
            Algorithm::Bpe(bpe) => bpe.encode(vocabulary, "\n", &mut tokens)?,
            Algorithm::Unigram(unigram) => {
                unigram.encode(vocabulary, "\n", unknown, &mut tokens)?;
            }
        }
        Ok(tokens.first().copied().or(ids.padding).filter(|&id| (id as usize) < vocabulary.len()))
    }
}
