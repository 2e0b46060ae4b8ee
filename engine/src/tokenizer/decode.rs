//! Ids to the text that they came from, all at once.

use super::Tokenizer;

/// What [`Tokenizer::decode_with`] leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Leave out the BOS and EOS that encoding adds.
    pub remove_special: bool,
    /// Write control tokens as the file writes them.
    pub special: bool,
}

impl Tokenizer {
    /// The text of ids as one: control tokens left out, the space that SentencePiece puts in front removed, and
    /// spaces before punctuation where the vocabulary is known for them.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decode_with(ids, DecodeOptions::default())
    }

    /// The same with options (llama.cpp's `llama_detokenize`). Only a space of the first id is removed, and
    /// none where BOS was.
    pub fn decode_with(&self, mut ids: &[u32], options: DecodeOptions) -> String {
        let mut remove_space = self.add_space_prefix;
        if options.remove_special
            && self.add_bos
            && self.bos.is_some()
            && self.bos == ids.first().copied()
        {
            ids = &ids[1..];
            remove_space = false;
        }
        if options.remove_special
            && self.add_eos
            && self.eos.is_some()
            && self.eos == ids.last().copied()
        {
            ids = &ids[..ids.len() - 1];
        }
        let piece = |id: u32| {
            if options.special { self.piece_with_special(id) } else { self.piece(id) }
        };
        let mut text: Vec<u8> = ids.iter().flat_map(|&id| piece(id)).copied().collect();
        let first = ids.first().map_or(&[][..], |&id| piece(id));
        if remove_space && first.first() == Some(&b' ') {
            text.remove(0);
        }
        if self.clean_spaces {
            text = without_space_in_contractions(&without_space_in_quotes(
                &without_space_before_marks(&text),
            ));
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Without the space before each of `?!.,`.
fn without_space_before_marks(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (at, &byte) in text.iter().enumerate() {
        if at > 0 && text[at - 1] == b' ' && b"?!.,".contains(&byte) {
            out.pop();
        }
        out.push(byte);
    }
    out
}

/// Without the two spaces around an apostrophe that stands alone.
fn without_space_in_quotes(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    // The space behind an apostrophe is gone, and is none before the next.
    let mut space_gone = false;
    while let Some(&byte) = text.get(at) {
        let alone = byte == b'\'' && at > 0 && !space_gone && text[at - 1] == b' ';
        space_gone = alone && text.get(at + 1) == Some(&b' ');
        if space_gone {
            out.pop();
            at += 1;
        }
        out.push(byte);
        at += 1;
    }
    out
}

/// Without the space before `'s`, `'m`, `'re` and `'ve`.
fn without_space_in_contractions(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (at, &byte) in text.iter().enumerate() {
        if byte == b'\'' && at > 0 && text[at - 1] == b' ' {
            let rest = &text[at + 1..];
            if [&b"s"[..], b"m", b"re", b"ve"].iter().any(|end| rest.starts_with(end)) {
                out.pop();
            }
        }
        out.push(byte);
    }
    out
}
