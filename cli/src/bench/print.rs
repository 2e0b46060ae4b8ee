//! Results as llama-bench prints them: a table for people, or rows for programs. Each row is printed as soon as it is
//! measured; what comes before the first, with it.

use anyhow::Result;
use serde_json::{Map, Value};

use super::row::{Row, deviation, mean};
use crate::output;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Not at all.
    None,
    /// Comma-separated values.
    Csv,
    /// A JSON array.
    Json,
    /// A JSON object a line.
    Jsonl,
    /// A Markdown table.
    Md,
    /// SQL statements.
    Sql,
}

/// Where a printer prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Stdout.
    Out,
    /// Stderr.
    Err,
}

/// A heading, its least width, and whether its cells stand to the left.
type Heading = (&'static str, usize, bool);

/// Every heading there is, in order.
const HEADINGS: &[Heading] = &[
    ("model", 30, true),
    ("size", 10, false),
    ("params", 10, false),
    ("backend", 10, true),
    ("ngl", 3, false),
    ("threads", 7, false),
    ("n_batch", 7, false),
    ("n_ubatch", 8, false),
    ("type_k", 6, false),
    ("type_v", 6, false),
    ("fa", 3, false),
    ("dev", 12, true),
    ("lm", 10, false),
    ("test", 15, false),
    ("t/s", 20, false),
];

/// The headings that a table may do without: it has those among them that are not the same, known value in every row.
#[derive(Debug, Clone, Default)]
pub struct Columns(pub Vec<&'static str>);

impl Columns {
    fn headings(&self) -> Vec<Heading> {
        let always = ["model", "size", "params", "backend", "test", "t/s"];
        let shown = |heading: &&Heading| always.contains(&heading.0) || self.0.contains(&heading.0);
        HEADINGS.iter().filter(shown).copied().collect()
    }
}

/// The cell of a row under a heading.
fn cell(row: &Row, heading: &str) -> String {
    match heading {
        "model" => row.name.clone(),
        "size" => match row.size as f64 / f64::from(1 << 20) {
            size if size < 1024.0 => format!("{size:.2} MiB"),
            size => format!("{:.2} GiB", size / 1024.0),
        },
        "params" => match row.parameters as f64 {
            count if count < 1e9 => format!("{:.2} M", count / 1e6),
            count => format!("{:.2} B", count / 1e9),
        },
        "backend" => row.backend().into(),
        "ngl" => row.gpu_layers.to_string(),
        "threads" => row.threads.to_string(),
        "n_batch" => row.batch.to_string(),
        "n_ubatch" => row.ubatch.to_string(),
        "type_k" => row.key_type.name().into(),
        "type_v" => row.value_type.name().into(),
        "fa" => "1".into(),
        "dev" => row.device.id(),
        "lm" => row.load_mode().into(),
        "test" => row.test(),
        _ => {
            let speeds = row.speeds();
            format!("{:.2} ± {:.2}", mean(&speeds), deviation(&speeds))
        }
    }
}

/// Prints rows in one format to one place.
pub struct Printer {
    format: Format,
    to: To,
    columns: Columns,
    rows: usize,
}

impl Printer {
    /// A printer that has printed nothing yet.
    pub fn new(format: Format, to: To, columns: Columns) -> Self {
        Self { format, to, columns, rows: 0 }
    }

    /// Prints a row, before the first one what the format begins with.
    pub fn row(&mut self, row: &Row) -> Result<()> {
        let first = self.rows == 0;
        self.rows += 1;
        let text = match self.format {
            Format::None => return Ok(()),
            Format::Csv => csv(&row.fields(), first),
            Format::Json => {
                let object = serde_json::to_string_pretty(&row.json())?.replace('\n', "\n  ");
                format!("{}  {object}", if first { "[\n" } else { ",\n" })
            }
            Format::Jsonl => format!("{}\n", row.json()),
            Format::Md => self.markdown(row, first),
            Format::Sql => sql(&row.fields(), first),
        };
        self.print(&text)
    }

    /// Prints what the format ends with.
    pub fn end(&self) -> Result<()> {
        match self.format {
            Format::Json if self.rows > 0 => self.print("\n]\n"),
            Format::Json => self.print("[]\n"),
            _ => Ok(()),
        }
    }

    fn print(&self, text: &str) -> Result<()> {
        match self.to {
            To::Out if matches!(self.format, Format::Json | Format::Jsonl) => {
                output::print_json_part(text)
            }
            To::Out => output::print_text(text),
            To::Err => {
                output::say_text(text);
                Ok(())
            }
        }
    }

    fn markdown(&self, row: &Row, first: bool) -> String {
        let headings = self.columns.headings();
        let line = |cells: Vec<String>| {
            let cells = headings.iter().zip(cells).map(|(&(_, width, left), cell)| {
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                if left { format!(" {cell}{pad} |") } else { format!(" {pad}{cell} |") }
            });
            format!("|{}\n", cells.collect::<String>())
        };
        let mut text = String::new();
        if first {
            text += &line(headings.iter().map(|(heading, ..)| (*heading).to_string()).collect());
            let rules = headings.iter().map(|&(_, width, left)| {
                format!("{}{}", "-".repeat(width - 1), if left { '-' } else { ':' })
            });
            text += &line(rules.collect());
        }
        text + &line(headings.iter().map(|(heading, ..)| cell(row, heading)).collect())
    }
}

/// A value without JSON's quotes; true and false as the numbers that tables hold.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => u8::from(*flag).to_string(),
        other => other.to_string(),
    }
}

