//! Methods of Python's types: strings, lists, tuples, dicts, bytes and numbers. What changes a value is left out, as
//! transformers' sandbox forbids it.

mod characters;
pub(super) mod cut;
pub(super) mod text;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::arguments::{Arguments, required, whole};
use super::objects::View;
use super::operators;
use super::values::{
    Kind, dict_item, equal, failed, float, from_integer, hashable, integer, items, kind, length,
    pairs,
};
pub(super) use characters::decimal_digit;

/// A method of a value that is no string.
type Method = fn(&mut State, &Value, Arguments) -> Result<Value, Error>;

const SEQUENCE: &[(&str, Method)] = &[("copy", copy), ("count", count), ("index", index)];
const TUPLE: &[(&str, Method)] = &[("count", count), ("index", index)];
const DICT: &[(&str, Method)] = &[
    ("copy", copy),
    ("fromkeys", from_keys),
    ("get", get),
    ("items", |_, dict, arguments| view(dict, "items", arguments)),
    ("keys", |_, dict, arguments| view(dict, "keys", arguments)),
    ("values", |_, dict, arguments| view(dict, "values", arguments)),
];
const BYTES: &[(&str, Method)] = &[("decode", decode), ("hex", hex)];
const INTEGER: &[(&str, Method)] =
    &[("bit_count", bit_count), ("bit_length", bit_length), ("conjugate", conjugate)];
const FLOAT: &[(&str, Method)] = &[("conjugate", conjugate), ("is_integer", is_integer)];

/// Methods that change a value: the sandbox knows them and forbids them.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "add",
];

fn table(value: &Value) -> &'static [(&'static str, Method)] {
    match kind(value) {
        Kind::List => SEQUENCE,
        Kind::Tuple | Kind::Range => TUPLE,
        Kind::Dict => DICT,
        Kind::Bytes => BYTES,
        Kind::Int | Kind::Bool => INTEGER,
        Kind::Float => FLOAT,
        _ => &[],
    }
}

fn find(value: &Value, name: &str) -> Option<Method> {
    table(value).iter().find(|(method, _)| *method == name).map(|(_, method)| *method)
}

/// Whether a name is a method of any type.
pub(super) fn is_method(name: &str) -> bool {
    let tables = [SEQUENCE, TUPLE, DICT, BYTES, INTEGER, FLOAT];
    text::find(name).is_some()
        || tables.iter().any(|table| table.iter().any(|(method, _)| *method == name))
}

/// Whether a value has a method of that name.
pub(super) fn has(value: &Value, name: &str) -> bool {
    match kind(value) {
        Kind::Text => text::find(name).is_some(),
        _ => find(value, name).is_some(),
    }
}

/// Calls a method.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let of = kind(value);
    let arguments = Arguments::new(arguments)?;
    if of == Kind::Text {
        if let Some(method) = text::find(name) {
            return method(state, value, arguments);
        }
    } else if let Some(method) = find(value, name) {
        return method(state, value, arguments);
    }
    if of == Kind::Undefined {
        let why = format!("{name} of an undefined value cannot be called");
        return Err(Error::new(ErrorKind::UndefinedError, why));
    }
    if matches!(of, Kind::List | Kind::Dict) && CHANGING.contains(&name) {
        let why = format!("{name} would change a {}, which templates may not do", of.name());
        return Err(failed(why));
    }
    // Something under that name may be called, if there is such a thing.
    Err(Error::from(ErrorKind::UnknownMethod))
}

fn copy(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [] = arguments.positional("copy")?;
    Ok(value.clone())
}

fn count(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [wanted] = arguments.positional("count")?;
    let wanted = required(wanted, "count", "value")?;
    let mut count = 0;
    for item in items(value)? {
        count += u32::from(equal(&item, &wanted)?);
    }
    Ok(Value::from(count))
}

