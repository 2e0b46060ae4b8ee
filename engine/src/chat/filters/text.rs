//! Filters of texts.

use minijinja::value::{Tuple, Value};
use minijinja::{Error, State};

use super::super::arguments::{Arguments, given, required, string, truth, whole};
use super::super::methods::cut::{self, lines_of};
use super::super::methods::text::{self as methods, is_word};
use super::super::operators::{self, text_value};
use super::super::repr;
use super::super::values::{Kind, LONGEST_TEXT, bounded, failed, items, kind, length, wrong_type};
use super::{path, subject};

/// A filter's subject as a text, and whether that is Markup.
fn soft(value: &Value) -> Result<(String, bool), Error> {
    Ok((repr::text(value)?, value.is_safe()))
}

/// A filter without arguments that changes a text.
fn change(arguments: Arguments, of: &str, by: fn(&str) -> String) -> Result<Value, Error> {
    let [value] = arguments.bind(of, ["s"])?;
    let (text, safe) = soft(&required(value, of, "s")?)?;
    Ok(text_value(by(&text), safe))
}

pub(super) fn upper(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    change(arguments, "upper", str::to_uppercase)
}

pub(super) fn lower(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    change(arguments, "lower", str::to_lowercase)
}

pub(super) fn capitalize(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    change(arguments, "capitalize", methods::capitalized)
}

/// Words begin after white space, hyphens and opening brackets; the characters behind their first become lower case.
pub(super) fn title(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("title", ["s"])?;
    let (text, _) = soft(&required(value, "title", "s")?)?;
    let parts = |c: char| super::super::source::is_space(c) || "-({[<".contains(c);
    let mut out = String::new();
    for piece in split_keeping(&text, parts) {
        let mut chars = piece.chars();
        if let Some(first) = chars.next() {
            out.extend(first.to_uppercase());
            out.push_str(&chars.as_str().to_lowercase());
        }
    }
    Ok(Value::from(out))
}

/// Runs of characters that hold and runs of those that do not.
fn split_keeping(text: &str, holds: impl Fn(char) -> bool) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (at, c) in text.char_indices() {
        if last.is_some_and(|last| last != holds(c)) {
            out.push(&text[start..at]);
            start = at;
        }
        last = Some(holds(c));
    }
    out.push(&text[start..]);
    out
}

pub(super) fn center(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, width] = arguments.bind("center", ["value", "width"])?;
    let (text, safe) = soft(&required(value, "center", "value")?)?;
    let width = whole(width.as_ref(), "center", 80)?;
    Ok(text_value(methods::centered(&text, width, ' ')?, safe))
}

pub(super) fn format(_: &mut State, mut arguments: Arguments) -> Result<Value, Error> {
    let value = subject(&mut arguments, "format")?;
    let (positional, keywords) = arguments.parts();
    if !positional.is_empty() && !keywords.is_empty() {
        return Err(failed("can't handle positional and keyword arguments at the same time"));
    }
    let values = if keywords.is_empty() {
        Value::from(Tuple::from(positional))
    } else {
        Value::from_pairs(keywords)
    };
    let format = if value.is_safe() { value } else { Value::from(repr::text(&value)?) };
    operators::binary("%", &format, &values)
}

pub(super) fn indent(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, width, first, blank] =
        arguments.bind("indent", ["s", "width", "first", "blank"])?;
    let value = required(value, "indent", "s")?;
    let text = string(&value, "indent")?;
    let indention = if let Some(text) = width.as_ref().and_then(Value::as_str) {
        text.to_string()
    } else {
        let width = whole(width.as_ref(), "indent", 4)?.max(0);
        " ".repeat(bounded(usize::try_from(width).ok(), LONGEST_TEXT)?)
    };
    let text = format!("{text}\n");
    let lines = lines_of(&text, false);
    bounded(lines.len().checked_mul(indention.len()), LONGEST_TEXT)?;
    let blank = truth(blank.as_ref(), false);
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let indented =
            if number == 0 { truth(first.as_ref(), false) } else { blank || !line.is_empty() };
        if indented {
            out.push_str(&indention);
        }
        out.push_str(line);
    }
    Ok(text_value(out, value.is_safe()))
}

