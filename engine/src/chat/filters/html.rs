//! Filters that escape, and those about web pages.

use std::fmt::Write as _;

use minijinja::value::Value;
use minijinja::{Error, State};

use super::super::arguments::{Arguments, given, required, string, truth, whole};
use super::super::methods::text::is_word;
use super::super::operators::escaped;
use super::super::repr;
use super::super::source::is_space;
use super::super::values::{Kind, failed, items, kind, pairs, wrong_type};

pub(super) fn escape(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.positional("escape")?;
    let value = required(value, "escape", "s")?;
    if value.is_safe() {
        return Ok(value);
    }
    Ok(Value::from_safe_string(escaped(&repr::text(&value)?)))
}

pub(super) fn forceescape(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("forceescape", ["value"])?;
    let text = repr::text(&required(value, "forceescape", "value")?)?;
    Ok(Value::from_safe_string(escaped(&text)))
}

pub(super) fn safe(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("safe", ["value"])?;
    let text = repr::text(&required(value, "safe", "value")?)?;
    Ok(Value::from_safe_string(text))
}

pub(super) fn striptags(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("striptags", ["value"])?;
    let text = repr::text(&required(value, "striptags", "value")?)?;
    let mut kept = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find('<') {
        let end = if rest[start..].starts_with("<!--") {
            rest[start + 4..].find("-->").map(|end| start + 4 + end + 3)
        } else {
            rest[start..].find('>').map(|end| start + end + 1)
        };
        // What is not closed stays.
        let Some(end) = end else { break };
        kept.push_str(&rest[..start]);
        rest = &rest[end..];
    }
    kept.push_str(rest);
    let words: Vec<_> = kept.split(is_space).filter(|word| !word.is_empty()).collect();
    Ok(Value::from(unescape(&words.join(" "))))
}

/// Names of characters in HTML that texts for models have; all others stay as they are.
const ENTITIES: [(&str, char); 30] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", '\u{a0}'),
    ("copy", '©'),
    ("reg", '®'),
    ("trade", '™'),
    ("hellip", '…'),
    ("mdash", '—'),
    ("ndash", '–'),
    ("lsquo", '‘'),
    ("rsquo", '’'),
    ("ldquo", '“'),
    ("rdquo", '”'),
    ("laquo", '«'),
    ("raquo", '»'),
    ("bull", '•'),
    ("middot", '·'),
    ("euro", '€'),
    ("pound", '£'),
    ("yen", '¥'),
    ("cent", '¢'),
    ("sect", '§'),
    ("deg", '°'),
    ("times", '×'),
    ("divide", '÷'),
    ("plusmn", '±'),
    ("para", '¶'),
];

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(';').filter(|&end| end <= 12);
        let found = end.and_then(|end| {
            let name = &rest[1..end];
            let c = match name.strip_prefix('#') {
                Some(number) => {
                    let code = match number.strip_prefix(['x', 'X']) {
                        Some(digits) => u32::from_str_radix(digits, 16),
                        None => number.parse(),
                    };
                    char::from_u32(code.ok()?)?
                }
                None => ENTITIES.iter().find(|(entity, _)| *entity == name)?.1,
            };
            Some((c, end + 1))
        });
        let (c, length) = found.unwrap_or(('&', 1));
        out.push(c);
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

/// Percent-encodes what may not stand in an address; in a query `/` too, and a space is `+`.
fn quote(value: &Value, query: bool) -> Result<String, Error> {
    let text;
    let bytes = if let Some(bytes) = value.as_bytes().filter(|_| kind(value) == Kind::Bytes) {
        bytes
    } else {
        text = repr::text(value)?;
        text.as_bytes()
    };
    let mut out = String::new();
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            byte => _ = write!(out, "%{byte:02X}"),
        }
    }
    Ok(out)
}

