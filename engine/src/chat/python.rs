//! What templates see of Python's jinja2 beyond minijinja: markup that escapes what is added to it, generators that are
//! no JSON.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, ValueKind};
use minijinja::{Environment, Error, Output, State, Value, filters};

/// Around a text marked safe, in a string that may be added to: jinja2 escapes what stands outside.
const START: char = '\u{f0001}';
const END: char = '\u{f0002}';

/// Adds the filters and the way values are written, for a template of this source.
pub(super) fn add_to(environment: &mut Environment, source: &str) {
    if adds_to_safe(source) {
        environment.add_filter("safe", |text: String| format!("{START}{text}{END}"));
        environment.set_formatter(write_value);
    }
    // Builtins make lists; under names of their own they serve those that make generators.
    environment.add_filter("list_of_map", filters::map);
    environment.add_filter("list_of_select", filters::select);
    environment.add_filter("list_of_selectattr", filters::selectattr);
    environment.add_filter("list_of_reject", filters::reject);
    environment.add_filter("list_of_rejectattr", filters::rejectattr);
    for (name, list) in [
        ("map", "list_of_map"),
        ("select", "list_of_select"),
        ("selectattr", "list_of_selectattr"),
        ("reject", "list_of_reject"),
        ("rejectattr", "list_of_rejectattr"),
    ] {
        environment.add_filter(name, move |state: &mut State, arguments: Rest<Value>| {
            let items = state.apply_filter(list, &arguments)?;
            Ok::<_, Error>(Generator::value(items.try_iter()?.collect()))
        });
    }
}

/// Whether a template adds something to a text marked safe by `+`, which in Python escapes it (`~` does not).
fn adds_to_safe(source: &str) -> bool {
    source.split('|').skip(1).any(|after| {
        let rest = after.trim_start().strip_prefix("safe");
        rest.is_some_and(|rest| rest.trim_start().starts_with('+'))
    })
}

/// Writes a value; in a string with parts marked safe the others are escaped, as Python's Markup does when it is
/// added to.
fn write_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let Some(text) = value.as_str().filter(|text| text.contains(START)) else {
        return minijinja::escape_formatter(out, state, value);
    };
    let mut depth = 0;
    for c in text.chars() {
        match c {
            START => depth += 1,
            END => depth -= 1,
            _ if depth > 0 => out.write_char(c)?,
            '&' => out.write_str("&amp;")?,
            '<' => out.write_str("&lt;")?,
            '>' => out.write_str("&gt;")?,
            '"' => out.write_str("&#34;")?,
            '\'' => out.write_str("&#39;")?,
            _ => out.write_char(c)?,
        }
    }
    Ok(())
}

/// What `map` and its like give in jinja2: can be gone through, but is no list.
#[derive(Debug)]
pub(super) struct Generator(Vec<Value>);

impl Generator {
    fn value(items: Vec<Value>) -> Value {
        Value::from_object(Self(items))
    }

    /// Whether a value is one.
    pub fn is(value: &Value) -> bool {
        value.kind() == ValueKind::Iterable && value.downcast_object_ref::<Self>().is_some()
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.clone())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<generator object>")
    }
}
