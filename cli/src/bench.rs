//! `engine bench`: prompt processing and generation, measured as llama-bench does.

mod lists;
mod measure;
mod parallel;
mod print;
mod products;
mod profile;
mod row;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::internals::cpu::default_threads;
use engine::internals::synthetic;
use engine::{ContextOptions, Device};
use serde_json::{Value, json};

use crate::models::ModelName;
use crate::options::{GpuLayers, PrecisionArgs, Wanted};
use crate::{devices, models, output, values};
use lists::{List, joined};
use measure::{Progress, Setting, measure};
use print::{Columns, Format, Printer, To};
use row::{Row, Test};

/// Measure prompt processing (pp) and generation (tg), with llama-bench's options and columns.
#[allow(clippy::struct_excessive_bools, reason = "a flag is a bool")]
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  engine bench smollm2:135m\n  engine bench a.gguf b.gguf -p 64 -n 16 -r 3 -o json\n  engine bench a.gguf -p 512 -n 128 -pg 512,128 -d 0,4096 -dev cpu,vulkan:0\n  engine bench --synthetic llama-8b:q4_k_m\n\nValues take lists, numbers ranges too: -p 128,512  -n 16-64*2  -t 1-4+1; an option may be given several times. Every combination is measured."
)]
pub struct Args {
    /// Files, catalogue names or names on the hub
    #[arg(required_unless_present_any = ["model_option", "synthetic", "list_devices", "roofline"])]
    models: Vec<ModelName>,
    /// Models made up in the device's memory: a shape and a format, llama-8b:q4_k_m
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    synthetic: Vec<String>,
    /// The same as positional models
    #[arg(
        short = 'm',
        long = "model",
        alias = "hf-repo",
        id = "model_option",
        value_name = "MODEL"
    )]
    model_option: Vec<ModelName>,
    /// Prompt lengths; 0: none [default: 512]
    #[arg(short = 'p', long = "n-prompt", value_name = "N", value_parser = lists::numbers, allow_hyphen_values = true)]
    prompt: Vec<List<usize>>,
    /// Numbers of tokens to generate; 0: none [default: 128]
    #[arg(short = 'n', long = "n-gen", value_name = "N", value_parser = lists::numbers, allow_hyphen_values = true)]
    generate: Vec<List<usize>>,
    /// A prompt and tokens generated after it, measured together (also -pg)
    #[arg(long = "pg", value_name = "PP,TG", value_parser = lists::pair, allow_hyphen_values = true)]
    both: Vec<(usize, usize)>,
    /// Numbers of requests at once, measured as llama-batched-bench does (also -npl; prompts -npp, answers -ntg)
    #[arg(long = "n-parallel", value_name = "N", value_parser = lists::counts, allow_hyphen_values = true)]
    parallel: Vec<List<usize>>,
    /// Tokens in the cache before each test [default: 0]
    #[arg(short = 'd', long = "n-depth", value_name = "N", value_parser = lists::numbers, allow_hyphen_values = true)]
    depth: Vec<List<usize>>,
    /// The most tokens of a prompt handed over at once [default: 2048]
    #[arg(short = 'b', long, value_name = "N", value_parser = lists::counts, allow_hyphen_values = true)]
    batch_size: Vec<List<usize>>,
    /// The most tokens computed at once (also -ub) [default: 512]
    #[arg(long, value_name = "N", value_parser = lists::counts, allow_hyphen_values = true)]
    ubatch_size: Vec<List<usize>>,
    /// Repetitions of each test
    #[arg(short = 'r', long, value_name = "N", default_value = "5", value_parser = values::count, allow_hyphen_values = true)]
    repetitions: usize,
    /// Numbers of CPU threads; 0: the cores [default: 0]
    #[arg(short = 't', long = "threads", value_name = "N", value_parser = lists::threads, allow_hyphen_values = true)]
    threads: Vec<List<Option<usize>>>,
    /// Types of the keys: f32, f16, bf16, q8_0 or q4_0 (also -ctk) [default: f16]
    #[arg(long, value_name = "TYPE", value_parser = lists::types)]
    cache_type_k: Vec<List<KvType>>,
    /// Types of the values: f32, f16, bf16, q8_0 or q4_0 (also -ctv) [default: f16]
    #[arg(long, value_name = "TYPE", value_parser = lists::types)]
    cache_type_v: Vec<List<KvType>>,
    /// Layers on the GPU: 0 is the CPU; all of the model's, -1, auto or all is the device (also -ngl) [default: -1]
    #[arg(long, alias = "n-gpu-layers", value_name = "N", value_parser = lists::layers, allow_hyphen_values = true)]
    gpu_layers: Vec<List<GpuLayers>>,
    /// Devices, one after another: auto, cpu, stable names (vulkan:0) or parts of names (also -dev) [default: auto] [env: ENGINE_DEVICE]
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// Whether the CPU maps the file, 0 or 1 (also -mmp) [default: 1]
    #[arg(long, value_name = "0|1", value_parser = lists::maps, allow_hyphen_values = true)]
    mmap: Vec<List<bool>>,
    /// The same by a name: mmap or none (also -lm)
    #[arg(long, value_name = "MODE", value_parser = lists::load_modes, hide_short_help = true)]
    load_mode: Vec<List<bool>>,
    /// How attention is computed: always in one pass, 1, on or auto (also -fa)
    #[arg(long, value_name = "1", value_parser = lists::flash_attention, allow_hyphen_values = true, hide_short_help = true)]
    flash_attn: Option<()>,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    profile: profile::ProfileArgs,
    /// How results are printed
    #[arg(short = 'o', long, value_enum, default_value = "md", hide_possible_values = false)]
    output: Format,
    /// How results are printed on stderr as well (also -oe)
    #[arg(long, value_enum, default_value = "none", hide_short_help = true)]
    output_err: Format,
    /// Print one JSON object, {"results": [...]}
    #[arg(long)]
    json: bool,
    /// Say on stderr what is being measured
    #[arg(long)]
    progress: bool,
    /// Seconds to wait before each test
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = values::seconds, allow_hyphen_values = true, hide_short_help = true)]
    delay: u64,
    /// Skip the warm-up
    #[arg(long)]
    no_warmup: bool,
    /// Print each model's memory on stderr
    #[arg(short = 'v', long)]
    verbose: bool,
    /// List the devices
    #[arg(long)]
    list_devices: bool,
}

