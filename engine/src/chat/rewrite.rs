//! Expressions of a template as minijinja is to evaluate them: parsed with jinja2's grammar, written again with Python's
//! operators, subscripts and slices as calls of the functions in `operators.rs`, which do what Python does.

use std::collections::HashMap;
use std::fmt::Write as _;

use minijinja::Error;

use super::methods;
use super::source::{Token, syntax_error};

/// Macros that take more arguments than they name (`varargs`, `kwargs`), and the names of those they name.
pub(super) type RestMacros = HashMap<String, Vec<String>>;

/// The deepest nesting of expressions.
const DEEPEST: usize = 60;

/// Parses the tokens of one tag and writes what it has read.
pub(super) struct Rewriter<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    macros: &'a RestMacros,
}

type Text = Result<String, Error>;

/// A string as a literal of minijinja.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(tokens: &'a [Token], macros: &'a RestMacros) -> Self {
        Self { tokens, at: 0, depth: 0, macros }
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    /// Whether the next token is this operator.
    pub(super) fn is(&self, operator: &str) -> bool {
        matches!(self.peek(), Some(Token::Operator(o)) if *o == operator)
    }

    /// Whether the next token is this name.
    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(n)) if n == name)
    }

    /// Takes an operator, if it is next.
    pub(super) fn skip(&mut self, operator: &str) -> bool {
        let is = self.is(operator);
        self.at += usize::from(is);
        is
    }

    /// Takes a name, if it is next.
    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        self.at += usize::from(is);
        is
    }

    /// Takes an operator that has to be next.
    pub(super) fn expect(&mut self, operator: &str) -> Result<(), Error> {
        if self.skip(operator) { Ok(()) } else { Err(self.unexpected(&format!("'{operator}'"))) }
    }

    /// Takes a name.
    pub(super) fn name(&mut self) -> Result<&'a str, Error> {
        match self.peek() {
            Some(Token::Name(name)) => {
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn unexpected(&self, expected: &str) -> Error {
        let found = match self.peek() {
            None => "the end of the tag".to_string(),
            Some(Token::Name(name)) => format!("'{name}'"),
            Some(Token::Operator(operator)) => format!("'{operator}'"),
            Some(Token::Integer(digits)) => digits.clone(),
            Some(Token::Float(float)) => format!("{float:?}"),
            Some(Token::Text(text)) => quoted(text),
        };
        syntax_error(format!("unexpected {found}, expected {expected}"))
    }

    /// Fails unless the tag has ended.
    pub(super) fn end(&self) -> Result<(), Error> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("the end of the tag")) }
    }

    /// How many tokens have been read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The tokens read since a position.
    pub(super) fn since(&self, position: usize) -> &'a [Token] {
        &self.tokens[position..self.at]
    }

    /// Whether the tag has ended.
    pub(super) fn is_end(&self) -> bool {
        self.peek().is_none()
    }

    /// One expression, or several with commas between them: a tuple.
    pub(super) fn tuple(&mut self, conditional: bool) -> Text {
        let one = |rewriter: &mut Self| {
            if conditional { rewriter.expression() } else { rewriter.or() }
        };
        let first = one(self)?;
        if !self.is(",") {
            return Ok(first);
        }
        let mut out = format!("({first},");
        let mut count = 1;
        while self.skip(",") {
            if self.is_end() || self.is(")") || self.is("]") || self.is_name("recursive") {
                break;
            }
            if count > 1 {
                out.push(',');
            }
            out.push_str(&one(self)?);
            count += 1;
        }
        out.push(')');
        Ok(out)
    }

    /// An expression, `a if b else c` among them.
    pub(super) fn expression(&mut self) -> Text {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(syntax_error("an expression is nested too deeply"));
        }
        let mut out = self.or()?;
        while self.skip_name("if") {
            let condition = self.or()?;
            out = if self.skip_name("else") {
                format!("({out} if {condition} else {})", self.expression()?)
            } else {
                format!("({out} if {condition})")
            };
        }
        self.depth -= 1;
        Ok(out)
    }

    fn or(&mut self) -> Text {
        self.joined("or", Self::and)
    }

    fn and(&mut self) -> Text {
        self.joined("and", Self::not)
    }

    /// Operands with a word between them; long rows stay flat, as minijinja bounds nesting.
    fn joined(&mut self, word: &str, operand: fn(&mut Self) -> Text) -> Text {
        let mut operands = vec![operand(self)?];
        while self.skip_name(word) {
            operands.push(operand(self)?);
        }
        let out = operands.join(&format!(" {word} "));
        Ok(if operands.len() > 1 { format!("({out})") } else { out })
    }

    fn not(&mut self) -> Text {
        let mut count = 0;
        while self.is_name("not") {
            self.at += 1;
            count += 1;
        }
        let operand = self.compare()?;
        Ok(match count {
            0 => operand,
            count if count % 2 == 1 => format!("(not {operand})"),
            _ => format!("(not (not {operand}))"),
        })
    }

    fn compare(&mut self) -> Text {
        let mut out = self.sum()?;
        let mut compares = false;
        loop {
            let operator = match self.peek() {
                Some(Token::Operator(o @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => *o,
                Some(Token::Name(name)) if name == "in" => "in",
                Some(Token::Name(name)) if name == "not" => {
                    if !matches!(self.tokens.get(self.at + 1), Some(Token::Name(n)) if n == "in") {
                        break;
                    }
                    self.at += 1;
                    "not in"
                }
                _ => break,
            };
            self.at += 1;
            compares = true;
            _ = write!(out, ", \"{operator}\", {}", self.sum()?);
        }
        Ok(if compares { format!("__compare({out})") } else { out })
    }

    /// Operands of one rank with operators between them, as one call.
    fn chain(&mut self, operators: &[&str], operand: fn(&mut Self) -> Text) -> Text {
        let mut out = operand(self)?;
        let mut operates = false;
        while let Some(Token::Operator(operator)) = self.peek()
            && operators.contains(operator)
        {
            self.at += 1;
            operates = true;
            _ = write!(out, ", \"{operator}\", {}", operand(self)?);
        }
        Ok(if operates { format!("__chain({out})") } else { out })
    }

    fn sum(&mut self) -> Text {
        self.chain(&["+", "-"], Self::concatenation)
    }

    fn concatenation(&mut self) -> Text {
        let mut out = self.product()?;
        let mut several = false;
        while self.skip("~") {
            several = true;
            _ = write!(out, ", {}", self.product()?);
        }
        Ok(if several { format!("__concat({out})") } else { out })
    }

    fn product(&mut self) -> Text {
        self.chain(&["*", "/", "//", "%"], Self::power)
    }

    fn power(&mut self) -> Text {
        self.chain(&["**"], |rewriter| rewriter.unary(true))
    }

    fn unary(&mut self, filters: bool) -> Text {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(syntax_error("an expression is nested too deeply"));
        }
        let mut out = if self.skip("-") {
            format!("__negative({})", self.unary(false)?)
        } else if self.skip("+") {
            format!("__positive({})", self.unary(false)?)
        } else {
            self.primary()?
        };
        out = self.postfix(out)?;
        if filters {
            out = self.filters(out)?;
        }
        self.depth -= 1;
        Ok(out)
    }

    fn primary(&mut self) -> Text {
        let token = self.peek().ok_or_else(|| self.unexpected("an expression"))?;
        self.at += 1;
        match token {
            Token::Name(name) => Ok(match name.as_str() {
                // A name of minijinja's own grammar, but not of jinja2's.
                "true" | "True" => "true".into(),
                "false" | "False" => "false".into(),
                "none" | "None" => "none".into(),
                name => name.into(),
            }),
            Token::Text(text) => {
                let mut text = text.clone();
                while let Some(Token::Text(more)) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Ok(quoted(&text))
            }
            Token::Integer(digits) => Ok(digits.clone()),
            Token::Float(float) if float.is_infinite() => Ok("__infinity".into()),
            Token::Float(float) => Ok(format!("{float:?}")),
            Token::Operator("(") => {
                if self.skip(")") {
                    return Ok("()".into());
                }
                let inner = self.tuple(true)?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Operator("[") => {
                let mut items = Vec::new();
                while !self.skip("]") {
                    if !items.is_empty() {
                        self.expect(",")?;
                        if self.skip("]") {
                            break;
                        }
                    }
                    items.push(self.expression()?);
                }
                Ok(format!("[{}]", items.join(", ")))
            }
            Token::Operator("{") => {
                let mut items = Vec::new();
                while !self.skip("}") {
                    if !items.is_empty() {
                        self.expect(",")?;
                        if self.skip("}") {
                            break;
                        }
                    }
                    let key = self.expression()?;
                    self.expect(":")?;
                    items.push(format!("{key}: {}", self.expression()?));
                }
                // The space keeps the brace from making a tag with the one before it.
                Ok(format!(" {{{}}} ", items.join(", ")))
            }
            Token::Operator(_) => {
                self.at -= 1;
                Err(self.unexpected("an expression"))
            }
        }
    }

    fn postfix(&mut self, mut out: String) -> Text {
        loop {
            if self.skip(".") {
                if let Some(Token::Integer(index)) = self.peek() {
                    self.at += 1;
                    out = format!("__item({out}, {index})");
                    continue;
                }
                let name = self.name()?;
                out = if methods::is_method(name) && !self.is("(") {
                    format!("__attribute({out}, {})", quoted(name))
                } else {
                    format!("{out}.{name}")
                };
            } else if self.skip("[") {
                out = self.subscript(&out)?;
            } else if self.is("(") {
                out = self.call(&out)?;
            } else {
                return Ok(out);
            }
        }
    }

    fn subscript(&mut self, of: &str) -> Text {
        if self.skip("]") {
            return Ok(format!("__item({of}, ())"));
        }
        let mut keys = Vec::new();
        loop {
            keys.push(self.one_subscript()?);
            if !self.skip(",") {
                break;
            }
            if self.is("]") {
                keys.push((false, String::new()));
                break;
            }
        }
        self.expect("]")?;
        match keys.as_slice() {
            [(true, slice)] => Ok(format!("__slice({of}, {slice})")),
            [(false, key)] => Ok(format!("__item({of}, {key})")),
            keys if keys.iter().any(|(slice, _)| *slice) => {
                Err(syntax_error("a slice among several subscripts"))
            }
            keys => {
                let keys: Vec<_> = keys.iter().map(|(_, key)| key.as_str()).collect();
                Ok(format!("__item({of}, ({}))", keys.join(",")))
            }
        }
    }

    /// A key, or a slice and that it is one.
    fn one_subscript(&mut self) -> Result<(bool, String), Error> {
        let mut parts = Vec::new();
        if self.is(":") {
            parts.push("none".into());
        } else {
            let first = self.expression()?;
            if !self.is(":") {
                return Ok((false, first));
            }
            parts.push(first);
        }
        while parts.len() < 3 && self.skip(":") {
            let absent = self.is(":") || self.is("]") || self.is(",");
            parts.push(if absent { "none".into() } else { self.expression()? });
        }
        Ok((true, parts.join(", ")))
    }

    /// The arguments of a call, positional ones and those with keywords or stars, each as it is written.
    fn arguments(&mut self) -> Result<Vec<String>, Error> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        let mut keywords = false;
        while !self.skip(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
                if self.skip(")") {
                    break;
                }
            }
            if self.skip("**") {
                keywords = true;
                arguments.push(format!("**{}", self.expression()?));
            } else if self.skip("*") {
                arguments.push(format!("*__iterate({})", self.expression()?));
            } else if let Some(Token::Name(name)) = self.peek()
                && self.tokens.get(self.at + 1) == Some(&Token::Operator("="))
            {
                self.at += 2;
                keywords = true;
                arguments.push(format!("{name}={}", self.expression()?));
            } else if keywords {
                return Err(self.unexpected("a keyword argument"));
            } else {
                arguments.push(self.expression()?);
            }
        }
        Ok(arguments)
    }

    fn call(&mut self, of: &str) -> Text {
        let arguments = self.arguments()?;
        if of == "loop"
            && let [items] = arguments.as_slice()
        {
            return Ok(format!("loop(__iterate({items}))"));
        }
        if let Some(names) = self.macros.get(of) {
            let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
            let mut all = vec![format!("[{}]", names.join(", "))];
            all.extend(arguments);
            return Ok(format!("{of}(**__arguments({}))", all.join(", ")));
        }
        Ok(format!("{of}({})", arguments.join(", ")))
    }

    /// Filters, tests, and calls of what they give.
    fn filters(&mut self, mut out: String) -> Text {
        loop {
            if self.is("|") {
                while self.skip("|") {
                    _ = write!(out, "|{}", self.filter()?);
                }
                out = format!("({out})");
            } else if self.skip_name("is") {
                out = self.test(&out)?;
            } else if self.is("(") {
                out = self.call(&out)?;
            } else {
                return Ok(out);
            }
        }
    }

    /// A filter's name and arguments, without the bar.
    pub(super) fn filter(&mut self) -> Text {
        let mut name = self.name()?.to_string();
        while self.skip(".") {
            _ = write!(name, ".{}", self.name()?);
        }
        if self.is("(") {
            return Ok(format!("{name}({})", self.arguments()?.join(", ")));
        }
        Ok(name)
    }

    fn test(&mut self, of: &str) -> Text {
        let negated = self.skip_name("not");
        let name = self.name()?;
        let mut arguments = Vec::new();
        if self.is("(") {
            arguments = self.arguments()?;
        } else {
            let argument = match self.peek() {
                Some(Token::Name(name)) if name == "is" => {
                    return Err(syntax_error("tests cannot be chained with is"));
                }
                Some(Token::Name(name)) => !matches!(name.as_str(), "else" | "or" | "and"),
                Some(Token::Text(_) | Token::Integer(_) | Token::Float(_)) => true,
                Some(Token::Operator(operator)) => matches!(*operator, "[" | "{"),
                None => false,
            };
            if argument {
                let argument = self.primary()?;
                arguments.push(self.postfix(argument)?);
            }
        }
        let not = if negated { "not " } else { "" };
        Ok(format!("({of} is {not}{name}({}))", arguments.join(", ")))
    }
}