/// A line of values, each between quotes, those inside doubled; before the first a line of names.
fn csv(fields: &Map<String, Value>, first: bool) -> String {
    let quoted = |value: &Value| format!("\"{}\"", plain(value).replace('"', "\"\""));
    let names = fields.keys().map(String::as_str).collect::<Vec<_>>().join(",");
    let values = fields.values().map(quoted).collect::<Vec<_>>().join(",");
    if first { format!("{names}\n{values}\n") } else { format!("{values}\n") }
}

/// An `INSERT`; before the first the table's `CREATE`. The table's name is llama-bench's, which scripts read.
fn sql(fields: &Map<String, Value>, first: bool) -> String {
    let kind = |value: &Value| match value {
        Value::String(_) => "TEXT",
        Value::Number(number) if number.is_f64() => "REAL",
        _ => "INTEGER",
    };
    let quoted = |value: &Value| format!("'{}'", plain(value).replace('\'', "''"));
    let names = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let values = fields.values().map(quoted).collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO llama_bench ({names}) VALUES ({values});\n");
    if !first {
        return insert;
    }
    let columns: Vec<String> =
        fields.iter().map(|(name, value)| format!("  {name} {}", kind(value))).collect();
    let columns = columns.join(",\n");
    format!("CREATE TABLE IF NOT EXISTS llama_bench (\n{columns}\n);\n\n{insert}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quotes_are_doubled() {
        let Value::Object(fields) = json!({"a": "x \"y\", 'z'", "b": 3, "c": 0.5, "d": true})
        else {
            panic!("an object")
        };
        assert_eq!(csv(&fields, true), "a,b,c,d\n\"x \"\"y\"\", 'z'\",\"3\",\"0.5\",\"1\"\n");
        let statements = sql(&fields, true);
        assert!(statements.starts_with("CREATE TABLE IF NOT EXISTS llama_bench (\n  a TEXT,\n  b INTEGER,\n  c REAL,\n  d INTEGER\n);\n\n"), "{statements}");
        assert!(
            statements.ends_with("VALUES ('x \"y\", ''z''', '3', '0.5', '1');\n"),
            "{statements}"
        );
        assert!(!sql(&fields, false).contains("CREATE"));
    }
}
