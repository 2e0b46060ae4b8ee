//! The source of a template, cut as jinja2's lexer cuts it with `trim_blocks` and `lstrip_blocks`: text, and the tokens
//! inside tags. Newlines of other systems become `\n`, and the last one of a source is dropped.

use minijinja::{Error, ErrorKind};

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Text that is written as it stands.
    Text(String),
    /// What stands between `{{` and `}}`.
    Variable(Vec<Token>),
    /// What stands between `{%` and `%}`.
    Block(Vec<Token>),
}

/// A token inside a tag.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword.
    Name(String),
    /// A string literal, its escapes resolved.
    Text(String),
    /// An integer literal, in decimal digits.
    Integer(String),
    /// A float literal.
    Float(f64),
    /// An operator or a bracket.
    Operator(&'static str),
}

/// Operators, longer ones before those they begin with.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

/// Whether Python's `\s` and `str.isspace` take a character for white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// An error of the template's syntax.
pub(super) fn syntax_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::SyntaxError, message.into())
}

/// `\r\n` and `\r` as `\n`.
fn with_unix_newlines(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

/// Cuts a template into pieces.
pub(super) fn pieces(source: &str) -> Result<Vec<Piece>, Error> {
    let source = with_unix_newlines(source);
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { rest: source, at_line_start: true, pieces: Vec::new() };
    lexer.run()?;
    Ok(lexer.pieces)
}

/// How white space before a tag is treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// `{%-`: all of it goes.
    Strip,
    /// `{%+`, or a variable: it stays.
    Keep,
    /// What stands alone before the tag in its line goes.
    StripLine,
}