fn index(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [wanted, start, stop] = arguments.positional("index")?;
    let wanted = required(wanted, "index", "value")?;
    let items = items(value)?;
    let start = whole(start.as_ref(), "index", 0)?;
    let stop = whole(stop.as_ref(), "index", i128::MAX)?;
    for at in operators::indices(Some(start), Some(stop), 1, items.len()) {
        if equal(&items[at], &wanted)? {
            return Ok(Value::from(at));
        }
    }
    Err(failed("index: the value is not in the list"))
}

fn from_keys(_: &mut State, _: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [keys, value] = arguments.positional("fromkeys")?;
    let value = value.unwrap_or(Value::from(()));
    let keys = items(&required(keys, "fromkeys", "iterable")?)?;
    keys.iter().try_for_each(hashable)?;
    Ok(Value::from_pairs(keys.into_iter().map(|key| (key, value.clone()))))
}

fn get(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [key, default] = arguments.positional("get")?;
    let key = required(key, "get", "key")?;
    hashable(&key)?;
    Ok(dict_item(value, &key).unwrap_or_else(|| default.unwrap_or(Value::from(()))))
}

fn view(value: &Value, name: &str, arguments: Arguments) -> Result<Value, Error> {
    let [] = arguments.positional(name)?;
    View::of(value, name)
}

/// Bytes as text, a character for each byte that is no UTF-8.
pub(super) fn bytes_text(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned()
}

fn decode(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [encoding, errors] = arguments.bind("decode", ["encoding", "errors"])?;
    let bytes = value.as_bytes().unwrap_or_default();
    let encoding = encoding.as_ref().and_then(Value::as_str).unwrap_or("utf-8").to_lowercase();
    let errors = errors.as_ref().and_then(Value::as_str).unwrap_or("strict").to_string();
    match encoding.replace(['-', '_'], "").as_str() {
        "latin1" | "iso88591" => {
            Ok(Value::from(bytes.iter().map(|&b| char::from(b)).collect::<String>()))
        }
        "utf8" | "ascii" => match (std::str::from_utf8(bytes), errors.as_str()) {
            (Ok(text), _) if encoding != "ascii" || text.is_ascii() => Ok(Value::from(text)),
            (_, "replace") => Ok(Value::from(bytes_text(value))),
            _ => Err(failed("decode: bytes that are no text")),
        },
        other => Err(failed(format!("decode: unknown encoding {other}"))),
    }
}

fn hex(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    use std::fmt::Write as _;
    let [] = arguments.positional("hex")?;
    let mut out = String::new();
    for byte in value.as_bytes().unwrap_or_default() {
        _ = write!(out, "{byte:02x}");
    }
    Ok(Value::from(out))
}

fn bit_length(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [] = arguments.positional("bit_length")?;
    let number = integer(value).unwrap_or_default().unsigned_abs();
    Ok(Value::from(128 - number.leading_zeros()))
}

fn bit_count(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [] = arguments.positional("bit_count")?;
    Ok(Value::from(integer(value).unwrap_or_default().unsigned_abs().count_ones()))
}

fn conjugate(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [] = arguments.positional("conjugate")?;
    Ok(if value.kind() == ValueKind::Bool {
        from_integer(integer(value).unwrap_or_default())
    } else {
        value.clone()
    })
}

fn is_integer(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [] = arguments.positional("is_integer")?;
    Ok(Value::from(float(value).is_some_and(|number| number.is_finite() && number.fract() == 0.0)))
}

/// How much a value costs to go through, in steps of a template.
pub(super) fn cost(value: &Value) -> u64 {
    match value.as_str() {
        Some(text) => text.len() as u64 / 64,
        None => match kind(value) {
            Kind::List | Kind::Tuple | Kind::Dict | Kind::Range | Kind::View => {
                length(value).unwrap_or_default() as u64
            }
            _ => 0,
        },
    }
}

/// `str.maketrans`'s table as pairs of a character's number and what stands for it.
fn translation(table: &Value) -> Result<Vec<(Value, Value)>, Error> {
    pairs(table)
}
