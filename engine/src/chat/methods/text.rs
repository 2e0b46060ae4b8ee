//! The methods of Python's strings. Places and widths count characters.

use minijinja::value::Value;
use minijinja::{Error, State};

use super::super::arguments::{Arguments, given, required, string, whole};
use super::super::format;
use super::super::operators::{self, like, plain};
use super::super::repr::is_printable;
use super::super::source::is_space;
use super::super::values::{
    Kind, LONGEST_TEXT, bounded, dict_item, failed, integer, items, kind, wrong_type,
};
use super::characters::{
    begins_name, continues_name, fold, is_alnum, is_alpha, is_cased, is_decimal, is_digit,
    is_numeric, is_title, title_case,
};
use super::cut::{partition, remove, split, splitlines, strip};

/// A method of a string.
pub(super) type TextMethod = fn(&mut State, &Value, Arguments) -> Result<Value, Error>;

const METHODS: &[(&str, TextMethod)] = &[
    ("capitalize", |_, text, arguments| change(text, "capitalize", arguments, capitalized)),
    ("casefold", |_, text, a| change(text, "casefold", a, |text| text.chars().map(fold).collect())),
    ("center", |_, text, arguments| justify(text, "center", arguments)),
    ("count", count),
    ("encode", encode),
    ("endswith", |_, text, arguments| affix(text, "endswith", arguments)),
    ("expandtabs", expandtabs),
    ("find", |_, text, arguments| find_part(text, "find", arguments)),
    ("format", |_, text, arguments| format::format(text, arguments).map(|out| like(text, out))),
    ("format_map", format_map),
    ("index", |_, text, arguments| find_part(text, "index", arguments)),
    ("isalnum", |_, text, arguments| all(text, "isalnum", arguments, is_alnum)),
    ("isalpha", |_, text, arguments| all(text, "isalpha", arguments, is_alpha)),
    ("isascii", |_, text, arguments| says(text, "isascii", arguments, str::is_ascii)),
    ("isdecimal", |_, text, arguments| all(text, "isdecimal", arguments, is_decimal)),
    ("isdigit", |_, text, arguments| all(text, "isdigit", arguments, is_digit)),
    ("isidentifier", |_, text, arguments| says(text, "isidentifier", arguments, is_identifier)),
    ("islower", |_, text, arguments| says(text, "islower", arguments, is_lower)),
    ("isnumeric", |_, text, arguments| all(text, "isnumeric", arguments, is_numeric)),
    ("isprintable", |_, text, a| {
        says(text, "isprintable", a, |text| text.chars().all(is_printable))
    }),
    ("isspace", |_, text, arguments| all(text, "isspace", arguments, is_space)),
    ("istitle", |_, text, arguments| says(text, "istitle", arguments, is_title_text)),
    ("isupper", |_, text, arguments| says(text, "isupper", arguments, is_upper)),
    ("join", join),
    ("ljust", |_, text, arguments| justify(text, "ljust", arguments)),
    ("lower", |_, text, arguments| change(text, "lower", arguments, str::to_lowercase)),
    ("lstrip", |_, text, arguments| strip(text, arguments, true, false)),
    ("maketrans", maketrans),
    ("partition", |_, text, arguments| partition(text, arguments, false)),
    ("removeprefix", |_, text, arguments| remove(text, "removeprefix", arguments)),
    ("removesuffix", |_, text, arguments| remove(text, "removesuffix", arguments)),
    ("replace", replace),
    ("rfind", |_, text, arguments| find_part(text, "rfind", arguments)),
    ("rindex", |_, text, arguments| find_part(text, "rindex", arguments)),
    ("rjust", |_, text, arguments| justify(text, "rjust", arguments)),
    ("rpartition", |_, text, arguments| partition(text, arguments, true)),
    ("rsplit", |_, text, arguments| split(text, arguments, true)),
    ("rstrip", |_, text, arguments| strip(text, arguments, false, true)),
    ("split", |_, text, arguments| split(text, arguments, false)),
    ("splitlines", splitlines),
    ("startswith", |_, text, arguments| affix(text, "startswith", arguments)),
    ("strip", |_, text, arguments| strip(text, arguments, true, true)),
    ("swapcase", |_, text, arguments| change(text, "swapcase", arguments, swapped)),
    ("title", |_, text, arguments| change(text, "title", arguments, titled)),
    ("translate", translate),
    ("upper", |_, text, arguments| change(text, "upper", arguments, str::to_uppercase)),
    ("zfill", zfill),
];