pub(super) fn urlencode(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value] = arguments.bind("urlencode", ["value"])?;
    let value = required(value, "urlencode", "value")?;
    let pairs = match kind(&value) {
        Kind::Dict => pairs(&value)?,
        // Undefined can be gone through, and has nothing.
        Kind::List | Kind::Tuple | Kind::Generator | Kind::View | Kind::Range | Kind::Undefined => {
            let mut all = Vec::new();
            for item in items(&value)? {
                match items(&item)?.as_slice() {
                    [key, value] => all.push((key.clone(), value.clone())),
                    other => {
                        return Err(failed(format!(
                            "urlencode: pairs are expected, not {}",
                            other.len()
                        )));
                    }
                }
            }
            all
        }
        _ => return quote(&value, false).map(Value::from),
    };
    let mut all = Vec::new();
    for (key, value) in pairs {
        all.push(format!("{}={}", quote(&key, true)?, quote(&value, true)?));
    }
    Ok(Value::from(all.join("&")))
}

pub(super) fn xmlattr(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let [value, autospace] = arguments.bind("xmlattr", ["d", "autospace"])?;
    let mut all = Vec::new();
    for (key, value) in pairs(&required(value, "xmlattr", "d")?)? {
        if matches!(kind(&value), Kind::None | Kind::Undefined) {
            continue;
        }
        let name = string(&key, "xmlattr")?;
        if name.contains(|c: char| c.is_ascii_whitespace() || c == '\u{b}' || "/>=".contains(c)) {
            return Err(failed(format!("invalid character in attribute name: {name:?}")));
        }
        let text = repr::text(&value)?;
        let text = if value.is_safe() { text } else { escaped(&text) };
        all.push(format!("{}=\"{text}\"", escaped(name)));
    }
    let space = if truth(autospace.as_ref(), true) && !all.is_empty() { " " } else { "" };
    Ok(Value::from(format!("{space}{}", all.join(" "))))
}

pub(super) fn urlize(_: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let names = ["value", "trim_url_limit", "nofollow", "target", "rel", "extra_schemes"];
    let [value, limit, nofollow, target, rel, schemes] = arguments.bind("urlize", names)?;
    let value = required(value, "urlize", "value")?;
    let limit = given(limit).map(|limit| whole(Some(&limit), "urlize", 0)).transpose()?;
    let mut rels: Vec<String> = vec!["noopener".into()];
    if let Some(rel) = given(rel) {
        rels.extend(string(&rel, "urlize")?.split_whitespace().map(str::to_string));
    }
    if truth(nofollow.as_ref(), false) {
        rels.push("nofollow".into());
    }
    rels.sort();
    rels.dedup();
    let mut attributes = format!(" rel=\"{}\"", escaped(&rels.join(" ")));
    if let Some(target) = given(target).filter(Value::is_true) {
        _ = write!(attributes, " target=\"{}\"", escaped(string(&target, "urlize")?));
    }
    let mut extra = Vec::new();
    for scheme in given(schemes).map(|schemes| items(&schemes)).transpose()?.unwrap_or_default() {
        let scheme = string(&scheme, "urlize")?.to_string();
        let name = scheme.trim_end_matches('/').strip_suffix(':').filter(|name| {
            name.chars().count() >= 2 && name.chars().all(|c| is_word(c) || ".+-".contains(c))
        });
        if name.is_none_or(|name| scheme.len() > name.len() + 3) {
            return Err(wrong_type(
                &format!("{scheme:?} is not a valid URI scheme prefix"),
                &value,
            ));
        }
        extra.push(scheme);
    }
    let text = repr::text(&value)?;
    let text = if value.is_safe() { text } else { escaped(&text) };
    let linker = Linker { limit, attributes, extra };
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(is_space).unwrap_or(rest.len());
        out.push_str(&linker.word(&rest[..end]));
        rest = &rest[end..];
        let end = rest.find(|c| !is_space(c)).unwrap_or(rest.len());
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    Ok(Value::from(out))
}

/// Makes links of words.
struct Linker {
    limit: Option<i128>,
    attributes: String,
    extra: Vec<String>,
}

