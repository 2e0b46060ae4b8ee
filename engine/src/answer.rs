//! Ids become an answer: their text, where it ends, and its parts. It knows no context: ids come from wherever they are chosen.

use std::sync::Arc;

use crate::chat::parts::{Marks, Part, PartParser};
use crate::tokenizer::{Detokenizer, Tokenizer};

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model ended its answer.
    End,
    /// As many tokens as were asked for.
    Length,
    /// A stop string occurred.
    StopString,
    /// The context is full.
    ContextFull,
    /// The caller cancelled.
    Cancelled,
}

impl Stop {
    /// The word in JSON: `eos`, `length` (the context's end too), `stop`, `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            Stop::End => "eos",
            Stop::Length | Stop::ContextFull => "length",
            Stop::StopString => "stop",
            Stop::Cancelled => "cancelled",
        }
    }
}

/// What an id, or the end, adds to an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    /// Text that is certain now. What may be the start of a stop string, or half a character, comes later or never.
    pub text: String,
    /// The parts of the answer that it brings, as the model's family marks them.
    pub parts: Vec<Part>,
    /// Why the answer ends with it, if it does.
    pub stop: Option<Stop>,
}

/// An answer under way.
#[derive(Debug)]
pub struct Answer {
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    parser: PartParser,
    stop: Vec<String>,
    /// Text that may be the start of a stop string.
    held: String,
}

impl Answer {
    /// The answer to a prompt that ends in `prompt_end`; its parts are told by `marks`, and any of `stop` ends it, without
    /// being part of it.
    pub fn new(tokenizer: Arc<Tokenizer>, stop: &[String], marks: Marks, prompt_end: &str) -> Self {
        Self {
            tokenizer,
            detokenizer: Detokenizer::new(),
            parser: PartParser::new(marks, prompt_end),
            stop: stop.iter().filter(|stop| !stop.is_empty()).cloned().collect(),
            held: String::new(),
        }
    }

    /// Takes an id.
    pub fn push(&mut self, id: u32) -> Piece {
        let mut piece = Piece::default();
        if self.tokenizer.is_mark(id) {
            // No text for people, but marks are made of them. What was held back came before: no stop string goes through a mark.
            self.release(self.held.len(), &mut piece);
            let mark = String::from_utf8_lossy(self.tokenizer.piece_with_special(id));
            self.parser.push(&mark, &mut |part| piece.parts.push(part));
        }
        if self.tokenizer.is_end(id) {
            piece.stop = Some(Stop::End);
            return piece;
        }
        self.held.push_str(&self.detokenizer.push(&self.tokenizer, id));
        let found = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.held.truncate(at);
            piece.stop = Some(Stop::StopString);
            self.release(at, &mut piece);
            return piece;
        }
        // The longest end of the text that is a start of a stop string stays back.
        let starts = self.stop.iter().flat_map(|stop| {
            (1..stop.len()).filter(|&n| stop.is_char_boundary(n)).map(move |n| &stop[..n])
        });
        let kept = starts.filter(|start| self.held.ends_with(start)).map(str::len).max();
        self.release(self.held.len() - kept.unwrap_or(0), &mut piece);
        piece
    }

    /// The rest, where the answer ended for the reason `stop`.
    pub fn finish(&mut self, stop: Stop) -> Piece {
        let mut piece = Piece { stop: Some(stop), ..Piece::default() };
        if stop != Stop::StopString {
            self.held.push_str(&self.detokenizer.finish());
        }
        self.release(self.held.len(), &mut piece);
        self.parser.finish(&mut |part| piece.parts.push(part));
        piece
    }

    /// Gives out the first `bytes` of what is held.
    fn release(&mut self, bytes: usize, piece: &mut Piece) {
        if bytes > 0 {
            let text: String = self.held.drain(..bytes).collect();
            self.parser.push(&text, &mut |part| piece.parts.push(part));
            piece.text.push_str(&text);
        }
    }
}

/// Adds a part to those of an answer, joined to the one before if that is text, or thought, as well.
pub fn join_part(parts: &mut Vec<Part>, part: Part) {
    match (parts.last_mut(), part) {
        (Some(Part::Text(all)), Part::Text(more))
        | (Some(Part::Thinking(all)), Part::Thinking(more)) => all.push_str(&more),
        (_, part) => parts.push(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::EncodeOptions;

    fn tokenizer() -> Arc<Tokenizer> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/tiny/llama.gguf");
        let file = gguf::Gguf::open(path).unwrap();
        Arc::new(Tokenizer::from_metadata(&file.metadata).unwrap())
    }

    /// The answer made of a text's ids: its text piece by piece, its parts, and what ended it.
    fn answer(text: &str, stop: &[&str], marks: Marks) -> (Vec<String>, Vec<Part>, Stop) {
        let tokenizer = tokenizer();
        let plain = EncodeOptions { add_special: false, parse_special: false };
        let ids = tokenizer.encode(text, plain).unwrap();
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let mut answer = Answer::new(tokenizer, &stop, marks, "");
        let (mut texts, mut parts, mut ended) = (Vec::new(), Vec::new(), None);
        for id in ids {
            let piece = answer.push(id);
            ended = piece.stop;
            texts.push(piece.text);
            piece.parts.into_iter().for_each(|part| join_part(&mut parts, part));
            if ended.is_some() {
                break;
            }
        }
        let ended = ended.unwrap_or(Stop::Length);
        let rest = answer.finish(ended);
        texts.push(rest.text);
        rest.parts.into_iter().for_each(|part| join_part(&mut parts, part));
        (texts, parts, ended)
    }

    fn said(parts: &[Part]) -> String {
        let said = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        parts.iter().map(said).collect()
    }

    #[test]
    fn a_stop_string_ends_the_answer_and_is_no_part_of_it() {
        for stop in [&["<stop>"][..], &["never", "<stop>"], &["", "p> and", "<stop>"]] {
            let (texts, parts, ended) = answer("one <stop> and more", stop, Marks::None);
            assert_eq!((texts.concat().trim(), ended), ("one", Stop::StopString), "{stop:?}");
            // Nor of its parts: what might have been its start was held back from these too.
            assert_eq!(said(&parts), texts.concat(), "{stop:?}");
        }
    }

    #[test]
    fn what_was_no_stop_string_comes_after_all() {
        let text = "one <sto two <st";
        let (texts, parts, ended) = answer(text, &["<stop>"], Marks::None);
        assert_eq!((texts.concat().trim(), ended), (text, Stop::Length));
        assert_eq!(said(&parts), texts.concat());
        // The last start of one waits for the end.
        assert!(texts.last().is_some_and(|last| last == "<st"), "{texts:?}");
    }

    #[test]
    fn characters_come_whole() {
        let text = "né 🦀 日本";
        let (texts, ..) = answer(text, &[], Marks::None);
        assert_eq!(texts.concat().trim(), text);
        assert!(texts.iter().all(|piece| !piece.contains('\u{fffd}')), "{texts:?}");
    }
}
