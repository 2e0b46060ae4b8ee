//! jinja2's filters, with all their arguments by position and by name.

mod html;
mod pretty;
mod sequence;
mod text;

use std::hash::{BuildHasher as _, RandomState};

use minijinja::value::{Tuple, Value};
use minijinja::{Error, State};

use super::arguments::{Arguments, given, required, string, truth, whole};
use super::format::float_text;
use super::json;
use super::methods::{self, bytes_text};
use super::objects::Generator;
use super::operators::{self, text_value};
use super::repr;
use super::values::{
    Kind, bounded, failed, float, from_integer, integer, items, kind, length, pairs, wrong_type,
};

/// A filter: what it is applied to is its first argument.
pub(super) type Filter = fn(&mut State, Arguments) -> Result<Value, Error>;

/// Every filter by its name.
pub(super) const FILTERS: &[(&str, Filter)] = &[
    ("abs", abs),
    ("attr", attr),
    ("batch", sequence::batch),
    ("capitalize", text::capitalize),
    ("center", text::center),
    ("count", count),
    ("d", default),
    ("default", default),
    ("dictsort", sequence::dictsort),
    ("e", html::escape),
    ("escape", html::escape),
    ("filesizeformat", filesizeformat),
    ("first", first),
    ("float", to_float),
    ("forceescape", html::forceescape),
    ("format", text::format),
    ("groupby", sequence::groupby),
    ("indent", text::indent),
    ("int", to_int),
    ("items", dict_items),
    ("join", text::join),
    ("last", last),
    ("length", count),
    ("list", list),
    ("lower", text::lower),
    ("map", sequence::map),
    ("max", sequence::max),
    ("min", sequence::min),
    ("pprint", pretty::pprint),
    ("random", random),
    ("reject", sequence::reject),
    ("rejectattr", sequence::rejectattr),
    ("replace", text::replace),
    ("reverse", reverse),
    ("round", round),
    ("safe", html::safe),
    ("select", sequence::select),
    ("selectattr", sequence::selectattr),
    ("slice", sequence::slice),
    ("sort", sequence::sort),
    ("string", to_string),
    ("striptags", html::striptags),
    ("sum", sequence::sum),
    ("title", text::title),
    ("tojson", json::to_json),
    ("trim", text::trim),
    ("truncate", text::truncate),
    ("unique", sequence::unique),
    ("upper", text::upper),
    ("urlencode", html::urlencode),
    ("urlize", html::urlize),
    ("wordcount", text::wordcount),
    ("wordwrap", text::wordwrap),
    ("xmlattr", html::xmlattr),
];

/// What a filter is applied to.
fn subject(arguments: &mut Arguments, of: &str) -> Result<Value, Error> {
    required(arguments.first(), of, "value")
}

fn abs(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.positional("abs")?;
    let value = required(value, "abs", "x")?;
    match (integer(&value), float(&value)) {
        (Some(number), _) => {
            number.checked_abs().map(from_integer).ok_or_else(|| failed("abs: too large a number"))
        }
        (None, Some(number)) => Ok(Value::from(number.abs())),
        _ => Err(wrong_type("bad operand type for abs()", &value)),
    }
}

/// An attribute, and never an item: of a dict only methods.
fn attr(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, name] = arguments.bind("attr", ["obj", "name"])?;
    let (value, name) = (required(value, "attr", "obj")?, required(name, "attr", "name")?);
    let name = string(&name, "attr")?;
    match kind(&value) {
        Kind::Dict if !methods::has(&value, name) => Ok(Value::UNDEFINED),
        _ => operators::attribute(&value, name),
    }
}

fn count(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.positional("length")?;
    length(&required(value, "length", "obj")?).map(Value::from)
}

fn default(_: &mut State, mut arguments: Arguments) -> Result<Value, Error> {
    let value = subject(&mut arguments, "default")?;
    let [or, boolean] = arguments.bind("default", ["default_value", "boolean"])?;
    let absent =
        kind(&value) == Kind::Undefined || (truth(boolean.as_ref(), false) && !value.is_true());
    Ok(if absent { or.unwrap_or_else(|| Value::from("")) } else { value })
}

fn filesizeformat(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, binary] = arguments.bind("filesizeformat", ["value", "binary"])?;
    let value = required(value, "filesizeformat", "value")?;
    let bytes = match value.as_str() {
        Some(text) => parse_float(text).ok_or_else(|| failed("filesizeformat: no number"))?,
        None => float(&value).ok_or_else(|| wrong_type("filesizeformat", &value))?,
    };
    let binary = truth(binary.as_ref(), false);
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", bytes.trunc() as i128)));
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut unit = base;
    let mut at = 0;
    while at + 1 < prefixes.len() && bytes >= unit * base {
        unit *= base;
        at += 1;
    }
    let prefix =
        if binary { prefixes[at].to_uppercase() + "iB" } else { prefixes[at].to_string() + "B" };
    let number = float_text(bytes / unit, 'f', 1, false);
    Ok(Value::from(format!("{number} {prefix}")))
}

