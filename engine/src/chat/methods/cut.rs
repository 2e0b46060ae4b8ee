//! Methods of Python's strings that cut: strip, split, partition and their like.

use minijinja::value::{Tuple, Value};
use minijinja::{Error, State};

use super::super::arguments::{Arguments, given, required, string, truth, whole};
use super::super::operators::{like, plain};
use super::super::source::is_space;
use super::super::values::failed;

/// A text without white space, or the given characters, at its ends.
pub(in super::super) fn stripped<'a>(
    text: &'a str,
    chars: Option<&str>,
    left: bool,
    right: bool,
) -> &'a str {
    let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right { text.trim_end_matches(goes) } else { text }
}

pub(super) fn strip(
    value: &Value,
    arguments: Arguments,
    left: bool,
    right: bool,
) -> Result<Value, Error> {
    let [chars] = arguments.positional("strip")?;
    let chars = given(chars);
    let chars = chars.as_ref().map(|chars| string(chars, "strip")).transpose()?;
    Ok(like(value, stripped(plain(value), chars, left, right).to_string()))
}

pub(super) fn partition(
    value: &Value,
    arguments: Arguments,
    from_right: bool,
) -> Result<Value, Error> {
    let [separator] = arguments.positional("partition")?;
    let separator = required(separator, "partition", "sep")?;
    let separator = string(&separator, "partition")?;
    if separator.is_empty() {
        return Err(failed("partition: empty separator"));
    }
    let text = plain(value);
    let found = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(|part| like(value, part.to_string())))))
}

pub(super) fn remove(value: &Value, of: &str, arguments: Arguments) -> Result<Value, Error> {
    let [affix] = arguments.positional(of)?;
    let affix = required(affix, of, "affix")?;
    let affix = string(&affix, of)?;
    let text = plain(value);
    let rest =
        if of == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
    Ok(like(value, rest.unwrap_or(text).to_string()))
}

pub(super) fn split(value: &Value, arguments: Arguments, from_right: bool) -> Result<Value, Error> {
    let [separator, most] = arguments.bind("split", ["sep", "maxsplit"])?;
    let most = usize::try_from(whole(most.as_ref(), "split", -1)?).unwrap_or(usize::MAX);
    let text = plain(value);
    let mut parts: Vec<&str> = match given(separator) {
        Some(separator) => {
            let separator = string(&separator, "split")?;
            if separator.is_empty() {
                return Err(failed("split: empty separator"));
            }
            let pieces = most.saturating_add(1);
            if from_right {
                text.rsplitn(pieces, separator).collect()
            } else {
                text.splitn(pieces, separator).collect()
            }
        }
        None => words(text, most, from_right),
    };
    if from_right {
        parts.reverse();
    }
    Ok(Value::from(parts.into_iter().map(|part| like(value, part.to_string())).collect::<Vec<_>>()))
}

/// Words between white space, cut at most `most` times; what is left is the last part.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        rest = stripped(rest, None, !from_right, from_right);
        if rest.is_empty() {
            return parts;
        }
        if parts.len() == most {
            // Its other end keeps its white space.
            parts.push(rest);
            return parts;
        }
        let cut = if from_right {
            rest.char_indices()
                .rev()
                .find(|(_, c)| is_space(*c))
                .map(|(at, c)| (at, at + c.len_utf8()))
        } else {
            rest.char_indices().find(|(_, c)| is_space(*c)).map(|(at, c)| (at, at + c.len_utf8()))
        };
        let Some((start, end)) = cut else {
            parts.push(rest);
            return parts;
        };
        if from_right {
            parts.push(&rest[end..]);
            rest = &rest[..start];
        } else {
            parts.push(&rest[..start]);
            rest = &rest[end..];
        }
    }
}

/// The lines of a text by every newline that Python knows, with them or without.
pub(in super::super) fn lines_of(text: &str, keep: bool) -> Vec<String> {
    let mut out = Vec::new();
    let mut line = String::new();
    let mut chars = text.chars().peekable();
    let mut open = false;
    while let Some(c) = chars.next() {
        open = true;
        let ends = matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        );
        if !ends || keep {
            line.push(c);
        }
        if !ends {
            continue;
        }
        if c == '\r'
            && let Some(newline) = chars.next_if_eq(&'\n')
            && keep
        {
            line.push(newline);
        }
        out.push(std::mem::take(&mut line));
        open = false;
    }
    if open {
        out.push(line);
    }
    out
}

pub(super) fn splitlines(
    _: &mut State,
    value: &Value,
    arguments: Arguments,
) -> Result<Value, Error> {
    let [keep] = arguments.bind("splitlines", ["keepends"])?;
    let lines = lines_of(plain(value), truth(keep.as_ref(), false));
    Ok(Value::from(lines.into_iter().map(|line| like(value, line)).collect::<Vec<_>>()))
}
