//! `engine pull`: fetches a model.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use crate::models::ModelName;
use crate::{hub, models, output};

/// Fetch a model and print its path.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  engine pull smollm2:135m\n  engine pull user/repo:Q4_K_M")]
pub struct Args {
    /// A catalogue name, a name on the hub (user/repo[@revision][:quant or file]), or a link to a .gguf file
    name: ModelName,
    /// Ask the hub for a newer version, though there is one here
    #[arg(long)]
    update: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let wanted = if args.update { hub::parse(&args.name.text())? } else { None };
    let path = match wanted {
        Some(wanted) => hub::fetch(&wanted, true)?,
        None => models::resolve(&args.name)?,
    };
    let bytes = std::fs::metadata(&path)?.len();
    if args.json {
        output::print_json(
            &json!({ "name": args.name.text(), "path": path.to_string_lossy(), "bytes": bytes }),
        )?;
    } else {
        output::print_line(&path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
