//! Unigram, as T5 and XLM-RoBERTa have it: the likeliest way of cutting a text into tokens.

use gguf::{Array, Metadata};

use super::TokenType;
use super::charsmap::Charsmap;
use super::vocabulary::{SPACE, Vocabulary};
use crate::{Error, Result};

/// How much less likely than the least likely token a character without one is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// How a vocabulary with the logarithms of probabilities is applied.
pub struct Unigram {
    /// The tokens that texts are cut into, sorted by their texts: those that begin alike are a range.
    sorted: Vec<u32>,
    /// For each first byte the range of tokens that begin with it.
    first: Vec<std::ops::Range<usize>>,
    user_defined: Vec<bool>,
    /// The texts of user-defined tokens, sorted.
    user_texts: Vec<Box<[u8]>>,
    unknown_score: f32,
    charsmap: Option<Charsmap>,
    /// Whether a space is put before the first word.
    add_space_prefix: bool,
    /// Whether several spaces are one, and those at the end are none.
    remove_extra_spaces: bool,
}

/// The best way of cutting a text up to some place.
#[derive(Clone, Copy)]
struct Best {
    /// The last token; none: a character without one.
    token: Option<u32>,
    /// Where it begins.
    start: usize,
    score: f64,
}

impl Unigram {
    /// Reads normalisation from the metadata; `types` as the file has them.
    pub fn new(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        types: &[TokenType],
        add_space_prefix: bool,
    ) -> Result<Self> {
        let error = |why: String| Error::Tokenizer { file: metadata.file().into(), why };
        let mut charsmap = None;
        let key = "tokenizer.ggml.precompiled_charsmap";
        if let Some(value) = metadata.get(key) {
            let bytes = match value.as_array() {
                Some(Array::U8(bytes)) => bytes.clone(),
                Some(Array::I8(bytes)) => bytemuck::cast_slice(bytes).to_vec(),
                _ => return Err(metadata.wrong(key, value, "an array of bytes").into()),
            };
            let map = Charsmap::new(&bytes);
            charsmap = Some(map.map_err(|why| error(format!("{key} cannot be used: {why}")))?);
        }
        let text = |id: u32| vocabulary.texts.get(id as usize).unwrap_or_default();
        let mut sorted = Vec::new();
        let mut user_texts: Vec<Box<[u8]>> = Vec::new();
        let mut least = f32::MAX;
        for (kind, id) in types.iter().zip(0u32..) {
            if *kind == TokenType::Normal {
                least = least.min(vocabulary.score(id));
            }
            if *kind == TokenType::UserDefined {
                user_texts.push(text(id).into());
            }
            // Of tokens with one text the last.
            let kinds = [TokenType::Normal, TokenType::UserDefined, TokenType::Unused];
            if kinds.contains(kind) && vocabulary.id(text(id)) == Some(id) {
                sorted.push(id);
            }
        }
        sorted.sort_unstable_by_key(|&id| text(id));
        user_texts.sort_unstable();
        let first = (0..=255u8).map(|byte| {
            let start = sorted.partition_point(|&id| text(id).first() < Some(&byte));
            start..sorted.partition_point(|&id| text(id).first() <= Some(&byte))
        });
        Ok(Self {
            first: first.collect(),
            user_defined: types.iter().map(|kind| *kind == TokenType::UserDefined).collect(),
            user_texts,
            sorted,
            unknown_score: least - UNKNOWN_PENALTY,
            charsmap,
            add_space_prefix,
            remove_extra_spaces: metadata
                .bool("tokenizer.ggml.remove_extra_whitespaces")?
                .unwrap_or(false),
        })
    }

