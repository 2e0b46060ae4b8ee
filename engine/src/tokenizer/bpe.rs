//! Byte-level BPE: text cut by regexes, bytes as characters, pairs merged by rank.

use gguf::{Metadata, StringArray};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use super::TokenType;
use crate::{Error, Result};

/// How one `tokenizer.ggml.pre` cuts text before merging.
struct Pre {
    names: &'static [&'static str],
    /// Applied one after another, each to the pieces of the one before.
    regexes: &'static [&'static str],
    /// Whether a piece that is itself a token is not merged from its parts.
    ignore_merges: bool,
    /// Whether BOS is added where the file does not say.
    add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

/// The ways of cutting text that are known. A new one is a row here.
const PRES: &[Pre] = &[
    Pre {
        names: &["default"],
        regexes: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    Pre { names: &["gpt-2"], regexes: &[GPT2], ignore_merges: false, add_bos: false },
    Pre { names: &["smollm"], regexes: &[r"\p{N}", GPT2], ignore_merges: false, add_bos: false },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3"],
        regexes: &[
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: true,
        add_bos: true,
    },
    Pre {
        names: &["qwen2"],
        regexes: &[
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: false,
        add_bos: false,
    },
];

/// A vocabulary with merges.
pub struct Bpe {
    tokenizer: Tokenizer,
    /// Whether BOS is added where the file does not say.
    pub bos_by_default: bool,
}

impl Bpe {
    /// Reads merges and the way of cutting from the metadata.
    pub fn new(metadata: &Metadata, texts: &StringArray) -> Result<Self> {
        let error = |why: String| Error::Tokenizer { file: metadata.file().into(), why };
        let name = metadata.str("tokenizer.ggml.pre")?.unwrap_or("default");
        let pre = PRES.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
            let known: Vec<_> = PRES.iter().flat_map(|pre| pre.names).copied().collect();
            error(format!(
                "the pre-tokenizer {name:?} (tokenizer.ggml.pre) is unknown (known: {})",
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
        let vocabulary: ahash::AHashMap<String, u32> =
            texts.iter().enumerate().map(|(id, bytes)| (text(bytes), id as u32)).collect();
        let failed =
            |why: tokenizers::Error| error(format!("the vocabulary cannot be used: {why}"));
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .ignore_merges(pre.ignore_merges)
            .build()
            .map_err(failed)?;
        let mut steps = Vec::new();
        for regex in pre.regexes {
            let pattern = SplitPattern::Regex((*regex).to_string());
            let split =
                Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
            steps.push(PreTokenizerWrapper::Split(split));
        }
        steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
        Ok(Self { tokenizer, bos_by_default: pre.add_bos })
    }

    /// Appends the ids of a text without special tokens.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|why| Error::Tokenizer {
            file: "the text".into(),
            why: format!("cannot be tokenized: {why}"),
        })?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
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
