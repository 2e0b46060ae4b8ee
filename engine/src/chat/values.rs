//! Values as Python sees them: of which type they are, how they compare, what can be gone through.

use std::cmp::Ordering;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::objects::{Generator, Group, Range, View};

/// The longest text, in bytes, that an operator, a filter or a method makes out of a number in a template.
pub(super) const LONGEST_TEXT: usize = 1 << 24;
/// The longest list made out of a number.
pub(super) const LONGEST_LIST: usize = 1 << 20;
/// The deepest nesting of lists and dicts that is written or compared.
pub(super) const DEEPEST: usize = 200;

/// Python's type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// jinja2's Undefined.
    Undefined,
    None,
    Bool,
    Int,
    Float,
    /// `str`, or Markup where it is safe.
    Text,
    Bytes,
    List,
    Tuple,
    Dict,
    Range,
    /// `dict.keys()`, `values()` or `items()`.
    View,
    /// What can be gone through once.
    Generator,
    /// A function, a macro, a namespace, a loop.
    Other,
}

impl Kind {
    /// The type's name in Python.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Undefined => "Undefined",
            Kind::None => "NoneType",
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Text => "str",
            Kind::Bytes => "bytes",
            Kind::List => "list",
            Kind::Tuple => "tuple",
            Kind::Dict => "dict",
            Kind::Range => "range",
            Kind::View => "dict view",
            Kind::Generator => "generator",
            Kind::Other => "object",
        }
    }
}

/// The kind of a value.
pub(super) fn kind(value: &Value) -> Kind {
    match value.kind() {
        ValueKind::Undefined => Kind::Undefined,
        ValueKind::None => Kind::None,
        ValueKind::Bool => Kind::Bool,
        ValueKind::Number if value.is_integer() => Kind::Int,
        ValueKind::Number => Kind::Float,
        ValueKind::String => Kind::Text,
        ValueKind::Bytes => Kind::Bytes,
        ValueKind::Map if is_object(value) => Kind::Other,
        ValueKind::Map => Kind::Dict,
        ValueKind::Seq if value.is_tuple() => Kind::Tuple,
        ValueKind::Seq if value.downcast_object_ref::<Group>().is_some() => Kind::Tuple,
        ValueKind::Seq if value.downcast_object_ref::<Range>().is_some() => Kind::Range,
        ValueKind::Iterable if value.downcast_object_ref::<Generator>().is_some() => {
            Kind::Generator
        }
        ValueKind::Iterable if value.downcast_object_ref::<View>().is_some() => Kind::View,
        ValueKind::Seq | ValueKind::Iterable => Kind::List,
        _ => Kind::Other,
    }
}

/// Whether a map is one of minijinja's own objects (a loop, a namespace, a macro) and no dict: those that JSON and
/// literals make are plain maps.
fn is_object(value: &Value) -> bool {
    value.as_object().is_some_and(|object| {
        let name = object.type_name();
        ["::Loop", "::Namespace", "::Macro", "::Module", "::Cycler", "::Joiner"]
            .iter()
            .any(|end| name.ends_with(end))
    })
}

/// An error that a template's operation gives.
pub(super) fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// An error that says which type does not do.
pub(super) fn wrong_type(what: &str, value: &Value) -> Error {
    match kind(value) {
        Kind::Undefined => {
            Error::new(ErrorKind::UndefinedError, format!("{what}: undefined value"))
        }
        kind => failed(format!("{what}: not for '{}'", kind.name())),
    }
}

/// Fails for a text or list that would be longer than `most`.
pub(super) fn bounded(length: Option<usize>, most: usize) -> Result<usize, Error> {
    length.filter(|&length| length <= most).ok_or_else(|| {
        failed(format!("a template asks for more than {most} bytes or items at once"))
    })
}

