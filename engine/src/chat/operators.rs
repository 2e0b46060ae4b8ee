//! Python's operators, subscripts and slices, as the functions that `rewrite.rs` calls.

use std::cmp::Ordering;

use minijinja::value::{Tuple, Value};
use minijinja::{Error, ErrorKind};

use super::objects::{BoundMethod, Range};
use super::values::{
    Kind, LONGEST_LIST, LONGEST_TEXT, bounded, compare, contains, dict_item, equal, failed, float,
    from_integer, hashable, integer, items, kind, length, wrong_type,
};
use super::{methods, percent, repr};

/// Escapes a text as Markup does when it is added to.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A text as a value, safe or not.
pub(super) fn text_value(text: String, safe: bool) -> Value {
    if safe { Value::from_safe_string(text) } else { Value::from(text) }
}

/// A value's text.
pub(super) fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text that is Markup where the one it comes from is.
pub(super) fn like(of: &Value, text: String) -> Value {
    text_value(text, of.is_safe())
}

/// A first operand, then operators and further ones: `a * b % c` from left to right.
pub(super) fn chain(arguments: &[Value]) -> Result<Value, Error> {
    let (first, rest) = arguments.split_first().ok_or_else(|| failed("an operand is missing"))?;
    let mut left = first.clone();
    for pair in rest.chunks_exact(2) {
        left = binary(pair[0].as_str().unwrap_or_default(), &left, &pair[1])?;
    }
    Ok(left)
}

fn unsupported(operator: &str, a: &Value, b: &Value) -> Error {
    let undefined = kind(a) == Kind::Undefined || kind(b) == Kind::Undefined;
    let error = if undefined { ErrorKind::UndefinedError } else { ErrorKind::InvalidOperation };
    let (a, b) = (kind(a).name(), kind(b).name());
    Error::new(error, format!("unsupported operand types for {operator}: '{a}' and '{b}'"))
}

/// `a operator b` of the operators of arithmetic.
pub(super) fn binary(operator: &str, a: &Value, b: &Value) -> Result<Value, Error> {
    match (operator, kind(a), kind(b)) {
        ("+", Kind::Text, Kind::Text) => {
            let (left, right) = (a.as_str().unwrap_or_default(), b.as_str().unwrap_or_default());
            bounded(Some(left.len() + right.len()), LONGEST_TEXT)?;
            return Ok(join_texts(a, b));
        }
        ("+", Kind::List, Kind::List) => {
            let mut all = items(a)?;
            bounded(Some(all.len() + length(b)?), LONGEST_LIST)?;
            all.extend(items(b)?);
            return Ok(Value::from(all));
        }
        ("+", Kind::Tuple, Kind::Tuple) => {
            let mut all = items(a)?;
            bounded(Some(all.len() + length(b)?), LONGEST_LIST)?;
            all.extend(items(b)?);
            return Ok(Value::from(Tuple::from(all)));
        }
        ("%", Kind::Text, _) => {
            let format = a.as_str().unwrap_or_default();
            return Ok(text_value(percent::format(format, b, a.is_safe())?, a.is_safe()));
        }
        ("*", Kind::Text | Kind::List | Kind::Tuple, Kind::Int | Kind::Bool) => {
            return repeat(a, b);
        }
        ("*", Kind::Int | Kind::Bool, Kind::Text | Kind::List | Kind::Tuple) => {
            return repeat(b, a);
        }
        _ => {}
    }
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => return integers(operator, a, b),
        _ if float(a).is_none() || float(b).is_none() => return Err(unsupported(operator, a, b)),
        _ => {}
    }
    let (a, b) = (float(a).unwrap_or_default(), float(b).unwrap_or_default());
    let zero = || failed(format!("{a:?} {operator} {b:?}: division by zero"));
    Ok(Value::from(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" | "//" | "%" if b == 0.0 => return Err(zero()),
        "/" => a / b,
        "//" => floored(a, b).0,
        "%" => floored(a, b).1,
        _ => return power(a, b),
    }))
}

fn join_texts(a: &Value, b: &Value) -> Value {
    let (left, right) = (a.as_str().unwrap_or_default(), b.as_str().unwrap_or_default());
    match (a.is_safe(), b.is_safe()) {
        (true, false) => Value::from_safe_string(format!("{left}{}", escaped(right))),
        (false, true) => Value::from_safe_string(format!("{}{right}", escaped(left))),
        (safe, _) => text_value([left, right].concat(), safe),
    }
}

