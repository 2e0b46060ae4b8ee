//! The environment that templates are rendered in: jinja2's filters, tests and functions, and what transformers adds.

use minijinja::value::{Kwargs, Object, Rest, Tuple, Value, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, functions};

use super::arguments::{Arguments, required, string};
use super::filters::FILTERS;
use super::methods;
use super::objects::{Cycler, Joiner, Range};
use super::operators;
use super::repr;
use super::strftime::strftime;
use super::tests::TESTS;
use super::values::{Kind, LONGEST_TEXT, bounded, failed, hashable, items, kind, pairs};

/// Steps of a template before it is stopped: a hostile one must not hang.
const FUEL: u64 = 50_000_000;
/// The deepest recursion of a template.
const RECURSION: usize = 200;

/// The environment, without a template. White space and newlines are settled before (`statements.rs`).
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::empty();
    let syntax = minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(false)
        .lstrip_blocks(false)
        .keep_trailing_newline(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_formatter(write_value);
    environment.set_unknown_method_callback(|state, value, name, arguments| {
        charge(state, std::slice::from_ref(value))?;
        charge(state, arguments)?;
        methods::call(state, value, name, arguments)
    });
    for (name, filter) in FILTERS {
        let filter = move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            charge(state, &arguments)?;
            filter(state, Arguments::new(&arguments)?)
        };
        environment.add_filter(*name, filter);
    }
    for (name, test) in TESTS {
        let test = move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            // Only those with arguments look into values.
            if arguments.len() > 1 {
                charge(state, &arguments)?;
            }
            let mut arguments = Arguments::new(&arguments)?;
            let value = required(arguments.first(), "the test", "value")?;
            test(state, &value, arguments)
        };
        environment.add_test(*name, test);
    }
    add_operators(&mut environment);
    add_functions(&mut environment);
    Ok(environment)
}

/// Takes from the fuel what it costs to go through values.
fn charge(state: &State, values: &[Value]) -> Result<(), Error> {
    let cost = values.iter().map(methods::cost).sum();
    if cost > 0 { state.consume_fuel(cost) } else { Ok(()) }
}

/// Stands for an argument that was not given.
#[derive(Debug)]
struct Absent;

impl Object for Absent {}

/// The only operand: a template may spell such a name itself, and give it none.
fn operand(arguments: &[Value]) -> Result<&Value, Error> {
    arguments.first().ok_or_else(|| failed("an operand is missing"))
}

/// The functions that rewritten expressions call.
fn add_operators(environment: &mut Environment) {
    type Operator = fn(&[Value]) -> Result<Value, Error>;
    let operators: [(&str, Operator); 8] = [
        ("__chain", operators::chain),
        ("__compare", operators::compare_chain),
        ("__concat", operators::concat),
        ("__negative", |arguments| operators::negative(operand(arguments)?)),
        ("__positive", |arguments| operators::positive(operand(arguments)?)),
        ("__slice", operators::slice),
        ("__iterate", |arguments| items(operand(arguments)?).map(Value::from)),
        ("__no_loader", |arguments| {
            Err(failed(format!("{}: there are no other templates", operand(arguments)?)))
        }),
    ];
    for (name, operator) in operators {
        environment.add_function(name, move |state: &State, arguments: Rest<Value>| {
            charge(state, &arguments)?;
            operator(&arguments)
        });
    }
    environment.add_function("__item", |value: &Value, key: &Value| operators::item(value, key));
    environment
        .add_function("__attribute", |value: &Value, name: &str| operators::attribute(value, name));
    environment.add_function("__arguments", |arguments: Rest<ValueOrKwargs>| {
        bound_arguments(&arguments.into_values())
    });
    environment.add_global("__infinity", Value::from(f64::INFINITY));
    environment.add_global("__absent", Value::from_object(Absent));
    environment.add_function("__is_absent", |value: &Value| {
        value.downcast_object_ref::<Absent>().is_some()
    });
}

