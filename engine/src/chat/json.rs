//! The `tojson` filter as templates expect it: Python's `json.dumps` without ASCII escapes.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::python::Generator;

/// `value | tojson(indent=None)`.
pub fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Other options of json.dumps change nothing that templates rely on.
    let _: Option<Value> = options.get("ensure_ascii")?;
    let _: Option<Value> = options.get("sort_keys")?;
    let _: Option<Value> = options.get("separators")?;
    let mut out = String::new();
    write_value(&mut out, value, indent, 0)?;
    Ok(out)
}

fn write_value(
    out: &mut String,
    value: &Value,
    indent: Option<usize>,
    depth: usize,
) -> Result<(), Error> {
    let newline = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            _ = write!(out, "{value}");
        }
        _ if Generator::is(value) => {
            let why = "Object of type generator is not JSON serializable";
            return Err(Error::new(ErrorKind::InvalidOperation, why));
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut empty = true;
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(comma);
                }
                newline(out, depth + 1);
                write_value(out, &item, indent, depth + 1)?;
                empty = false;
            }
            if !empty {
                newline(out, depth);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            let mut empty = true;
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(comma);
                }
                newline(out, depth + 1);
                write_string(out, &key.to_string());
                out.push_str(": ");
                write_value(out, &value.get_item(&key)?, indent, depth + 1)?;
                empty = false;
            }
            if !empty {
                newline(out, depth);
            }
            out.push('}');
        }
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default()),
        other => {
            let why = format!("{other} cannot be written as JSON");
            return Err(Error::new(ErrorKind::InvalidOperation, why));
        }
    }
    Ok(())
}

/// A string as json.dumps(ensure_ascii=False) writes it.
fn write_string(out: &mut String, text: &str) {
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
            c if c < ' ' => {
                _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