fn first(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("first", ["seq"])?;
    let value = required(value, "first", "seq")?;
    match value.downcast_object_ref::<Generator>() {
        // The others stay.
        Some(generator) => Ok(generator.next().unwrap_or_default()),
        None => Ok(items(&value)?.into_iter().next().unwrap_or_default()),
    }
}

fn last(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("last", ["seq"])?;
    let value = required(value, "last", "seq")?;
    if kind(&value) == Kind::Generator {
        return Err(wrong_type("object is not reversible", &value));
    }
    Ok(items(&value)?.into_iter().next_back().unwrap_or_default())
}

fn list(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("list", ["value"])?;
    items(&required(value, "list", "value")?).map(Value::from)
}

fn dict_items(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("items", ["value"])?;
    let value = required(value, "items", "value")?;
    if kind(&value) == Kind::Undefined {
        return Ok(Generator::value(Vec::new()));
    }
    let pairs = pairs(&value)?.into_iter();
    Ok(Generator::value(pairs.map(|(key, value)| Value::from(Tuple::from([key, value]))).collect()))
}

fn random(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("random", ["seq"])?;
    let items = items(&required(value, "random", "seq")?)?;
    if items.is_empty() {
        return Ok(Value::UNDEFINED);
    }
    // The keys of a new hasher are random.
    let number = RandomState::new().hash_one(0) as usize;
    Ok(items[number % items.len()].clone())
}

fn reverse(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("reverse", ["value"])?;
    let value = required(value, "reverse", "value")?;
    match kind(&value) {
        Kind::Text => {
            let text = value.as_str().unwrap_or_default().chars().rev().collect();
            Ok(text_value(text, value.is_safe()))
        }
        Kind::Generator => Ok(Value::from(items(&value)?.into_iter().rev().collect::<Vec<_>>())),
        _ => Ok(Generator::value(items(&value)?.into_iter().rev().collect())),
    }
}

fn to_string(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("string", ["s"])?;
    let value = required(value, "string", "s")?;
    if value.is_safe() { Ok(value) } else { repr::text(&value).map(Value::from) }
}

/// A float as Python's `float` reads it.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(super::source::is_space);
    // Underscores stand between digits only.
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if (0..bytes.len()).any(|at| bytes[at] == b'_' && !(at > 0 && digit(at - 1) && digit(at + 1))) {
        return None;
    }
    // Digits of any script are digits.
    let digit = |c| methods::decimal_digit(c).and_then(|digit| char::from_digit(digit, 10));
    let text: String = text.chars().filter(|&c| c != '_').map(|c| digit(c).unwrap_or(c)).collect();
    text.parse().ok()
}

fn to_float(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, default] = arguments.bind("float", ["value", "default"])?;
    let value = required(value, "float", "value")?;
    let number = match kind(&value) {
        Kind::Text => value.as_str().and_then(parse_float),
        Kind::Undefined => return Err(wrong_type("float", &value)),
        Kind::Bytes => parse_float(&bytes_text(&value)),
        _ => float(&value),
    };
    Ok(number.map_or_else(|| default.unwrap_or_else(|| Value::from(0.0)), Value::from))
}

/// An integer as Python's `int` reads it. None: no number; an error: more digits than there is room for.
pub(super) fn parse_int(text: &str, base: u32) -> Result<Option<i128>, Error> {
    let text = text.trim_matches(super::source::is_space);
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let prefixed = |radix: u32| {
        let letter = match radix {
            2 => 'b',
            8 => 'o',
            16 => 'x',
            _ => return None,
        };
        let rest = digits.strip_prefix('0')?;
        rest.strip_prefix([letter, letter.to_ascii_uppercase()])
    };
    let (base, digits, after_prefix) = match base {
        0 => match [2, 8, 16].into_iter().find_map(|radix| Some((radix, prefixed(radix)?))) {
            Some((radix, rest)) => (radix, rest, true),
            None if digits.len() > 1
                && digits.starts_with('0')
                && digits.bytes().any(|b| b != b'0') =>
            {
                return Ok(None);
            }
            None => (10, digits, false),
        },
        base => match prefixed(base) {
            Some(rest) => (base, rest, true),
            None => (base, digits, false),
        },
    };
    let digits = if after_prefix { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    let bad = digits.is_empty()
        || digits.starts_with('_')
        || digits.ends_with('_')
        || digits.contains("__");
    if bad {
        return Ok(None);
    }
    let mut number: i128 = 0;
    for c in digits.chars().filter(|&c| c != '_') {
        let digit = c.to_digit(base).or_else(|| methods::decimal_digit(c).filter(|&d| d < base));
        let Some(digit) = digit else { return Ok(None) };
        number = number
            .checked_mul(i128::from(base))
            .and_then(|number| number.checked_add(i128::from(digit)))
            .ok_or_else(|| failed("int: the number is too large"))?;
    }
    Ok(Some(if negative { -number } else { number }))
}

fn to_int(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, default, base] = arguments.bind("int", ["value", "default", "base"])?;
    let value = required(value, "int", "value")?;
    let default = default.unwrap_or_else(|| Value::from(0));
    // A base that is no number is no error, but then the text is read as a float.
    let base = base.map_or(Some(10), |base| integer(&base));
    let of_float = |number: f64| {
        let number = number.trunc();
        if number.abs() < 1.7e38 {
            Ok(from_integer(number as i128))
        } else {
            Err(failed("int: the number is too large"))
        }
    };
    match kind(&value) {
        Kind::Undefined => Err(wrong_type("int", &value)),
        Kind::Int => Ok(value),
        Kind::Bool => Ok(from_integer(integer(&value).unwrap_or_default())),
        Kind::Float => {
            let number = float(&value).unwrap_or(f64::NAN);
            if number.is_infinite() {
                return Err(failed("cannot convert float infinity to integer"));
            }
            if number.is_nan() { Ok(default) } else { of_float(number) }
        }
        Kind::Text => {
            let text = value.as_str().unwrap_or_default();
            let base = base.and_then(|base| u32::try_from(base).ok());
            let base = base.filter(|base| *base == 0 || (2..=36).contains(base));
            if let Some(base) = base
                && let Some(number) = parse_int(text, base)?
            {
                return Ok(from_integer(number));
            }
            match parse_float(text) {
                Some(number) if number.is_finite() => of_float(number),
                _ => Ok(default),
            }
        }
        _ => Ok(default),
    }
}

