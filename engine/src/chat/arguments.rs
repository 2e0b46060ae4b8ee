//! Arguments of filters, tests, functions and methods, bound to the names that Python gives them.

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

use super::values::{Kind, failed, integer, kind, wrong_type};

/// Positional arguments, and those with keywords.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    positional: Vec<Value>,
    keywords: Vec<(String, Value)>,
}

impl Arguments {
    /// The arguments of a call, keywords last as minijinja hands them over.
    pub(super) fn new(arguments: &[Value]) -> Result<Self, Error> {
        let (last, first) = match arguments.split_last() {
            Some((last, first)) if last.is_kwargs() => (Some(last), first),
            _ => (None, arguments),
        };
        let mut keywords = Vec::new();
        if let Some(last) = last {
            for key in last.try_iter()? {
                let value = last.get_item(&key)?;
                keywords.push((key.as_str().unwrap_or_default().to_string(), value));
            }
        }
        Ok(Self { positional: first.to_vec(), keywords })
    }

    /// The first positional argument, which is taken off.
    pub(super) fn first(&mut self) -> Option<Value> {
        (!self.positional.is_empty()).then(|| self.positional.remove(0))
    }

    /// A keyword's argument, which is taken off.
    pub(super) fn keyword(&mut self, name: &str) -> Option<Value> {
        let at = self.keywords.iter().position(|(key, _)| key == name)?;
        Some(self.keywords.remove(at).1)
    }

    /// Positional arguments and those with keywords, as they are.
    pub(super) fn parts(self) -> (Vec<Value>, Vec<(String, Value)>) {
        (self.positional, self.keywords)
    }

    /// All arguments by the names that the callee gives them.
    pub(super) fn bind<const N: usize>(
        self,
        of: &str,
        names: [&str; N],
    ) -> Result<[Option<Value>; N], Error> {
        if self.positional.len() > N {
            let given = self.positional.len();
            return Err(failed(format!("{of} takes at most {N} arguments, {given} were given")));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (key, value) in self.keywords {
            let at = names.iter().position(|name| *name == key);
            let at = at.ok_or_else(|| failed(format!("{of} has no argument {key:?}")))?;
            if bound[at].is_some() {
                return Err(failed(format!("{of} has two values for {key:?}")));
            }
            bound[at] = Some(value);
        }
        Ok(bound)
    }

    /// All arguments of a callee that takes no keywords.
    pub(super) fn positional<const N: usize>(self, of: &str) -> Result<[Option<Value>; N], Error> {
        if let Some((key, _)) = self.keywords.first() {
            return Err(failed(format!("{of} takes no keyword arguments, {key:?} was given")));
        }
        self.bind(of, [""; N])
    }

    /// All arguments of a callee that takes any number, but no keywords.
    pub(super) fn all_positional(self, of: &str) -> Result<Vec<Value>, Error> {
        if let Some((key, _)) = self.keywords.first() {
            return Err(failed(format!("{of} takes no keyword arguments, {key:?} was given")));
        }
        Ok(self.positional)
    }
}

/// What is missing without an argument.
pub(super) fn required(value: Option<Value>, of: &str, name: &str) -> Result<Value, Error> {
    value.ok_or_else(|| {
        Error::new(ErrorKind::MissingArgument, format!("{of} needs the argument {name:?}"))
    })
}

/// An integer argument, or what it is without one.
pub(super) fn whole(value: Option<&Value>, of: &str, or: i128) -> Result<i128, Error> {
    match value {
        None => Ok(or),
        Some(value) => integer(value)
            .ok_or_else(|| wrong_type(&format!("{of}: an integer is expected"), value)),
    }
}

/// An argument that is true or not.
pub(super) fn truth(value: Option<&Value>, or: bool) -> bool {
    value.map_or(or, Value::is_true)
}

/// An argument, where it is given and not `None`.
pub(super) fn given(value: Option<Value>) -> Option<Value> {
    value.filter(|value| kind(value) != Kind::None)
}

/// A string argument.
pub(super) fn string<'a>(value: &'a Value, of: &str) -> Result<&'a str, Error> {
    value.as_str().ok_or_else(|| wrong_type(&format!("{of}: a string is expected"), value))
}
