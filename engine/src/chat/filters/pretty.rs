//! The `pprint` filter: Python's pprint.pformat, lines of at most 80 characters.

use std::fmt::Write as _;

use minijinja::value::Value;
use minijinja::{Error, State};

use super::super::arguments::{Arguments, required};
use super::super::methods::cut::lines_of;
use super::super::repr::{repr, text_repr};
use super::super::source::is_space;
use super::super::values::{
    DEEPEST, Kind, LONGEST_TEXT, bounded, compare, failed, items, kind, pairs,
};

const WIDTH: usize = 80;

pub(super) fn pprint(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("pprint", ["value"])?;
    let mut out = String::new();
    write(&mut out, &required(value, "pprint", "value")?, 0, 0, 0)?;
    Ok(Value::from(out))
}

/// A dict's items in the order of its keys.
fn sorted_pairs(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    let mut pairs = pairs(value)?;
    pairs.sort_by(|(a, _), (b, _)| {
        let by_type = || kind(a).name().cmp(kind(b).name());
        compare(a, b).ok().flatten().unwrap_or_else(by_type)
    });
    Ok(pairs)
}

/// The value in one line, dicts sorted.
fn flat(value: &Value, depth: usize) -> Result<String, Error> {
    if depth > DEEPEST {
        return Err(failed("pprint: a value is nested too deeply"));
    }
    let list = |items: Vec<Value>| -> Result<String, Error> {
        let all: Result<Vec<_>, _> = items.iter().map(|item| flat(item, depth + 1)).collect();
        Ok(all?.join(", "))
    };
    let text = match kind(value) {
        Kind::List => format!("[{}]", list(items(value)?)?),
        Kind::Tuple => {
            let items = items(value)?;
            let comma = if items.len() == 1 { "," } else { "" };
            format!("({}{comma})", list(items)?)
        }
        Kind::Dict => {
            let mut all = Vec::new();
            for (key, value) in sorted_pairs(value)? {
                all.push(format!("{}: {}", flat(&key, depth + 1)?, flat(&value, depth + 1)?));
            }
            format!("{{{}}}", all.join(", "))
        }
        _ => repr(value)?,
    };
    bounded(Some(text.len()), LONGEST_TEXT)?;
    Ok(text)
}

/// Writes a value that begins at column `indent`, `allowance` characters of its last line kept for what follows.
fn write(
    out: &mut String,
    value: &Value,
    indent: usize,
    allowance: usize,
    level: usize,
) -> Result<(), Error> {
    let line = flat(value, level)?;
    if line.chars().count() + indent + allowance <= WIDTH {
        out.push_str(&line);
        return Ok(());
    }
    let next = |out: &mut String, index: usize| {
        if index > 0 {
            _ = write!(out, ",\n{}", " ".repeat(indent + 1));
        }
    };
    let of = kind(value);
    match of {
        Kind::List | Kind::Tuple => {
            let items = items(value)?;
            let (open, close) = match (of, items.len()) {
                (Kind::List, _) => ("[", "]"),
                (_, 1) => ("(", ",)"),
                _ => ("(", ")"),
            };
            out.push_str(open);
            for (index, item) in items.iter().enumerate() {
                next(out, index);
                let last = index + 1 == items.len();
                let allowance = if last { allowance + close.len() } else { 1 };
                write(out, item, indent + 1, allowance, level + 1)?;
            }
            out.push_str(close);
        }
        Kind::Dict => {
            let pairs = sorted_pairs(value)?;
            out.push('{');
            for (index, (key, value)) in pairs.iter().enumerate() {
                next(out, index);
                let key = flat(key, level + 1)?;
                _ = write!(out, "{key}: ");
                let last = index + 1 == pairs.len();
                let column = indent + 1 + key.chars().count() + 2;
                write(out, value, column, if last { allowance + 1 } else { 1 }, level + 1)?;
            }
            out.push('}');
        }
        Kind::Text if !value.is_safe() => {
            write_text(out, value.as_str().unwrap_or_default(), indent, allowance, level == 0);
        }
        _ => out.push_str(&line),
    }
    Ok(())
}

/// A long text as several literals one below the other, cut behind white space.
fn write_text(out: &mut String, text: &str, indent: usize, allowance: usize, alone: bool) {
    let (indent, allowance) = (indent + usize::from(alone), allowance + usize::from(alone));
    let width = WIDTH.saturating_sub(indent);
    let lines = lines_of(text, true);
    let length = |text: &str| text_repr(text).chars().count();
    let mut chunks = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let last = number + 1 == lines.len();
        if length(line) <= width.saturating_sub(if last { allowance } else { 0 }) {
            chunks.push(text_repr(line));
            continue;
        }
        let parts = words(line);
        let mut current = String::new();
        for (index, part) in parts.iter().enumerate() {
            let ends = last && index + 1 == parts.len();
            let candidate = format!("{current}{part}");
            if length(&candidate) > width.saturating_sub(if ends { allowance } else { 0 }) {
                if !current.is_empty() {
                    chunks.push(text_repr(&current));
                }
                current = (*part).to_string();
            } else {
                current = candidate;
            }
        }
        if !current.is_empty() {
            chunks.push(text_repr(&current));
        }
    }
    let several = alone && chunks.len() > 1;
    out.push_str(if several { "(" } else { "" });
    out.push_str(&chunks.join(&format!("\n{}", " ".repeat(indent))));
    out.push_str(if several { ")" } else { "" });
}

/// Words, each with the white space behind it.
fn words(line: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut white = false;
    for (at, c) in line.char_indices() {
        if white && !is_space(c) {
            out.push(&line[start..at]);
            start = at;
        }
        white = is_space(c);
    }
    out.push(&line[start..]);
    out
}
