//! Filters of lists and dicts.

use std::cmp::Ordering;

use minijinja::value::{Kwargs, Tuple, Value};
use minijinja::{Error, State};

use super::super::arguments::{Arguments, given, required, truth, whole};
use super::super::objects::{Generator, Group};
use super::super::operators;
use super::super::values::{
    Kind, LONGEST_LIST, bounded, compare, equal, failed, hashable, items, kind, pairs,
};
use super::{path, subject};

/// Texts in lower case, other values as they are.
fn ignore_case(value: Value) -> Value {
    match value.as_str() {
        Some(text) => Value::from(text.to_lowercase()),
        None => value,
    }
}

/// Sorts by keys, by which equal items keep their order; a failing comparison is the answer.
fn sorted(
    state: &State,
    mut keyed: Vec<(Value, Value)>,
    reverse: bool,
) -> Result<Vec<(Value, Value)>, Error> {
    state.consume_fuel(keyed.len() as u64 * 16)?;
    let mut failure = None;
    keyed.sort_by(|(a, _), (b, _)| match compare(a, b) {
        Ok(order) => {
            let order = order.unwrap_or(Ordering::Equal);
            if reverse { order.reverse() } else { order }
        }
        Err(error) => {
            failure.get_or_insert(error);
            Ordering::Equal
        }
    });
    failure.map_or(Ok(keyed), Err)
}

pub(super) fn sort(state: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let names = ["value", "reverse", "case_sensitive", "attribute"];
    let [value, reverse, case_sensitive, attribute] = arguments.bind("sort", names)?;
    let value = required(value, "sort", "value")?;
    let case_sensitive = truth(case_sensitive.as_ref(), false);
    let attribute = attribute.unwrap_or(Value::from(()));
    let attributes: Vec<Value> = match attribute.as_str() {
        Some(text) => text.split(',').map(Value::from).collect(),
        None => vec![attribute],
    };
    let mut keyed = Vec::new();
    for item in items(&value)? {
        let mut key = Vec::new();
        for attribute in &attributes {
            let part = path(&item, attribute, None)?;
            key.push(if case_sensitive { part } else { ignore_case(part) });
        }
        keyed.push((Value::from(key), item));
    }
    let sorted = sorted(state, keyed, truth(reverse.as_ref(), false))?;
    Ok(sorted.into_iter().map(|(_, item)| item).collect::<Vec<_>>().into())
}

pub(super) fn dictsort(state: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let names = ["value", "case_sensitive", "by", "reverse"];
    let [value, case_sensitive, by, reverse] = arguments.bind("dictsort", names)?;
    let by_value = match by.as_ref().map(|by| by.as_str()) {
        None | Some(Some("key")) => false,
        Some(Some("value")) => true,
        _ => return Err(failed("You can only sort by either \"key\" or \"value\"")),
    };
    let case_sensitive = truth(case_sensitive.as_ref(), false);
    let pairs = pairs(&required(value, "dictsort", "value")?)?;
    let keyed = pairs.into_iter().map(|(key, value)| {
        let by = if by_value { value.clone() } else { key.clone() };
        let by = if case_sensitive { by } else { ignore_case(by) };
        (by, Value::from(Tuple::from([key, value])))
    });
    let sorted = sorted(state, keyed.collect(), truth(reverse.as_ref(), false))?;
    Ok(sorted.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>().into())
}

