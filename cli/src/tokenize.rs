//! `engine tokenize`: the ids of a text.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use engine::{EncodeOptions, Tokenizer};
use serde_json::json;

use crate::models::ModelName;
use crate::{models, output};

/// Print the tokens of a text. Works on files that hold a vocabulary and no tensors.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  engine tokenize smollm2:135m \"Hello, world\"\n  engine tokenize model.gguf - < text.txt"
)]
pub struct Args {
    /// A file, a catalogue name or a name on the hub
    model: ModelName,
    /// The text, or - to read stdin to its last byte [default: -]
    text: Option<String>,
    /// Do not recognise control tokens written in the text
    #[arg(long)]
    no_special: bool,
    /// Do not add BOS and EOS where the file asks for them
    #[arg(long)]
    no_bos: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let file = models::open(&args.model)?;
    let tokenizer = Tokenizer::from_metadata(&file.metadata)?;
    // What reads the ids from a pipe has no use for it.
    if !args.json && std::io::stderr().is_terminal() {
        for warning in tokenizer.warnings() {
            output::say(warning);
        }
    }
    let text = match args.text.as_deref() {
        None | Some("-") => read_stdin()?,
        Some(text) => text.to_string(),
    };
    let options = EncodeOptions { add_special: !args.no_bos, parse_special: !args.no_special };
    let ids = tokenizer.encode(&text, options)?;
    let piece = |id: u32| String::from_utf8_lossy(tokenizer.piece_with_special(id)).into_owned();
    if args.json {
        let pieces: Vec<String> = ids.iter().map(|&id| piece(id)).collect();
        output::print_json(&json!({ "tokens": ids, "pieces": pieces }))?;
    } else {
        for id in ids {
            output::print_line(&format!("{id:>7}  {:?}", piece(id)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All of stdin, which must be UTF-8.
pub fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("stdin")?;
    String::from_utf8(bytes).context("stdin is not valid UTF-8")
}