pub(super) fn join(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, separator, attribute] = arguments.bind("join", ["value", "d", "attribute"])?;
    let separator = match separator {
        Some(separator) => repr::text(&separator)?,
        None => String::new(),
    };
    let attribute = given(attribute);
    let mut out = String::new();
    for (index, item) in items(&required(value, "join", "value")?)?.into_iter().enumerate() {
        if index > 0 {
            out.push_str(&separator);
        }
        let item = match &attribute {
            Some(attribute) => path(&item, attribute, None)?,
            None => item,
        };
        out.push_str(&repr::text(&item)?);
        bounded(Some(out.len()), LONGEST_TEXT)?;
    }
    Ok(Value::from(out))
}

pub(super) fn replace(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, old, new, count] = arguments.bind("replace", ["s", "old", "new", "count"])?;
    let text = repr::text(&required(value, "replace", "s")?)?;
    let old = repr::text(&required(old, "replace", "old")?)?;
    let new = repr::text(&required(new, "replace", "new")?)?;
    let count = whole(given(count).as_ref(), "replace", -1)?;
    methods::replaced(&text, &old, &new, count).map(Value::from)
}

pub(super) fn trim(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, chars] = arguments.bind("trim", ["value", "chars"])?;
    let (text, safe) = soft(&required(value, "trim", "value")?)?;
    let chars = given(chars);
    let chars = chars.as_ref().map(|chars| string(chars, "trim")).transpose()?;
    Ok(text_value(cut::stripped(&text, chars, true, true).to_string(), safe))
}

pub(super) fn truncate(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let names = ["s", "length", "killwords", "end", "leeway"];
    let [value, most, killwords, end, leeway] = arguments.bind("truncate", names)?;
    let value = required(value, "truncate", "s")?;
    let end = end.unwrap_or_else(|| Value::from("..."));
    let end = string(&end, "truncate")?;
    let most = whole(most.as_ref(), "truncate", 255)?;
    let leeway = whole(given(leeway).as_ref(), "truncate", 5)?;
    let end_length = end.chars().count() as i128;
    if most < end_length || leeway < 0 {
        return Err(failed(format!("truncate: expected length >= {end_length}, leeway >= 0")));
    }
    if length(&value)? as i128 <= most.saturating_add(leeway) {
        return Ok(value);
    }
    let text = string(&value, "truncate")?;
    let kept: String = text.chars().take((most - end_length) as usize).collect();
    let kept = if truth(killwords.as_ref(), false) {
        kept.as_str()
    } else {
        kept.rsplit_once(' ').map_or(kept.as_str(), |(before, _)| before)
    };
    if value.is_safe() {
        return operators::binary("+", &Value::from_safe_string(kept.into()), &Value::from(end));
    }
    Ok(Value::from(format!("{kept}{end}")))
}

pub(super) fn wordcount(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("wordcount", ["s"])?;
    let (text, _) = soft(&required(value, "wordcount", "s")?)?;
    let words = text.split(|c| !is_word(c)).filter(|word| !word.is_empty());
    Ok(Value::from(words.count()))
}