/// Python's `round(number, digits)`: to the nearest decimal, exact halves to the even one.
pub(super) fn rounded(number: f64, digits: i128) -> f64 {
    if !number.is_finite() || digits > 300 {
        return number;
    }
    if digits >= 0 {
        return format!("{number:.*}", digits as usize).parse().unwrap_or(number);
    }
    if digits < -308 {
        return 0.0_f64.copysign(number);
    }
    let unit = 10_f64.powi(-digits as i32);
    (number / unit).round_ties_even() * unit
}

fn round(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, precision, method] = arguments.bind("round", ["value", "precision", "method"])?;
    let value = required(value, "round", "value")?;
    let method = method.unwrap_or_else(|| Value::from("common"));
    let common = match method.as_str() {
        Some("common") => true,
        Some("ceil" | "floor") => false,
        _ => return Err(failed("method must be common, ceil or floor")),
    };
    // Without digits Python's round gives an integer; jinja2 hands over 0 where none are given.
    let to_integer = precision.as_ref().is_some_and(|precision| kind(precision) == Kind::None);
    let precision = given(precision);
    let digits = whole(precision.as_ref(), "round", 0)?;
    if common {
        if let Some(number) = integer(&value) {
            let unit = u32::try_from(-digits).ok().filter(|_| digits < 0);
            let unit = unit.map_or(Some(1), |zeros| 10_i128.checked_pow(zeros));
            let Some(unit) = unit else { return Ok(Value::from(0)) };
            let (quotient, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
            let up = rest * 2 > unit || (rest * 2 == unit && quotient % 2 != 0);
            return Ok(from_integer((quotient + i128::from(up)) * unit));
        }
        let number = float(&value).ok_or_else(|| wrong_type("round: not a number", &value))?;
        let number = rounded(number, digits);
        if to_integer {
            let fits = number.abs() < 1.7e38;
            return if fits {
                Ok(from_integer(number as i128))
            } else {
                Err(failed("round: the number is too large"))
            };
        }
        return Ok(Value::from(number));
    }
    let number = float(&value).ok_or_else(|| wrong_type("round: not a number", &value))?;
    bounded(usize::try_from(digits.unsigned_abs()).ok(), 300)?;
    let unit = 10_f64.powi(digits as i32);
    let scaled = number * unit;
    if !scaled.is_finite() {
        return Err(failed("round: cannot convert to an integer"));
    }
    // Python's are integers, which know no -0.
    let whole = 0.0 + if method.as_str() == Some("ceil") { scaled.ceil() } else { scaled.floor() };
    Ok(Value::from(whole / unit))
}

/// Looks up `a.b.0` in a value, part by part, with a default for what is absent.
fn path(value: &Value, attribute: &Value, default: Option<&Value>) -> Result<Value, Error> {
    let mut value = value.clone();
    let parts = match attribute.as_str() {
        Some(text) => text.split('.').map(path_part).collect(),
        None if kind(attribute) == Kind::None => Vec::new(),
        None => vec![attribute.clone()],
    };
    for part in parts {
        value = operators::item(&value, &part)?;
        if let Some(default) = default
            && kind(&value) == Kind::Undefined
        {
            value = default.clone();
        }
    }
    Ok(value)
}

fn path_part(part: &str) -> Value {
    let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match part.parse::<i64>() {
        Ok(index) if digits => Value::from(index),
        _ => Value::from(part),
    }
}
