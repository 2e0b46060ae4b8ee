//! The `tojson` filter as transformers sets it: Python's `json.dumps`, by default without ASCII escapes.

use std::fmt::Write as _;

use minijinja::value::Value;
use minijinja::{Error, State};

use super::arguments::{Arguments, given, required, truth};
use super::repr::float_repr;
use super::values::{
    DEEPEST, Kind, LONGEST_TEXT, bounded, compare, failed, float, integer, items, kind, pairs,
    wrong_type,
};

/// How JSON is written.
struct Options {
    ascii: bool,
    /// What a level is indented by; none: all in one line.
    indent: Option<String>,
    comma: String,
    colon: String,
    sort_keys: bool,
}

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn to_json(_: &mut State, mut arguments: Arguments) -> Result<Value, Error> {
    let value = required(arguments.first(), "tojson", "x")?;
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort_keys] = arguments.bind("tojson", names)?;
    let indent = match given(indent) {
        None => None,
        Some(indent) => Some(match (indent.as_str(), integer(&indent)) {
            (Some(text), _) => text.to_string(),
            (_, Some(width)) => {
                let width = usize::try_from(width.max(0)).ok();
                " ".repeat(bounded(width, LONGEST_TEXT / DEEPEST)?)
            }
            _ => return Err(wrong_type("tojson: indent", &indent)),
        }),
    };
    let (comma, colon) = match given(separators) {
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
        Some(separators) => match items(&separators)?.as_slice() {
            [comma, colon] => match (comma.as_str(), colon.as_str()) {
                (Some(comma), Some(colon)) => (comma.to_string(), colon.to_string()),
                _ => return Err(failed("tojson: separators are two strings")),
            },
            _ => return Err(failed("tojson: separators are two strings")),
        },
    };
    let options = Options {
        ascii: truth(ascii.as_ref(), false),
        indent,
        comma,
        colon,
        sort_keys: truth(sort_keys.as_ref(), false),
    };
    let mut out = String::new();
    options.write(&mut out, &value, 0)?;
    Ok(Value::from(out))
}

impl Options {
    fn newline(&self, out: &mut String, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            bounded(Some(out.len() + indent.len() * depth), LONGEST_TEXT)?;
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
        Ok(())
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(failed("tojson: a value is nested too deeply"));
        }
        bounded(Some(out.len()), LONGEST_TEXT)?;
        match kind(value) {
            Kind::None => out.push_str("null"),
            Kind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            Kind::Int => _ = write!(out, "{value}"),
            Kind::Float => out.push_str(&float_json(float(value).unwrap_or(f64::NAN))),
            Kind::Text => self.write_string(out, value.as_str().unwrap_or_default()),
            Kind::List | Kind::Tuple => {
                let items = items(value)?;
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push_str(&self.comma);
                    }
                    self.newline(out, depth + 1)?;
                    self.write(out, item, depth + 1)?;
                }
                if !items.is_empty() {
                    self.newline(out, depth)?;
                }
                out.push(']');
            }
            Kind::Dict => {
                let mut pairs = pairs(value)?;
                if self.sort_keys {
                    sort(&mut pairs)?;
                }
                out.push('{');
                for (index, (key, item)) in pairs.iter().enumerate() {
                    if index > 0 {
                        out.push_str(&self.comma);
                    }
                    self.newline(out, depth + 1)?;
                    self.write_string(out, &key_text(key)?);
                    out.push_str(&self.colon);
                    self.write(out, item, depth + 1)?;
                }
                if !pairs.is_empty() {
                    self.newline(out, depth)?;
                }
                out.push('}');
            }
            other => {
                let why = format!("object of type {} is not JSON serializable", other.name());
                return Err(failed(why));
            }
        }
        Ok(())
    }

    /// A string as json.dumps writes it.
    fn write_string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' => _ = write!(out, "\\u{:04x}", c as u32),
                c if self.ascii && (c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Sorts by keys; a failing comparison is the answer.
fn sort(pairs: &mut [(Value, Value)]) -> Result<(), Error> {
    let mut failure = None;
    pairs.sort_by(|(a, _), (b, _)| match compare(a, b) {
        Ok(order) => order.unwrap_or(std::cmp::Ordering::Equal),
        Err(error) => {
            failure.get_or_insert(error);
            std::cmp::Ordering::Equal
        }
    });
    failure.map_or(Ok(()), Err)
}

/// A key as json.dumps makes a string of it.
fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match kind(key) {
        Kind::Text => key.as_str().unwrap_or_default().to_string(),
        Kind::None => "null".into(),
        Kind::Bool => if key.is_true() { "true" } else { "false" }.into(),
        Kind::Int => key.to_string(),
        Kind::Float => float_json(float(key).unwrap_or(f64::NAN)),
        _ => return Err(wrong_type("tojson: keys must be str, int, float, bool or None", key)),
    })
}

fn float_json(float: f64) -> String {
    match float {
        f if f.is_nan() => "NaN".into(),
        f if f.is_infinite() => if f > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        f => float_repr(f),
    }
}