/// The method of a name.
pub(super) fn find(name: &str) -> Option<TextMethod> {
    METHODS.iter().find(|(method, _)| *method == name).map(|(_, method)| *method)
}

fn change(
    value: &Value,
    of: &str,
    arguments: Arguments,
    by: fn(&str) -> String,
) -> Result<Value, Error> {
    let [] = arguments.positional(of)?;
    Ok(like(value, by(plain(value))))
}

fn says(
    value: &Value,
    of: &str,
    arguments: Arguments,
    what: fn(&str) -> bool,
) -> Result<Value, Error> {
    let [] = arguments.positional(of)?;
    Ok(Value::from(what(plain(value))))
}

/// Whether there are characters and all are of a kind.
fn all(
    value: &Value,
    of: &str,
    arguments: Arguments,
    are: fn(char) -> bool,
) -> Result<Value, Error> {
    let [] = arguments.positional(of)?;
    let text = plain(value);
    Ok(Value::from(!text.is_empty() && text.chars().all(are)))
}

/// Whether a character belongs to a word of a regular expression.
pub(in super::super) fn is_word(c: char) -> bool {
    c == '_' || is_alnum(c)
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(begins_name) && chars.all(continues_name)
}

fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(|c| c.is_uppercase() || is_title(c))
}

fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || is_title(c))
}

fn is_title_text(text: &str) -> bool {
    let (mut cased, mut inside) = (false, false);
    for c in text.chars() {
        if c.is_uppercase() || is_title(c) {
            if inside {
                return false;
            }
            (cased, inside) = (true, true);
        } else if c.is_lowercase() {
            if !inside {
                return false;
            }
            cased = true;
        } else {
            inside = false;
        }
    }
    cased
}

/// The first character as that of a title, the others small.
pub(in super::super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        None => String::new(),
        Some(first) => {
            // Lower case of the whole, as the last letter of a word may have a form of its own.
            let lower = text.to_lowercase();
            let skip: usize = first.to_lowercase().map(char::len_utf8).sum();
            title_case(first) + lower.get(skip..).unwrap_or_default()
        }
    }
}

/// The small form of a character at a place of a text: the last sigma of a word has one of its own.
fn lower_at(text: &str, at: usize, c: char) -> String {
    let before = text[..at].chars().next_back().is_some_and(is_cased);
    let after = text[at + c.len_utf8()..].chars().next().is_some_and(is_cased);
    if c == 'Σ' && before && !after { "ς".into() } else { c.to_lowercase().collect() }
}

fn titled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for (at, c) in text.char_indices() {
        out.push_str(&if inside { lower_at(text, at, c) } else { title_case(c) });
        inside = is_cased(c);
    }
    out
}

