//! Values as text: Python's `str` and `repr`.

use std::fmt::Write as _;

use minijinja::Error;
use minijinja::value::Value;

use super::objects::{Range, View};
use super::values::{DEEPEST, Kind, LONGEST_TEXT, bounded, failed, float, items, kind, pairs};

/// `str(value)`; undefined is empty.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str().filter(|_| kind(value) == Kind::Text) {
        return Ok(text.to_string());
    }
    let mut out = String::new();
    write_repr(&mut out, value, 0)?;
    Ok(out)
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    if kind(value) == Kind::Undefined {
        return Ok("Undefined".into());
    }
    write_repr(&mut out, value, 0)?;
    Ok(out)
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(failed("a value is nested too deeply to be written"));
    }
    // A list that holds another many times over is larger than its memory.
    bounded(Some(out.len()), LONGEST_TEXT)?;
    let list =
        |out: &mut String, items: Vec<Value>, open: &str, close: &str| -> Result<(), Error> {
            out.push_str(open);
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(out, item, depth + 1)?;
            }
            out.push_str(close);
            Ok(())
        };
    match kind(value) {
        Kind::Undefined if depth > 0 => out.push_str("Undefined"),
        Kind::Undefined => {}
        Kind::None => out.push_str("None"),
        Kind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        Kind::Float => out.push_str(&float_repr(float(value).unwrap_or(f64::NAN))),
        Kind::Text => {
            let text = value.as_str().unwrap_or_default();
            if value.is_safe() {
                _ = write!(out, "Markup({})", text_repr(text));
            } else {
                out.push_str(&text_repr(text));
            }
        }
        Kind::Bytes => out.push_str(&bytes_repr(value.as_bytes().unwrap_or_default())),
        Kind::List => list(out, items(value)?, "[", "]")?,
        Kind::Tuple => {
            let items = items(value)?;
            let close = if items.len() == 1 { ",)" } else { ")" };
            list(out, items, "(", close)?;
        }
        Kind::Dict => {
            out.push('{');
            for (index, (key, value)) in pairs(value)?.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(out, &key, depth + 1)?;
                out.push_str(": ");
                write_repr(out, &value, depth + 1)?;
            }
            out.push('}');
        }
        Kind::Range => {
            if let Some(range) = value.downcast_object_ref::<Range>() {
                out.push_str(&range.repr());
            }
        }
        Kind::View => {
            let name = value.downcast_object_ref::<View>().map_or("", View::name);
            list(out, items(value)?, &format!("{name}(["), "])")?;
        }
        Kind::Int | Kind::Generator | Kind::Other => _ = write!(out, "{value}"),
    }
    Ok(())
}

/// A float as Python writes it: the fewest digits that give it back, an exponent below 1e-4 and from 1e16 on.
pub(super) fn float_repr(float: f64) -> String {
    if float.is_nan() {
        return "nan".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let fixed = format!("{float}");
        if fixed.contains('.') { fixed } else { fixed + ".0" }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

/// Whether Python writes a character as it is in a `repr`.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let format = matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}');
    let private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..);
    let none = (c as u32) & 0xfffe == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c);
    !(c.is_control() || c.is_whitespace() || format || private || none)
}

/// `repr` of a string: in single quotes, unless those are in it and double ones are not.
pub(super) fn text_repr(text: &str) -> String {
    quoted(text, is_printable)
}

/// `ascii` of a string.
pub(super) fn text_ascii(text: &str) -> String {
    quoted(text, |c| (' '..='~').contains(&c))
}

fn quoted(text: &str, plain: impl Fn(char) -> bool) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if plain(c) => out.push(c),
            c => push_escape(&mut out, c as u32),
        }
    }
    out.push(quote);
    out
}

/// `\x1f`, `\u200b` or `\U000e0001`.
fn push_escape(out: &mut String, code: u32) {
    _ = match code {
        0..=0xff => write!(out, "\\x{code:02x}"),
        0x100..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

fn bytes_repr(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|&b| char::from(b)).collect();
    format!("b{}", quoted(&text, |c| (' '..='~').contains(&c)))
}

/// The name of a value's type in Python.
pub(super) fn type_name(value: &Value) -> &'static str {
    kind(value).name()
}
