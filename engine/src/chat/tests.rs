//! jinja2's tests: `value is name(arguments)`.

use minijinja::value::{DynObject, Value, ValueKind};
use minijinja::{Error, State};

use super::arguments::{Arguments, required};
use super::filters::FILTERS;
use super::objects::{BoundMethod, Joiner};
use super::operators;
use super::repr;
use super::values::{Kind, equal, integer, kind};

/// A test of a value, which is its first argument.
pub(super) type Test = fn(&mut State, &Value, Arguments) -> Result<bool, Error>;

/// Every test by its name.
pub(super) const TESTS: &[(&str, Test)] = &[
    ("odd", |_, value, arguments| remainder(value, arguments, "odd")),
    ("even", |_, value, arguments| remainder(value, arguments, "even").map(|rest| !rest)),
    ("divisibleby", divisible_by),
    ("defined", |_, value, arguments| is(arguments, kind(value) != Kind::Undefined)),
    ("undefined", |_, value, arguments| is(arguments, kind(value) == Kind::Undefined)),
    ("filter", |_, value, arguments| {
        is(arguments, listed(value, FILTERS.iter().map(|(name, _)| *name)))
    }),
    ("test", |_, value, arguments| {
        is(arguments, listed(value, TESTS.iter().map(|(name, _)| *name)))
    }),
    ("none", |_, value, arguments| is(arguments, kind(value) == Kind::None)),
    ("boolean", |_, value, arguments| is(arguments, kind(value) == Kind::Bool)),
    ("false", |_, value, arguments| is(arguments, kind(value) == Kind::Bool && !value.is_true())),
    ("true", |_, value, arguments| is(arguments, kind(value) == Kind::Bool && value.is_true())),
    ("integer", |_, value, arguments| is(arguments, kind(value) == Kind::Int)),
    ("float", |_, value, arguments| is(arguments, kind(value) == Kind::Float)),
    ("lower", |state, value, arguments| cased(state, value, arguments, "islower")),
    ("upper", |state, value, arguments| cased(state, value, arguments, "isupper")),
    ("string", |_, value, arguments| is(arguments, kind(value) == Kind::Text)),
    ("mapping", |_, value, arguments| is(arguments, kind(value) == Kind::Dict)),
    ("number", |_, value, arguments| {
        is(arguments, matches!(kind(value), Kind::Bool | Kind::Int | Kind::Float))
    }),
    ("sequence", |_, value, arguments| {
        let sequence = matches!(
            kind(value),
            Kind::Undefined
                | Kind::Text
                | Kind::Bytes
                | Kind::List
                | Kind::Tuple
                | Kind::Dict
                | Kind::Range
        );
        is(arguments, sequence)
    }),
    ("iterable", |_, value, arguments| {
        let other =
            matches!(kind(value), Kind::None | Kind::Bool | Kind::Int | Kind::Float | Kind::Other);
        is(arguments, !other)
    }),
    ("callable", |_, value, arguments| is(arguments, callable(value))),
    ("sameas", same_as),
    ("escaped", |_, value, arguments| is(arguments, value.is_safe())),
    ("in", |_, value, arguments| compares("in", value, arguments)),
    ("==", |_, value, arguments| compares("==", value, arguments)),
    ("eq", |_, value, arguments| compares("==", value, arguments)),
    ("equalto", |_, value, arguments| compares("==", value, arguments)),
    ("!=", |_, value, arguments| compares("!=", value, arguments)),
    ("ne", |_, value, arguments| compares("!=", value, arguments)),
    (">", |_, value, arguments| compares(">", value, arguments)),
    ("gt", |_, value, arguments| compares(">", value, arguments)),
    ("greaterthan", |_, value, arguments| compares(">", value, arguments)),
    (">=", |_, value, arguments| compares(">=", value, arguments)),
    ("ge", |_, value, arguments| compares(">=", value, arguments)),
    ("<", |_, value, arguments| compares("<", value, arguments)),
    ("lt", |_, value, arguments| compares("<", value, arguments)),
    ("lessthan", |_, value, arguments| compares("<", value, arguments)),
    ("<=", |_, value, arguments| compares("<=", value, arguments)),
    ("le", |_, value, arguments| compares("<=", value, arguments)),
];

/// What holds, where no arguments are given.
fn is(arguments: Arguments, holds: bool) -> Result<bool, Error> {
    let [] = arguments.bind("the test", [])?;
    Ok(holds)
}

fn listed<'a>(value: &Value, mut names: impl Iterator<Item = &'a str>) -> bool {
    value.as_str().is_some_and(|wanted| names.any(|name| name == wanted))
}

/// Whether a number leaves 1 when divided by 2.
fn remainder(value: &Value, arguments: Arguments, of: &str) -> Result<bool, Error> {
    let [] = arguments.bind(of, [])?;
    let rest = operators::binary("%", value, &Value::from(2))?;
    equal(&rest, &Value::from(1)).and_then(|odd| {
        // Neither holds for 1.5.
        if of == "odd" { Ok(odd) } else { equal(&rest, &Value::from(0)).map(|even| !even) }
    })
}

fn divisible_by(_: &mut State, value: &Value, arguments: Arguments) -> Result<bool, Error> {
    let [number] = arguments.bind("divisibleby", ["num"])?;
    let rest = operators::binary("%", value, &required(number, "divisibleby", "num")?)?;
    equal(&rest, &Value::from(0))
}

fn cased(
    state: &mut State,
    value: &Value,
    arguments: Arguments,
    method: &str,
) -> Result<bool, Error> {
    let [] = arguments.bind(method, [])?;
    let text = Value::from(repr::text(value)?);
    super::methods::call(state, &text, method, &[]).map(|holds| holds.is_true())
}

fn compares(operator: &str, value: &Value, arguments: Arguments) -> Result<bool, Error> {
    let [other] = arguments.bind(operator, ["other"])?;
    operators::compares(operator, value, &required(other, operator, "other")?)
}

/// Whether two are one object. All but lists have no identity here: they are taken for one where they are equal.
fn same_as(_: &mut State, value: &Value, arguments: Arguments) -> Result<bool, Error> {
    let [other] = arguments.bind("sameas", ["other"])?;
    let other = required(other, "sameas", "other")?;
    let of = kind(value);
    if of != kind(&other) {
        return Ok(false);
    }
    match (value.as_object(), other.as_object()) {
        // Each undefined value is one of its own.
        _ if of == Kind::Undefined => Ok(false),
        (Some(a), Some(b)) if of == Kind::List => match (list(a), list(b)) {
            (Some(a), Some(b)) => Ok(std::ptr::eq(a, b)),
            _ => Ok(false),
        },
        _ => match (integer(value), integer(&other)) {
            (Some(a), Some(b)) => Ok(a == b),
            _ => equal(value, &other),
        },
    }
}

fn list(object: &DynObject) -> Option<&Vec<Value>> {
    object.downcast_ref::<Vec<Value>>()
}

/// Whether a value can be called.
fn callable(value: &Value) -> bool {
    // Only the call of an undefined value fails.
    if kind(value) == Kind::Undefined {
        return true;
    }
    if value.downcast_object_ref::<BoundMethod>().is_some()
        || value.downcast_object_ref::<Joiner>().is_some()
    {
        return true;
    }
    match value.as_object() {
        // Functions and macros have no parts.
        Some(object) => {
            let name = object.type_name();
            (value.kind() == ValueKind::Plain && !name.ends_with("::Namespace"))
                || name.ends_with("::Macro")
        }
        None => false,
    }
}
