//! Finds special tokens in a text: user-defined ones always, control tokens when asked for.

use aho_corasick::{AhoCorasick, MatchKind};
use gguf::StringArray;

use super::TokenType;

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment<'a> {
    /// A special token.
    Token(u32),
    /// Text to be cut by the vocabulary's algorithm; never empty.
    Text(&'a str),
}

/// The special tokens of a vocabulary.
pub struct SpecialTokens {
    /// Text, id and whether it is a control token; the longest text first.
    tokens: Vec<(String, u32, bool)>,
    finder: Option<AhoCorasick>,
}

impl SpecialTokens {
    /// Collects the special tokens; the error says why they cannot be searched for.
    pub fn new(texts: &StringArray, types: &[TokenType]) -> Result<Self, String> {
        let mut tokens: Vec<_> = texts
            .iter()
            .zip(types)
            .enumerate()
            .filter_map(|(id, (text, kind))| {
                let control = match kind {
                    TokenType::Control | TokenType::Unknown => true,
                    TokenType::UserDefined => false,
                    _ => return None,
                };
                let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?;
                Some((text.to_string(), id as u32, control))
            })
            .collect();
        tokens.sort_by_key(|(text, id, _)| (std::cmp::Reverse(text.len()), *id));
        let finder = (!tokens.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::Standard)
                    .build(tokens.iter().map(|(text, _, _)| text))
            })
            .transpose()
            .map_err(|error| format!("the special tokens cannot be searched for: {error}"))?;
        Ok(Self { tokens, finder })
    }

    /// Cuts a text at its special tokens: longer tokens first, each wherever it occurs from left to right
    /// in the text that is left, as llama.cpp does.
    pub fn partition<'a>(&self, text: &'a str, control: bool) -> Vec<Fragment<'a>> {
        let mut fragments = vec![Fragment::Text(text)];
        if let Some(finder) = &self.finder {
            // Which tokens occur at all: of thousands, nearly always a handful.
            let mut occurring: Vec<usize> = finder
                .find_overlapping_iter(text)
                .map(|found| found.pattern().as_usize())
                .collect();
            occurring.sort_unstable();
            occurring.dedup();
            for index in occurring {
                let (token, id, is_control) = &self.tokens[index];
                if *is_control && !control {
                    continue;
                }
                let mut cut = Vec::new();
                for fragment in fragments {
                    let Fragment::Text(text) = fragment else {
                        cut.push(fragment);
                        continue;
                    };
                    for (number, part) in text.split(token.as_str()).enumerate() {
                        if number > 0 {
                            cut.push(Fragment::Token(*id));
                        }
                        cut.push(Fragment::Text(part));
                    }
                }
                fragments = cut;
            }
        }
        fragments.retain(|fragment| *fragment != Fragment::Text(""));
        fragments
    }
}
