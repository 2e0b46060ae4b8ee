//! Numbers as text, and Python's `str.format` with its mini-language.

use minijinja::Error;
use minijinja::value::Value;

use super::arguments::Arguments;
use super::operators;
use super::repr::{self, float_repr};
use super::values::{Kind, LONGEST_TEXT, bounded, failed, float, integer, kind, wrong_type};

/// The most digits behind a point, and the most digits of an integer.
const MOST_DIGITS: usize = 10_000;

/// A precision, unless it is absurd.
pub(super) fn bounded_precision(precision: usize) -> Result<usize, Error> {
    bounded(Some(precision), MOST_DIGITS)
}

/// What stands before a number.
pub(super) fn with_sign(negative: bool, plus: bool, space: bool) -> &'static str {
    match (negative, plus, space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    }
}

/// Digits with zeros before them.
pub(super) fn zero_filled(digits: &str, width: usize) -> String {
    format!("{}{digits}", "0".repeat(width.saturating_sub(digits.chars().count())))
}

/// An integer's prefix and digits by a conversion: `x`, `X`, `o`, `b`, else decimal.
pub(super) fn radix_text(number: u128, conversion: char) -> (&'static str, String) {
    match conversion {
        'x' => ("0x", format!("{number:x}")),
        'X' => ("0X", format!("{number:X}")),
        'o' => ("0o", format!("{number:o}")),
        'b' => ("0b", format!("{number:b}")),
        _ => ("", number.to_string()),
    }
}

/// A number without sign by `e`, `f` or `g`, large letters for large letters.
pub(super) fn float_text(
    number: f64,
    conversion: char,
    precision: usize,
    alternate: bool,
) -> String {
    let large = conversion.is_ascii_uppercase();
    let text = if number.is_nan() {
        "nan".to_string()
    } else if number.is_infinite() {
        "inf".to_string()
    } else {
        match conversion.to_ascii_lowercase() {
            'e' => scientific(number, precision, alternate),
            'g' => general(number, precision, alternate, false),
            _ => {
                let text = format!("{number:.precision$}");
                if alternate && precision == 0 { text + "." } else { text }
            }
        }
    };
    if large { text.to_uppercase() } else { text }
}

/// `1.50e+07`.
fn scientific(number: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    let point = if alternate && precision == 0 { "." } else { "" };
    format!("{digits}{point}e{sign}{:02}", exponent.abs())
}

/// As many significant digits as `precision`, in whichever way is shorter. With `dot_zero` an integer gets a `.0`.
fn general(number: f64, precision: usize, alternate: bool, dot_zero: bool) -> String {
    let precision = precision.max(1);
    let text = format!("{number:.*e}", precision - 1);
    let exponent: i64 = text.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or_default();
    let most = precision as i64 - i64::from(dot_zero);
    let fixed = exponent >= -4 && exponent < most;
    let out = if fixed {
        let decimals = (precision as i64 - 1 - exponent).max(0) as usize;
        format!("{number:.decimals$}")
    } else {
        scientific(number, precision - 1, false)
    };
    if alternate {
        return out;
    }
    let (digits, exponent) = match out.split_once('e') {
        Some((digits, exponent)) => (digits.to_string(), format!("e{exponent}")),
        None => (out, String::new()),
    };
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        digits
    };
    let zero = if dot_zero && exponent.is_empty() && !digits.contains('.') { ".0" } else { "" };
    format!("{digits}{zero}{exponent}")
}

/// `format(value, spec)`.
pub(super) fn format_value(value: &Value, spec: &str) -> Result<String, Error> {
    if spec.is_empty() {
        return repr::text(value);
    }
    let of = kind(value);
    let spec = FormatSpec::parse(spec)?;
    match of {
        Kind::Text => spec.text(value.as_str().unwrap_or_default()),
        Kind::Bool | Kind::Int | Kind::Float => spec.number(value, of),
        _ => Err(wrong_type("unsupported format string", value)),
    }
}

/// `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
struct FormatSpec {
    fill: char,
    align: Option<char>,
    sign: char,
    alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    conversion: Option<char>,
}

