//! Python's `%` formatting of strings: `'%s: %05.2f' % (a, b)`, `'%(name)s' % dict`.

use std::iter::Peekable;
use std::str::Chars;

use minijinja::Error;
use minijinja::value::Value;

use super::format::{bounded_precision, float_text, radix_text, with_sign, zero_filled};
use super::operators::escaped;
use super::repr;
use super::values::{
    Kind, LONGEST_TEXT, bounded, dict_item, failed, float, integer, items, kind, wrong_type,
};

/// What is formatted: the items of a tuple one after another, a mapping by names, or one value.
struct Values<'a> {
    all: Vec<Value>,
    next: usize,
    whole: &'a Value,
}

impl Values<'_> {
    fn next(&mut self) -> Result<Value, Error> {
        let value = self.all.get(self.next).cloned();
        self.next += 1;
        value.ok_or_else(|| failed("not enough arguments for format string"))
    }

    fn named(&self, name: &str) -> Result<Value, Error> {
        if kind(self.whole) != Kind::Dict {
            return Err(wrong_type("format requires a mapping", self.whole));
        }
        dict_item(self.whole, &Value::from(name))
            .ok_or_else(|| failed(format!("%({name}): there is no such key")))
    }
}

/// `format % values`. Texts that go into Markup are escaped.
pub(super) fn format(format: &str, values: &Value, safe: bool) -> Result<String, Error> {
    let of = kind(values);
    let all = if of == Kind::Tuple { items(values)? } else { vec![values.clone()] };
    let mut values = Values { all, next: 0, whole: values };
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '%' {
            let spec = Spec::read(&mut chars, &mut values)?;
            spec.write(&mut out, &mut values, safe)?;
            bounded(Some(out.len()), LONGEST_TEXT)?;
        } else {
            out.push(c);
        }
    }
    // Python counts whatever has subscripts among mappings, and does not mind if those are left.
    let may_be_left = matches!(of, Kind::Dict | Kind::List | Kind::Range | Kind::Undefined);
    if values.next < values.all.len() && !may_be_left {
        return Err(failed("not all arguments converted during string formatting"));
    }
    Ok(out)
}

/// One `%` with what follows it.
#[expect(clippy::struct_excessive_bools, reason = "one for each flag that may stand there")]
#[derive(Default)]
struct Spec {
    /// The value of a name in brackets.
    named: Option<Value>,
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    conversion: char,
}

