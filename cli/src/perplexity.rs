//! `engine perplexity`: how well a model predicts a text.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use engine::EncodeOptions;
use engine::{ContextOptions, LoadOptions, Scheduler};
use serde_json::json;

use crate::models::ModelName;
use crate::options::{DeviceArgs, PrecisionArgs, kv_type};
use crate::values::{self, Limit};
use crate::{models, output};

/// Measure how well a model predicts a text, as llama-perplexity does: chunks of the context's length, of which the
/// second half counts.
#[derive(clap::Args)]
#[command(after_help = "Example: engine perplexity smollm2:135m book.txt -c 512")]
pub struct Args {
    /// A file, a catalogue name or a name on the hub
    model: ModelName,
    /// The text
    file: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Tokens of a chunk; 0: as many as the model was made for
    #[arg(short = 'c', long, alias = "ctx-size", default_value = "512", value_parser = values::positions, allow_hyphen_values = true)]
    ctx: usize,
    /// Compute the first so many chunks only; -1: all [default: -1]
    #[arg(long, value_name = "N", value_parser = values::limit, allow_hyphen_values = true)]
    chunks: Option<Limit>,
    /// The type of keys in the cache: f32, f16, bf16, q8_0 or q4_0 (also -ctk)
    #[arg(long, default_value = "f16", value_parser = kv_type)]
    cache_type_k: engine::KvType,
    /// The type of values in the cache: f32, f16, bf16, q8_0 or q4_0 (also -ctv)
    #[arg(long, default_value = "f16", value_parser = kv_type)]
    cache_type_v: engine::KvType,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let text =
        std::fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?;
    let precision = args.precision.class();
    let file = models::open_model(&args.model)?;
    file.language_model()?;
    let device = args.device.open_for(precision, Some(file.spec.layers.len()))?;
    let chunk = if args.ctx == 0 { file.spec.context_length } else { args.ctx };
    let options = ContextOptions {
        positions: Some(chunk),
        key_type: args.cache_type_k,
        value_type: args.cache_type_v,
        ..ContextOptions::default()
    };
    let map = args.device.map();
    let load = LoadOptions { precision, map, ..LoadOptions::from(options.clone()) };
    let model = models::load_file(&device, file, &load)?;
    let tokenizer = model.tokenizer()?;
    let ids = tokenizer.encode(&text, EncodeOptions { add_special: true, parse_special: false })?;
    let scheduler = Scheduler::start(&model, &options)?;
    let most = args.chunks.and_then(Limit::most);
    let measured = engine::internals::perplexity::measure(
        &scheduler,
        &ids,
        chunk,
        most,
        &mut |so_far, chunks| {
            output::say(format_args!("chunk {} of {chunks}: {:.4}", so_far.chunks, so_far.value));
        },
    )?;
    if args.json {
        output::print_json(&json!({
            "perplexity": measured.value,
            "error": measured.error,
            "tokens": measured.tokens,
            "chunks": measured.chunks,
            "n_ctx": chunk,
            "type_k": args.cache_type_k.name(),
            "type_v": args.cache_type_v.name(),
            "precision": model.precision().name(),
            "device": scheduler.device_name(),
        }))?;
    } else {
        output::print_line(&format!(
            "perplexity {:.4} ± {:.4} ({} tokens of {} chunks of {})",
            measured.value, measured.error, measured.tokens, measured.chunks, chunk
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