struct Lexer<'a> {
    rest: &'a str,
    /// Whether what was read last ended with a newline.
    at_line_start: bool,
    pieces: Vec<Piece>,
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), Error> {
        while !self.rest.is_empty() {
            let Some((at, kind)) = next_tag(self.rest) else {
                self.push_text(self.rest.to_string());
                return Ok(());
            };
            let (text, tag) = self.rest.split_at(at);
            self.rest = &tag[2..];
            let sign = self.take_sign();
            let before = match (sign, kind) {
                (Some('-'), _) => Before::Strip,
                (Some(_), _) | (None, '{') => Before::Keep,
                _ => Before::StripLine,
            };
            self.push_text_before(text, before);
            match kind {
                '#' => self.comment()?,
                '{' => {
                    let tokens = self.tokens("}}")?;
                    self.pieces.push(Piece::Variable(tokens));
                }
                _ => {
                    if let Some(after) = raw_begin(self.rest) {
                        self.note_end(self.rest.len() - after.len());
                        self.rest = after;
                        self.raw()?;
                    } else {
                        let tokens = self.tokens("%}")?;
                        self.pieces.push(Piece::Block(tokens));
                    }
                }
            }
        }
        Ok(())
    }

    /// A `-` or `+` right behind a tag's opening.
    fn take_sign(&mut self) -> Option<char> {
        let sign = self.rest.chars().next().filter(|c| matches!(c, '-' | '+'))?;
        self.rest = &self.rest[1..];
        Some(sign)
    }

    /// Notes whether the next `length` bytes of the rest end a line.
    fn note_end(&mut self, length: usize) {
        self.at_line_start = self.rest[..length].ends_with('\n');
    }

    fn push_text(&mut self, text: String) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(before)) => before.push_str(&text),
            _ => self.pieces.push(Piece::Text(text)),
        }
    }

    fn push_text_before(&mut self, text: &str, before: Before) {
        let kept = match before {
            Before::Keep => text,
            Before::Strip => text.trim_end_matches(is_space),
            Before::StripLine => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let alone = line > 0 || self.at_line_start;
                if alone && text[line..].chars().all(is_space) { &text[..line] } else { text }
            }
        };
        self.push_text(kept.to_string());
    }

    /// Leaves a tag's end: `-` takes all white space behind it, nothing but a `+` one newline.
    fn leave(&mut self, sign: Option<char>, close: &str) {
        let before = self.rest;
        let after = &before[usize::from(sign.is_some()) + close.len()..];
        self.rest = match sign {
            Some('-') => after.trim_start_matches(is_space),
            None if close != "}}" => after.strip_prefix('\n').unwrap_or(after),
            _ => after,
        };
        self.at_line_start = before[..before.len() - self.rest.len()].ends_with('\n');
    }

    /// Leaves a tag, where the rest is its end.
    fn leave_here(&mut self, close: &str) -> bool {
        let sign = self.rest.chars().next();
        let sign = sign.filter(|&c| c == '-' || (c == '+' && close != "}}"));
        let ends = self.rest[usize::from(sign.is_some())..].starts_with(close);
        if ends {
            self.leave(sign, close);
        }
        ends
    }

    fn comment(&mut self) -> Result<(), Error> {
        let end = self.rest.find("#}").ok_or_else(|| syntax_error("Missing end of comment tag"))?;
        let sign = self.rest[..end].chars().last().filter(|c| matches!(c, '-' | '+'));
        self.rest = &self.rest[end - usize::from(sign.is_some())..];
        self.leave(sign, "#}");
        Ok(())
    }

    /// The text of a raw block, up to `{% endraw %}`.
    fn raw(&mut self) -> Result<(), Error> {
        let mut from = 0;
        while let Some(found) = self.rest[from..].find("{%") {
            let at = from + found;
            let mut inside = &self.rest[at + 2..];
            let sign = inside.chars().next().filter(|c| matches!(c, '-' | '+'));
            inside = &inside[usize::from(sign.is_some())..];
            let word = inside.trim_start_matches(is_space).strip_prefix("endraw");
            if let Some(end) = word.map(|rest| rest.trim_start_matches(is_space)) {
                let text = &self.rest[..at];
                let close = end.chars().next().filter(|c| matches!(c, '-' | '+'));
                if end[usize::from(close.is_some())..].starts_with("%}") {
                    let before = match sign {
                        Some('-') => Before::Strip,
                        Some(_) => Before::Keep,
                        None => Before::StripLine,
                    };
                    self.push_text_before(text, before);
                    self.rest = end;
                    self.leave(close, "%}");
                    return Ok(());
                }
            }
            from = at + 2;
        }
        Err(syntax_error("Missing end of raw directive"))
    }

    /// The tokens up to a tag's end, which is left behind.
    fn tokens(&mut self, close: &str) -> Result<Vec<Token>, Error> {
        let mut tokens = Vec::new();
        let mut open = Vec::new();
        loop {
            if open.is_empty() && self.leave_here(close) {
                return Ok(tokens);
            }
            let Some(c) = self.rest.chars().next() else {
                return Err(syntax_error(format!(
                    "unexpected end of template, expected '{close}'"
                )));
            };
            if is_space(c) {
                self.rest = self.rest.trim_start_matches(is_space);
            } else if c == '\'' || c == '"' {
                tokens.push(self.string(c)?);
            } else if c.is_ascii_digit() {
                // After a dot a number is an item's index and has no fraction of its own.
                let index = tokens.last() == Some(&Token::Operator("."));
                tokens.push(self.number(index)?);
            } else if c.is_alphanumeric() || c == '_' {
                let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                tokens.push(Token::Name(name.to_string()));
                self.rest = rest;
            } else {
                let operator = OPERATORS.into_iter().find(|o| self.rest.starts_with(o));
                let operator =
                    operator.ok_or_else(|| syntax_error(format!("unexpected char {c:?}")))?;
                match operator {
                    "(" | "[" | "{" => open.push(operator),
                    ")" | "]" | "}" => {
                        let pair = match operator {
                            ")" => "(",
                            "]" => "[",
                            _ => "{",
                        };
                        if open.pop() != Some(pair) {
                            return Err(syntax_error(format!("unexpected '{operator}'")));
                        }
                    }
                    _ => {}
                }
                tokens.push(Token::Operator(operator));
                self.rest = &self.rest[operator.len()..];
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<Token, Error> {
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    let text = unescaped(&self.rest[1..at])?;
                    self.rest = &self.rest[at + 1..];
                    return Ok(Token::Text(text));
                }
                _ => {}
            }
        }
        Err(syntax_error("a string in a tag is not closed"))
    }

    fn number(&mut self, index: bool) -> Result<Token, Error> {
        let rest = self.rest;
        let bytes = rest.as_bytes();
        let radix = match bytes.get(1) {
            Some(b'b' | b'B') if bytes[0] == b'0' => 2,
            Some(b'o' | b'O') if bytes[0] == b'0' => 8,
            Some(b'x' | b'X') if bytes[0] == b'0' => 16,
            _ => 10,
        };
        let bad = || syntax_error(format!("bad number near {:?}", rest.get(..8).unwrap_or(rest)));
        if radix != 10 {
            let length = rest[2..].chars().take_while(|c| c.is_digit(radix) || *c == '_').count();
            let digits = rest[2..2 + length].replace('_', "");
            let number = u128::from_str_radix(&digits, radix).map_err(|_| bad())?;
            self.rest = &rest[2 + length..];
            return Ok(Token::Integer(number.to_string()));
        }
        let digits = |from: usize| -> usize {
            let mut end = from;
            while bytes.get(end).is_some_and(u8::is_ascii_digit)
                || (bytes.get(end) == Some(&b'_')
                    && end > from
                    && bytes.get(end + 1).is_some_and(u8::is_ascii_digit))
            {
                end += 1;
            }
            end
        };
        let whole = digits(0);
        let mut end = whole;
        if !index {
            if bytes.get(end) == Some(&b'.') && digits(end + 1) > end + 1 {
                end = digits(end + 1);
            }
            if matches!(bytes.get(end), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                let exponent = digits(end + 1 + sign);
                if exponent > end + 1 + sign {
                    end = exponent;
                }
            }
        }
        let text = rest[..end].replace('_', "");
        self.rest = &rest[end..];
        if end > whole {
            return Ok(Token::Float(text.parse().map_err(|_| bad())?));
        }
        // Python has no integers with leading zeros.
        if text.len() > 1 && text.starts_with('0') && text.bytes().any(|b| b != b'0') {
            return Err(bad());
        }
        Ok(Token::Integer(if text.starts_with('0') { "0".into() } else { text }))
    }
}