impl Spec {
    fn read(chars: &mut Peekable<Chars>, values: &mut Values) -> Result<Self, Error> {
        let mut spec = Self::default();
        if chars.next_if_eq(&'(').is_some() {
            let mut name = String::new();
            let mut depth = 1;
            loop {
                let c = chars.next().ok_or_else(|| failed("incomplete format key"))?;
                match c {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                name.push(c);
            }
            spec.named = Some(values.named(&name)?);
        }
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | ' ' | '#' | '0')) {
            match flag {
                '-' => spec.left = true,
                '+' => spec.plus = true,
                ' ' => spec.space = true,
                '#' => spec.alternate = true,
                _ => spec.zero = true,
            }
        }
        if let Some(width) = number(chars, values)? {
            spec.left |= width < 0;
            spec.width = bounded(usize::try_from(width.unsigned_abs()).ok(), LONGEST_TEXT)?;
        }
        if chars.next_if_eq(&'.').is_some() {
            let precision = number(chars, values)?.unwrap_or_default().max(0);
            spec.precision = Some(usize::try_from(precision).unwrap_or(usize::MAX));
        }
        // Sizes of C's types say nothing here.
        chars.next_if(|c| matches!(c, 'h' | 'l' | 'L'));
        spec.conversion = chars.next().ok_or_else(|| failed("incomplete format"))?;
        Ok(spec)
    }

    fn write(&self, out: &mut String, values: &mut Values, safe: bool) -> Result<(), Error> {
        if self.conversion == '%' {
            out.push('%');
            return Ok(());
        }
        let known = "diouxXeEfFgGcrsa".contains(self.conversion);
        if !known {
            return Err(failed(format!("unsupported format character {:?}", self.conversion)));
        }
        let value = match &self.named {
            Some(value) => value.clone(),
            None => values.next()?,
        };
        let (prefix, text) = match self.conversion {
            'c' | 'r' | 's' | 'a' => {
                let text = self.text(&value)?;
                let text = match self.precision {
                    Some(precision) => text.chars().take(precision).collect(),
                    None => text,
                };
                let escapes = safe && !(value.is_safe() && self.conversion == 's');
                (String::new(), if escapes { escaped(&text) } else { text })
            }
            _ => self.number(&value)?,
        };
        let length = prefix.chars().count() + text.chars().count();
        let fill = self.width.saturating_sub(length);
        let numeric = !matches!(self.conversion, 'c' | 'r' | 's' | 'a');
        if self.left {
            out.push_str(&prefix);
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', fill));
        } else if self.zero && numeric {
            out.push_str(&prefix);
            out.push_str(&zero_filled(&text, text.len() + fill));
        } else {
            out.extend(std::iter::repeat_n(' ', fill));
            out.push_str(&prefix);
            out.push_str(&text);
        }
        Ok(())
    }

    fn text(&self, value: &Value) -> Result<String, Error> {
        match self.conversion {
            's' => repr::text(value),
            'r' => repr::repr(value),
            'a' => Ok(match value.as_str() {
                Some(text) => repr::text_ascii(text),
                None => repr::repr(value)?,
            }),
            _ => match (value.as_str(), integer(value)) {
                (Some(text), _) if text.chars().count() == 1 => Ok(text.to_string()),
                (None, Some(code)) => u32::try_from(code)
                    .ok()
                    .and_then(char::from_u32)
                    .map(String::from)
                    .ok_or_else(|| failed("%c: the number is no character")),
                _ => Err(wrong_type("%c requires int or char", value)),
            },
        }
    }

    /// Sign and prefix, and the digits.
    fn number(&self, value: &Value) -> Result<(String, String), Error> {
        let sign = |negative: bool| with_sign(negative, self.plus, self.space);
        match self.conversion {
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
                let whole = integer(value).or_else(|| {
                    let truncates = matches!(self.conversion, 'd' | 'i' | 'u');
                    float(value)
                        .filter(|f| truncates && f.is_finite() && f.abs() < 1.7e38)
                        .map(|f| f.trunc() as i128)
                });
                let whole = whole.ok_or_else(|| {
                    wrong_type(&format!("%{} format: a number is required", self.conversion), value)
                })?;
                let (prefix, digits) = radix_text(whole.unsigned_abs(), self.conversion);
                let prefix = if self.alternate { prefix } else { "" };
                let least = bounded_precision(self.precision.unwrap_or(1))?;
                Ok((format!("{}{prefix}", sign(whole < 0)), zero_filled(&digits, least)))
            }
            conversion => {
                let of_text = || wrong_type("must be real number", value);
                let number = float(value).ok_or_else(of_text)?;
                let precision = bounded_precision(self.precision.unwrap_or(6))?;
                let text = float_text(number.abs(), conversion, precision, self.alternate);
                Ok((sign(number.is_sign_negative() && !number.is_nan()).to_string(), text))
            }
        }
    }
}

/// Digits, or a star for the next value.
fn number(chars: &mut Peekable<Chars>, values: &mut Values) -> Result<Option<i128>, Error> {
    if chars.next_if_eq(&'*').is_some() {
        let value = values.next()?;
        let number = integer(&value).ok_or_else(|| wrong_type("* wants int", &value))?;
        return Ok(Some(number));
    }
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    if digits.is_empty() {
        return Ok(None);
    }
    digits.parse().map(Some).map_err(|_| failed(format!("a width of {digits} is too big")))
}
