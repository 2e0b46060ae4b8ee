//! `engine quantize`: writes a model in another format.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use gguf::quantize::Mix;

use crate::models::ModelName;
use crate::{models, output, progress};

/// Write a model in another format: the formats that need no importance matrix, mixed as llama-quantize mixes them.
#[derive(clap::Args)]
#[command(
    after_help = "Example: engine quantize model-f16.gguf model-q4_k_m.gguf Q4_K_M\n`engine quantize - - list` prints \
                  the types."
)]
pub struct Args {
    /// The model: a file, a catalogue name or a name on the hub
    model: ModelName,
    /// The file to write
    out: PathBuf,
    /// Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, ...; `list` prints all
    #[arg(value_name = "TYPE")]
    mix: String,
    /// Also of a model that is quantized already, whose weights are then rounded twice
    #[arg(long)]
    allow_requantize: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.mix.eq_ignore_ascii_case("list") {
        for mix in Mix::all() {
            let bits = mix.format.info().bits_per_weight();
            output::print_line(&format!("{:<10} {:>6.3} bits a weight for most", mix.name, bits))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(mix) = Mix::from_name(&args.mix) else {
        let known: Vec<_> = Mix::all().map(|mix| mix.name).collect();
        bail!(
            "{}: no type of that name that needs no importance matrix; there are {}",
            args.mix,
            known.join(", ")
        );
    };
    let file = models::open(&args.model)?;
    let path = args.out.display().to_string();
    // The rename at the end would put a file in the place of a device or a pipe.
    if std::fs::metadata(&args.out).is_ok_and(|metadata| !metadata.is_file()) {
        bail!("{path}: is there and no file: name a file to write");
    }
    let rewrite = file.quantize(mix, args.allow_requantize)?;
    // Written beside and renamed at the end: no half a model, and the model itself may be the file to replace.
    let mut partial = args.out.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let create = || format!("{}: cannot be created", partial.display());
    let mut out = BufWriter::new(File::create(&partial).with_context(create)?);
    let bar = progress::bar(file.file_bytes(), "quantizing");
    let written = rewrite
        .write(&path, &mut out, &mut |bytes| bar.set_position(bytes))
        .map_err(anyhow::Error::from)
        .and_then(|()| out.flush().with_context(|| format!("{path}: writing")))
        .and_then(|()| {
            std::fs::rename(&partial, &args.out)
                .with_context(|| format!("{path}: cannot be written"))
        });
    bar.finish_and_clear();
    if let Err(error) = written {
        // Nobody wants the half of it; if it cannot go, it stays.
        let _ = std::fs::remove_file(&partial);
        return Err(error);
    }
    let bytes = std::fs::metadata(&args.out)?.len();
    let weights: u64 = file.tensors.iter().map(gguf::TensorInfo::elements).sum();
    output::print_line(&format!(
        "{path}: {}, {} before, {:.2} bits a weight",
        output::bytes(bytes),
        output::bytes(file.file_bytes()),
        bytes as f64 * 8.0 / weights.max(1) as f64
    ))?;
    Ok(ExitCode::SUCCESS)
}
