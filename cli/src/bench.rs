//! `engine bench`: prompt processing and generation, measured as llama-bench does.

mod profile;

use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use engine::cpu::{self, default_threads};
use engine::executor::Precision;
use engine::kv::KvType;
use engine::model::ModelFile;
use engine::step::{SequenceId, StepToken};
use engine::{Context, ContextOptions, Device, LoadOptions, synthetic};
use serde_json::{Value, json};

use crate::model_info::{quantization, size_label, tensor_bytes};
use crate::options::{DeviceArgs, PrecisionArgs, kv_type};
use crate::{models, output};

/// Measure prompt processing (pp) and generation (tg), with llama-bench's options and columns.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  engine bench smollm2:135m\n  engine bench a.gguf b.gguf -p 64 -n 16 -r 3 -o json\n  engine bench --synthetic llama-8b:q4_k_m\n  engine bench --synthetic llama-8b:q4_k_m --profile\n  engine bench --roofline --device vulkan:0\n\nNumbers take lists and ranges: -p 128,512  -n 16-64*2  -t 1-4+1"
)]
pub struct Args {
    /// Files, catalogue names or names on the hub
    #[arg(required_unless_present_any = ["model_option", "synthetic", "roofline"])]
    models: Vec<String>,
    /// Models made up in the device's memory: a shape and a format, llama-8b:q4_k_m
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    synthetic: Vec<String>,
    /// The same as a positional model
    #[arg(short = 'm', long = "model", id = "model_option")]
    model_option: Vec<String>,
    /// Prompt lengths; 0: none
    #[arg(short = 'p', long = "n-prompt", default_value = "512")]
    prompt: String,
    /// Numbers of tokens to generate; 0: none
    #[arg(short = 'n', long = "n-gen", default_value = "128")]
    generate: String,
    /// Repetitions of each test
    #[arg(short = 'r', long, default_value_t = 5)]
    repetitions: usize,
    /// Numbers of CPU threads [default: the cores]
    #[arg(short = 't', long = "threads")]
    thread_list: Option<String>,
    /// Types of the keys: f16, f32 (also -ctk)
    #[arg(long, default_value = "f16")]
    cache_type_k: String,
    /// Types of the values: f16, f32 (also -ctv)
    #[arg(long, default_value = "f16")]
    cache_type_v: String,
    /// The most tokens computed at once
    #[arg(long, default_value_t = 512)]
    ubatch_size: usize,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    profile: profile::ProfileArgs,
    /// md or json
    #[arg(short = 'o', long, default_value = "md", value_parser = ["md", "json"])]
    output: String,
    /// Skip the warm-up
    #[arg(long)]
    no_warmup: bool,
    /// Print one JSON object, {"results": [...]}
    #[arg(long)]
    json: bool,
    /// auto, cpu, a stable name (vulkan:0) or a part of a device's name (also -dev)
    #[arg(long, default_value = "auto", env = "ENGINE_DEVICE")]
    device: String,
}