fn swapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if c.is_uppercase() {
            out.push_str(&lower_at(text, at, c));
        } else if c.is_lowercase() {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// The characters between two places, and the first place; none: they lie beyond the text.
fn part(
    text: &str,
    start: Option<Value>,
    stop: Option<Value>,
    of: &str,
) -> Result<Option<(String, usize)>, Error> {
    let (start, stop) = (given(start), given(stop));
    let chars: Vec<char> = text.chars().collect();
    let first = whole(start.as_ref(), of, 0)?;
    let last = whole(stop.as_ref(), of, i128::MAX)?;
    let length = chars.len() as i128;
    let from_end = |at: i128| if at < 0 { at.saturating_add(length).max(0) } else { at };
    let (first, last) = (from_end(first), from_end(last).min(length));
    if first > last {
        return Ok(None);
    }
    let part = chars[first as usize..last as usize].iter().collect();
    Ok(Some((part, first as usize)))
}

fn count(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [wanted, start, stop] = arguments.positional("count")?;
    let wanted = required(wanted, "count", "sub")?;
    let wanted = string(&wanted, "count")?;
    let Some((part, _)) = part(plain(value), start, stop, "count")? else {
        return Ok(Value::from(0));
    };
    let count =
        if wanted.is_empty() { part.chars().count() + 1 } else { part.matches(wanted).count() };
    Ok(Value::from(count))
}

/// `find`, `index`, `rfind` and `rindex`.
fn find_part(value: &Value, of: &str, arguments: Arguments) -> Result<Value, Error> {
    let [wanted, start, stop] = arguments.positional(of)?;
    let wanted = required(wanted, of, "sub")?;
    let wanted = string(&wanted, of)?;
    let found = part(plain(value), start, stop, of)?.and_then(|(part, first)| {
        let at = if of.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) }?;
        Some(first + part[..at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::from(at)),
        None if of.ends_with("index") => Err(failed(format!("{of}: substring not found"))),
        None => Ok(Value::from(-1)),
    }
}

/// `startswith` and `endswith`: a string or a tuple of them.
fn affix(value: &Value, of: &str, arguments: Arguments) -> Result<Value, Error> {
    let [affix, start, stop] = arguments.positional(of)?;
    let affix = required(affix, of, "prefix")?;
    let affixes = match kind(&affix) {
        Kind::Text => vec![affix],
        Kind::Tuple => items(&affix)?,
        _ => return Err(wrong_type(&format!("{of}: str or a tuple of str is expected"), &affix)),
    };
    let part = part(plain(value), start, stop, of)?;
    for affix in &affixes {
        let affix = string(affix, of)?;
        let holds = part.as_ref().is_some_and(|(part, _)| {
            if of == "startswith" { part.starts_with(affix) } else { part.ends_with(affix) }
        });
        if holds {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

fn encode(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [encoding, errors] = arguments.bind("encode", ["encoding", "errors"])?;
    let encoding = encoding.as_ref().and_then(Value::as_str).unwrap_or("utf-8").to_lowercase();
    let errors = errors.as_ref().and_then(Value::as_str).unwrap_or("strict").to_string();
    let most = match encoding.replace(['-', '_'], "").as_str() {
        "utf8" => return Ok(Value::from_bytes(plain(value).as_bytes().to_vec())),
        "ascii" => 0x7f,
        "latin1" | "iso88591" => 0xff,
        other => return Err(failed(format!("encode: unknown encoding {other}"))),
    };
    let mut out = Vec::new();
    for c in plain(value).chars() {
        match (c as u32, errors.as_str()) {
            (code, _) if code <= most => out.push(code as u8),
            (_, "ignore") => {}
            (_, "replace") => out.push(b'?'),
            _ => return Err(failed(format!("encode: {encoding} has no {c:?}"))),
        }
    }
    Ok(Value::from_bytes(out))
}

fn expandtabs(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [size] = arguments.bind("expandtabs", ["tabsize"])?;
    let size = usize::try_from(whole(size.as_ref(), "expandtabs", 8)?.max(0)).unwrap_or(usize::MAX);
    let text = plain(value);
    bounded(text.matches('\t').count().checked_mul(size), LONGEST_TEXT)?;
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let fill = size - column % size;
                out.extend(std::iter::repeat_n(' ', fill));
                column += fill;
            }
            '\t' => {}
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(like(value, out))
}

fn format_map(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [mapping] = arguments.positional("format_map")?;
    let mapping = required(mapping, "format_map", "mapping")?;
    format::format_map(value, &mapping).map(|out| like(value, out))
}

fn join(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [parts] = arguments.positional("join")?;
    let parts = items(&required(parts, "join", "iterable")?)?;
    let separator = plain(value);
    let mut out = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        let text = string(part, "join")?;
        let escapes = value.is_safe() && !part.is_safe();
        out.push_str(&if escapes { operators::escaped(text) } else { text.to_string() });
        bounded(Some(out.len()), LONGEST_TEXT)?;
    }
    Ok(like(value, out))
}

/// A text in the middle of a field, as Python's `center` places it.
pub(in super::super) fn centered(text: &str, width: i128, fill: char) -> Result<String, Error> {
    let length = text.chars().count();
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    if width <= length {
        return Ok(text.to_string());
    }
    bounded(width.checked_mul(fill.len_utf8()), LONGEST_TEXT)?;
    let space = width - length;
    let left = space / 2 + (space & width & 1);
    let pad = |count: usize| String::from(fill).repeat(count);
    Ok(format!("{}{text}{}", pad(left), pad(space - left)))
}

fn justify(value: &Value, of: &str, arguments: Arguments) -> Result<Value, Error> {
    let [width, fill] = arguments.positional(of)?;
    let width = whole(Some(&required(width, of, "width")?), of, 0)?;
    let fill = fill.unwrap_or_else(|| Value::from(" "));
    let mut chars = string(&fill, of)?.chars();
    let (Some(fill), None) = (chars.next(), chars.next()) else {
        return Err(failed(format!("{of}: the fill character must be exactly one character long")));
    };
    let text = plain(value);
    if of == "center" {
        return centered(text, width, fill).map(|out| like(value, out));
    }
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let space = width.saturating_sub(text.chars().count());
    bounded(space.checked_mul(fill.len_utf8()), LONGEST_TEXT)?;
    let pad = String::from(fill).repeat(space);
    Ok(like(value, if of == "ljust" { format!("{text}{pad}") } else { format!("{pad}{text}") }))
}

/// A text with `old` replaced, `count` times, or everywhere where that is negative.
pub(in super::super) fn replaced(
    text: &str,
    old: &str,
    new: &str,
    count: i128,
) -> Result<String, Error> {
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    let times = usize::try_from(count).map_or(found, |count| count.min(found));
    let longest = times.checked_mul(new.len()).and_then(|more| more.checked_add(text.len()));
    bounded(longest, LONGEST_TEXT)?;
    Ok(text.replacen(old, new, times))
}

fn replace(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [old, new, count] = arguments.positional("replace")?;
    let (old, new) = (required(old, "replace", "old")?, required(new, "replace", "new")?);
    let count = whole(count.as_ref(), "replace", -1)?;
    let new_text = string(&new, "replace")?;
    let escapes = value.is_safe() && !new.is_safe();
    let new_text = if escapes { operators::escaped(new_text) } else { new_text.to_string() };
    replaced(plain(value), string(&old, "replace")?, &new_text, count).map(|out| like(value, out))
}

fn maketrans(_: &mut State, _: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [from, to, without] = arguments.positional("maketrans")?;
    let from = required(from, "maketrans", "x")?;
    let code = |c: char| Value::from(c as u32);
    let Some(to) = to else {
        let mut all = Vec::new();
        for (key, value) in super::translation(&from)? {
            let mut chars = key.as_str().unwrap_or_default().chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => all.push((code(c), value)),
                (None, _) if integer(&key).is_some() => all.push((key, value)),
                _ => return Err(failed("maketrans: keys are characters or their numbers")),
            }
        }
        return Ok(Value::from_pairs(all));
    };
    let (from, to) = (string(&from, "maketrans")?, string(&to, "maketrans")?);
    if from.chars().count() != to.chars().count() {
        return Err(failed("maketrans: the first two arguments must have equal length"));
    }
    let mut all: Vec<_> = from.chars().map(code).zip(to.chars().map(code)).collect();
    if let Some(without) = without {
        all.extend(string(&without, "maketrans")?.chars().map(|c| (code(c), Value::from(()))));
    }
    Ok(Value::from_pairs(all))
}

fn translate(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [table] = arguments.positional("translate")?;
    let table = required(table, "translate", "table")?;
    if kind(&table) != Kind::Dict {
        return Err(wrong_type("translate: a dict is expected", &table));
    }
    let mut out = String::new();
    for c in plain(value).chars() {
        match dict_item(&table, &Value::from(c as u32)) {
            None => out.push(c),
            Some(to) if kind(&to) == Kind::None => {}
            Some(to) => match (to.as_str(), integer(&to)) {
                (Some(text), _) => out.push_str(text),
                (_, Some(code)) => out.extend(
                    u32::try_from(code)
                        .ok()
                        .and_then(char::from_u32)
                        .or(Some(char::REPLACEMENT_CHARACTER)),
                ),
                _ => return Err(wrong_type("translate: a character is expected", &to)),
            },
        }
        bounded(Some(out.len()), LONGEST_TEXT)?;
    }
    Ok(like(value, out))
}

fn zfill(_: &mut State, value: &Value, arguments: Arguments) -> Result<Value, Error> {
    let [width] = arguments.positional("zfill")?;
    let width = whole(Some(&required(width, "zfill", "width")?), "zfill", 0)?;
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let text = plain(value);
    let length = text.chars().count();
    if width <= length {
        return Ok(value.clone());
    }
    bounded(Some(width), LONGEST_TEXT)?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - digits.len()];
    Ok(like(value, format!("{sign}{}{digits}", "0".repeat(width - length))))
}