/// A model to measure.
struct Subject {
    file: ModelFile,
    path: String,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.list_devices {
        return devices::print(args.json);
    }
    if args.profile.asked() {
        return run_profile(args);
    }
    if !args.parallel.is_empty() {
        return run_parallel(args);
    }
    let tests = tests(args)?;
    // Everything that can be refused is, before anything is measured for an hour.
    let subjects = subjects(args)?;
    let settings = settings(args, &subjects)?;
    let columns = columns(args, &settings);
    let mut printers = vec![Printer::new(args.output_err, To::Err, columns.clone())];
    if !args.json {
        printers.push(Printer::new(args.output, To::Out, columns));
    }
    let mut progress = Progress {
        shown: args.progress,
        test: 0,
        tests: subjects.len() * settings.len() * tests.len(),
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut failed = false;
    for subject in &subjects {
        for setting in &settings {
            let mut printed = Ok(());
            let mut on_row = |row: Row| {
                printed = printers.iter_mut().try_for_each(|printer| printer.row(&row));
                rows.push(row);
                printed.is_ok()
            };
            let manner = measure::Manner {
                repetitions: args.repetitions,
                warm_up: !args.no_warmup,
                delay: Duration::from_secs(args.delay),
                verbose: args.verbose,
                is_card: matches!(&setting.device, Device::Gpu(gpu) if gpu.is_card),
            };
            let result = measure(
                &subject.file,
                &subject.path,
                setting,
                &tests,
                &manner,
                &mut progress,
                &mut on_row,
            );
            printed?;
            // As llama-bench does: the others are still measured, and the exit code tells.
            match result {
                Ok(all) => failed |= !all,
                Err(error) => {
                    measure::say_error(&subject.path, None, &error);
                    failed = true;
                }
            }
        }
    }
    for printer in &printers {
        printer.end()?;
    }
    if args.json {
        let results: Vec<Value> = rows.iter().map(Row::json).collect();
        output::print_json(&json!({ "results": results }))?;
    } else if args.output == Format::Md {
        say_devices(&rows);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Dispatches timed instead of tests: on the first device, with the first size of a step and types of keys and values.
fn run_profile(args: &Args) -> Result<ExitCode> {
    let devices = wanted_devices(&args.device)?;
    if devices.len() > 1 {
        bail!("--profile and --roofline measure one device: name one with --device");
    }
    let first = |types: &[List<KvType>]| joined(types, KvType::F16)[0];
    let models = subjects(args)?.into_iter().map(|subject| (subject.file, subject.path));
    let request = profile::Request {
        models: models.collect(),
        device: &devices[0],
        precision: args.precision.class(),
        prompts: joined(&args.prompt, 512),
        generate: joined(&args.generate, 128).iter().any(|&tokens| tokens > 0),
        depths: joined(&args.depth, 0),
        options: ContextOptions {
            outputs: Some(1),
            chunk: joined(&args.ubatch_size, UBATCH)[0],
            key_type: first(&args.cache_type_k),
            value_type: first(&args.cache_type_v),
            ..ContextOptions::default()
        },
        repetitions: args.repetitions,
        json: args.json || args.output == Format::Json,
    };
    profile::run(&args.profile, &request)
}

/// Several requests at once instead of tests.
fn run_parallel(args: &Args) -> Result<ExitCode> {
    let subjects = subjects(args)?;
    let settings = settings(args, &subjects)?;
    let positive = |counts: Vec<usize>| counts.into_iter().filter(|&count| count > 0).collect();
    let tests = parallel::Tests {
        parallel: joined(&args.parallel, 1),
        prompts: positive(joined(&args.prompt, 512)),
        answers: positive(joined(&args.generate, 128)),
        repetitions: args.repetitions,
        json: args.json || args.output == Format::Json,
    };
    parallel::run(&subjects, &settings, &tests)
}

/// llama-bench's default of `-b`.
const BATCH: usize = 2048;
/// llama-bench's default of `-ub`.
const UBATCH: usize = 512;

/// Every combination of what stays the same for several tests, in llama-bench's order; their devices opened.
fn settings(args: &Args, subjects: &[Subject]) -> Result<Vec<Setting>> {
    let wanted = wanted_devices(&args.device)?;
    let mut opened = Opened { precision: args.precision.class(), devices: Vec::new() };
    let mut notes = Vec::new();
    let mut settings = Vec::new();
    let gpu_layers = joined(&args.gpu_layers, GpuLayers::Auto);
    let listed = gpu_layers.len() > 1;
    for layers in gpu_layers {
        for map in joined(&[&args.mmap[..], &args.load_mode].concat(), true) {
            for wanted in &wanted {
                let mut place = wanted.clone();
                for subject in subjects {
                    let count = subject.file.spec.layers.len();
                    let note;
                    // In lists, layers that stay on the CPU are its row beside those of the GPUs.
                    (place, note) = if listed && layers == GpuLayers::Count(0) {
                        (wanted.clone().called("cpu"), None)
                    } else {
                        wanted.clone().with_layers(Some(layers), Some(count))?
                    };
                    notes.extend(note);
                }
                for batch in joined(&args.batch_size, BATCH) {
                    for ubatch in joined(&args.ubatch_size, UBATCH) {
                        for key_type in joined(&args.cache_type_k, KvType::F16) {
                            for value_type in joined(&args.cache_type_v, KvType::F16) {
                                for threads in joined(&args.threads, None) {
                                    settings.push(Setting {
                                        gpu_layers: layers,
                                        map,
                                        device: opened.device(&place, threads)?,
                                        threads: threads.unwrap_or_else(default_threads),
                                        batch,
                                        ubatch,
                                        key_type,
                                        value_type,
                                        precision: args.precision.class(),
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    notes.dedup();
    notes.into_iter().for_each(output::say);
    Ok(settings)
}

/// Devices that are open: a GPU once, whatever else differs.
struct Opened {
    precision: Precision,
    devices: Vec<(String, Option<usize>, Device)>,
}

impl Opened {
    fn device(&mut self, wanted: &Wanted, threads: Option<usize>) -> Result<Device> {
        let mut name = wanted.name.clone();
        // Where `auto` is the CPU, that was said.
        if self.devices.iter().any(|(seen, _, device)| *seen == name && device.is_cpu()) {
            name = "cpu".into();
        }
        let found = self
            .devices
            .iter()
            .find(|(seen, with, device)| *seen == name && (*with == threads || !device.is_cpu()));
        if let Some((_, _, device)) = found {
            return Ok(device.clone());
        }
        let device = wanted.clone().called(&name).open(self.precision, threads)?;
        self.devices.push((name, threads, device.clone()));
        Ok(device)
    }
}

/// The devices that are asked for. A comma stands between two, but may also stand in a device's name.
fn wanted_devices(given: &[String]) -> Result<Vec<Wanted>> {
    if given.is_empty() {
        return Ok(vec![Wanted::from_option(None)?]);
    }
    let known: Vec<String> = if given.iter().any(|text| text.contains([',', '/'])) {
        engine::internals::gpu::list()
            .into_iter()
            .map(|adapter| adapter.name.to_lowercase())
            .collect()
    } else {
        Vec::new()
    };
    // A comma alone is in many a name, and names none.
    let is_a_name = |text: &str| {
        text.contains(char::is_alphanumeric)
            && known.iter().any(|name| name.contains(&text.to_lowercase()))
    };
    let mut devices = Vec::new();
    for text in given {
        let names: Vec<&str> = if is_a_name(text) { vec![text] } else { text.split(',').collect() };
        for name in names {
            if name.contains('/') && !is_a_name(name) {
                bail!(
                    "--device {name}: layers cannot be divided over several devices; a comma measures one after another"
                );
            }
            devices.push(Wanted::from_option(Some(name))?);
        }
    }
    Ok(devices)
}

/// The tests of each setting, in llama-bench's order.
fn tests(args: &Args) -> Result<Vec<Test>> {
    let prompts = joined(&args.prompt, 512);
    let generates = joined(&args.generate, 128);
    let mut tests = Vec::new();
    for depth in joined(&args.depth, 0) {
        let prompts = prompts.iter().map(|&prompt| (prompt, 0));
        let generates = generates.iter().map(|&generate| (0, generate));
        for (prompt, generate) in prompts.chain(generates).chain(args.both.iter().copied()) {
            if prompt + generate > 0 {
                tests.push(Test { prompt, generate, depth });
            }
        }
    }
    if tests.is_empty() {
        bail!("nothing to measure: -p, -n and -pg ask for no tokens");
    }
    Ok(tests)
}

/// The models, opened.
fn subjects(args: &Args) -> Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for name in
        args.models.iter().cloned().chain(args.model_option.iter().flat_map(ModelName::split))
    {
        let path = models::resolve(&name)?;
        let file = ModelFile::from_gguf(models::open_path(&path)?)?;
        subjects.push(Subject { file, path: path.display().to_string() });
    }
    for name in &args.synthetic {
        let file = synthetic::open(name).with_context(|| format!("--synthetic {name}"))?;
        subjects.push(Subject { file, path: format!("synthetic {name}") });
    }
    Ok(subjects)
}

/// The columns of the table: those that llama-bench always has, and what was asked for.
fn columns(args: &Args, settings: &[Setting]) -> Columns {
    let on_cpu = |setting: &Setting| setting.device.is_cpu();
    let given = |values: &[List<usize>], default| joined(values, default) != [default];
    let types = |values: &[List<KvType>]| joined(values, KvType::F16) != [KvType::F16];
    let elsewhere = |setting: &Setting| setting.device.id() != settings[0].device.id();
    let columns = [
        ("ngl", !settings.iter().all(on_cpu)),
        ("threads", settings.iter().any(on_cpu) || !args.threads.is_empty()),
        ("n_batch", given(&args.batch_size, BATCH)),
        ("n_ubatch", given(&args.ubatch_size, UBATCH)),
        ("type_k", types(&args.cache_type_k)),
        ("type_v", types(&args.cache_type_v)),
        ("fa", args.flash_attn.is_some()),
        ("dev", settings.iter().any(elsewhere)),
        ("lm", settings.iter().any(|setting| !setting.map)),
    ];
    Columns(columns.into_iter().filter(|(_, shown)| *shown).map(|(heading, _)| heading).collect())
}

/// Says on stderr what the rows were measured on.
fn say_devices(rows: &[Row]) {
    let mut seen: Vec<(String, Precision)> = Vec::new();
    for row in rows {
        let device = (row.device.id(), row.precision);
        if seen.contains(&device) {
            continue;
        }
        let driver = match &row.device {
            Device::Gpu(gpu) => gpu.driver.clone(),
            Device::Cpu { set, .. } => set.name().into(),
        };
        output::say(format_args!(
            "{}on {} ({}, {driver}), precision {}",
            if seen.is_empty() { "\n" } else { "" },
            row.device.name(),
            row.device.id(),
            row.precision.name()
        ));
        seen.push(device);
    }
}