/// One row of the table.
struct Row {
    name: String,
    size: u64,
    parameters: u64,
    device: Device,
    file: String,
    threads: usize,
    key_type: KvType,
    value_type: KvType,
    chunk: usize,
    prompt: usize,
    generate: usize,
    samples_ns: Vec<u64>,
    time: String,
    load_ns: u64,
    memory: u64,
    precision: Precision,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let prompts = numbers(&args.prompt)?;
    let generates = numbers(&args.generate)?;
    let threads = match &args.thread_list {
        Some(list) => numbers(list)?,
        None => vec![default_threads()],
    };
    if args.repetitions == 0 {
        bail!("-r 0: at least one repetition is needed");
    }
    let types = |list: &str| -> Result<Vec<KvType>> {
        list.split(',').map(|name| kv_type(name).map_err(anyhow::Error::msg)).collect()
    };
    let key_types = types(&args.cache_type_k).context("-ctk")?;
    let value_types = types(&args.cache_type_v).context("-ctv")?;
    if args.profile.asked() {
        let models: Result<Vec<_>> =
            subjects(args).map(|(name, made_up)| open(name, made_up)).collect();
        let request = profile::Request {
            models: models?,
            device: &args.device,
            precision: args.precision.class(),
            prompts,
            generate: generates.iter().any(|&tokens| tokens > 0),
            depths: vec![0],
            options: ContextOptions {
                outputs: Some(1),
                chunk: args.ubatch_size,
                key_type: key_types[0],
                value_type: value_types[0],
                ..ContextOptions::default()
            },
            repetitions: args.repetitions,
            json: args.json || args.output == "json",
        };
        return profile::run(&args.profile, &request);
    }
    let mut rows = Vec::new();
    for (name, made_up) in subjects(args) {
        let (file, path) = open(name, made_up)?;
        for &threads in &threads {
            let open = DeviceArgs { device: args.device.clone(), threads: Some(threads) };
            let precision = args.precision.class();
            let device = open.open_for(precision)?;
            for &key_type in &key_types {
                for &value_type in &value_types {
                    let cells = prompts.iter().chain(&generates).copied().max().unwrap_or(1).max(1);
                    let options = ContextOptions {
                        cells: Some(cells),
                        sequences: 1,
                        chunk: args.ubatch_size,
                        // Only the last token of a step wants logits.
                        outputs: Some(1),
                        key_type,
                        value_type,
                    };
                    let load = LoadOptions { precision, ..LoadOptions::from(options.clone()) };
                    let start = Instant::now();
                    let model = models::load_file(&device, file.clone(), &load)?;
                    let mut context = model.context(&options)?;
                    let load_ns = start.elapsed().as_nanos() as u64;
                    let memory = context.memory().total();
                    let file = &model.file().gguf;
                    let row = |prompt, generate| Row {
                        name: format!(
                            "{} {} {}",
                            model.file().spec.architecture,
                            size_label(file),
                            quantization(file)
                        ),
                        size: tensor_bytes(file),
                        parameters: engine::load::parameters(file),
                        device: device.clone(),
                        file: path.clone(),
                        threads,
                        key_type,
                        value_type,
                        chunk: args.ubatch_size,
                        prompt,
                        generate,
                        samples_ns: Vec::new(),
                        time: String::new(),
                        load_ns,
                        memory,
                        precision: model.precision(),
                    };
                    let vocabulary = model.file().spec.vocabulary;
                    let tests = prompts
                        .iter()
                        .map(|&n| row(n, 0))
                        .chain(generates.iter().map(|&n| row(0, n)));
                    for mut test in tests.filter(|test| test.prompt + test.generate > 0) {
                        measure(&mut context, &mut test, args, vocabulary)?;
                        rows.push(test);
                    }
                }
            }
            if !device.is_cpu() {
                break;
            }
        }
    }
    print(args, &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// The models' names, and whether each is made up.
fn subjects(args: &Args) -> impl Iterator<Item = (&String, bool)> {
    let made_up = args.synthetic.iter().map(|name| (name, true));
    args.models.iter().chain(&args.model_option).map(|name| (name, false)).chain(made_up)
}

/// A model, opened, and what it is called.
fn open(name: &str, made_up: bool) -> Result<(ModelFile, String)> {
    if made_up {
        return Ok((synthetic::open(name)?, format!("synthetic {name}")));
    }
    let path = models::resolve(name)?;
    Ok((ModelFile::from_gguf(models::open_path(&path)?)?, path.display().to_string()))
}

/// Runs one test: a warm-up as llama-bench's (the prompt, or one token), then the repetitions.
fn measure(context: &mut Context, test: &mut Row, args: &Args, vocabulary: usize) -> Result<()> {
    test.time = chrono::DateTime::<chrono::Utc>::from(SystemTime::now())
        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    // Any ids will do; a fixed sequence makes runs alike.
    let id = |index: usize| (index.wrapping_mul(2_654_435_761) >> 7) as u32 % vocabulary as u32;
    let sequence = SequenceId(0);
    let prompt_ids: Vec<u32> = (0..test.prompt).map(id).collect();
    // The logits are read from the device, as llama-bench does, but kept nowhere.
    let step = |context: &mut Context, tokens: &[StepToken]| {
        context.step_with(tokens, &mut |_| (), &mut || false)
    };
    let mut once = |prompt: usize, generate: usize| -> Result<u64> {
        context.free(sequence);
        let start = Instant::now();
        if prompt > 0 {
            step(context, &StepToken::run(sequence, 0, &prompt_ids[..prompt], false))?;
        }
        for index in 0..generate {
            step(context, &StepToken::run(sequence, prompt + index, &[id(index)], true))?;
        }
        Ok(start.elapsed().as_nanos() as u64)
    };
    if !args.no_warmup {
        once(test.prompt, test.generate.min(1))?;
    }
    for _ in 0..args.repetitions {
        test.samples_ns.push(once(test.prompt, test.generate)?);
    }
    Ok(())
}

impl Row {
    fn speeds(&self) -> Vec<f64> {
        let tokens = (self.prompt + self.generate) as f64;
        self.samples_ns.iter().map(|&ns| tokens * 1e9 / ns.max(1) as f64).collect()
    }

    fn test(&self) -> String {
        match (self.prompt, self.generate) {
            (n, 0) => format!("pp{n}"),
            (_, n) => format!("tg{n}"),
        }
    }

    fn backend(&self) -> &'static str {
        match self.device.id().split(':').next() {
            Some("vulkan") => "Vulkan",
            Some("metal") => "Metal",
            Some("dx12") => "DX12",
            _ => "CPU",
        }
    }

    /// llama-bench's keys, with `device`, `precision` and `adapter_driver` added.
    fn json(&self) -> Value {
        let speeds = self.speeds();
        let nanoseconds: Vec<f64> = self.samples_ns.iter().map(|&ns| ns as f64).collect();
        let gpu = if self.device.is_cpu() { String::new() } else { self.device.name() };
        json!({
            "build_commit": env!("CARGO_PKG_VERSION"),
            "build_number": 0,
            "cpu_info": cpu::processor_name(),
            "gpu_info": gpu,
            "backends": self.backend(),
            "model_filename": self.file,
            "model_type": self.name,
            "model_size": self.size,
            "model_n_params": self.parameters,
            "n_batch": self.chunk,
            "n_ubatch": self.chunk,
            "n_threads": self.threads,
            "type_k": self.key_type.name(),
            "type_v": self.value_type.name(),
            "n_gpu_layers": if self.device.is_cpu() { 0 } else { 99 },
            "flash_attn": 1,
            "devices": self.device.id(),
            "n_prompt": self.prompt,
            "n_gen": self.generate,
            "n_depth": 0,
            "test_time": self.time,
            "avg_ns": mean(&nanoseconds).round() as u64,
            "stddev_ns": deviation(&nanoseconds).round() as u64,
            "avg_ts": mean(&speeds),
            "stddev_ts": deviation(&speeds),
            "samples_ns": self.samples_ns,
            "samples_ts": speeds,
            "load_ns": self.load_ns,
            "device_memory": self.memory,
            "device": self.device.name(),
            "precision": self.precision.name(),
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The sample standard deviation; 0 of fewer than two values.
fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

fn print(args: &Args, rows: &[Row]) -> Result<()> {
    if args.json {
        let results: Vec<Value> = rows.iter().map(Row::json).collect();
        return output::print_json(&json!({ "results": results }));
    }
    if args.output == "json" {
        let results: Vec<Value> = rows.iter().map(Row::json).collect();
        return output::print_line(&serde_json::to_string_pretty(&results)?);
    }
    let on_cpu = rows.iter().any(|row| row.device.is_cpu());
    let kv = rows.iter().any(|row| row.key_type != KvType::F16 || row.value_type != KvType::F16);
    let mut header = vec!["model", "size", "params", "backend"];
    if on_cpu {
        header.push("threads");
    } else {
        header.push("ngl");
    }
    if kv {
        header.extend(["type_k", "type_v"]);
    }
    header.extend(["test", "t/s"]);
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let speeds = row.speeds();
            let mut cells = vec![
                row.name.clone(),
                output::bytes(row.size),
                output::count(row.parameters, " "),
                row.backend().to_string(),
                if on_cpu { row.threads.to_string() } else { "99".into() },
            ];
            if kv {
                cells.extend([row.key_type.name().to_string(), row.value_type.name().to_string()]);
            }
            cells.push(row.test());
            cells.push(format!("{:.2} ± {:.2}", mean(&speeds), deviation(&speeds)));
            cells
        })
        .collect();
    let width = |column: usize| {
        let cells = table.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    // Names to the left, numbers to the right, as llama-bench aligns them.
    let left = |column: usize| matches!(header[column], "model" | "backend");
    let line = |cells: &[String]| {
        let mut line = String::from("|");
        for (column, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(width(column) - cell.chars().count());
            let text =
                if left(column) { format!(" {cell}{pad} |") } else { format!(" {pad}{cell} |") };
            line.push_str(&text);
        }
        line
    };
    output::print_line(&line(&header.iter().map(ToString::to_string).collect::<Vec<_>>()))?;
    let rule: String = (0..header.len())
        .map(|column| {
            let dashes = "-".repeat(width(column));
            if left(column) { format!(" {dashes} |") } else { format!(" {dashes}:|") }
        })
        .collect();
    output::print_line(&format!("|{rule}"))?;
    for row in &table {
        output::print_line(&line(row))?;
    }
    if let Some(row) = rows.first() {
        let driver = match &row.device {
            Device::Gpu(gpu) => format!(", {}", gpu.driver),
            Device::Cpu { set, .. } => format!(", {}", set.name()),
        };
        eprintln!(
            "\non {} ({}{driver}), precision {}",
            row.device.name(),
            row.device.id(),
            row.precision.name()
        );
    }
    Ok(())
}

/// llama-bench's numbers: `a,b`, `first-last`, `first-last+step`, `first-last*factor`.
fn numbers(text: &str) -> Result<Vec<usize>> {
    let mut out = Vec::new();
    let number = |word: &str| {
        word.parse::<usize>().with_context(|| format!("{text:?}: {word:?} is no number"))
    };
    for part in text.split(',') {
        let Some((first, rest)) = part.split_once('-') else {
            out.push(number(part)?);
            continue;
        };
        let (last, grow): (&str, Box<dyn Fn(usize) -> usize>) =
            if let Some((last, step)) = rest.split_once('+') {
                let step = number(step)?.max(1);
                (last, Box::new(move |n| n + step))
            } else if let Some((last, factor)) = rest.split_once('*') {
                let factor = number(factor)?.max(2);
                (last, Box::new(move |n| n * factor))
            } else {
                (rest, Box::new(|n| n + 1))
            };
        let (mut n, last) = (number(first)?, number(last)?);
        while n <= last {
            out.push(n);
            if out.len() > 1000 {
                bail!("{text:?} is more than 1,000 numbers");
            }
            n = grow(n).max(n + 1);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(numbers("512").unwrap(), [512]);
        assert_eq!(numbers("1,2,8").unwrap(), [1, 2, 8]);
        assert_eq!(numbers("1-4").unwrap(), [1, 2, 3, 4]);
        assert_eq!(numbers("16-64+16").unwrap(), [16, 32, 48, 64]);
        assert_eq!(numbers("16-64*2,7").unwrap(), [16, 32, 64, 7]);
        for bad in ["", "x", "1-", "1-2+x"] {
            assert!(numbers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn means_and_deviations() {
        assert_eq!(mean(&[1.0, 2.0, 3.0]), 2.0);
        assert_eq!(deviation(&[1.0, 2.0, 3.0]), 1.0);
        assert_eq!(deviation(&[5.0]), 0.0);
    }
}
