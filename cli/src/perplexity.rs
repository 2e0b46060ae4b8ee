//! `engine perplexity`: how well a model predicts a text.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use engine::model::ModelFile;
use engine::tokenizer::EncodeOptions;
use engine::{ContextOptions, LoadOptions};
use serde_json::json;

use crate::options::{DeviceArgs, PrecisionArgs, kv_type};
use crate::{models, output};

/// Measure how well a model predicts a text, as llama-perplexity does: chunks of the context's length, of which the
/// second half counts.
#[derive(clap::Args)]
#[command(after_help = "Example: engine perplexity smollm2:135m book.txt -c 512")]
pub struct Args {
    /// A file, a catalogue name or a name on the hub
    model: String,
    /// The text
    file: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Tokens of a chunk
    #[arg(short = 'c', long, default_value_t = 512)]
    ctx: usize,
    /// Compute the first so many chunks only; -1: all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    chunks: i64,
    /// The type of keys in the cache: f32, f16, bf16, q8_0 or q4_0 (also -ctk)
    #[arg(long, default_value = "f16", value_parser = kv_type)]
    cache_type_k: engine::kv::KvType,
    /// The type of values in the cache: f32, f16, bf16, q8_0 or q4_0 (also -ctv)
    #[arg(long, default_value = "f16", value_parser = kv_type)]
    cache_type_v: engine::kv::KvType,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let text =
        std::fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?;
    let precision = args.precision.class();
    let device = args.device.open_for(precision)?;
    let options = ContextOptions {
        cells: Some(args.ctx),
        key_type: args.cache_type_k,
        value_type: args.cache_type_v,
        ..ContextOptions::default()
    };
    let load = LoadOptions { context: options.clone(), precision, ..LoadOptions::default() };
    let file = ModelFile::from_gguf(models::open_path(&models::resolve(&args.model)?)?)?;
    file.language_model()?;
    let model = models::load_file(&device, file, &load)?;
    let tokenizer = model.tokenizer()?;
    let ids = tokenizer.encode(&text, EncodeOptions { add_special: true, parse_special: false })?;
    let mut context = model.context(&options)?;
    // As for llama-perplexity, any negative number is no limit.
    let most = usize::try_from(args.chunks).ok();
    let measured = engine::perplexity::measure(
        &mut context,
        &tokenizer,
        &ids,
        args.ctx,
        most,
        &mut |so_far, chunks| {
            eprintln!("chunk {} of {chunks}: {:.4}", so_far.chunks, so_far.value);
        },
    )?;
    if args.json {
        output::print_json(&json!({
            "perplexity": measured.value,
            "error": measured.error,
            "tokens": measured.tokens,
            "chunks": measured.chunks,
            "n_ctx": args.ctx,
            "type_k": args.cache_type_k.name(),
            "type_v": args.cache_type_v.name(),
            "precision": model.precision().name(),
            "device": context.device_name(),
        }))?;
    } else {
        output::print_line(&format!(
            "perplexity {:.4} ± {:.4} ({} tokens of {} chunks of {})",
            measured.value, measured.error, measured.tokens, measured.chunks, args.ctx
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
