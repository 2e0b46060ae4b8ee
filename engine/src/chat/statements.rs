//! A template of jinja2 as a template for minijinja: white space and newlines as jinja2's lexer leaves them, statements
//! by jinja2's grammar, expressions by `rewrite.rs`.

use std::fmt::Write as _;

use minijinja::Error;

use super::rewrite::{RestMacros, Rewriter, quoted};
use super::source::{Piece, Token, pieces, syntax_error};

/// Statements that only end or divide others.
const BARE: [&str; 14] = [
    "else",
    "endif",
    "endfor",
    "endset",
    "endmacro",
    "endcall",
    "endfilter",
    "endwith",
    "endblock",
    "endautoescape",
    "break",
    "continue",
    "generation",
    "endgeneration",
];

/// The template for minijinja, with no white space control left to it.
pub(super) fn rewritten(source: &str) -> Result<String, Error> {
    let pieces = pieces(source)?;
    let macros = rest_macros(&pieces)?;
    let mut out = String::with_capacity(source.len() * 2);
    for piece in &pieces {
        match piece {
            Piece::Text(text) => {
                // A brace at the end would join with a tag's.
                let braces = ["{{", "{%", "{#"].iter().any(|open| text.contains(open));
                if braces || text.ends_with('{') {
                    _ = write!(out, "{{{{ {}|safe }}}}", quoted(text));
                } else {
                    out.push_str(text);
                }
            }
            Piece::Variable(tokens) => {
                let mut rewriter = Rewriter::new(tokens, &macros);
                _ = write!(out, "{{{{ {} }}}}", rewriter.tuple(true)?);
                rewriter.end()?;
            }
            Piece::Block(tokens) => statement(&mut out, tokens, &macros)?,
        }
    }
    Ok(out)
}

/// The macros whose bodies ask for what was given beyond the arguments they name.
fn rest_macros(pieces: &[Piece]) -> Result<RestMacros, Error> {
    let mut macros = RestMacros::new();
    // Macros inside macros: each with its name, arguments and whether it asks.
    let mut open: Vec<(String, Vec<String>, bool)> = Vec::new();
    for piece in pieces {
        let tokens = match piece {
            Piece::Text(_) => continue,
            Piece::Variable(tokens) | Piece::Block(tokens) => tokens,
        };
        let is_block = matches!(piece, Piece::Block(_));
        match tokens.first() {
            Some(Token::Name(word)) if is_block && word == "macro" => {
                let none = RestMacros::new();
                let mut rewriter = Rewriter::new(&tokens[1..], &none);
                let name = rewriter.name()?.to_string();
                let names = parameters(&mut rewriter)?.into_iter().map(|p| p.name.to_string());
                open.push((name, names.collect(), false));
                continue;
            }
            Some(Token::Name(word)) if is_block && word == "endmacro" => {
                if let Some((name, names, true)) = open.pop() {
                    macros.insert(name, names);
                }
                continue;
            }
            _ => {}
        }
        let asks = tokens
            .iter()
            .any(|token| matches!(token, Token::Name(n) if n == "varargs" || n == "kwargs"));
        if let Some(last) = open.last_mut() {
            last.2 |= asks;
        }
    }
    Ok(macros)
}

/// A parameter of a macro.
struct Parameter<'a> {
    name: &'a str,
    default: Option<String>,
    /// Whether the default is made of parameters before it.
    depends: bool,
}

/// The parameters of a macro with their defaults.
fn parameters<'a>(rewriter: &mut Rewriter<'a>) -> Result<Vec<Parameter<'a>>, Error> {
    rewriter.expect("(")?;
    let mut all: Vec<Parameter> = Vec::new();
    while !rewriter.skip(")") {
        if !all.is_empty() {
            rewriter.expect(",")?;
            if rewriter.skip(")") {
                break;
            }
        }
        let name = rewriter.name()?;
        let start = rewriter.position();
        let default = if rewriter.skip("=") { Some(rewriter.expression()?) } else { None };
        if default.is_none() && all.last().is_some_and(|before| before.default.is_some()) {
            return Err(syntax_error("non-default argument follows default argument"));
        }
        let depends = rewriter.since(start).iter().any(|token| {
            matches!(token, Token::Name(name) if all.iter().any(|before| before.name == name))
        });
        all.push(Parameter { name, default, depends });
    }
    Ok(all)
}

fn written(parameters: &[Parameter]) -> String {
    let all: Vec<_> = parameters
        .iter()
        .map(|Parameter { name, default, depends }| match default {
            Some(_) if *depends => format!("{name}=__absent"),
            Some(default) => format!("{name}={default}"),
            None => (*name).to_string(),
        })
        .collect();
    all.join(", ")
}

/// What gives parameters their values where those are made of others: minijinja sees no others in a default.
fn late_defaults(parameters: &[Parameter]) -> String {
    let mut out = String::new();
    for Parameter { name, default, depends } in parameters {
        if let Some(default) = default.as_ref().filter(|_| *depends) {
            _ = write!(
                out,
                "{{% if __is_absent({name}) %}}{{% set {name} = {default} %}}{{% endif %}}"
            );
        }
    }
    out
}

