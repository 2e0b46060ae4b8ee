//! Finds special tokens in a text: user-defined ones always, control tokens when asked for.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use gguf::Metadata;

use super::TokenType;
use super::vocabulary::Vocabulary;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fragment {
    /// A special token.
    Token(u32),
    /// Bytes of the text, to be cut by the vocabulary's algorithm; never empty.
    Text(Range<usize>),
}

/// A special token.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each its own")]
struct Special {
    text: String,
    id: u32,
    /// Found only where control tokens are asked for.
    control: bool,
    /// A mark of a conversation: what a person writes must not become it. Control tokens, and those that were.
    mark: bool,
    /// White space before it belongs to it.
    strip_left: bool,
    /// White space after it belongs to it.
    strip_right: bool,
}

/// The special tokens of a vocabulary.
pub struct SpecialTokens {
    /// The longest text first.
    tokens: Vec<Special>,
    finder: Option<AhoCorasick>,
    /// The texts of marks, sorted.
    marks: Vec<String>,
    /// The bytes of the longest mark.
    longest_mark: usize,
}

/// Which tokens take the white space beside them, by the names of models that need it: files do not say.
struct Strips {
    left: Option<u32>,
    right: bool,
    not_right: [Option<u32>; 3],
}

impl Strips {
    fn new(metadata: &Metadata, vocabulary: &Vocabulary) -> Self {
        // A name that is no text names no model that is known here.
        let text = |key: &str| metadata.str(key).ok().flatten().unwrap_or_default();
        let id = |text: &str| vocabulary.id(text.as_bytes());
        let any = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let name = text("general.name").to_ascii_lowercase();
        let masked = any(
            text("tokenizer.ggml.pre"),
            &["jina-v2-de", "jina-v2-es", "jina-v2-code", "mmbert"],
        ) || any(text("general.architecture"), &["nomic-bert-moe", "jina-bert-v3"]);
        let (mut left, mut right) = (None, false);
        if masked {
            left = id("<mask>");
        } else if any(&name, &["phi-3", "phi3"]) {
            right = true;
        } else if any(&name, &["modern-bert"]) {
            left = id("[MASK]");
        }
        Self { left, right, not_right: [id("<unk>"), id("<s>"), id("<|endoftext|>")] }
    }
}

/// What C calls white space.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

impl SpecialTokens {
    /// Collects the special tokens; `marks` are user-defined ones that the file has as control tokens. The
    /// error says why they cannot be searched for.
    pub fn new(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        types: &[TokenType],
        marks: &BTreeSet<u32>,
    ) -> Result<Self, String> {
        let strips = Strips::new(metadata, vocabulary);
        let mut tokens: Vec<_> = vocabulary
            .texts
            .iter()
            .zip(types)
            .zip(0u32..)
            .filter_map(|((text, kind), id)| {
                let control = match kind {
                    TokenType::Control | TokenType::Unknown => true,
                    TokenType::UserDefined => false,
                    _ => return None,
                };
                // One that is no UTF-8 could only be found inside a character.
                let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?;
                Some(Special {
                    text: text.to_string(),
                    id,
                    control,
                    mark: control || marks.contains(&id),
                    strip_left: strips.left == Some(id),
                    strip_right: strips.right && !strips.not_right.contains(&Some(id)),
                })
            })
            .collect();
        tokens.sort_by_key(|token| (std::cmp::Reverse(token.text.len()), token.id));
        let finder = (!tokens.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::Standard)
                    .build(tokens.iter().map(|token| &token.text))
            })
            .transpose()
            .map_err(|error| format!("the special tokens cannot be searched for: {error}"))?;
        let mut marks: Vec<_> =
            tokens.iter().filter(|token| token.mark).map(|token| token.text.clone()).collect();
        marks.sort_unstable();
        let longest_mark = marks.iter().map(String::len).max().unwrap_or(0);
        Ok(Self { tokens, finder, marks, longest_mark })
    }

    /// Cuts a text at its special tokens: longer tokens first, each wherever it occurs from left to right
    /// in the text that is left, as llama.cpp does. `control`: control tokens too. No mark is found in a
    /// stretch that contains a character beginning at one of `breaks` (sorted byte positions).
    pub fn partition(&self, text: &str, control: bool, breaks: &[usize]) -> Vec<Fragment> {
        let mut fragments = vec![Fragment::Text(0..text.len())];
        if let Some(finder) = &self.finder {
            // Which tokens occur at all: of thousands, nearly always a handful.
            let mut occurring: Vec<usize> = finder
                .find_overlapping_iter(text)
                .map(|found| found.pattern().as_usize())
                .collect();
            occurring.sort_unstable();
            occurring.dedup();
            for token in occurring.into_iter().map(|index| &self.tokens[index]) {
                if token.control && !control {
                    continue;
                }
                let mut cut = Vec::new();
                for fragment in fragments {
                    match fragment {
                        Fragment::Text(range) => token.cut(text, range, breaks, &mut cut),
                        token @ Fragment::Token(_) => cut.push(token),
                    }
                }
                fragments = cut;
            }
        }
        fragments.retain(|fragment| !matches!(fragment, Fragment::Text(range) if range.is_empty()));
        fragments
    }

    /// Where in a text marks begin that it spells, in bytes, sorted. With `at_end` also where one begins that
    /// the end of the text leaves unfinished.
    pub fn spelled(&self, text: &str, at_end: bool) -> Vec<usize> {
        let Some(finder) = &self.finder else { return Vec::new() };
        let mut starts: Vec<usize> = finder
            .find_overlapping_iter(text)
            .filter(|found| self.tokens[found.pattern().as_usize()].mark)
            .map(|found| found.start())
            .collect();
        if at_end {
            let first = text.len().saturating_sub(self.longest_mark);
            starts.extend(text.char_indices().map(|(at, _)| at).filter(|&at| {
                at >= first && {
                    let rest = &text[at..];
                    let next = self.marks.partition_point(|mark| mark.as_str() <= rest);
                    self.marks.get(next).is_some_and(|mark| mark.starts_with(rest))
                }
            }));
        }
        starts.sort_unstable();
        starts.dedup();
        starts
    }
}

impl Special {
    /// Cuts a range of a text wherever this token occurs in it.
    fn cut(
        &self,
        text: &str,
        range: Range<usize>,
        breaks: &[usize],
        fragments: &mut Vec<Fragment>,
    ) {
        let bytes = text.as_bytes();
        let (mut start, end) = (range.start, range.end);
        let mut from = start;
        while let Some(at) = text[from..end].find(&self.text).map(|at| at + from) {
            let after = at + self.text.len();
            let broken = breaks.get(breaks.partition_point(|&position| position < at));
            if self.mark && broken.is_some_and(|&position| position < after) {
                from = at + text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            }
            let mut left = at;
            while self.strip_left && left > start && is_space(bytes[left - 1]) {
                left -= 1;
            }
            fragments.push(Fragment::Text(start..left));
            fragments.push(Fragment::Token(self.id));
            start = after;
            while self.strip_right && start < end && is_space(bytes[start]) {
                start += 1;
            }
            from = start;
        }
        fragments.push(Fragment::Text(start..end));
    }
}
