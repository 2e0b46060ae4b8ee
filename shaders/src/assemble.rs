//! Puts a kernel's text together from lines and directives:
//!
//! - `#import NAME`: a file, once.
//! - `#define NAME`, `#ifdef NAME`, `#ifndef NAME`, `#else`, `#endif`: structure.
//! - `#unroll i COUNT` ... `#end`: the lines between, once for each i below COUNT (a number, or one of the
//!   variant's numbers), with `{i}` replaced. WGSL's compilers do not unroll reliably, and what is kept in
//!   arrays indexed by a loop's counter does not stay in registers.
//!
//! `{NAME}` of one of the variant's numbers is replaced by it everywhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;

/// Every file under `wgsl/`: name without extension, text.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The names of the files in a folder of `wgsl/`, without the folder.
pub fn names_in(folder: &str) -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(move |(name, _)| name.strip_prefix(folder)?.strip_prefix('/'))
}

/// Whether the file of `kernel` declares an override constant of this name.
pub fn declares_override(kernel: &str, name: &str) -> bool {
    let file = format!("kernel/{kernel}");
    let declaration = format!("override {name}:");
    FILES.iter().any(|(name, text)| *name == file && text.contains(&declaration))
}

/// Assembles the text of `kernel` with `defines` defined, `#import format` meaning `format`, and `numbers` in
/// place of their names.
pub fn assemble(
    kernel: &str,
    format: Option<&str>,
    defines: &BTreeSet<&str>,
    numbers: &BTreeMap<&'static str, u32>,
) -> Result<String, Error> {
    let mut assembler = Assembler {
        kernel,
        format,
        defines: defines.iter().map(ToString::to_string).collect(),
        numbers: numbers.iter().map(|(name, number)| (name.to_string(), *number)).collect(),
        imported: BTreeSet::new(),
        out: String::new(),
    };
    assembler.file(&format!("kernel/{kernel}"))?;
    if !assembler.out.lines().any(|line| line.starts_with("override ")) {
        // wgpu 30's Vulkan makes the code of a module without an override at once, before it knows that nothing is to be
        // zeroed, and with loops bounded even where it is trusted.
        assembler.out.push_str("override NOTHING: u32 = 0u;\n");
    }
    Ok(assembler.out)
}

/// A line of a file, and where it stands.
#[derive(Clone, Copy)]
struct Line<'a> {
    file: &'a str,
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// The directive and its argument, if the line is one.
    fn directive(&self) -> Option<(&'a str, &'a str)> {
        let directive = self.text.trim_start().strip_prefix('#')?;
        let (word, argument) = directive.split_once(' ').unwrap_or((directive, ""));
        Some((word, argument.trim()))
    }
}

struct Assembler<'a> {
    kernel: &'a str,
    format: Option<&'a str>,
    defines: BTreeSet<String>,
    numbers: BTreeMap<String, u32>,
    imported: BTreeSet<String>,
    out: String,
}

impl Assembler<'_> {
    fn error(&self, why: String) -> Error {
        Error::Source { kernel: self.kernel.into(), why }
    }

    fn error_at(&self, line: Line, why: &str) -> Error {
        self.error(format!("{}.wgsl:{}: {why}", line.file, line.number))
    }

    /// Appends a file once; a second import of it is empty.
    fn file(&mut self, name: &str) -> Result<(), Error> {
        if !self.imported.insert(name.into()) {
            return Ok(());
        }
        let (file, text) = FILES
            .iter()
            .find(|(file, _)| *file == name)
            .ok_or_else(|| self.error(format!("there is no file {name}.wgsl")))?;
        let lines: Vec<_> = text
            .lines()
            .enumerate()
            .map(|(index, text)| Line { file, number: index + 1, text })
            .collect();
        self.lines(&lines)
    }

    fn lines(&mut self, lines: &[Line]) -> Result<(), Error> {
        // Whether each open #ifdef's current branch is taken.
        let mut taken: Vec<bool> = Vec::new();
        let mut rest = lines.iter().copied().enumerate();
        while let Some((index, line)) = rest.next() {
            let here = taken.iter().all(|&taken| taken);
            let Some((word, argument)) = line.directive() else {
                if here {
                    let text = self.replace_numbers(line.text);
                    self.out.push_str(&text);
                    self.out.push('\n');
                }
                continue;
            };
            match word {
                "ifdef" => taken.push(self.defines.contains(argument)),
                "ifndef" => taken.push(!self.defines.contains(argument)),
                "else" => match taken.last_mut() {
                    Some(branch) => *branch = !*branch,
                    None => return Err(self.error_at(line, "#else without #ifdef")),
                },
                "endif" => {
                    if taken.pop().is_none() {
                        return Err(self.error_at(line, "#endif without #ifdef"));
                    }
                }
                "unroll" => {
                    let length = self.unrolled_length(line, &lines[index + 1..])?;
                    if here {
                        self.unroll(line, argument, &lines[index + 1..][..length])?;
                    }
                    rest.nth(length);
                }
                "import" if here => {
                    let file = match (argument, self.format) {
                        ("format", Some(format)) => format!("format/{format}"),
                        ("format", None) => {
                            return Err(self.error_at(line, "the variant names no format"));
                        }
                        (file, _) => file.to_string(),
                    };
                    self.file(&file)?;
                }
                "define" if here => {
                    self.defines.insert(argument.into());
                }
                "import" | "define" => {}
                other => {
                    return Err(self.error_at(line, &format!("unknown directive #{other}")));
                }
            }
        }
        match lines.last() {
            Some(last) if !taken.is_empty() => Err(self.error_at(*last, "#ifdef without #endif")),
            _ => Ok(()),
        }
    }

    /// The lines before the `#end` of an `#unroll`.
    fn unrolled_length(&self, line: Line, after: &[Line]) -> Result<usize, Error> {
        let mut open = 1;
        for (index, line) in after.iter().enumerate() {
            match line.directive() {
                Some(("unroll", _)) => open += 1,
                Some(("end", _)) => open -= 1,
                _ => {}
            }
            if open == 0 {
                return Ok(index);
            }
        }
        Err(self.error_at(line, "#unroll without #end"))
    }

    fn unroll(&mut self, line: Line, argument: &str, body: &[Line]) -> Result<(), Error> {
        let parsed = argument.split_once(' ').and_then(|(name, count)| {
            let number = || count.trim().parse().ok();
            Some((name, self.numbers.get(count.trim()).copied().or_else(number)?))
        });
        let Some((name, count)) = parsed else {
            return Err(self.error_at(
                line,
                &format!(
                    "#unroll {argument}: give a name and a count, a number or one of the variant's"
                ),
            ));
        };
        for i in 0..count {
            self.numbers.insert(name.into(), i);
            self.lines(body)?;
        }
        self.numbers.remove(name);
        Ok(())
    }

    fn replace_numbers(&self, text: &str) -> String {
        let mut text = text.to_string();
        for (name, number) in &self.numbers {
            let name = format!("{{{name}}}");
            if text.contains(&name) {
                text = text.replace(&name, &number.to_string());
            }
        }
        text
    }
}
