//! Ids to text as they come.

use super::Tokenizer;

/// Holds back the bytes of a character until all of it has come.
#[derive(Debug, Clone, Default)]
pub struct Detokenizer {
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Nothing pending.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a token and answers the text that is now complete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        self.push_bytes(tokenizer.piece(id))
    }

    /// Takes bytes and answers the text that is now complete; bytes that can become no character are
    /// answered as U+FFFD.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        // The character may still be completed.
                        None => {
                            rest = after;
                            break;
                        }
                        Some(bad) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[bad..];
                        }
                    }
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }

    /// The end: what was held back, as U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_half_characters() {
        let text = "né 🦀 日本";
        for size in 1..6 {
            let mut detokenizer = Detokenizer::new();
            let mut out = String::new();
            for chunk in text.as_bytes().chunks(size) {
                let piece = detokenizer.push_bytes(chunk);
                assert!(!piece.contains('\u{fffd}'));
                out.push_str(&piece);
            }
            assert_eq!(out + &detokenizer.finish(), text);
        }
    }

    #[test]
    fn impossible_bytes_are_replaced_and_pending_ones_at_the_end() {
        let mut detokenizer = Detokenizer::new();
        assert_eq!(detokenizer.push_bytes(b"a\xffb\xf0\x9f"), "a\u{fffd}b");
        assert_eq!(detokenizer.push_bytes(b"z"), "\u{fffd}z");
        assert_eq!(detokenizer.push_bytes(b"\xf0\x9f"), "");
        assert_eq!(detokenizer.finish(), "\u{fffd}");
        assert_eq!(detokenizer.finish(), "");
    }
}