impl FormatSpec {
    fn parse(text: &str) -> Result<Self, Error> {
        let chars: Vec<char> = text.chars().collect();
        let is_align = |c: Option<&char>| c.is_some_and(|c| "<>=^".contains(*c));
        let mut at = 0;
        let mut spec = Self {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            width: 0,
            grouping: None,
            precision: None,
            conversion: None,
        };
        let mut filled = false;
        if is_align(chars.get(1)) {
            (spec.fill, spec.align, filled) = (chars[0], Some(chars[1]), true);
            at = 2;
        } else if is_align(chars.first()) {
            spec.align = Some(chars[0]);
            at = 1;
        }
        let take = |at: &mut usize, of: &str| {
            let c = chars.get(*at).copied().filter(|c| of.contains(*c))?;
            *at += 1;
            Some(c)
        };
        spec.sign = take(&mut at, "+- ").unwrap_or('-');
        take(&mut at, "z");
        spec.alternate = take(&mut at, "#").is_some();
        if take(&mut at, "0").is_some() && !filled {
            spec.fill = '0';
            // `=` for numbers; texts keep their side.
            spec.align = spec.align.or(Some('0'));
        }
        let number = |at: &mut usize| -> Result<Option<usize>, Error> {
            let digits: String = chars[*at..].iter().take_while(|c| c.is_ascii_digit()).collect();
            *at += digits.len();
            match digits.as_str() {
                "" => Ok(None),
                digits => bounded(digits.parse().ok(), LONGEST_TEXT).map(Some),
            }
        };
        spec.width = number(&mut at)?.unwrap_or_default();
        spec.grouping = take(&mut at, ",_");
        if take(&mut at, ".").is_some() {
            let precision =
                number(&mut at)?.ok_or_else(|| failed("format specifier missing precision"))?;
            spec.precision = Some(precision);
        }
        spec.conversion = chars.get(at).copied();
        if chars.len() > at + 1 {
            return Err(failed(format!("invalid format specifier {text:?}")));
        }
        Ok(spec)
    }

    fn text(&self, text: &str) -> Result<String, Error> {
        let conversion = self.conversion.is_none_or(|c| c == 's');
        let align = self.align.map_or('<', |align| if align == '0' { '<' } else { align });
        if !conversion
            || align == '='
            || self.sign != '-'
            || self.alternate
            || self.grouping.is_some()
        {
            return Err(failed("a format specifier that is not for strings"));
        }
        let text: String = match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_string(),
        };
        Ok(self.padded("", &text, align))
    }

    fn padded(&self, prefix: &str, text: &str, align: char) -> String {
        let length = prefix.chars().count() + text.chars().count();
        let fill = self.width.saturating_sub(length);
        let (left, middle, right) = match align {
            '<' => (0, 0, fill),
            '^' => (fill / 2, 0, fill - fill / 2),
            '=' => (0, fill, 0),
            _ => (fill, 0, 0),
        };
        let pad = |count: usize| String::from(self.fill).repeat(count);
        format!("{}{prefix}{}{text}{}", pad(left), pad(middle), pad(right))
    }

    fn number(&self, value: &Value, of: Kind) -> Result<String, Error> {
        let conversion = self.conversion.unwrap_or(if of == Kind::Float { '\0' } else { 'd' });
        let sign = |negative: bool| with_sign(negative, self.sign == '+', self.sign == ' ');
        let (prefix, digits) = match conversion {
            'c' | 'b' | 'd' | 'o' | 'x' | 'X' | 'n' if of != Kind::Float => {
                let whole = integer(value).ok_or_else(|| failed("the number is too large"))?;
                if self.precision.is_some() {
                    return Err(failed("precision not allowed in integer format specifier"));
                }
                if conversion == 'c' {
                    let c = u32::try_from(whole).ok().and_then(char::from_u32);
                    let c = c.ok_or_else(|| failed("%c: the number is no character"))?;
                    return Ok(self.padded("", &c.to_string(), self.align.unwrap_or('<')));
                }
                if self.grouping == Some(',') && !matches!(conversion, 'd') {
                    return Err(failed(format!("cannot specify ',' with '{conversion}'")));
                }
                let (prefix, digits) = radix_text(whole.unsigned_abs(), conversion);
                let prefix = if self.alternate { prefix } else { "" };
                (format!("{}{prefix}", sign(whole < 0)), digits)
            }
            '\0' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%' => {
                let number = float(value).ok_or_else(|| failed("the number is too large"))?;
                let negative = number.is_sign_negative() && !number.is_nan();
                let number = number.abs();
                let precision = self.precision.map(bounded_precision).transpose()?;
                let digits = match (conversion, precision) {
                    ('\0', None) => float_repr(number),
                    ('\0', Some(precision)) if number.is_finite() => {
                        general(number, precision, self.alternate, true)
                    }
                    ('%', precision) => {
                        let precision = precision.unwrap_or(6);
                        float_text(number * 100.0, 'f', precision, self.alternate) + "%"
                    }
                    ('n' | '\0', precision) => {
                        float_text(number, 'g', precision.unwrap_or(6), self.alternate)
                    }
                    (conversion, precision) => {
                        float_text(number, conversion, precision.unwrap_or(6), self.alternate)
                    }
                };
                (sign(negative).to_string(), digits)
            }
            other => {
                return Err(failed(format!("unknown format code '{other}' for a number")));
            }
        };
        let align = self.align.map_or('>', |align| if align == '0' { '=' } else { align });
        let digits = match self.grouping {
            None => digits,
            Some(comma) => {
                let size = if matches!(conversion, 'b' | 'o' | 'x' | 'X') { 4 } else { 3 };
                let least = if align == '=' && self.fill == '0' {
                    self.width.saturating_sub(prefix.chars().count())
                } else {
                    0
                };
                grouped(&digits, comma, size, least)
            }
        };
        Ok(self.padded(&prefix, &digits, align))
    }
}

