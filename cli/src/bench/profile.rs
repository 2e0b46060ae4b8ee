//! `engine bench --profile` and `--roofline`: what each kernel takes, and what the device could do.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use engine::GpuOptions;
use engine::ModelFile;
use engine::Precision;
use engine::internals::gpu::Gpu;
use engine::internals::gpu::roofline::{self, Roofline};
use engine::internals::profile::{Roof, StepProfile, VariantTime, by_variant, median};
use engine::{Context, ContextOptions, Device, LoadOptions};
use engine::{SequenceId, StepToken};
use serde_json::{Value, json};

use super::measure::made_up_ids;
use super::products;
use super::row::Test;
use crate::options::Wanted;
use crate::{models, output};

/// What is measured instead of speeds.
#[derive(clap::Args)]
pub struct ProfileArgs {
    /// Time every dispatch of a prompt's step and of a token's, summed by kernel (on a GPU)
    #[arg(long)]
    profile: bool,
    /// Measure what the GPU does at most: memory, multiplications, dispatches; needs no model
    #[arg(long)]
    roofline: bool,
    /// The memory's GB/s for shares of the roofline [default: measured]
    #[arg(long, value_name = "GB/S", requires = "profile", value_parser = positive)]
    bandwidth: Option<f64>,
}

impl ProfileArgs {
    /// Whether this is asked for in place of speeds.
    pub fn asked(&self) -> bool {
        self.profile || self.roofline
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("{text:?} is no number of GB/s above 0"))
}

/// What a profile is of.
pub struct Request<'a> {
    /// The models, opened, each with its name.
    pub models: Vec<(ModelFile, String)>,
    /// The device.
    pub device: &'a Wanted,
    /// How exactly products are computed.
    pub precision: Precision,
    /// Lengths of prompts, each a step; 0: none.
    pub prompts: Vec<usize>,
    /// Whether a single token is a step too.
    pub generate: bool,
    /// Positions before each step.
    pub depths: Vec<usize>,
    /// The most tokens of a step, and the types of keys and values.
    pub options: ContextOptions,
    /// Steps of which medians are taken.
    pub repetitions: usize,
    /// Whether JSON is printed.
    pub json: bool,
}

/// A step that was profiled.
struct Case {
    model: String,
    /// How exactly it computed.
    precision: Precision,
    tokens: usize,
    depth: usize,
    profiles: Vec<StepProfile>,
    /// Seconds of the same step without timestamps, on the host's clock.
    seconds: f64,
}

