//! `engine synth`: writes a model made up for measurements to a file.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use engine::internals::synthetic;
use gguf::Source as _;

use crate::{output, progress};

/// Write a model of a real one's shape with random blocks, for other programs to be measured with.
#[derive(clap::Args)]
#[command(after_help = "Example: engine synth /tmp/llama-1b.gguf llama-1b:q4_k_m")]
pub struct Args {
    /// The file to write
    out: PathBuf,
    /// A shape and a format: llama-8b:q4_k_m, llama-8b/2 for two of its layers; `list` prints the shapes
    model: String,
}

/// Bytes written at once.
const CHUNK: usize = 8 << 20;

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.model == "list" {
        for shape in synthetic::SHAPES {
            output::print_line(&format!("{:<14} {}", shape.name, shape.what))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let source = synthetic::source(&args.model)?;
    let path = args.out.display();
    let mut file = File::create(&args.out).with_context(|| format!("{path}: cannot be created"))?;
    let bar = progress::bar(source.len(), "writing");
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < source.len() {
        let length = (source.len() - at).min(CHUNK as u64) as usize;
        source.read_at(at, &mut chunk[..length])?;
        file.write_all(&chunk[..length]).with_context(|| format!("{path}: writing"))?;
        at += length as u64;
        bar.set_position(at);
    }
    bar.finish_and_clear();
    output::say(format_args!("{path}: {}", output::bytes(source.len())));
    Ok(ExitCode::SUCCESS)
}