fn repeat(of: &Value, count: &Value) -> Result<Value, Error> {
    // Python's own bound, whatever is repeated.
    if integer(count).is_none_or(|count| i64::try_from(count).is_err()) {
        return Err(failed("a count is too large"));
    }
    let count = usize::try_from(integer(count).unwrap_or_default().max(0)).unwrap_or(usize::MAX);
    if let Some(text) = of.as_str() {
        bounded(text.len().checked_mul(count), LONGEST_TEXT)?;
        return Ok(text_value(text.repeat(count), of.is_safe()));
    }
    let items = items(of)?;
    bounded(items.len().checked_mul(count), LONGEST_LIST)?;
    let all: Vec<Value> = if items.is_empty() {
        Vec::new()
    } else {
        std::iter::repeat_n(items, count).flatten().collect()
    };
    Ok(if kind(of) == Kind::Tuple { Value::from(Tuple::from(all)) } else { Value::from(all) })
}

fn integers(operator: &str, a: i128, b: i128) -> Result<Value, Error> {
    let large = || failed(format!("{a} {operator} {b}: the number is too large"));
    let zero = || failed(format!("{a} {operator} {b}: division by zero"));
    let result = match operator {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "/" | "//" | "%" if b == 0 => return Err(zero()),
        "/" => return Ok(Value::from(a as f64 / b as f64)),
        // The remainder has the sign of the divisor.
        "//" => {
            let quotient = a.checked_div(b).ok_or_else(large)?;
            let inexact = a % b != 0 && (a < 0) != (b < 0);
            Some(quotient - i128::from(inexact))
        }
        "%" => {
            let remainder = a.checked_rem(b).ok_or_else(large)?;
            let inexact = remainder != 0 && (remainder < 0) != (b < 0);
            Some(if inexact { remainder + b } else { remainder })
        }
        _ if b < 0 => return power(a as f64, b as f64),
        _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
    };
    result.map(from_integer).ok_or_else(large)
}

/// The quotient rounded down and what remains, as Python's `divmod` of floats.
fn floored(a: f64, b: f64) -> (f64, f64) {
    let mut remainder = a % b;
    let mut quotient = (a - remainder) / b;
    if remainder == 0.0 {
        remainder = 0.0_f64.copysign(b);
    } else if (remainder < 0.0) != (b < 0.0) {
        remainder += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0.0_f64.copysign(a / b), remainder);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, remainder)
}

fn power(a: f64, b: f64) -> Result<Value, Error> {
    if a == 0.0 && b < 0.0 {
        return Err(failed("0.0 cannot be raised to a negative power"));
    }
    if a < 0.0 && b.fract() != 0.0 {
        return Err(failed("a negative number to a fractional power is complex"));
    }
    let result = a.powf(b);
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(failed("a power is too large"));
    }
    Ok(Value::from(result))
}

/// `-a`.
pub(super) fn negative(value: &Value) -> Result<Value, Error> {
    match integer(value) {
        Some(number) => {
            number.checked_neg().map(from_integer).ok_or_else(|| failed("a number is too large"))
        }
        None => float(value)
            .map(|number| Value::from(-number))
            .ok_or_else(|| wrong_type("bad operand type for unary -", value)),
    }
}

/// `+a`.
pub(super) fn positive(value: &Value) -> Result<Value, Error> {
    match (integer(value), float(value)) {
        (Some(number), _) => Ok(from_integer(number)),
        (None, Some(number)) => Ok(Value::from(number)),
        _ => Err(wrong_type("bad operand type for unary +", value)),
    }
}

/// `a ~ b ~ ...`: the texts of all, and nothing is escaped.
pub(super) fn concat(arguments: &[Value]) -> Result<Value, Error> {
    let mut out = String::new();
    for value in arguments {
        match value.as_str().filter(|_| kind(value) == Kind::Text) {
            Some(text) => out.push_str(text),
            None => out.push_str(&repr::text(value)?),
        }
        bounded(Some(out.len()), LONGEST_TEXT)?;
    }
    Ok(Value::from(out))
}

/// A first operand, then operators and further ones: `a < b <= c`, true if all pairs are.
pub(super) fn compare_chain(arguments: &[Value]) -> Result<Value, Error> {
    let (first, rest) = arguments.split_first().ok_or_else(|| failed("an operand is missing"))?;
    let mut left = first;
    for pair in rest.chunks_exact(2) {
        if !compares(pair[0].as_str().unwrap_or_default(), left, &pair[1])? {
            return Ok(Value::from(false));
        }
        left = &pair[1];
    }
    Ok(Value::from(true))
}

/// One comparison by its operator.
pub(super) fn compares(operator: &str, a: &Value, b: &Value) -> Result<bool, Error> {
    Ok(match operator {
        "==" => equal(a, b)?,
        "!=" => !equal(a, b)?,
        "in" => contains(b, a)?,
        "not in" => !contains(b, a)?,
        "<" => compare(a, b)? == Some(Ordering::Less),
        ">" => compare(a, b)? == Some(Ordering::Greater),
        "<=" => matches!(compare(a, b)?, Some(Ordering::Less | Ordering::Equal)),
        _ => matches!(compare(a, b)?, Some(Ordering::Greater | Ordering::Equal)),
    })
}

/// What jinja2 gives for something of an undefined value.
fn of_undefined(what: &str) -> Error {
    Error::new(ErrorKind::UndefinedError, format!("{what} of an undefined value"))
}

