//! Measuring: the tests of one model in one setting.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use engine::executor::Precision;
use engine::kv::KvType;
use engine::model::ModelFile;
use engine::step::{SequenceId, StepToken};
use engine::{Context, ContextOptions, Device, LoadOptions};

use super::row::Row;
use crate::model_info::{quantization, size_label, tensor_bytes};
use crate::options::GpuLayers;
use crate::{models, output};

/// What stays the same for several tests.
pub struct Setting {
    /// Layers on the GPU as they were asked for; the device is chosen by them.
    pub gpu_layers: GpuLayers,
    /// Whether the CPU maps the file.
    pub map: bool,
    /// What computes.
    pub device: Device,
    /// Threads of the CPU.
    pub threads: usize,
    /// The most tokens of a prompt handed over at once.
    pub batch: usize,
    /// The most tokens computed at once.
    pub ubatch: usize,
    /// The type of keys.
    pub key_type: KvType,
    /// The type of values.
    pub value_type: KvType,
    /// How exactly products are computed.
    pub precision: Precision,
}

/// One test: a prompt, tokens generated after it, or both, after `depth` tokens that are not measured.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens generated.
    pub generate: usize,
    /// Tokens in the cache before.
    pub depth: usize,
}

impl Test {
    /// llama-bench's name: `pp512`, `tg128 @ d4096`, `pp8+tg4`.
    pub fn name(&self) -> String {
        let test = match (self.prompt, self.generate) {
            (n, 0) => format!("pp{n}"),
            (0, n) => format!("tg{n}"),
            (prompt, generate) => format!("pp{prompt}+tg{generate}"),
        };
        if self.depth == 0 { test } else { format!("{test} @ d{}", self.depth) }
    }
}

/// How tests are run.
pub struct Manner {
    /// Repetitions of each test.
    pub repetitions: usize,
    /// Whether a run that is not measured comes before.
    pub warm_up: bool,
    /// How long to wait before each test.
    pub delay: Duration,
    /// Whether to say what the model takes.
    pub verbose: bool,
}

/// What `--progress` says.
pub struct Progress {
    /// Whether it says anything.
    pub shown: bool,
    /// The test that is being measured, from 1 on.
    pub test: usize,
    /// All tests.
    pub tests: usize,
}

impl Progress {
    fn say(&self, row: &Row, what: &str) {
        if self.shown {
            let test = row.test();
            output::say(format_args!(
                "bench: test {} of {}, {test}: {what}",
                self.test, self.tests
            ));
        }
    }
}

/// Measures a model in a setting, handing over each row as it is there, until `on_row` says that nobody wants more.
pub fn measure(
    file: &ModelFile,
    path: &str,
    setting: &Setting,
    tests: &[Test],
    manner: &Manner,
    progress: &mut Progress,
    on_row: &mut dyn FnMut(Row) -> bool,
) -> Result<()> {
    let cells = tests.iter().map(|test| test.prompt + test.generate + test.depth).max();
    let options = ContextOptions {
        cells: Some(cells.unwrap_or(1)),
        sequences: 1,
        chunk: setting.batch.min(setting.ubatch),
        // Only the last token of a step wants logits.
        outputs: Some(1),
        key_type: setting.key_type,
        value_type: setting.value_type,
    };
    let load = LoadOptions {
        precision: setting.precision,
        map: setting.map,
        ..LoadOptions::from(options.clone())
    };
    let start = Instant::now();
    let model = models::load_file(&setting.device, file.clone(), &load)?;
    let mut context = model.context(&options)?;
    let load_ns = start.elapsed().as_nanos() as u64;
    let memory = context.memory();
    if manner.verbose {
        output::say(format_args!(
            "{path}: context {}, weights {}, cache {}, compute {}, staging {}; on {}",
            context.cells(),
            output::bytes(memory.weights),
            output::bytes(memory.kv),
            output::bytes(memory.compute),
            output::bytes(memory.staging),
            context.device_name(),
        ));
    }
    let (gguf, spec) = (&model.file().gguf, &model.file().spec);
    for test in tests {
        progress.test += 1;
        // As for llama-bench, prompts of embedding models are measured; they generate nothing.
        if test.generate > 0
            && let Err(error) = model.file().language_model()
        {
            output::say(format_args!("{} is left out: {error}", test.name()));
            continue;
        }
        let mut row = Row {
            name: format!("{} {} {}", spec.architecture, size_label(gguf), quantization(gguf)),
            size: tensor_bytes(gguf),
            parameters: engine::load::parameters(gguf),
            device: setting.device.clone(),
            file: path.into(),
            threads: setting.threads,
            key_type: setting.key_type,
            value_type: setting.value_type,
            batch: setting.batch,
            ubatch: setting.ubatch,
            gpu_layers: setting.gpu_layers,
            map: setting.map,
            prompt: test.prompt,
            generate: test.generate,
            depth: test.depth,
            samples_ns: Vec::new(),
            time: String::new(),
            load_ns,
            memory: memory.total(),
            precision: model.precision(),
        };
        repeat(&mut context, &mut row, manner, progress, spec.vocabulary)?;
        if !on_row(row) {
            break;
        }
    }
    Ok(())
}

/// Runs one test: a warm-up as llama-bench's (the prompt, or one token, at no depth), then the repetitions.
fn repeat(
    context: &mut Context,
    row: &mut Row,
    manner: &Manner,
    progress: &Progress,
    vocabulary: usize,
) -> Result<()> {
    std::thread::sleep(manner.delay);
    row.time = chrono::DateTime::<chrono::Utc>::from(SystemTime::now())
        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    // Any ids will do; a fixed sequence makes runs alike.
    let id = |index: usize| (index.wrapping_mul(2_654_435_761) >> 7) as u32 % vocabulary as u32;
    let sequence = SequenceId(0);
    // The logits are read from the device, as llama-bench does, but kept nowhere.
    let step = |context: &mut Context, tokens: &[StepToken]| {
        context.step_with(tokens, &mut |_| (), &mut || false).map(|_| ())
    };
    // Tokens of a prompt are handed over in batches.
    let prompt = |context: &mut Context, from: usize, count: usize| -> Result<()> {
        let ids: Vec<u32> = (from..from + count).map(id).collect();
        for (index, ids) in ids.chunks(row.batch).enumerate() {
            step(context, &StepToken::run(sequence, from + index * row.batch, ids, false))?;
        }
        Ok(())
    };
    let once = |context: &mut Context, depth: usize, generate: usize| -> Result<u64> {
        // What the last repetition has put behind the depth goes; where it cannot be taken back, all of it does.
        if depth == 0 || context.truncate(sequence, depth) != depth {
            context.free(sequence);
            prompt(context, 0, depth)?;
        }
        let start = Instant::now();
        prompt(context, depth, row.prompt)?;
        let from = depth + row.prompt;
        for position in from..from + generate {
            step(context, &StepToken::run(sequence, position, &[id(position)], true))?;
        }
        Ok(start.elapsed().as_nanos() as u64)
    };
    if manner.warm_up {
        progress.say(row, "warm-up");
        once(context, 0, row.generate.min(1))?;
    }
    context.free(sequence);
    let mut samples = Vec::new();
    for repetition in 1..=manner.repetitions {
        progress.say(row, &format!("repetition {repetition} of {}", manner.repetitions));
        samples.push(once(context, row.depth, row.generate)?);
    }
    row.samples_ns = samples;
    Ok(())
}
