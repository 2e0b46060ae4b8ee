//! `engine`: runs, inspects and benchmarks GGUF language models on any GPU.
//!
//! A command is one file here and one line in [`Command`].

// Both panic where nobody takes what they print; `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod advice;
mod argv;
mod bench;
mod catalogue;
mod devices;
mod embed;
mod foreign;
mod hub;
mod inspect;
mod logits;
mod model_info;
mod models;
mod options;
mod output;
mod perplexity;
mod platform;
mod progress;
mod pull;
mod quantize;
mod run;
mod store;
mod synth;
mod template;
mod tokenize;
mod tune;
mod values;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use platform::Platform;

/// Runs GGUF language models on any GPU, or on the CPU.
#[derive(Parser)]
#[command(
    name = "engine",
    version,
    // As in llama.cpp the last of a repeated option counts.
    args_override_self = true,
    after_help = "Example: engine run smollm2:135m \"Why is the sky blue?\""
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Read the model's metadata with another value: KEY=VALUE, KEY=TYPE:VALUE for a key that the file has not (types:
    /// str, bool, int, float); may be given several times
    #[arg(long = "override", global = true, value_name = "KEY=VALUE", hide_short_help = true)]
    overrides: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Answer a prompt, or chat
    Run(run::Args),
    /// Print the logits of a list of tokens
    Logits(logits::Args),
    /// Print the tokens of a text
    Tokenize(tokenize::Args),
    /// Print the embeddings of texts
    Embed(embed::Args),
    /// Print the text of a conversation by a model's chat template
    Template(template::Args),
    /// Show what a model file is and what it needs
    #[command(alias = "show")]
    Inspect(inspect::Args),
    /// List the devices
    Devices(devices::Args),
    /// Measure prompt processing and generation
    Bench(bench::Args),
    /// Measure how well a model predicts a text
    Perplexity(perplexity::Args),
    /// Find the fastest kernels for a model on this GPU
    Tune(tune::Args),
    /// Write a made-up model to a file
    Synth(synth::Args),
    /// Write a model in another format
    Quantize(quantize::Args),
    /// Fetch a model
    Pull(pull::Args),
}

/// The exit code of a command line that cannot be read.
const USAGE: u8 = 2;

/// Prints clap's help, or what it finds wrong. Help that a full disk does not take is an error; a reader who has gone had
/// what they wanted.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    // Arguments may hold what steers a terminal (names that a shell found); such a message goes without colours.
    if error.use_stderr() && output::steers_a_terminal(&text) {
        output::say_text(text);
    } else if let Err(failure) = error.print().and_then(|()| std::io::stdout().flush())
        && !error.use_stderr()
        && !Platform::HERE.is_closed_pipe(&failure)
    {
        output::say(format_args!("error: stdout: {failure}"));
        return ExitCode::FAILURE;
    }
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

fn main() -> ExitCode {
    let words = match argv::normalise(std::env::args_os(), &mut Cli::command()) {
        Ok(words) => words,
        Err(why) => {
            output::say(format_args!("error: {why}"));
            return ExitCode::from(USAGE);
        }
    };
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    models::set_overrides(cli.overrides);
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Template(args) => template::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Synth(args) => synth::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Pull(args) => pull::run(&args),
    };
    match result {
        Ok(code) => code,
        // Whoever read our output has what they wanted.
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(format_args!("error: {}", advice::text(&error)));
            ExitCode::FAILURE
        }
    }
}
