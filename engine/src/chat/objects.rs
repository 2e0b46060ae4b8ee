//! Python's objects that minijinja has no counterpart of: generators, views of dicts, ranges, methods not yet called.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, Value};
use minijinja::{Error, ErrorKind, State};

use super::arguments::Arguments;
use super::values::{failed, pairs};
use super::{methods, repr};

/// What `map` and its like give in jinja2: can be gone through once, and is no list.
#[derive(Debug)]
pub(super) struct Generator(Mutex<VecDeque<Value>>);

impl Generator {
    pub(super) fn value(items: Vec<Value>) -> Value {
        Value::from_object(Self(Mutex::new(items.into())))
    }

    /// The next item, which is then gone.
    pub(super) fn next(&self) -> Option<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let generator = self.clone();
        Enumerator::Iter(Box::new(std::iter::from_fn(move || generator.next())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<generator object>")
    }
}

/// `dict.keys()`, `dict.values()` or `dict.items()`.
#[derive(Debug)]
pub(super) struct View {
    name: &'static str,
    items: Vec<Value>,
}

impl View {
    /// The view of that method's name.
    pub(super) fn of(dict: &Value, method: &str) -> Result<Value, Error> {
        let pairs = pairs(dict)?.into_iter();
        let (name, items) = match method {
            "keys" => ("dict_keys", pairs.map(|(key, _)| key).collect()),
            "values" => ("dict_values", pairs.map(|(_, value)| value).collect()),
            _ => {
                let tuples = pairs.map(|(key, value)| Value::from(Tuple::from([key, value])));
                ("dict_items", tuples.collect())
            }
        };
        Ok(Value::from_object(Self { name, items }))
    }

    /// The type's name, as in its `repr`.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

/// A tuple of what a group has in common and its items, as `groupby` gives them, with names for both.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) grouper: Value,
    pub(super) list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), key.as_usize()) {
            (Some("grouper"), _) | (_, Some(0)) => Some(self.grouper.clone()),
            (Some("list"), _) | (_, Some(1)) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// The longest `range`, which jinja2's sandbox sets.
const LONGEST_RANGE: i128 = 100_000;

/// `range(start, stop, step)`.
#[derive(Debug)]
pub(super) struct Range {
    start: i128,
    stop: i128,
    step: i128,
    length: usize,
}

impl Range {
    /// The function `range`.
    pub(super) fn call(arguments: Arguments) -> Result<Value, Error> {
        let [first, second, step] = arguments.positional("range")?;
        let whole = |value: Option<Value>, or: i128| match value {
            None => Ok(or),
            Some(value) => super::values::integer(&value)
                .ok_or_else(|| super::values::wrong_type("range: an integer is expected", &value)),
        };
        let step = whole(step, 1)?;
        let (start, stop) = match (first, second) {
            (None, _) => return Err(failed("range expected at least 1 argument, got 0")),
            (stop, None) => (0, whole(stop, 0)?),
            (start, stop) => (whole(start, 0)?, whole(stop, 0)?),
        };
        Self::value(start, stop, step)
    }

    fn value(start: i128, stop: i128, step: i128) -> Result<Value, Error> {
        if step == 0 {
            return Err(failed("range() arg 3 must not be zero"));
        }
        let span = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
        let steps = step.saturating_abs();
        let length = if span <= 0 { 0 } else { (span - 1) / steps + 1 };
        if length > LONGEST_RANGE {
            return Err(failed(format!(
                "range too big: {length} numbers, at most {LONGEST_RANGE}"
            )));
        }
        Ok(Value::from_object(Self { start, stop, step, length: length as usize }))
    }

    /// The part between two places of it.
    pub(super) fn slice(&self, start: i128, stop: i128, step: i128) -> Result<Value, Error> {
        let place = |at: i128| self.start.saturating_add(at.saturating_mul(self.step));
        let step = self.step.saturating_mul(step);
        Self::value(place(start), place(stop), step)
    }

    /// As Python writes it.
    pub(super) fn repr(&self) -> String {
        match self.step {
            1 => format!("range({}, {})", self.start, self.stop),
            step => format!("range({}, {}, {step})", self.start, self.stop),
        }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = key.as_usize().filter(|&index| index < self.length)?;
        Some(super::values::from_integer(self.start + index as i128 * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.length)
    }
}

/// `cycler(...)`.
#[derive(Debug)]
pub(super) struct Cycler {
    items: Vec<Value>,
    at: Mutex<usize>,
}

impl Cycler {
    /// The function `cycler`.
    pub(super) fn call(arguments: Arguments) -> Result<Value, Error> {
        let items = arguments.all_positional("cycler")?;
        if items.is_empty() {
            return Err(failed("at least one item has to be provided"));
        }
        Ok(Value::from_object(Self { items, at: Mutex::new(0) }))
    }
}

impl Object for Cycler {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        (key.as_str() == Some("current")).then(|| self.items[at].clone())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        _: &[Value],
    ) -> Result<Value, Error> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        match method {
            "next" => {
                let item = self.items[*at].clone();
                *at = (*at + 1) % self.items.len();
                Ok(item)
            }
            "reset" => {
                *at = 0;
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<cycler>")
    }
}

/// `joiner(sep)`: nothing at its first call, the separator at all others.
#[derive(Debug)]
pub(super) struct Joiner {
    separator: Value,
    used: Mutex<bool>,
}

impl Joiner {
    /// The function `joiner`.
    pub(super) fn call(arguments: Arguments) -> Result<Value, Error> {
        let [separator] = arguments.bind("joiner", ["sep"])?;
        let separator = separator.unwrap_or_else(|| Value::from(", "));
        Ok(Value::from_object(Self { separator, used: Mutex::new(false) }))
    }
}

impl Object for Joiner {
    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(if std::mem::replace(&mut *used, true) { self.separator.clone() } else { "".into() })
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<joiner>")
    }
}

/// A method of a value that is not called yet.
#[derive(Debug)]
pub(super) struct BoundMethod {
    pub(super) of: Value,
    pub(super) name: String,
}

impl Object for BoundMethod {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        methods::call(state, &self.of, &self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of {} object>", self.name, repr::type_name(&self.of))
    }
}