impl Linker {
    fn word(&self, word: &str) -> String {
        let mut middle = word;
        while let Some(rest) = ["(", "<", "&lt;"].iter().find_map(|open| middle.strip_prefix(open))
        {
            middle = rest;
        }
        let head = &word[..word.len() - middle.len()];
        let whole = middle;
        while let Some(rest) =
            [")", ">", ".", ",", "&gt;"].iter().find_map(|close| middle.strip_suffix(close))
        {
            middle = rest;
        }
        let mut end = middle.len();
        // Brackets that were opened inside are closed there.
        for (open, close) in [("(", ")"), ("<", ">"), ("&lt;", "&gt;")] {
            let inside = &whole[..end];
            let opened = inside.matches(open).count();
            if opened <= inside.matches(close).count() {
                continue;
            }
            for _ in 0..opened.min(whole[end..].matches(close).count()) {
                if let Some(at) = whole[end..].find(close) {
                    end += at + close.len();
                }
            }
        }
        let (middle, tail) = whole.split_at(end);
        format!("{head}{}{tail}", self.link(middle))
    }

    fn link(&self, text: &str) -> String {
        let attributes = &self.attributes;
        let shown = match self.limit {
            Some(limit) if text.chars().count() as i128 > limit => {
                let end = if limit < 0 { text.chars().count() as i128 + limit } else { limit };
                let kept: String = text.chars().take(end.max(0) as usize).collect();
                format!("{kept}...")
            }
            _ => text.to_string(),
        };
        if is_address(text) {
            let scheme = if text.starts_with("https://") || text.starts_with("http://") {
                ""
            } else {
                "https://"
            };
            return format!("<a href=\"{scheme}{text}\"{attributes}>{shown}</a>");
        }
        if let Some(address) = text.strip_prefix("mailto:").filter(|address| is_mail(address)) {
            return format!("<a href=\"{text}\">{address}</a>");
        }
        let mail = !text.starts_with("www.") && !text.starts_with('@') && !text.contains(':');
        if mail && is_mail(text) {
            return format!("<a href=\"mailto:{text}\">{text}</a>");
        }
        for scheme in &self.extra {
            if text != scheme && text.starts_with(scheme.as_str()) {
                return format!("<a href=\"{text}\"{attributes}>{text}</a>");
            }
        }
        text.to_string()
    }
}

fn is_mail(text: &str) -> bool {
    let Some((before, host)) = text.rsplit_once('@') else { return false };
    let Some((name, end)) = host.rsplit_once('.') else { return false };
    !before.is_empty()
        && name.chars().next().is_some_and(is_word)
        && name.chars().all(|c| is_word(c) || c == '.' || c == '-')
        && !end.is_empty()
        && end.chars().all(is_word)
}

/// Whether a text is the address of a page: with a scheme or `www.`, or with one of the oldest ends.
fn is_address(text: &str) -> bool {
    let lower = text.to_lowercase();
    let scheme = ["https://", "http://"].into_iter().find(|scheme| lower.starts_with(scheme));
    let rest = &lower[scheme.map_or(0, str::len)..];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = without_port(&rest[..end]);
    let label = |label: &str| {
        !label.is_empty() && label.chars().all(|c| is_word(c) || c == '%' || c == '-')
    };
    let named = |host: &str| {
        let (before, top) = host.rsplit_once('.').map_or(("", host), |(before, top)| (before, top));
        let plain = (2..=63).contains(&top.len()) && top.bytes().all(|b| b.is_ascii_lowercase());
        let encoded = top.strip_prefix("xn--").is_some_and(|rest| {
            (2..=59).contains(&rest.chars().count()) && rest.chars().all(|c| is_word(c) || c == '%')
        });
        (plain || encoded) && (!host.contains('.') || before.split('.').all(label))
    };
    if scheme.is_some() {
        let numbers: Vec<_> = host.split('.').collect();
        let v4 = numbers.len() == 4
            && numbers
                .iter()
                .all(|n| (1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()));
        let v6 =
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|host| {
                let groups: Vec<_> = host.split(':').collect();
                (3..=9).contains(&groups.len())
                    && groups
                        .iter()
                        .all(|g| g.len() <= 4 && g.bytes().all(|b| b.is_ascii_hexdigit()))
            });
        return v4 || v6 || named(host);
    }
    if let Some(host) = host.strip_prefix("www.")
        && named(host)
    {
        return true;
    }
    let ends = ["com", "net", "int", "edu", "gov", "org", "info", "mil"];
    host.rsplit_once('.').is_some_and(|(before, top)| {
        ends.contains(&top)
            && before.split('.').all(|part| label(part) && (2..=63).contains(&part.chars().count()))
    })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit()) =>
        {
            name
        }
        _ => host,
    }
}