pub(super) fn groupby(state: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let names = ["value", "attribute", "default", "case_sensitive"];
    let [value, attribute, default, case_sensitive] = arguments.bind("groupby", names)?;
    let attribute = required(attribute, "groupby", "attribute")?;
    let case_sensitive = truth(case_sensitive.as_ref(), false);
    let default = given(default);
    let mut keyed = Vec::new();
    for item in items(&required(value, "groupby", "value")?)? {
        let key = path(&item, &attribute, default.as_ref())?;
        keyed.push((if case_sensitive { key } else { ignore_case(key) }, item));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in sorted(state, keyed, false)? {
        match groups.last_mut() {
            Some((last, items)) if equal(last, &key)? => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut out = Vec::new();
    for (_, items) in groups {
        // The first item's own spelling names the group.
        let grouper = path(&items[0], &attribute, default.as_ref())?;
        out.push(Value::from_object(Group { grouper, list: Value::from(items) }));
    }
    Ok(Value::from(out))
}

pub(super) fn unique(state: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let names = ["value", "case_sensitive", "attribute"];
    let [value, case_sensitive, attribute] = arguments.bind("unique", names)?;
    let case_sensitive = truth(case_sensitive.as_ref(), false);
    let attribute = attribute.unwrap_or(Value::from(()));
    let mut seen: Vec<Value> = Vec::new();
    let mut texts = std::collections::HashSet::new();
    let mut out = Vec::new();
    for item in items(&required(value, "unique", "value")?)? {
        let key = path(&item, &attribute, None)?;
        let key = if case_sensitive { key } else { ignore_case(key) };
        hashable(&key)?;
        let new = if let Some(text) = key.as_str() {
            texts.insert(text.to_string())
        } else {
            state.consume_fuel(seen.len() as u64)?;
            let mut new = true;
            for other in &seen {
                new &= !equal(other, &key)?;
            }
            if new {
                seen.push(key);
            }
            new
        };
        if new {
            out.push(item);
        }
    }
    Ok(Generator::value(out))
}

fn extreme(arguments: Arguments, of: &str, wanted: Ordering) -> Result<Value, Error> {
    let names = ["value", "case_sensitive", "attribute"];
    let [value, case_sensitive, attribute] = arguments.bind(of, names)?;
    let case_sensitive = truth(case_sensitive.as_ref(), false);
    let attribute = attribute.unwrap_or(Value::from(()));
    let mut best: Option<(Value, Value)> = None;
    for item in items(&required(value, of, "value")?)? {
        let key = path(&item, &attribute, None)?;
        let key = if case_sensitive { key } else { ignore_case(key) };
        let better = match &best {
            None => true,
            Some((best, _)) => compare(&key, best)? == Some(wanted),
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

pub(super) fn min(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    extreme(arguments, "min", Ordering::Less)
}

pub(super) fn max(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    extreme(arguments, "max", Ordering::Greater)
}

pub(super) fn sum(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, attribute, start] = arguments.bind("sum", ["iterable", "attribute", "start"])?;
    let mut total = start.unwrap_or_else(|| Value::from(0));
    if kind(&total) == Kind::Text {
        return Err(failed("sum() can't sum strings"));
    }
    let attribute = given(attribute);
    for item in items(&required(value, "sum", "iterable")?)? {
        let item = match &attribute {
            Some(attribute) => path(&item, attribute, None)?,
            None => item,
        };
        total = operators::binary("+", &total, &item)?;
    }
    Ok(total)
}

pub(super) fn batch(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, count, fill] = arguments.bind("batch", ["value", "linecount", "fill_with"])?;
    let items = items(&required(value, "batch", "value")?)?;
    let count = whole(Some(&required(count, "batch", "linecount")?), "batch", 0)?;
    // Python compares the length of the row before each item with the count: 0 is met once, less never.
    let zero = count == 0;
    let count = usize::try_from(count).ok().filter(|&count| count > 0);
    let mut rows: Vec<Vec<Value>> = match count {
        Some(count) => items.chunks(count).map(<[Value]>::to_vec).collect(),
        None if items.is_empty() => Vec::new(),
        None if zero => vec![Vec::new(), items],
        None => vec![items],
    };
    if let (Some(fill), Some(count), Some(last)) = (given(fill), count, rows.last_mut()) {
        bounded(Some(count), LONGEST_LIST)?;
        last.resize(count, fill);
    }
    Ok(Generator::value(rows.into_iter().map(Value::from).collect()))
}

pub(super) fn slice(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, slices, fill] = arguments.bind("slice", ["value", "slices", "fill_with"])?;
    let items = items(&required(value, "slice", "value")?)?;
    let slices = whole(Some(&required(slices, "slice", "slices")?), "slice", 0)?;
    if slices == 0 {
        return Err(failed("slice: division by zero"));
    }
    let slices = bounded(usize::try_from(slices.max(0)).ok(), LONGEST_LIST)?;
    let fill = given(fill);
    let (each, extra) = (items.len() / slices.max(1), items.len() % slices.max(1));
    let mut out = Vec::new();
    let mut rest = items.as_slice();
    for number in 0..slices {
        let (part, after) = rest.split_at(each + usize::from(number < extra));
        rest = after;
        let mut part = part.to_vec();
        if number >= extra {
            part.extend(fill.clone());
        }
        out.push(Value::from(part));
    }
    Ok(Generator::value(out))
}

/// The arguments that stay, as minijinja hands them to filters and tests.
fn handed(first: Value, positional: Vec<Value>, keywords: Vec<(String, Value)>) -> Vec<Value> {
    let mut all = vec![first];
    all.extend(positional);
    if !keywords.is_empty() {
        all.push(keywords.into_iter().collect::<Kwargs>().into());
    }
    all
}

pub(super) fn map(state: &mut State, mut arguments: Arguments) -> Result<Value, Error> {
    let value = subject(&mut arguments, "map")?;
    if !value.is_true() {
        return Ok(Generator::value(Vec::new()));
    }
    let mut out = Vec::new();
    let Some(name) = arguments.first() else {
        let attribute =
            required(arguments.keyword("attribute"), "map", "a filter's name or attribute")?;
        let default = given(arguments.keyword("default"));
        let [] = arguments.bind("map", [])?;
        for item in items(&value)? {
            out.push(path(&item, &attribute, default.as_ref())?);
        }
        return Ok(Generator::value(out));
    };
    let name = name.as_str().ok_or_else(|| failed("map: a filter's name is expected"))?.to_string();
    let (positional, keywords) = arguments.parts();
    for item in items(&value)? {
        let arguments = handed(item, positional.clone(), keywords.clone());
        out.push(state.apply_filter(&name, &arguments)?);
    }
    Ok(Generator::value(out))
}

/// Those items that a test, or their truth, finds as `wanted`; `by_attribute` for what they have under a name.
fn chosen(
    state: &mut State,
    mut arguments: Arguments,
    of: &str,
    wanted: bool,
    by_attribute: bool,
) -> Result<Value, Error> {
    let value = subject(&mut arguments, of)?;
    if !value.is_true() {
        return Ok(Generator::value(Vec::new()));
    }
    let attribute =
        if by_attribute { Some(required(arguments.first(), of, "attribute name")?) } else { None };
    let test = arguments.first();
    let (positional, keywords) = arguments.parts();
    let mut out = Vec::new();
    for item in items(&value)? {
        let tested = match &attribute {
            Some(attribute) => path(&item, attribute, None)?,
            None => item.clone(),
        };
        let holds = match &test {
            None => tested.is_true(),
            Some(test) => {
                let test = test.as_str().ok_or_else(|| failed("a test's name is expected"))?;
                let arguments = handed(tested, positional.clone(), keywords.clone());
                state.perform_test(test, &arguments)?
            }
        };
        if holds == wanted {
            out.push(item);
        }
    }
    Ok(Generator::value(out))
}

pub(super) fn select(state: &mut State, arguments: Arguments) -> Result<Value, Error> {
    chosen(state, arguments, "select", true, false)
}

pub(super) fn reject(state: &mut State, arguments: Arguments) -> Result<Value, Error> {
    chosen(state, arguments, "reject", false, false)
}

pub(super) fn selectattr(state: &mut State, arguments: Arguments) -> Result<Value, Error> {
    chosen(state, arguments, "selectattr", true, true)
}

pub(super) fn rejectattr(state: &mut State, arguments: Arguments) -> Result<Value, Error> {
    chosen(state, arguments, "rejectattr", false, true)
}