    /// Appends the ids of a text without special tokens; characters without a token are `unknown`, several
    /// one after another once.
    pub fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        unknown: Option<u32>,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let text = self.normalize(text)?;
        let nowhere = Best { token: None, start: 0, score: -f64::MAX };
        let mut best = vec![nowhere; text.len() + 1];
        best[0].score = 0.0;
        let mut start = 0;
        while start < text.len() {
            let here = best[start].score;
            let mut consider = |end: usize, token: Option<u32>, score: f64| {
                if here + score > best[end].score {
                    best[end] = Best { token, start, score: here + score };
                }
            };
            let character = (start + character_bytes(text[start])).min(text.len());
            let mut covered = false;
            self.tokens_at(vocabulary, &text[start..], &mut |length, id| {
                covered |= start + length == character;
                let user_defined = self.user_defined[id as usize];
                let score = if user_defined { 0.0 } else { vocabulary.score(id) };
                consider(start + length, Some(id), f64::from(score));
            });
            if !covered {
                consider(character, None, f64::from(self.unknown_score));
            }
            start = character;
        }
        let before = ids.len();
        let mut end = text.len();
        let mut after_unknown = false;
        while end > 0 {
            let Best { token, start, .. } = best[end];
            let is_unknown = token.is_none() || token == unknown;
            if !(is_unknown && after_unknown) {
                ids.extend(token.or(unknown));
            }
            after_unknown = is_unknown;
            end = start;
        }
        ids[before..].reverse();
        Ok(())
    }

    /// All tokens that a text begins with: length and id, the shortest first.
    fn tokens_at(&self, vocabulary: &Vocabulary, text: &[u8], found: &mut dyn FnMut(usize, u32)) {
        let token = |at: usize| vocabulary.texts.get(self.sorted[at] as usize).unwrap_or_default();
        let mut range = self.first[usize::from(text[0])].clone();
        for depth in 1.. {
            // Of those that begin alike the one that ends here comes first.
            if !range.is_empty() && token(range.start).len() == depth {
                found(depth, self.sorted[range.start]);
                range.start += 1;
            }
            let Some(byte) = text.get(depth).filter(|_| !range.is_empty()) else { return };
            let below = |limit: &dyn Fn(u8) -> bool| {
                let ids = &self.sorted[range.clone()];
                range.start
                    + ids.partition_point(|&id| {
                        limit(vocabulary.texts.get(id as usize).unwrap_or_default()[depth])
                    })
            };
            range = below(&|other| other < *byte)..below(&|other| other <= *byte);
        }
    }

    /// A text with its characters replaced and its spaces put in order and escaped.
    fn normalize(&self, text: &str) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len() + 3);
        let (mut prefixed, mut in_word) = (false, false);
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let kept = self.user_prefix(rest);
            let replaced = match &self.charsmap {
                Some(map) if kept == 0 => map.replacement(rest.as_bytes()),
                _ => Ok(None),
            };
            let replaced = replaced.map_err(|why| Error::Tokenizer {
                file: "the text".into(),
                why: format!("tokenizer.ggml.precompiled_charsmap cannot be used: {why}"),
            })?;
            let length = kept.max(first.len_utf8());
            let (taken, written) = replaced.unwrap_or((length, &rest.as_bytes()[..length]));
            for &byte in written {
                if byte == b' ' {
                    in_word = false;
                    if !self.remove_extra_spaces {
                        out.extend_from_slice(SPACE.as_bytes());
                    }
                    continue;
                }
                if !in_word {
                    in_word = true;
                    if (self.add_space_prefix && !prefixed) || self.remove_extra_spaces {
                        out.extend_from_slice(SPACE.as_bytes());
                        prefixed = true;
                    }
                }
                out.push(byte);
            }
            // A table made for other text may cut a character.
            rest = rest.get(taken..).ok_or_else(|| Error::Tokenizer {
                file: "the text".into(),
                why: "tokenizer.ggml.precompiled_charsmap cannot be used: it cuts a character"
                    .into(),
            })?;
        }
        Ok(out)
    }

    /// How many bytes of a text begin a user-defined token; whole characters. They are not replaced.
    fn user_prefix(&self, text: &str) -> usize {
        let common = |token: &[u8]| {
            let alike = token.iter().zip(text.as_bytes()).take_while(|(a, b)| a == b);
            alike.count()
        };
        // In their order the one with the most in common stands beside the text's own place.
        let at = self.user_texts.partition_point(|token| &token[..] < text.as_bytes());
        let beside = [at.checked_sub(1), Some(at)].into_iter().flatten();
        let longest = beside.filter_map(|at| self.user_texts.get(at)).map(|t| common(t)).max();
        let mut longest = longest.unwrap_or(0);
        while !text.is_char_boundary(longest) {
            longest -= 1;
        }
        longest
    }
}

/// The bytes of a character by its first.
fn character_bytes(first: u8) -> usize {
    match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    }
}