/// `value[key]`, and where there is none an attribute of that name.
pub(super) fn item(value: &Value, key: &Value) -> Result<Value, Error> {
    let found = match kind(value) {
        Kind::Undefined => return Err(of_undefined(&format!("item {key}"))),
        Kind::Dict if hashable(key).is_ok() => dict_item(value, key),
        Kind::Text => place(key, length(value)?).and_then(|at| {
            let c = value.as_str().unwrap_or_default().chars().nth(at)?;
            Some(text_value(c.to_string(), value.is_safe()))
        }),
        Kind::Bytes => {
            let bytes = value.as_bytes().unwrap_or_default();
            place(key, bytes.len()).map(|at| Value::from(bytes[at]))
        }
        Kind::List | Kind::Tuple | Kind::Range => match place(key, length(value)?) {
            Some(at) => Some(match value.as_object().and_then(|o| o.get_value(&Value::from(at))) {
                Some(item) => item,
                None => items(value)?.swap_remove(at),
            }),
            None => None,
        },
        _ => None,
    };
    match (found, key.as_str()) {
        (Some(found), _) => Ok(found),
        (None, Some(name)) => attribute(value, name),
        (None, None) => Ok(Value::UNDEFINED),
    }
}

/// The place that an index means, counted from the end where it is negative.
fn place(key: &Value, length: usize) -> Option<usize> {
    let index = integer(key)?;
    let index = if index < 0 { index + length as i128 } else { index };
    usize::try_from(index).ok().filter(|&index| index < length)
}

/// `value.name`: a method, else what stands under that name.
pub(super) fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    if kind(value) == Kind::Undefined {
        return Err(of_undefined(&format!("attribute {name}")));
    }
    if methods::has(value, name) {
        let method = BoundMethod { of: value.clone(), name: name.to_string() };
        return Ok(Value::from_object(method));
    }
    Ok(value.as_object().and_then(|o| o.get_value(&Value::from(name))).unwrap_or_default())
}

/// `value[start:stop:step]`.
pub(super) fn slice(arguments: &[Value]) -> Result<Value, Error> {
    let [value, numbers @ ..] = arguments else { return Err(failed("nothing to slice")) };
    let bound = |at: usize| -> Result<Option<i128>, Error> {
        match numbers.get(at) {
            None => Ok(None),
            Some(bound) if kind(bound) == Kind::None => Ok(None),
            Some(bound) => integer(bound)
                .map(Some)
                .ok_or_else(|| wrong_type("slice indices must be integers or None", bound)),
        }
    };
    let of = kind(value);
    match of {
        Kind::Undefined => return Err(of_undefined("a slice")),
        Kind::Text | Kind::Bytes | Kind::List | Kind::Tuple | Kind::Range => {}
        _ => return Err(wrong_type("object cannot be sliced", value)),
    }
    let (start, stop, step) = (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    if step == 0 {
        return Err(failed("slice step cannot be zero"));
    }
    let all: Vec<Value> = match of {
        Kind::Text => {
            let chars: Vec<char> = value.as_str().unwrap_or_default().chars().collect();
            let text = indices(start, stop, step, chars.len()).map(|at| chars[at]).collect();
            // A slice of Markup is Markup.
            return Ok(text_value(text, value.is_safe()));
        }
        Kind::Bytes => {
            let bytes = value.as_bytes().unwrap_or_default();
            let part = indices(start, stop, step, bytes.len()).map(|at| bytes[at]).collect();
            return Ok(Value::from_bytes(part));
        }
        Kind::Range => {
            let (start, stop) = bounds(start, stop, step, length(value)?);
            let range = value.downcast_object_ref::<Range>();
            return range.map_or(Ok(Value::UNDEFINED), |range| range.slice(start, stop, step));
        }
        _ => items(value)?,
    };
    let part: Vec<Value> =
        indices(start, stop, step, all.len()).map(|at| all[at].clone()).collect();
    Ok(if of == Kind::Tuple { Value::from(Tuple::from(part)) } else { Value::from(part) })
}

/// Where a slice begins and before which place it ends.
fn bounds(start: Option<i128>, stop: Option<i128>, step: i128, length: usize) -> (i128, i128) {
    let length = length as i128;
    let (least, most) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i128| {
        (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(least, most)
    };
    let start = start.map_or(if step > 0 { least } else { most }, clamp);
    let stop = stop.map_or(if step > 0 { most } else { least }, clamp);
    (start, stop)
}

/// The places of a slice.
pub(super) fn indices(
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
    length: usize,
) -> impl Iterator<Item = usize> {
    let (start, stop) = bounds(start, stop, step, length);
    let span = if step > 0 { stop - start } else { start - stop };
    let size = step.saturating_abs();
    let count = if span > 0 { (span - 1) / size + 1 } else { 0 };
    (0..count).map(move |index| (start + index * step) as usize)
}