pub(super) fn wordwrap(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let names = ["s", "width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [value, width, break_long, wrapstring, break_hyphens] =
        arguments.bind("wordwrap", names)?;
    let value = required(value, "wordwrap", "s")?;
    if kind(&value) != Kind::Text {
        return Err(wrong_type("wordwrap: a string is expected", &value));
    }
    let width = whole(width.as_ref(), "wordwrap", 79)?;
    let wrapstring = given(wrapstring).unwrap_or_else(|| Value::from("\n"));
    let wrapstring = string(&wrapstring, "wordwrap")?;
    let wrap = Wrap {
        width: usize::try_from(width).unwrap_or_default(),
        break_long: truth(break_long.as_ref(), true),
        break_hyphens: truth(break_hyphens.as_ref(), true),
    };
    let mut lines = Vec::new();
    for line in lines_of(value.as_str().unwrap_or_default(), false) {
        if wrap.width == 0 {
            return Err(failed(format!("wordwrap: invalid width {width} (must be > 0)")));
        }
        lines.push(wrap.line(&line).join(wrapstring));
    }
    bounded(lines.len().checked_mul(wrapstring.len()), LONGEST_TEXT)?;
    Ok(Value::from(lines.join(wrapstring)))
}

/// How Python's textwrap breaks a line.
struct Wrap {
    width: usize,
    break_long: bool,
    break_hyphens: bool,
}

impl Wrap {
    fn line(&self, text: &str) -> Vec<String> {
        let text: Vec<char> = text.chars().collect();
        let mut chunks: std::collections::VecDeque<&[char]> = self.chunks(&text).into();
        let blank = |chunk: &[char]| chunk.iter().all(|&c| super::super::source::is_space(c));
        let mut lines: Vec<String> = Vec::new();
        while let Some(first) = chunks.front() {
            if !lines.is_empty() && blank(first) {
                chunks.pop_front();
            }
            let mut line: Vec<&[char]> = Vec::new();
            let mut length = 0;
            while let Some(chunk) = chunks.front()
                && length + chunk.len() <= self.width
            {
                length += chunk.len();
                line.extend(chunks.pop_front());
            }
            if let Some(chunk) = chunks.front_mut()
                && chunk.len() > self.width
            {
                if self.break_long {
                    let end = self.long_end(chunk, self.width - length);
                    let (head, tail) = chunk.split_at(end);
                    line.push(head);
                    *chunk = tail;
                } else if line.is_empty() {
                    line.extend(chunks.pop_front());
                }
            }
            if line.last().is_some_and(|last| blank(last)) {
                line.pop();
            }
            if !line.is_empty() {
                lines.push(line.concat().into_iter().collect());
            }
        }
        lines
    }

    /// Where a word that is longer than a line is cut, with `left` characters of room.
    fn long_end(&self, chunk: &[char], left: usize) -> usize {
        if self.break_hyphens && chunk.len() > left {
            let hyphen = chunk[..left].iter().rposition(|&c| c == '-');
            if let Some(hyphen) = hyphen.filter(|&at| chunk[..at].iter().any(|&c| c != '-')) {
                return hyphen + 1;
            }
        }
        left
    }

    /// White space, words, and words cut behind their hyphens.
    fn chunks<'a>(&self, text: &'a [char]) -> Vec<&'a [char]> {
        let white = |at: usize| text.get(at).is_some_and(|c| "\t\n\u{b}\u{c}\r ".contains(*c));
        let letter =
            |at: usize| text.get(at).is_some_and(|&c| is_word(c) && c != '_' && !c.is_numeric());
        let underscore = |at: usize| text.get(at) == Some(&'_');
        // `[^\d\W]` has the underscore too.
        let letter = |at: usize| letter(at) || underscore(at);
        let hyphen = |at: usize| text.get(at) == Some(&'-');
        let before_dash =
            |at: usize| text.get(at).is_some_and(|&c| is_word(c) || "!\"'&.,?".contains(c));
        // The end of a run of two and more hyphens that a word follows.
        let dashes = |at: usize| {
            let run = (at..text.len()).take_while(|&at| hyphen(at)).count();
            (run >= 2 && text.get(at + run).is_some_and(|&c| is_word(c))).then_some(at + run)
        };
        let mut out = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let mut end = at + 1;
            if white(at) {
                while white(end) {
                    end += 1;
                }
            } else if !self.break_hyphens {
                while end < text.len() && !white(end) {
                    end += 1;
                }
            } else if let Some(after) =
                (at > 0 && before_dash(at - 1)).then(|| dashes(at)).flatten()
            {
                end = after;
            } else {
                while end < text.len() && !white(end) {
                    let joins = hyphen(end)
                        && ((end >= 2 && letter(end - 1) && letter(end - 2))
                            || (end >= 3 && letter(end - 1) && hyphen(end - 2) && letter(end - 3)))
                        && letter(end + 1)
                        && (letter(end + 2) || (hyphen(end + 2) && letter(end + 3)));
                    if joins {
                        end += 1;
                        break;
                    }
                    if before_dash(end - 1) && dashes(end).is_some() {
                        break;
                    }
                    end += 1;
                }
            }
            out.push(&text[at..end]);
            at = end;
        }
        out
    }
}
