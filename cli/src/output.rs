//! Writing: results to stdout, everything else to stderr, and formatting numbers for people.
//!
//! Nothing else in this crate writes to either (clippy's `print_stdout` and `print_stderr` are denied in `main.rs`): a
//! reader who has gone, or a full disk, is an error on stdout and nothing at all on stderr, never a panic. Texts that
//! come out of files and models pass by here too: where they go to a terminal, characters that would steer it are shown
//! instead of sent. What is piped is left byte for byte.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::io::{IsTerminal as _, Write, stderr, stdout};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::platform::Platform;

/// Stdout did not take what was written.
#[derive(Debug)]
struct StdoutError(std::io::Error);

impl Display for StdoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stdout: {}", self.0)
    }
}

impl std::error::Error for StdoutError {}

/// Prints one JSON object on stdout, in one line.
pub fn print_json(value: &Value) -> Result<()> {
    print_json_part(&format!("{value}\n"))
}

/// Prints JSON, or a part of it, that is written already.
pub fn print_json_part(json: &str) -> Result<()> {
    let json = if stdout().is_terminal() { harmless_json(json) } else { json.into() };
    write_out(&[json.as_bytes()])
}

/// Prints a line on stdout.
pub fn print_line(line: &str) -> Result<()> {
    write_out(&[for_stdout(line).as_bytes(), b"\n"])
}

/// Prints a table whose first `left` columns are aligned to the left, the others to the right.
pub fn print_table(header: &[&str], rows: &[Vec<String>], left: usize) -> Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let line = |cells: &[String]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            if column < left { format!(" {cell:<width$} |") } else { format!(" {cell:>width$} |") }
        });
        format!("|{}", padded.collect::<String>())
    };
    print_line(&line(&header.iter().map(ToString::to_string).collect::<Vec<_>>()))?;
    let rule = (0..header.len()).map(|column| {
        let dashes = "-".repeat(width(column));
        if column < left { format!(" {dashes} |") } else { format!(" {dashes}:|") }
    });
    print_line(&format!("|{}", rule.collect::<String>()))?;
    rows.iter().try_for_each(|row| print_line(&line(row)))
}

/// Prints text on stdout, at once: as it is, but for what would steer a terminal.
pub fn print_text(text: &str) -> Result<()> {
    write_out(&[for_stdout(text).as_bytes()])
}

fn for_stdout(text: &str) -> Cow<'_, str> {
    if stdout().is_terminal() { harmless(text) } else { text.into() }
}

fn write_out(parts: &[&[u8]]) -> Result<()> {
    let mut out = stdout().lock();
    let mut write = || {
        for part in parts {
            out.write_all(part)?;
        }
        out.flush()
    };
    Ok(write().map_err(StdoutError)?)
}

/// Prints a line on stderr. Where nobody takes it, nothing happens: what is said there is never the result.
pub fn say(line: impl Display) {
    say_text(format_args!("{line}\n"));
}

/// The same without the line's end.
pub fn say_text(text: impl Display) {
    let text = text.to_string();
    let mut err = stderr().lock();
    let text = if err.is_terminal() { harmless(&text) } else { text.into() };
    // There is no third place to say that this failed.
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Whether an error says that whoever read stdout has gone. A connection that breaks elsewhere is not that.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<StdoutError>())
        .any(|StdoutError(error)| Platform::HERE.is_closed_pipe(error))
}

/// Whether a terminal would act on a character instead of showing it: C0 and C1 controls (an escape sequence begins
/// with one), DEL, and those that turn the direction of the text around them.
fn steers(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

/// Whether a text holds anything that a terminal would act on.
pub fn steers_a_terminal(text: &str) -> bool {
    text.contains(steers)
}

/// A text for a terminal: what would steer it is written as an escape, `\x1b` or `\u{202e}`. A carriage return stays
/// where it is half of a line's end. Each character counts for itself, so an escape sequence cut into pieces is found.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !steers_a_terminal(text) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if !steers(character) || character == '\r' && rest.peek() == Some(&'\n') {
            out.push(character);
        } else if character.is_ascii() {
            _ = write!(out, "\\x{:02x}", u32::from(character));
        } else {
            _ = write!(out, "\\u{{{:x}}}", u32::from(character));
        }
    }
    out.into()
}

/// JSON for a terminal: the same value, those characters written in JSON's own escapes (C0 already are).
fn harmless_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(steers) {
        return json.into();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if steers(character) {
            _ = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out.into()
}

/// Bytes as `93.81 MiB`.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.2} {}", units[unit]) }
}

/// A count as `134.52 M`, with `separator` before the unit.
pub fn count(n: u64, separator: &str) -> String {
    let n = n as f64;
    for (size, unit) in [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")] {
        if n >= size {
            return format!("{:.2}{separator}{unit}", n / size);
        }
    }
    format!("{n}")
}

/// A duration as `1.234567s` or `12.345ms`, as Ollama prints it.
pub fn duration(d: Duration) -> String {
    if d.as_secs() >= 1 {
        format!("{:.6}s", d.as_secs_f64())
    } else {
        format!("{:.6}ms", d.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown() {
        for (text, shown) in [
            ("plain\n\ttext é 日本 🙂", "plain\n\ttext é 日本 🙂"),
            ("\u{1b}[31mred\u{1b}[0m", "\\x1b[31mred\\x1b[0m"),
            ("a\u{7}b\u{8}c\u{0}d\u{7f}", "a\\x07b\\x08c\\x00d\\x7f"),
            ("over\rwritten, kept\r\n", "over\\x0dwritten, kept\r\n"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{1b}]0;title\u{7}", "\\x1b]0;title\\x07"),
            ("if \u{202e}admin\u{2066}", "if \\u{202e}admin\\u{2066}"),
            // Marks that text of right-to-left scripts has for good reason.
            ("\u{200f}שלום\u{200e}", "\u{200f}שלום\u{200e}"),
        ] {
            assert_eq!(harmless(text), shown);
        }
        assert_eq!(harmless_json("\"a\u{9b}\u{7f}\u{202e}\""), r#""a\u009b\u007f\u202e""#);
    }

    proptest! {
        /// Whatever the text and wherever it is cut, nothing that steers is left, and nothing else is changed.
        #[test]
        fn no_text_steers(text in any::<Vec<char>>(), cut in any::<prop::sample::Index>()) {
            let text: String = text.into_iter().collect();
            let cuts: Vec<usize> =
                text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let (left, right) = text.split_at(cuts[cut.index(cuts.len())]);
            let shown = format!("{}{}", harmless(left), harmless(right));
            prop_assert!(!shown.replace("\r\n", "").chars().any(steers), "{shown:?}");
            if !text.chars().any(steers) {
                prop_assert_eq!(shown, text);
            }
        }

        /// JSON stays the same value.
        #[test]
        fn json_keeps_its_value(text in any::<Vec<char>>()) {
            let value = Value::String(text.into_iter().collect());
            let json = value.to_string();
            let shown = harmless_json(&json);
            prop_assert!(!shown.chars().any(steers));
            prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
        }
    }
}
