//! `engine logits`: the logits of a list of tokens, the door for comparing engines.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use engine::internals::select::{log_softmax, top};
use engine::{ContextOptions, LoadOptions};
use engine::{SequenceId, StepToken};
use serde_json::{Value, json};

use crate::models::ModelName;
use crate::options::{ContextArgs, DeviceArgs, PrecisionArgs};
use crate::{models, output, tokenize, values};

/// Print the logits after a list of tokens.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  engine logits model.gguf --tokens 1,2,3 --top 5\n  engine logits model.gguf --tokens - --all < ids.txt"
)]
pub struct Args {
    /// A file, a catalogue name or a name on the hub
    model: ModelName,
    /// Ids separated by commas or spaces, or - to read them from stdin
    #[arg(long, allow_hyphen_values = true)]
    tokens: String,
    /// All positions instead of the last
    #[arg(long)]
    all: bool,
    /// The K most likely ids with their log-probabilities instead of all logits; 0 or -1: of all ids
    #[arg(long, value_name = "K", value_parser = values::top_k, allow_hyphen_values = true)]
    top: Option<usize>,
    /// Print JSON (this command always does)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let text = if args.tokens == "-" { tokenize::read_stdin()? } else { args.tokens.clone() };
    let ids = parse_ids(&text)?;
    let file = models::open_model(&args.model)?;
    file.language_model()?;
    let device = args.device.open_for(args.precision.class(), Some(file.spec.layers.len()))?;
    // Where no context is asked for, the tokens need one that holds them.
    let default = file.spec.context_length.min(engine::internals::blueprint::DEFAULT_POSITIONS);
    let fitting = ids.len().max(default).min(file.spec.context_length.max(default));
    let asked = args.context.options(&file.spec);
    let options = ContextOptions { positions: asked.positions.or(Some(fitting)), ..asked };
    let load = LoadOptions {
        precision: args.precision.class(),
        map: args.device.map(),
        ..LoadOptions::from(options.clone())
    };
    let model = models::load_file(&device, file, &load)?;
    let mut context = model.context(&options)?;
    let tokens = StepToken::run(SequenceId(0), 0, &ids, args.all);
    let mut rows: Vec<Value> = Vec::new();
    let mut on_logits = |logits: &[f32]| {
        rows.push(match args.top {
            Some(k) => {
                let k = if k == 0 { logits.len() } else { k };
                top(&log_softmax(logits), k).into_iter().map(|(id, p)| json!([id, p])).collect()
            }
            None => logits.iter().map(|&logit| json!(logit)).collect(),
        });
    };
    if ids.len() > context.positions() {
        bail!(
            "{} ids were given, the context has {} positions: use --ctx {} or more",
            ids.len(),
            context.positions(),
            ids.len()
        );
    }
    context.step_with(&tokens, &mut on_logits, &mut || false)?;
    let key = if args.top.is_some() { "top" } else { "logits" };
    output::print_json(&json!({ "n_vocab": model.file().spec.vocabulary, key: rows }))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads ids separated by commas or white space.
fn parse_ids(text: &str) -> Result<Vec<u32>> {
    let ids = text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .map(|word| {
            let id = word.parse().ok();
            id.with_context(|| format!("--tokens: {word:?} is no token id (a number from 0 on)"))
        })
        .collect::<Result<Vec<u32>>>()?;
    if ids.is_empty() {
        bail!("--tokens: no ids were given");
    }
    Ok(ids)
}