/// The arguments of a macro that takes more than it names: by their names, the others as `varargs` and `kwargs`.
fn bound_arguments(arguments: &[Value]) -> Result<Value, Error> {
    let mut arguments = Arguments::new(arguments)?;
    let names = items(&required(arguments.first(), "a macro", "names")?)?;
    let (positional, keywords) = arguments.parts();
    let mut bound: Vec<(Value, Value)> = names.iter().cloned().zip(positional.clone()).collect();
    let mut rest = Vec::new();
    for (key, value) in keywords {
        let key = Value::from(key);
        if bound.iter().any(|(name, _)| *name == key) {
            return Err(failed(format!("a macro has two values for {key}")));
        }
        if names.contains(&key) {
            bound.push((key, value));
        } else {
            rest.push((key, value));
        }
    }
    let varargs: Vec<Value> = positional.into_iter().skip(names.len()).collect();
    bound.push(("varargs".into(), Value::from(Tuple::from(varargs))));
    bound.push(("kwargs".into(), Value::from_pairs(rest)));
    Ok(Value::from_pairs(bound))
}

/// jinja2's functions, and those that transformers adds but for `strftime_now`.
fn add_functions(environment: &mut Environment) {
    type Function = fn(Arguments) -> Result<Value, Error>;
    let functions: [(&str, Function); 6] = [
        ("range", Range::call),
        ("dict", dict),
        ("cycler", Cycler::call),
        ("joiner", Joiner::call),
        ("namespace", namespace),
        ("raise_exception", |arguments| {
            let [message] = arguments.bind("raise_exception", ["message"])?;
            let message = required(message, "raise_exception", "message")?;
            Err(Error::new(ErrorKind::InvalidOperation, repr::text(&message)?))
        }),
    ];
    for (name, function) in functions {
        environment.add_function(name, move |state: &State, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            charge(state, &arguments)?;
            function(Arguments::new(&arguments)?)
        });
    }
}

/// transformers' `strftime_now`, which tells this time.
pub(super) fn add_clock(environment: &mut Environment, now: chrono::NaiveDateTime) {
    environment.add_function("strftime_now", move |arguments: Rest<ValueOrKwargs>| {
        let [format] =
            Arguments::new(&arguments.into_values())?.bind("strftime_now", ["format"])?;
        let format = required(format, "strftime_now", "format")?;
        let text = strftime(&now, string(&format, "strftime_now")?);
        bounded(Some(text.len()), LONGEST_TEXT)?;
        Ok::<_, Error>(text)
    });
}

/// `dict(mapping or pairs, **more)`.
fn dict_pairs(mut arguments: Arguments, of: &str) -> Result<Vec<(Value, Value)>, Error> {
    let first = arguments.first();
    let (rest, keywords) = arguments.parts();
    if !rest.is_empty() {
        return Err(failed(format!("{of} expected at most 1 argument, got {}", rest.len() + 1)));
    }
    let mut all = match first {
        None => Vec::new(),
        Some(first) if kind(&first) == Kind::Dict => pairs(&first)?,
        Some(first) => {
            let mut all = Vec::new();
            for pair in items(&first)? {
                match items(&pair)?.as_slice() {
                    [key, value] => all.push((key.clone(), value.clone())),
                    _ => return Err(failed(format!("{of}: pairs of key and value are expected"))),
                }
            }
            all
        }
    };
    all.iter().try_for_each(|(key, _)| hashable(key))?;
    all.extend(keywords.into_iter().map(|(key, value)| (Value::from(key), value)));
    Ok(all)
}

fn dict(arguments: Arguments) -> Result<Value, Error> {
    dict_pairs(arguments, "dict").map(Value::from_pairs)
}

/// minijinja's own, whose attributes `set` assigns to.
fn namespace(arguments: Arguments) -> Result<Value, Error> {
    let pairs = dict_pairs(arguments, "namespace")?.into_iter();
    let pairs = pairs.filter_map(|(key, value)| Some((key.as_str()?.to_string(), value)));
    let keywords: Kwargs = pairs.collect();
    functions::namespace(Some(ValueOrKwargs::from(Value::from(keywords))))
}

/// Writes a value as Python's `str`, escaped where the template asks for it.
fn write_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let text = match value.as_str().filter(|_| kind(value) == Kind::Text) {
        Some(text) if value.is_safe() || matches!(state.auto_escape(), AutoEscape::None) => {
            out.write_str(text)?;
            return Ok(());
        }
        _ => repr::text(value)?,
    };
    let escapes = !value.is_safe() && !matches!(state.auto_escape(), AutoEscape::None);
    out.write_str(&if escapes { operators::escaped(&text) } else { text })?;
    Ok(())
}