/// An integer; booleans are 0 and 1.
pub(super) fn integer(value: &Value) -> Option<i128> {
    match kind(value) {
        Kind::Bool => Some(i128::from(value.is_true())),
        Kind::Int => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// A number as a float.
pub(super) fn float(value: &Value) -> Option<f64> {
    match kind(value) {
        Kind::Float => f64::try_from(value.clone()).ok(),
        Kind::Int => i128::try_from(value.clone())
            .ok()
            .map(|i| i as f64)
            .or_else(|| value.to_string().parse().ok()),
        Kind::Bool => Some(f64::from(u8::from(value.is_true()))),
        _ => None,
    }
}

/// An integer as a value, small where it fits.
pub(super) fn from_integer(integer: i128) -> Value {
    i64::try_from(integer).map_or_else(|_| Value::from(integer), Value::from)
}

/// `len(value)`.
pub(super) fn length(value: &Value) -> Result<usize, Error> {
    match kind(value) {
        Kind::Undefined => Ok(0),
        Kind::Text => Ok(value.as_str().unwrap_or_default().chars().count()),
        Kind::Bytes => Ok(value.as_bytes().unwrap_or_default().len()),
        Kind::List | Kind::Tuple | Kind::Dict | Kind::Range | Kind::View => match value.len() {
            Some(length) => Ok(length),
            None => Ok(items(value)?.len()),
        },
        _ => Err(wrong_type("object has no length", value)),
    }
}

/// The items of a value, in order; the characters of a text, the keys of a dict.
pub(super) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    match kind(value) {
        Kind::Undefined => Ok(Vec::new()),
        Kind::Text => Ok(value
            .as_str()
            .unwrap_or_default()
            .chars()
            .map(|c| Value::from(c.to_string()))
            .collect()),
        Kind::Bytes => {
            Ok(value.as_bytes().unwrap_or_default().iter().map(|&b| Value::from(b)).collect())
        }
        Kind::List | Kind::Tuple | Kind::Dict | Kind::Range | Kind::View | Kind::Generator => {
            value.try_iter()?.checked().collect()
        }
        _ => Err(wrong_type("object is not iterable", value)),
    }
}

/// Keys and values of a dict.
pub(super) fn pairs(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if kind(value) != Kind::Dict {
        return Err(wrong_type("expected a mapping", value));
    }
    let keys: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
    keys.into_iter().map(|key| value.get_item(&key).map(|item| (key, item))).collect()
}

/// The most values that one comparison looks at: lists that hold others many times over are larger than their memory.
const MOST_COMPARED: u64 = 10_000_000;

/// A comparison under way.
struct Comparison {
    /// How many values it may still look at.
    left: u64,
}

/// Python's `==`.
pub(super) fn equal(a: &Value, b: &Value) -> Result<bool, Error> {
    Comparison { left: MOST_COMPARED }.equal(a, b, 0)
}

impl Comparison {
    fn enter(&mut self, depth: usize) -> Result<(), Error> {
        self.left = self.left.saturating_sub(1);
        if depth > DEEPEST || self.left == 0 {
            return Err(failed("values are too large or too deep to be compared"));
        }
        Ok(())
    }

    fn equal(&mut self, a: &Value, b: &Value, depth: usize) -> Result<bool, Error> {
        self.enter(depth)?;
        Ok(match (kind(a), kind(b)) {
            (Kind::Undefined, Kind::Undefined) | (Kind::None, Kind::None) => true,
            (Kind::Bool | Kind::Int | Kind::Float, Kind::Bool | Kind::Int | Kind::Float) => {
                compare_numbers(a, b) == Some(Ordering::Equal)
            }
            (Kind::Text, Kind::Text) => a.as_str() == b.as_str(),
            (Kind::Bytes, Kind::Bytes) => a.as_bytes() == b.as_bytes(),
            (Kind::List, Kind::List) | (Kind::Tuple, Kind::Tuple) | (Kind::Range, Kind::Range) => {
                let (a, b) = (items(a)?, items(b)?);
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(&b) {
                    if !self.equal(a, b, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Kind::Dict, Kind::Dict) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (key, value) in pairs(a)? {
                    let Some(other) = dict_item(b, &key) else { return Ok(false) };
                    if !self.equal(&value, &other, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Kind::Other | Kind::Generator | Kind::View, _) => a == b,
            _ => false,
        })
    }

    fn order(&mut self, a: &Value, b: &Value, depth: usize) -> Result<Option<Ordering>, Error> {
        self.enter(depth)?;
        match (kind(a), kind(b)) {
            (Kind::Bool | Kind::Int | Kind::Float, Kind::Bool | Kind::Int | Kind::Float) => {
                Ok(compare_numbers(a, b))
            }
            (Kind::Text, Kind::Text) => Ok(Some(a.as_str().cmp(&b.as_str()))),
            (Kind::Bytes, Kind::Bytes) => Ok(Some(a.as_bytes().cmp(&b.as_bytes()))),
            (Kind::List, Kind::List) | (Kind::Tuple, Kind::Tuple) => {
                let (a, b) = (items(a)?, items(b)?);
                for (a, b) in a.iter().zip(&b) {
                    if !self.equal(a, b, depth + 1)? {
                        return self.order(a, b, depth + 1);
                    }
                }
                Ok(Some(a.len().cmp(&b.len())))
            }
            (Kind::Undefined, _) => Err(wrong_type("cannot be ordered", a)),
            (_, Kind::Undefined) => Err(wrong_type("cannot be ordered", b)),
            (a, b) => Err(failed(format!("'{}' and '{}' cannot be ordered", a.name(), b.name()))),
        }
    }
}

fn compare_numbers(a: &Value, b: &Value) -> Option<Ordering> {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => float(a)?.partial_cmp(&float(b)?),
    }
}

/// Python's `<` and its like: how two values are ordered; none: not at all (NaN).
pub(super) fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    Comparison { left: MOST_COMPARED }.order(a, b, 0)
}

/// Python's `item in container`.
pub(super) fn contains(container: &Value, item: &Value) -> Result<bool, Error> {
    match kind(container) {
        Kind::Undefined => Ok(false),
        Kind::Text => match item.as_str() {
            Some(part) => Ok(container.as_str().unwrap_or_default().contains(part)),
            None => Err(wrong_type("'in <string>' requires a string as left operand", item)),
        },
        Kind::Dict => {
            hashable(item)?;
            Ok(dict_item(container, item).is_some())
        }
        Kind::Generator => {
            while let Some(next) =
                container.downcast_object_ref::<Generator>().and_then(Generator::next)
            {
                if equal(&next, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Kind::List | Kind::Tuple | Kind::Range | Kind::View | Kind::Bytes => {
            for other in items(container)? {
                if equal(&other, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(wrong_type("argument is not iterable", container)),
    }
}

/// Fails for what cannot be a key.
pub(super) fn hashable(value: &Value) -> Result<(), Error> {
    match kind(value) {
        Kind::List | Kind::Dict => Err(wrong_type("unhashable type", value)),
        Kind::Tuple => items(value)?.iter().try_for_each(hashable),
        _ => Ok(()),
    }
}

/// The value under a key of a dict.
pub(super) fn dict_item(dict: &Value, key: &Value) -> Option<Value> {
    let object = dict.as_object()?;
    if let Some(value) = object.get_value(key) {
        return Some(value);
    }
    // 1, 1.0 and True are one key.
    let number = integer(key)
        .or_else(|| float(key).filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i128))?;
    let others = [Value::from(number as i64), Value::from(number as f64)];
    let bool = (number == 0 || number == 1).then(|| Value::from(number == 1));
    others.iter().chain(&bool).find_map(|key| object.get_value(key))
}
