//! `engine embed`: vectors of texts.

use std::process::ExitCode;

use anyhow::Result;
use engine::EncodeOptions;
use engine::internals::embed::{dimensions, embed, normalized};
use engine::{ContextOptions, LoadOptions, Scheduler};
use serde_json::json;

use crate::models::ModelName;
use crate::options::{DeviceArgs, positions};
use crate::{models, output, tokenize, values};

/// Print the embeddings of texts as JSON, each of length 1.
#[derive(clap::Args)]
#[command(
    after_help = "Example: engine embed nomic-embed.gguf \"search_query: Why is the sky blue?\" \"search_document: Rayleigh scattering\""
)]
pub struct Args {
    /// A file, a catalogue name or a name on the hub: an embedding model
    model: ModelName,
    /// The texts, or - to read one from stdin
    #[arg(required = true)]
    texts: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// The most tokens of a text; 0: as many as the model was made for [default: that, at most 4096]
    #[arg(short = 'c', long, alias = "ctx-size", value_parser = values::positions, allow_hyphen_values = true)]
    ctx: Option<usize>,
    /// Do not make vectors of length 1
    #[arg(long)]
    raw: bool,
    /// Print JSON (it does in any case)
    #[arg(long, hide = true)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let file = models::open_model(&args.model)?;
    let device = args.device.open(Some(file.spec.layers.len()))?;
    // More positions than the model has are of no use: a longer text is refused with the model's limit.
    let positions = positions(args.ctx, file.spec.context_length)
        .map(|positions| positions.min(file.spec.most_positions()));
    let options = ContextOptions { positions, ..ContextOptions::default() };
    let load = LoadOptions { map: args.device.map(), ..LoadOptions::from(options.clone()) };
    let model = models::load_file(&device, file, &load)?;
    let tokenizer = model.tokenizer()?;
    let scheduler = Scheduler::start(&model, &options)?;
    let mut embeddings = Vec::new();
    for text in &args.texts {
        let text = if text == "-" { tokenize::read_stdin()? } else { text.clone() };
        let special = EncodeOptions { add_special: true, parse_special: false };
        let ids = tokenizer.encode(&text, special)?;
        let vector = embed(&scheduler, &ids)?;
        let vector = if args.raw { vector } else { normalized(&vector) };
        embeddings.push(json!({ "text": text, "tokens": ids.len(), "embedding": vector }));
    }
    output::print_json(&json!({
        "model": args.model.text(),
        "dimensions": dimensions(model.file()),
        "embeddings": embeddings,
    }))?;
    Ok(ExitCode::SUCCESS)
}