/// Digits before a point in groups; zeros before them until there are `least` characters.
fn grouped(digits: &str, comma: char, size: usize, least: usize) -> String {
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    let end = digits.find(['e', '.', '%']).filter(|_| size == 3).unwrap_or(end);
    let (whole, rest) = digits.split_at(end);
    let mut reversed = Vec::new();
    let mut chars = whole.chars().rev();
    let mut count = 0;
    loop {
        let next = chars.next();
        if next.is_none() && reversed.len() + rest.len() >= least {
            break;
        }
        if count > 0 && count % size == 0 {
            reversed.push(comma);
        }
        reversed.push(next.unwrap_or('0'));
        count += 1;
    }
    reversed.iter().rev().collect::<String>() + rest
}

/// Where the values of `str.format` come from.
struct Fields<'a> {
    positional: &'a [Value],
    keywords: &'a dyn Fn(&str) -> Option<Value>,
    /// The next field without a number; none after one with a number.
    next: Option<usize>,
    numbered: bool,
    size: usize,
    /// Whether the text is Markup, and what is put into it is escaped.
    safe: bool,
}

/// `text.format(*positional, **keywords)`.
pub(super) fn format(text: &Value, arguments: Arguments) -> Result<String, Error> {
    let (positional, keywords) = arguments.parts();
    let named =
        |name: &str| keywords.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    format_fields(text, &positional, &named)
}

/// `text.format_map(mapping)`.
pub(super) fn format_map(text: &Value, mapping: &Value) -> Result<String, Error> {
    format_fields(text, &[], &|name| super::values::dict_item(mapping, &Value::from(name)))
}

fn format_fields(
    text: &Value,
    positional: &[Value],
    keywords: &dyn Fn(&str) -> Option<Value>,
) -> Result<String, Error> {
    let safe = text.is_safe();
    let mut fields = Fields { positional, keywords, next: Some(0), numbered: false, size: 0, safe };
    fields.write(text.as_str().unwrap_or_default(), 3)
}

impl Fields<'_> {
    fn write(&mut self, text: &str, depth: usize) -> Result<String, Error> {
        if depth == 0 {
            return Err(failed("max string recursion exceeded"));
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(failed("single '}' encountered in format string"));
            }
            let end =
                field_end(after).ok_or_else(|| failed("expected '}' before end of string"))?;
            let piece = self.field(&after[..end], depth)?;
            self.size += piece.len();
            bounded(Some(self.size), LONGEST_TEXT)?;
            out.push_str(&piece);
            rest = &after[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        // A colon or `!` inside square brackets belongs to the key.
        let mut brackets = false;
        let split = field.find(|c| {
            match c {
                '[' => brackets = true,
                ']' => brackets = false,
                _ => {}
            }
            !brackets && matches!(c, '!' | ':')
        });
        let (name, rest) = field.split_at(split.unwrap_or(field.len()));
        let (conversion, spec) = match rest.strip_prefix('!') {
            Some(rest) => {
                let conversion = rest.chars().next();
                let spec = rest.get(1..).unwrap_or_default();
                if !spec.is_empty() && !spec.starts_with(':') {
                    return Err(failed("expected ':' after conversion specifier"));
                }
                (conversion, spec)
            }
            None => (None, rest),
        };
        let value = self.value(name)?;
        let spec = self.write(spec.strip_prefix(':').unwrap_or(spec), depth - 1)?;
        let value = match conversion {
            None if rest.starts_with('!') => return Err(failed("unmatched '!' in a format field")),
            None => value,
            Some('s') => Value::from(repr::text(&value)?),
            Some('r') => Value::from(repr::repr(&value)?),
            Some('a') => Value::from(match value.as_str() {
                Some(text) => repr::text_ascii(text),
                None => repr::repr(&value)?,
            }),
            Some(c) => return Err(failed(format!("unknown conversion specifier '{c}'"))),
        };
        let escapes = self.safe && !value.is_safe();
        let text = format_value(&value, &spec)?;
        Ok(if escapes { operators::escaped(&text) } else { text })
    }

    /// The value of `name.attribute[key]`.
    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let mut value = if first.is_empty() {
            let index = self.next.filter(|_| !self.numbered);
            let index =
                index.ok_or_else(|| failed("cannot switch to automatic field numbering"))?;
            self.next = Some(index + 1);
            self.positional.get(index).cloned()
        } else if first.bytes().all(|b| b.is_ascii_digit()) {
            if self.next != Some(0) {
                return Err(failed("cannot switch to manual field specification"));
            }
            self.numbered = true;
            first.parse().ok().and_then(|index: usize| self.positional.get(index)).cloned()
        } else {
            (self.keywords)(first)
        }
        .ok_or_else(|| failed(format!("format: there is no argument for {{{name}}}")))?;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = after.find(']').ok_or_else(|| failed("missing ']' in format string"))?;
                let key = &after[..end];
                let key = key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from);
                value = operators::item(&value, &key)?;
                rest = &after[end + 1..];
            } else {
                let after = &rest[1..];
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = operators::attribute(&value, &after[..end])?;
                rest = &after[end..];
            }
        }
        Ok(value)
    }
}

/// The end of a field, which may hold others.
fn field_end(text: &str) -> Option<usize> {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}