/// Measures what is asked for.
pub fn run(args: &ProfileArgs, request: &Request) -> Result<ExitCode> {
    let gpu = open(request)?;
    if args.profile {
        gpu.need_timestamps()?;
    }
    let precision = gpu.kernels.possible(request.precision);
    let measured = roofline::measure(&gpu)?;
    let products = if args.roofline { products::measure(&gpu, precision)? } else { Vec::new() };
    let mut cases = Vec::new();
    if args.profile {
        for (file, name) in &request.models {
            profile(&Device::Gpu(gpu.clone()), file, name, request, &mut cases)
                .with_context(|| name.clone())?;
        }
    }
    let roof = Roof {
        bandwidth: args.bandwidth.map_or(measured.read, |gigabytes| gigabytes * 1e9),
        ..measured.roof()
    };
    if request.json {
        let profiles: Vec<Value> = cases.iter().map(|case| case.json(&roof)).collect();
        output::print_json(&json!({
            "device": gpu.name,
            "driver": gpu.driver,
            "precision": precision.name(),
            "roofline": roofline_json(&measured),
            "products": products.iter().map(products::json).collect::<Vec<_>>(),
            "profiles": profiles,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print_line(&format!("{} ({}, {})\n", gpu.name, gpu.id, gpu.driver))?;
    print_roofline(&measured)?;
    products::print(&products, precision, &roof)?;
    for case in &cases {
        case.print(&roof)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn open(request: &Request) -> Result<Arc<Gpu>> {
    let timed = GpuOptions { timestamps: true, ..GpuOptions::default() };
    match request.device.open_with(request.precision, None, timed)? {
        Device::Gpu(gpu) => Ok(gpu),
        Device::Cpu { .. } => bail!(
            "--profile and --roofline measure a GPU, and --device {} is the CPU; `engine devices` lists what there is",
            request.device.name
        ),
    }
}

/// Profiles a model's steps.
fn profile(
    device: &Device,
    file: &ModelFile,
    name: &str,
    request: &Request,
    cases: &mut Vec<Case>,
) -> Result<()> {
    let most = |numbers: &[usize]| numbers.iter().copied().max().unwrap_or(0);
    let steps = 2 * request.repetitions + 2;
    let longest = most(&request.prompts).min(request.options.chunk).max(steps);
    let options = ContextOptions {
        positions: Some(most(&request.depths) + longest),
        ..request.options.clone()
    };
    let load = LoadOptions { precision: request.precision, ..LoadOptions::from(options.clone()) };
    let loaded = models::load_file(device, file.clone(), &load)?;
    let mut context = loaded.context(&options)?;
    let vocabulary = loaded.file().spec.vocabulary;
    for &depth in &request.depths {
        let of_prompts = request.prompts.iter().filter(|&&tokens| tokens > 0);
        // A step takes no more than a chunk.
        let of_prompts = of_prompts.map(|&tokens| tokens.min(request.options.chunk));
        for tokens in of_prompts.chain(request.generate.then_some(1)) {
            let mut run = Run { context: &mut context, vocabulary, depth, tokens };
            let (profiles, seconds) = run.measure(request.repetitions)?;
            let (precision, model) = (loaded.precision(), name.to_string());
            cases.push(Case { model, precision, tokens, depth, profiles, seconds });
        }
    }
    Ok(())
}

/// Like steps of a context.
struct Run<'a> {
    context: &'a mut Context,
    vocabulary: usize,
    depth: usize,
    tokens: usize,
}

impl Run<'_> {
    /// `count` tokens from `start` on.
    fn step(&self, start: usize, count: usize) -> Vec<StepToken> {
        let ids = made_up_ids(start..start + count, self.vocabulary);
        StepToken::run(SequenceId(0), start, &ids, false)
    }

    /// Makes room for a step, with `depth` positions before it.
    fn prepare(&mut self) -> Result<usize> {
        let length = self.context.length(SequenceId(0));
        // Single tokens may follow one another; a prompt begins anew at its depth.
        let room = self.tokens == 1 && length >= self.depth && length < self.context.positions();
        if room && length > 0 {
            return Ok(length);
        }
        self.context.free(SequenceId(0));
        if self.depth > 0 {
            let tokens = self.step(0, self.depth);
            self.context.step_with(&tokens, &mut |_| (), &mut || false)?;
        }
        Ok(self.depth)
    }

    /// Profiles of so many steps, and the median of the seconds of as many that were not profiled.
    fn measure(&mut self, repetitions: usize) -> Result<(Vec<StepProfile>, f64)> {
        self.context.free(SequenceId(0));
        let mut seconds = Vec::new();
        let mut profiles = Vec::new();
        for round in 0..=repetitions {
            let start = self.prepare()?;
            let tokens = self.step(start, self.tokens);
            let began = Instant::now();
            self.context.step_with(&tokens, &mut |_| (), &mut || false)?;
            let took = began.elapsed().as_secs_f64();
            let start = self.prepare()?;
            let tokens = self.step(start, self.tokens);
            let profiled = self.context.profile_step(&tokens)?;
            // The first round compiles and warms up.
            if round > 0 {
                seconds.push(took);
                profiles.push(profiled);
            }
        }
        Ok((profiles, median(seconds.into_iter())))
    }
}

impl Case {
    fn test(&self) -> String {
        let (prompt, generate) = if self.tokens == 1 { (0, 1) } else { (self.tokens, 0) };
        Test { prompt, generate, depth: self.depth }.name()
    }

    /// Nanoseconds from a step's first dispatch to its last.
    fn span(&self) -> f64 {
        median(self.profiles.iter().map(|profile| profile.span))
    }

    /// Nanoseconds of a step in one pass.
    fn whole(&self) -> f64 {
        median(self.profiles.iter().map(|profile| profile.whole))
    }

    fn json(&self, roof: &Roof) -> Value {
        let kernel = |sum: &VariantTime| {
            json!({
                "kernel": sum.variant.to_string(),
                "ops": sum.ops,
                "dispatches": sum.count,
                "ns": sum.nanoseconds.round() as u64,
                "saved_ns": sum.saved.round() as i64,
                "bytes": sum.cost.bytes,
                "multiply_adds": sum.cost.multiply_adds,
                "bytes_per_second": sum.bandwidth(),
                "multiply_adds_per_second": sum.multiply_adds(),
                "of_roofline": sum.share(roof),
            })
        };
        let sums = by_variant(&self.profiles);
        json!({
            "model": self.model,
            "precision": self.precision.name(),
            "test": self.test(),
            "n_depth": self.depth,
            "step_ns": (self.seconds * 1e9).round() as u64,
            "span_ns": self.span().round() as u64,
            "whole_ns": self.whole().round() as u64,
            "kernels": sums.iter().map(kernel).collect::<Vec<_>>(),
        })
    }

    fn print(&self, roof: &Roof) -> Result<()> {
        let sums = by_variant(&self.profiles);
        let all: f64 = sums.iter().map(|sum| sum.nanoseconds).sum();
        let dispatches: usize = sums.iter().map(|sum| sum.count).sum();
        let bytes: u64 = sums.iter().map(|sum| sum.cost.bytes).sum();
        output::print_line(&format!(
            "\n{}, {}, {}: {dispatches} dispatches of {:.3} ms together, {:.3} ms from first to last, {:.3} ms in one pass; not timed {:.3} ms on the host's clock; {}\n",
            self.model,
            self.test(),
            self.precision.name(),
            all / 1e6,
            self.span() / 1e6,
            self.whole() / 1e6,
            self.seconds * 1e3,
            output::bytes(bytes),
        ))?;
        let header = [
            "kernel",
            "ops",
            "dispatches",
            "us",
            "saves us",
            "share",
            "MB",
            "GB/s",
            "G madd/s",
            "of roofline",
        ];
        let row = |sum: &VariantTime| -> Vec<String> {
            vec![
                sum.variant.to_string(),
                sum.ops.join(" "),
                sum.count.to_string(),
                format!("{:.1}", sum.nanoseconds / 1e3),
                format!("{:.1}", sum.saved / 1e3),
                format!("{:.1} %", 100.0 * sum.nanoseconds / all.max(1.0)),
                format!("{:.2}", sum.cost.bytes as f64 / 1e6),
                format!("{:.1}", sum.bandwidth() / 1e9),
                format!("{:.1}", sum.multiply_adds() / 1e9),
                format!("{:.1} %", 100.0 * sum.share(roof)),
            ]
        };
        output::print_table(&header, &sums.iter().map(row).collect::<Vec<_>>(), 2)
    }
}

fn roofline_json(measured: &Roofline) -> Value {
    json!({
        "buffer_bytes": measured.buffer_bytes,
        "read_bytes_per_second": measured.read,
        "copy_bytes_per_second": measured.copy,
        "f32_multiply_adds_per_second": measured.multiply_adds,
        "f16_multiply_adds_per_second": measured.half_multiply_adds,
        "f16_matrix_multiply_adds_per_second": measured.matrix_multiply_adds,
        "int8_multiply_adds_per_second": measured.byte_multiply_adds,
        "dependent_dispatch_ns": measured.dependent_dispatch * 1e9,
        "independent_dispatch_ns": measured.independent_dispatch * 1e9,
    })
}

fn print_roofline(measured: &Roofline) -> Result<()> {
    let buffer = format!("read, {}", output::bytes(measured.buffer_bytes));
    let rows = [
        (buffer.as_str(), Some(measured.read / 1e9), "GB/s"),
        ("copy, read and written", Some(measured.copy / 1e9), "GB/s"),
        ("f32", Some(measured.multiply_adds / 1e9), "G madd/s"),
        ("f16", measured.half_multiply_adds.map(|rate| rate / 1e9), "G madd/s"),
        ("f16, matrices", measured.matrix_multiply_adds.map(|rate| rate / 1e9), "G madd/s"),
        ("int8, four at a time", Some(measured.byte_multiply_adds / 1e9), "G madd/s"),
        ("dispatch that waits", Some(measured.dependent_dispatch * 1e6), "us"),
        ("dispatch that need not", Some(measured.independent_dispatch * 1e6), "us"),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(what, value, unit)| {
            let value = value.map_or_else(|| "none".into(), |value| format!("{value:.2}"));
            vec![what.into(), unit.into(), value]
        })
        .collect();
    output::print_table(&["roofline", "unit", "measured"], &rows, 2)
}