/// The first tag's place, and the character that says which: `{`, `%` or `#`.
fn next_tag(text: &str) -> Option<(usize, char)> {
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(1))
        .find(|&at| bytes[at] == b'{' && matches!(bytes[at + 1], b'{' | b'%' | b'#'))
        .map(|at| (at, char::from(bytes[at + 1])))
}

/// What follows `raw %}`, where the rest of a block tag is that.
fn raw_begin(rest: &str) -> Option<&str> {
    let after = rest.trim_start_matches(is_space).strip_prefix("raw")?;
    let after = after.trim_start_matches(is_space);
    match after.strip_prefix("-%}") {
        Some(after) => Some(after.trim_start_matches(is_space)),
        None => after.strip_prefix("%}"),
    }
}

/// A string literal's text with its escapes resolved as Python resolves them.
fn unescaped(literal: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(literal.len());
    let mut chars = literal.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = |chars: &mut std::iter::Peekable<std::str::Chars>, digits: usize| {
            let text: String = chars.by_ref().take(digits).collect();
            let code = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
            // Half of a surrogate pair is no character: it is replaced, as it could not be printed.
            let code = code.ok_or_else(|| syntax_error("truncated escape in a string"))?;
            Ok::<_, Error>(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
        };
        match chars.next() {
            None => out.push('\\'),
            Some('\n') => {}
            Some(c @ ('\\' | '\'' | '"')) => out.push(c),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{b}'),
            Some('x') => out.push(code(&mut chars, 2)?),
            Some('u') => out.push(code(&mut chars, 4)?),
            Some('U') => out.push(code(&mut chars, 8)?),
            Some(c @ '0'..='7') => {
                let mut number = c.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                    number = number * 8 + digit;
                    chars.next();
                }
                out.push(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(c) => {
                out.push('\\');
                out.push(c);
            }
        }
    }
    Ok(out)
}
