//! Puts a kernel's text together: `#import NAME`, `#ifdef NAME`, `#ifndef NAME`, `#else`, `#endif`.

use std::collections::BTreeSet;

use crate::Error;

/// Every file under `wgsl/`: name without extension, text.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The names of the files in a folder of `wgsl/`, without the folder.
pub fn names_in(folder: &str) -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(move |(name, _)| name.strip_prefix(folder)?.strip_prefix('/'))
}

/// Assembles the text of `kernel` with `defines` defined and `#import format` meaning `format`.
pub fn assemble(
    kernel: &str,
    format: Option<&str>,
    defines: &BTreeSet<&str>,
) -> Result<String, Error> {
    let mut assembler =
        Assembler { kernel, format, defines, imported: BTreeSet::new(), out: String::new() };
    assembler.file(&format!("kernel/{kernel}"))?;
    Ok(assembler.out)
}

struct Assembler<'a> {
    kernel: &'a str,
    format: Option<&'a str>,
    defines: &'a BTreeSet<&'a str>,
    imported: BTreeSet<String>,
    out: String,
}

impl Assembler<'_> {
    fn error(&self, why: String) -> Error {
        Error::Source { kernel: self.kernel.into(), why }
    }

    /// Appends a file once; a second import of it is empty.
    fn file(&mut self, name: &str) -> Result<(), Error> {
        if !self.imported.insert(name.into()) {
            return Ok(());
        }
        let (_, text) = FILES
            .iter()
            .find(|(file, _)| *file == name)
            .ok_or_else(|| self.error(format!("there is no file {name}.wgsl")))?;
        // Whether each open #ifdef's current branch is taken.
        let mut taken: Vec<bool> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let place = || format!("{name}.wgsl:{}", index + 1);
            let Some(directive) = line.trim_start().strip_prefix('#') else {
                if taken.iter().all(|&taken| taken) {
                    self.out.push_str(line);
                    self.out.push('\n');
                }
                continue;
            };
            let (word, argument) = directive.split_once(' ').unwrap_or((directive, ""));
            let argument = argument.trim();
            match word {
                "import" if taken.iter().all(|&taken| taken) => {
                    let file = match (argument, self.format) {
                        ("format", Some(format)) => format!("format/{format}"),
                        ("format", None) => {
                            return Err(
                                self.error(format!("{}: the variant names no format", place()))
                            );
                        }
                        (file, _) => file.to_string(),
                    };
                    self.file(&file)?;
                }
                "import" => {}
                "ifdef" => taken.push(self.defines.contains(argument)),
                "ifndef" => taken.push(!self.defines.contains(argument)),
                "else" => match taken.last_mut() {
                    Some(branch) => *branch = !*branch,
                    None => return Err(self.error(format!("{}: #else without #ifdef", place()))),
                },
                "endif" => {
                    if taken.pop().is_none() {
                        return Err(self.error(format!("{}: #endif without #ifdef", place())));
                    }
                }
                other => return Err(self.error(format!("{}: unknown directive #{other}", place()))),
            }
        }
        if taken.is_empty() {
            Ok(())
        } else {
            Err(self.error(format!("{name}.wgsl: #ifdef without #endif")))
        }
    }
}
