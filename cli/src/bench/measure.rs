//! Measuring: the tests of one model in one setting.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::Sampling;
use engine::{Advice, Choice, Context, ContextOptions, Device, Input, LoadOptions, Model};
use engine::{SequenceId, StepToken};

use super::row::{Row, Test};
use crate::model_info::{quantization, size_label, tensor_bytes};
use crate::options::GpuLayers;
use crate::{advice, models, output};

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
    /// Whether a graphics card computes.
    pub is_card: bool,
}

/// How long a card works before it is measured.
const CLOCKS_RISE: Duration = Duration::from_secs(1);

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

/// Measures a model in a setting, handing over each row as it is there, until `on_row` says that nobody wants more. As
/// for llama-bench, each test has a context of its size; what fails is told, and the others are still measured. Answers
/// whether all were.
pub fn measure(
    file: &ModelFile,
    path: &str,
    setting: &Setting,
    tests: &[Test],
    manner: &Manner,
    progress: &mut Progress,
    on_row: &mut dyn FnMut(Row) -> bool,
) -> Result<bool> {
    let start = Instant::now();
    let model = match load(file, setting, tests) {
        Ok(model) => model,
        Err(error) => {
            progress.test += tests.len();
            return Err(error);
        }
    };
    let model_ns = start.elapsed().as_nanos() as u64;
    let vocabulary = model.file().spec.vocabulary;
    let mut all = true;
    // Tests of one size, one after another, share a context.
    let mut open: Option<(usize, Context, u64)> = None;
    for test in tests {
        progress.test += 1;
        // As for llama-bench, prompts of embedding models are measured; they generate nothing.
        if test.generate > 0
            && let Err(error) = model.file().language_model()
        {
            output::say(format_args!("{} is left out: {error}", test.name()));
            continue;
        }
        let positions = test.positions();
        let same = open.take_if(|(size, ..)| *size == positions);
        // What another test needed is given back before.
        open = None;
        let (mut context, load_ns) = if let Some((_, context, load_ns)) = same {
            (context, load_ns)
        } else {
            let start = Instant::now();
            match model.context(&options(setting, positions)) {
                Ok(context) => {
                    let load_ns = model_ns + start.elapsed().as_nanos() as u64;
                    say_memory(path, &context, manner);
                    (context, load_ns)
                }
                Err(error) => {
                    say_error(path, Some(test), &error.into());
                    all = false;
                    continue;
                }
            }
        };
        let mut row =
            Row { load_ns, memory: context.memory().total(), ..row(&model, path, setting, test) };
        if let Err(error) = repeat(&mut context, &mut row, manner, progress, vocabulary) {
            say_error(path, Some(test), &error);
            all = false;
            continue;
        }
        open = Some((positions, context, load_ns));
        if !on_row(row) {
            break;
        }
    }
    Ok(all)
}

/// The row of a test of which nothing is measured yet.
fn row(model: &Model, path: &str, setting: &Setting, test: &Test) -> Row {
    let (gguf, spec) = (&model.file().gguf, &model.file().spec);
    Row {
        name: format!("{} {} {}", spec.architecture, size_label(gguf), quantization(gguf)),
        size: tensor_bytes(gguf),
        parameters: engine::internals::model::parameters(gguf),
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
        load_ns: 0,
        memory: 0,
        precision: model.precision(),
    }
}

/// The context of a test of so many tokens.
fn options(setting: &Setting, positions: usize) -> ContextOptions {
    ContextOptions {
        positions: Some(positions),
        pool: None,
        sequences: 1,
        chunk: setting.batch.min(setting.ubatch),
        // Only the last token of a step wants logits.
        outputs: Some(1),
        key_type: setting.key_type,
        value_type: setting.value_type,
    }
}

/// Loads the model for the largest test that fits: loading refuses a context that does not.
fn load(file: &ModelFile, setting: &Setting, tests: &[Test]) -> Result<Arc<Model>> {
    let mut sizes: Vec<usize> = tests.iter().map(Test::positions).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let smallest = sizes.first().copied().unwrap_or(1);
    for positions in sizes.into_iter().rev() {
        let context = options(setting, positions);
        let is_refused =
            engine::internals::model::predict(file, &setting.device, &context, setting.precision)
                .is_err();
        let load = LoadOptions {
            precision: setting.precision,
            map: setting.map,
            ..LoadOptions::from(context)
        };
        match models::load_file(&setting.device, file.clone(), &load) {
            Ok(model) => return Ok(model),
            Err(error) => {
                let is_too_large = matches!(
                    error.downcast_ref::<engine::Error>(),
                    Some(
                        engine::Error::DoesNotFit { .. }
                            | engine::Error::OutOfMemory { .. }
                            | engine::Error::TooLargeToBind { .. }
                    )
                );
                // A smaller size helps against nothing else.
                if positions == smallest || !(is_too_large || is_refused) {
                    return Err(error);
                }
            }
        }
    }
    anyhow::bail!("there is no test")
}