/// The names that a loop or a `set` assigns to, up to `end`.
fn target(rewriter: &mut Rewriter, end: &dyn Fn(&Rewriter) -> bool) -> Result<String, Error> {
    let mut out = String::new();
    while !end(rewriter) {
        if rewriter.skip("(") {
            out.push('(');
        } else if rewriter.skip(")") {
            out.push(')');
        } else if rewriter.skip(",") {
            out.push(',');
        } else if rewriter.skip(".") {
            out.push('.');
        } else {
            let name = rewriter.name()?;
            if matches!(name, "true" | "True" | "false" | "False" | "none" | "None") {
                return Err(syntax_error(format!("can't assign to '{name}'")));
            }
            out.push_str(name);
        }
    }
    if out.is_empty() {
        return Err(syntax_error("nothing to assign to"));
    }
    Ok(out)
}

/// A chain of filters, as after `filter` and in a `set` block.
fn filter_chain(rewriter: &mut Rewriter) -> Result<String, Error> {
    let mut filters = vec![rewriter.filter()?];
    while rewriter.skip("|") {
        filters.push(rewriter.filter()?);
    }
    Ok(filters.join("|"))
}

fn for_loop(rewriter: &mut Rewriter) -> Result<String, Error> {
    let target = target(rewriter, &|rewriter| rewriter.is_name("in"))?;
    rewriter.skip_name("in");
    let mut text = format!("for {target} in __iterate({})", rewriter.tuple(false)?);
    if rewriter.skip_name("if") {
        _ = write!(text, " if {}", rewriter.tuple(false)?);
    }
    if rewriter.skip_name("recursive") {
        text.push_str(" recursive");
    }
    Ok(text)
}

/// `set` of a value, or of a block's text.
fn assignment(rewriter: &mut Rewriter) -> Result<String, Error> {
    let end = |rewriter: &Rewriter| rewriter.is_end() || rewriter.is("=") || rewriter.is("|");
    let target = target(rewriter, &end)?;
    if rewriter.skip("=") {
        let items = target.trim_matches(['(', ')']).split(',').filter(|n| !n.is_empty());
        let value = rewriter.tuple(true)?;
        // A tuple on the left takes any iterable apart.
        if target.contains(',') || items.count() > 1 {
            Ok(format!("set {target} = __iterate({value})"))
        } else {
            Ok(format!("set {target} = {value}"))
        }
    } else if rewriter.skip("|") {
        Ok(format!("set {target} | {}", filter_chain(rewriter)?))
    } else {
        Ok(format!("set {target}"))
    }
}

/// `with`, which assigns in a scope of its own.
fn scope(rewriter: &mut Rewriter) -> Result<String, Error> {
    let mut assignments = Vec::new();
    while !rewriter.is_end() {
        if !assignments.is_empty() {
            rewriter.expect(",")?;
        }
        let target = target(rewriter, &|rewriter| rewriter.is("=") || rewriter.is_end())?;
        rewriter.expect("=")?;
        assignments.push(format!("{target} = {}", rewriter.expression()?));
    }
    Ok(format!("with {}", assignments.join(", ")))
}

fn statement(out: &mut String, tokens: &[Token], macros: &RestMacros) -> Result<(), Error> {
    let mut rewriter = Rewriter::new(tokens, macros);
    let word = rewriter.name()?;
    let mut late = String::new();
    let text = match word {
        // A scope of its own, as the block that calls transformers' tracker is.
        "generation" => "with".to_string(),
        "endgeneration" => "endwith".to_string(),
        "endblock" => {
            while !rewriter.is_end() {
                rewriter.name()?;
            }
            word.to_string()
        }
        word if BARE.contains(&word) => word.to_string(),
        "if" | "elif" => format!("{word} {}", rewriter.tuple(false)?),
        "for" => for_loop(&mut rewriter)?,
        "set" => assignment(&mut rewriter)?,
        "macro" => {
            let name = rewriter.name()?;
            let mut parameters = parameters(&mut rewriter)?;
            if macros.contains_key(name) {
                // Without a default they could not stand behind parameters that have one.
                for (name, default) in [("varargs", "()"), ("kwargs", " {} ")] {
                    parameters.push(Parameter {
                        name,
                        default: Some(default.into()),
                        depends: false,
                    });
                }
            }
            late = late_defaults(&parameters);
            format!("macro {name}({})", written(&parameters))
        }
        "call" => {
            let parameters = if rewriter.is("(") { parameters(&mut rewriter)? } else { Vec::new() };
            let call = rewriter.expression()?;
            late = late_defaults(&parameters);
            format!("call({}) {call}", written(&parameters))
        }
        "filter" => format!("filter {}", filter_chain(&mut rewriter)?),
        "with" => scope(&mut rewriter)?,
        "print" => {
            while !rewriter.is_end() {
                _ = write!(out, "{{{{ {} }}}}", rewriter.expression()?);
                if !rewriter.skip(",") {
                    break;
                }
            }
            return rewriter.end();
        }
        "autoescape" => format!("autoescape {}", rewriter.expression()?),
        "block" => {
            let mut text = "block".to_string();
            while !rewriter.is_end() {
                _ = write!(text, " {}", rewriter.name()?);
            }
            text
        }
        // There is no folder that other templates could come from.
        "include" | "import" | "from" | "extends" => {
            _ = write!(out, "{{{{ __no_loader({}) }}}}", quoted(word));
            return Ok(());
        }
        _ => return Err(syntax_error(format!("unknown statement {word}"))),
    };
    rewriter.end()?;
    _ = write!(out, "{{% {text} %}}{late}");
    Ok(())
}
