//! Writing to stdout, where results go, and formatting numbers for people.

use std::io::{ErrorKind, Write, stdout};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

/// Prints one JSON object on stdout, in one line.
pub fn print_json(value: &Value) -> Result<()> {
    print_line(&value.to_string())
}

/// Prints a line on stdout.
pub fn print_line(line: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// Prints text on stdout as it is, at once.
pub fn print_text(text: &str) -> std::io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether an error says that whoever read stdout has gone.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == ErrorKind::BrokenPipe)
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
