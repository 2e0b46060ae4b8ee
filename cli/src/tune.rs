//! `engine tune`: measures the kernels for a model's shapes on a GPU and keeps the fastest.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use engine::internals::check::tune::{self, Measurement};
use engine::internals::gpu::choice::{Kernels, ProductKernel, ProductShape, Take};
use engine::internals::plan::Plan;
use engine::internals::synthetic;
use engine::{ContextOptions, Device};

use crate::models::ModelName;
use crate::options::{DeviceArgs, PrecisionArgs};
use crate::{models, output, values};

/// Measure which kernels are the fastest for a model on this GPU, and keep the verdict.
#[derive(clap::Args)]
#[command(
    after_help = "Example: engine tune smollm2:135m\n\nThe verdict is kept in the cache folder for this adapter, driver and version, and used from then on."
)]
pub struct Args {
    /// A file, catalogue name or name on the hub
    #[arg(required_unless_present = "synthetic")]
    model: Option<ModelName>,
    /// The shapes of a made-up model instead: llama-8b:q4_k_m
    #[arg(long, conflicts_with = "model")]
    synthetic: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Seconds to spend
    #[arg(long, default_value = "18", value_parser = values::seconds, allow_hyphen_values = true)]
    seconds: u64,
    /// Print every measurement
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let model = match (&args.synthetic, &args.model) {
        (Some(name), _) => synthetic::open(name)?,
        (None, Some(name)) => models::open_model(name)?,
        (None, None) => bail!("which model?"),
    };
    let Device::Gpu(gpu) =
        args.device.open_timed(args.precision.class(), Some(model.spec.layers.len()))?
    else {
        bail!("the CPU has nothing to tune: name a GPU with --device (see `engine devices`)");
    };
    let sizes = ContextOptions::default().sizes(&model.spec)?;
    let plan = Plan::new(&model, sizes.positions)?;
    let precision = gpu.kernels.possible(args.precision.class().in_model(&model.spec));
    let kernels = Kernels { precision, tuned: BTreeMap::new(), ..gpu.kernels.clone() };
    let shapes = tune::shapes(&plan, &kernels)?;
    let mut measured: Vec<Measurement> = Vec::new();
    let start = Instant::now();
    let verdict = tune::tune(
        &gpu,
        &shapes,
        &kernels,
        Duration::from_secs(args.seconds),
        &mut |measurement| {
            if args.verbose {
                output::say(line(&measurement.shape, measurement));
            }
            measured.push(measurement.clone());
        },
    )?;
    for (shape, kernel) in &verdict {
        let of_shape = |m: &&Measurement| m.shape == tune::measured_shape(shape);
        // The last time, where it was measured in turns with the default.
        let best = measured.iter().filter(of_shape).rfind(|m| m.kernel == *kernel);
        let default = kernels.default_product(shape);
        let was = measured.iter().filter(of_shape).rfind(|m| m.kernel == default);
        if let (Some(best), Some(was)) = (best, was) {
            let gain = was.seconds / best.seconds;
            output::print_line(&format!("{}  {gain:.2} x the default", line(shape, best)))?;
        }
    }
    let file = tune::keep(&gpu, precision, &verdict)?;
    output::say(format_args!(
        "{} of {} shapes measured on {} ({}) in {:.1} s{}",
        verdict.len(),
        shapes.len(),
        gpu.name,
        gpu.driver,
        start.elapsed().as_secs_f64(),
        file.map_or_else(String::new, |file| format!("; kept in {}", file.display())),
    ));
    Ok(ExitCode::SUCCESS)
}

fn line(shape: &ProductShape, measurement: &Measurement) -> String {
    format!(
        "{:<5} {:>6} x {:<6}{} {:>3} tokens  {:<52} {:>9.1} us {:>8.2} GB/s {:>9.1} G multiply-adds/s",
        shape.format.name(),
        shape.rows,
        shape.columns,
        if shape.gated { " gated" } else { "      " },
        measurement.tokens,
        describe(measurement.kernel),
        measurement.seconds * 1e6,
        measurement.gigabytes_per_second(),
        measurement.giga_multiply_adds(),
    )
}

fn describe(kernel: ProductKernel) -> String {
    match kernel {
        ProductKernel::Matvec { lanes, rows, tokens, take } => {
            let take = match take {
                Take::Group => "",
                Take::Quarter => ", quarters",
                Take::Quad => ", quarters of four",
            };
            format!("matvec {lanes} lanes, {rows} rows, {tokens} tokens{take}")
        }
        ProductKernel::Lanewise { lanes, rows, tokens } => {
            format!("lanewise {lanes} lanes, {rows} rows, {tokens} tokens")
        }
        ProductKernel::Matmul { tokens } => format!("matmul {tokens} tokens"),
        ProductKernel::Cooperative { tokens, .. } => {
            format!("cooperative matrices, {tokens} tokens")
        }
    }
}