/// Says what a context takes, if that is asked for.
fn say_memory(path: &str, context: &Context, manner: &Manner) {
    if !manner.verbose {
        return;
    }
    let memory = context.memory();
    output::say(format_args!(
        "{path}: context {}, weights {}, cache {}, compute {}, staging {}; on {}",
        context.positions(),
        output::bytes(memory.weights),
        output::bytes(memory.kv),
        output::bytes(memory.compute),
        output::bytes(memory.staging),
        context.device_name(),
    ));
}

/// Says what a model, or one test of it, failed of.
pub fn say_error(path: &str, test: Option<&Test>, error: &anyhow::Error) {
    let test = test.map_or_else(String::new, |test| format!("{}: ", test.name()));
    output::say(format_args!("error: {path}: {test}{}", advice::text_in(error, in_tokens)));
}

/// An advice in the words of this command, which has no `--ctx`: its tests say how long a context is.
fn in_tokens(advice: &Advice) -> String {
    match advice {
        Advice::ContextOf { positions, .. } => {
            format!("a test of {positions} tokens in all (-p, -n and -d) would fit")
        }
        Advice::SmallerContextOrUseCpu => "use smaller -p, -n and -d, or --device cpu".into(),
        other => advice::words(other),
    }
}

/// Ids for these positions: any will do, and a fixed sequence makes runs alike.
pub fn made_up_ids(positions: Range<usize>, vocabulary: usize) -> Vec<u32> {
    positions
        .map(|position| (position.wrapping_mul(2_654_435_761) >> 7) as u32 % vocabulary as u32)
        .collect()
}

/// The likeliest id, always.
fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..Sampling::default() }
}

/// Computes a token for each position as `engine run` does: the device chooses each and begins with the next, while the
/// last is on its way here. What comes first is made up.
fn generate_ahead(context: &mut Context, positions: Range<usize>, vocabulary: usize) -> Result<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let sequence = SequenceId(0);
    let made_up = made_up_ids(positions.start..positions.start + 1, vocabulary);
    let first = StepToken::run(sequence, positions.start, &made_up, false);
    let sampling = greedy();
    let choice = Choice { token: 0, sampling: &sampling, stream: 0, recent: None };
    let mut flight = context.begin(&first, &[choice])?;
    for position in positions.skip(1) {
        let token = StepToken {
            input: Input::Pending,
            sequence,
            position: position as u32,
            want_logits: true,
        };
        let (_, next) = flight.follow(&[token], &[choice])?.land()?;
        flight = next;
    }
    flight.land()?;
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
    let sequence = SequenceId(0);
    // The logits are read from the device, as llama-bench does, but kept nowhere.
    let step = |context: &mut Context, tokens: &[StepToken]| {
        context.step_with(tokens, &mut |_| (), &mut || false).map(|_| ())
    };
    // Tokens of a prompt are handed over in batches.
    let prompt = |context: &mut Context, from: usize, count: usize| -> Result<()> {
        let ids = made_up_ids(from..from + count, vocabulary);
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
        if context.runs_ahead() && context.can_select(&greedy()) {
            generate_ahead(context, from..from + generate, vocabulary)?;
        } else {
            for position in from..from + generate {
                let ids = made_up_ids(position..position + 1, vocabulary);
                step(context, &StepToken::run(sequence, position, &ids, true))?;
            }
        }
        Ok(start.elapsed().as_nanos() as u64)
    };
    if manner.warm_up {
        progress.say(row, "warm-up");
        let start = Instant::now();
        once(context, 0, row.generate.min(1))?;
        // A card's clocks rise while it works: an H100 took four times as long for a prompt of its first fifth of a second.
        while manner.is_card && start.elapsed() < CLOCKS_RISE {
            once(context, 0, row.generate.min(1))?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_options_of_this_command() {
        let fits = Advice::ContextOf { positions: 34_304, refused: 60_000 };
        for (advice, said) in [
            (fits, "a test of 34304 tokens in all (-p, -n and -d) would fit"),
            (Advice::SmallerContextOrUseCpu, "use smaller -p, -n and -d, or --device cpu"),
            (Advice::UseCpu, "use --device cpu"),
        ] {
            assert_eq!(in_tokens(&advice), said);
        }
    }
}
