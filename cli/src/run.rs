//! `engine run`: answers a prompt, or chats.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use engine::Message;
use engine::Precision;
use engine::Sampling;
use engine::internals::chat::parts::{Marks, Part};
use engine::{ContextOptions, GenerateOptions, Generation, LoadOptions, Scheduler, Session, Stop};
use serde_json::json;

use crate::models::ModelName;
use crate::options::{ContextArgs, DeviceArgs, PrecisionArgs};
use crate::platform::Platform;
use crate::values::{self, Limit, Seed};
use crate::{advice, catalogue, models, output, tokenize};

/// Answer a prompt, or chat.
#[allow(clippy::struct_excessive_bools, reason = "a flag is a bool")]
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  engine run smollm2:135m \"Why is the sky blue?\"\n  engine run model.gguf --raw --temp 0 -n 20 \"Once upon a time\"\n  engine run                     (chats with the default model)\n\nA prompt may begin with a dash where it has no option's shape: \"- item\", \"-5 + 3\"; any prompt may stand behind --"
)]
pub struct Args {
    /// A file, a catalogue name or a name on the hub [default: smollm2:135m]
    model: Option<ModelName>,
    /// What to answer, or - to read stdin; without it stdin is the prompt, or in a terminal a chat begins
    prompt: Option<String>,
    /// The same as the positional model
    #[arg(
        short = 'm',
        long = "model",
        alias = "hf-repo",
        id = "model_option",
        value_name = "MODEL",
        hide_short_help = true
    )]
    model_option: Option<ModelName>,
    /// The same as the positional prompt
    #[arg(
        short = 'p',
        long = "prompt",
        id = "prompt_option",
        value_name = "PROMPT",
        allow_hyphen_values = true,
        hide_short_help = true
    )]
    prompt_option: Option<String>,
    /// A file with the prompt; a newline at its end is left out
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "prompt_option")]
    file: Option<PathBuf>,
    /// Continue the text as it is, without the chat template
    #[arg(long, aliases = ["no-conversation", "no-cnv"])]
    raw: bool,
    /// The most tokens to generate; -1: until the model ends [default: -1]
    #[arg(short = 'n', long, alias = "n-predict", value_name = "N", value_parser = values::token_limit, allow_hyphen_values = true)]
    predict: Option<Limit>,
    /// Temperature; 0: the most likely token always
    #[arg(long, alias = "temperature", default_value_t = Sampling::default().temperature, value_parser = values::number, allow_hyphen_values = true)]
    temp: f32,
    /// Sample among the K most likely tokens; 0 or -1: all
    #[arg(long, value_name = "K", default_value_t = Sampling::default().top_k, value_parser = values::top_k, allow_hyphen_values = true)]
    top_k: usize,
    /// Sample among the most likely tokens that reach this probability together; 1: all
    #[arg(long, value_name = "P", default_value_t = Sampling::default().top_p, value_parser = values::number, allow_hyphen_values = true)]
    top_p: f32,
    /// Leave out tokens below this share of the most likely one's probability; 0: none
    #[arg(long, value_name = "P", default_value_t = Sampling::default().min_p, value_parser = values::number, allow_hyphen_values = true)]
    min_p: f32,
    /// Make the last tokens less likely; 1: not
    #[arg(long, value_name = "X", default_value_t = Sampling::default().repeat_penalty, value_parser = values::number, allow_hyphen_values = true)]
    repeat_penalty: f32,
    /// How many of the last tokens that is; 0: none, -1: all
    #[arg(long, value_name = "N", default_value_t = Sampling::default().repeat_last, value_parser = values::repeat_last, allow_hyphen_values = true)]
    repeat_last_n: usize,
    /// Seed of the random numbers; -1: another each time [default: -1]
    #[arg(short = 's', long, value_parser = values::seed, allow_hyphen_values = true)]
    seed: Option<Seed>,
    /// End the answer at this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// What the model is told about itself (also -sys)
    #[arg(long, alias = "system-prompt", value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// A file with that text; a newline at its end is left out
    #[arg(
        long,
        alias = "system-prompt-file",
        value_name = "FILE",
        conflicts_with = "system",
        hide_short_help = true
    )]
    system_file: Option<PathBuf>,
    /// End a chat after its first answer
    #[arg(long, hide_short_help = true)]
    single_turn: bool,
    /// Print timings and effective options on stderr
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How attention is computed: always in one pass, on or auto
    #[arg(long, value_parser = values::flash_attention, allow_hyphen_values = true, hide = true)]
    flash_attn: Option<()>,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Which model, and what to ask it, in the order of importance: options, then positional words.
fn words(args: &Args) -> Result<(ModelName, Option<String>)> {
    let mut positional = args.model.as_ref();
    let model = match &args.model_option {
        Some(model) => model.clone(),
        None => match positional.take() {
            Some(model) => model.clone(),
            None => ModelName::from(catalogue::load()?.default.as_str()),
        },
    };
    // With -m the first positional word is the prompt.
    let mut prompts = Vec::new();
    if let Some(word) = positional {
        prompts.push(word.text().into_owned());
    }
    prompts.extend(args.prompt.iter().chain(&args.prompt_option).cloned());
    if let Some(path) = &args.file {
        prompts.push(read_text(path)?);
    }
    if prompts.len() > 1 {
        bail!(
            "{} prompts were given, one is answered: {:?} and {:?}",
            prompts.len(),
            prompts[0],
            prompts[1]
        );
    }
    let prompt = match prompts.pop() {
        Some(prompt) if prompt == "-" => Some(tokenize::read_stdin()?),
        Some(prompt) => Some(prompt),
        None if std::io::stdin().is_terminal() => None,
        None => {
            let text = tokenize::read_stdin()?;
            // Nothing is named at all: no reason to fetch a model for it.
            if text.is_empty() && args.model.is_none() && args.model_option.is_none() {
                bail!(
                    "no prompt: stdin is empty; write one behind a model's name, with -p or -f, or start a chat in a terminal"
                );
            }
            Some(text)
        }
    };
    Ok((model, prompt))
}

/// A file's text without a newline at its end.
fn read_text(path: &Path) -> Result<String> {
    let mut text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let options = generate_options(args)?;
    let (name, prompt) = words(args)?;
    let system = match &args.system_file {
        Some(path) => Some(read_text(path)?),
        None => args.system.clone(),
    };
    let file = models::open_model(&name)?;
    let device = args.device.open_for(args.precision.class(), Some(file.spec.layers.len()))?;
    // Only the last token of a step wants logits.
    let context_options = ContextOptions { outputs: Some(1), ..args.context.options(&file.spec) };
    let load = LoadOptions {
        precision: args.precision.class(),
        map: args.device.map(),
        ..LoadOptions::from(context_options.clone())
    };
    let model = models::load_file(&device, file, &load)?;
    let scheduler = Scheduler::start(&model, &context_options)?;
    if args.verbose {
        print_effective(args, &options, model.precision(), &scheduler);
    }
    let session = Session::new(&scheduler)?;
    for warning in session.tokenizer().warnings() {
        output::say(warning);
    }
    if !session.has_template() && !args.raw {
        output::say(format_args!(
            "{name} has no chat template: the prompt is continued as plain text"
        ));
    }
    let mut run = Run {
        args,
        name: name.text().into_owned(),
        device: device.name(),
        session,
        options,
        cancel: cancel_flag()?,
        load_time: start.elapsed(),
        messages: system.iter().map(Message::system).collect(),
    };
    match prompt {
        Some(prompt) => run.once(&prompt),
        None => run.chat(),
    }
}

/// A flag that Ctrl+C sets; a second Ctrl+C before anyone has looked ends the program.
fn cancel_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .context("Ctrl+C cannot be handled")?;
    Ok(flag)
}

fn generate_options(args: &Args) -> Result<GenerateOptions> {
    let seed = match args.seed {
        Some(Seed::Fixed(seed)) => seed,
        Some(Seed::Random) | None => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |now| now.as_nanos() as u64)
        }
    };
    let sampling = Sampling {
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
        repeat_last: args.repeat_last_n,
        seed,
    };
    sampling.check()?;
    Ok(GenerateOptions {
        sampling,
        max_tokens: args.predict.and_then(Limit::most),
        stop: args.stop.clone(),
        run_ahead: true,
    })
}

/// One run of the command.
struct Run<'a> {
    args: &'a Args,
    name: String,
    device: String,
    session: Session,
    options: GenerateOptions,
    cancel: Arc<AtomicBool>,
    load_time: Duration,
    messages: Vec<Message>,
}

impl Run<'_> {
    /// Answers one prompt.
    fn once(&mut self, prompt: &str) -> Result<ExitCode> {
        if self.args.raw {
            self.session.push_text(prompt)?;
        } else {
            self.messages.push(Message::user(prompt));
            self.session.push_chat(&self.messages)?;
        }
        let generation = self.generate(!self.args.json)?;
        if self.args.json {
            output::print_json(&json!({
                "model": self.name,
                "device": self.device,
                "prompt_tokens": self.session.prompt(),
                "tokens": generation.tokens,
                "text": generation.text,
                "stop": generation.stop.name(),
                "timings": {
                    "load_ms": milliseconds(self.load_time),
                    "prompt_n": generation.prompt_tokens,
                    "prompt_ms": milliseconds(generation.prompt_time),
                    "predicted_n": generation.tokens.len(),
                    "predicted_ms": milliseconds(generation.generate_time),
                },
            }))?;
        } else {
            output::print_text("\n")?;
        }
        self.report(&generation);
        Ok(if generation.stop == Stop::Cancelled { ExitCode::from(130) } else { ExitCode::SUCCESS })
    }

    /// A minimal chat: a line a turn, until stdin ends or /bye.
    fn chat(&mut self) -> Result<ExitCode> {
        output::say(format_args!(
            "{} on {}. Ctrl+C stops an answer, {} or /bye leaves.",
            self.name,
            self.device,
            Platform::HERE.end_of_input()
        ));
        let mut lines = std::io::stdin().lock().lines();
        loop {
            output::say_text(">>> ");
            let Some(line) = lines.next().transpose()? else { break };
            // A Ctrl+C at the prompt stops nothing.
            self.cancel.store(false, Ordering::Relaxed);
            match line.trim() {
                "" => continue,
                "/bye" => break,
                _ => {}
            }
            if self.args.raw {
                self.session.push_text(&line)?;
            } else {
                self.messages.push(Message::user(&line));
                self.session.push_chat(&self.messages)?;
            }
            match self.generate(true) {
                Ok(generation) => {
                    output::print_text("\n\n")?;
                    self.report(&generation);
                    // A harmony answer's text runs its thoughts and headers together.
                    let harmony = self.session.marks() == Marks::Harmony;
                    let said = if harmony { generation.said() } else { generation.text };
                    self.messages.push(Message::assistant(said));
                }
                // The turn did not happen; an earlier one can still be built upon.
                Err(error) if error.downcast_ref::<engine::Error>().is_some() => {
                    self.messages.pop();
                    output::say(format_args!("error: {}", advice::text(&error)));
                }
                Err(error) => return Err(error),
            }
            if self.args.single_turn {
                break;
            }
        }
        output::say("");
        Ok(ExitCode::SUCCESS)
    }

    /// Generates, streaming to stdout if `stream`.
    fn generate(&mut self, stream: bool) -> Result<Generation> {
        let broken = std::cell::RefCell::new(None);
        let cancel = self.cancel.clone();
        let print = |text: &str| {
            if stream
                && broken.borrow().is_none()
                && let Err(error) = output::print_text(text)
            {
                *broken.borrow_mut() = Some(error);
                cancel.store(true, Ordering::Relaxed);
            }
        };
        // Harmony's thoughts and answer are messages of their own, whose headers are not for people.
        let in_parts = !self.args.raw && self.session.marks() == Marks::Harmony;
        let mut thought = false;
        let mut on_text = |text: &str| {
            if !in_parts {
                print(text);
            }
        };
        let mut on_part = |part: &Part| {
            if !in_parts {
                return;
            }
            let thinks = matches!(part, Part::Thinking(_));
            if std::mem::replace(&mut thought, thinks) && !thinks {
                print("\n\n");
            }
            match part {
                Part::Text(text) | Part::Thinking(text) => print(text),
                Part::ToolCall { name, arguments } => print(&format!("{name} {arguments}\n")),
            }
        };
        let generation =
            self.session.generate_parts(&self.options, &self.cancel, &mut on_text, &mut on_part)?;
        self.cancel.store(false, Ordering::Relaxed);
        if let Some(error) = broken.into_inner() {
            return Err(error);
        }
        if generation.stop == Stop::ContextFull {
            output::say("\nthe context is full: the answer ends here; use a larger --ctx");
        }
        Ok(generation)
    }

    /// Ollama's timing lines, if asked for.
    fn report(&self, generation: &Generation) {
        if !self.args.verbose {
            return;
        }
        let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        let (prompt, eval) = (generation.prompt_time, generation.generate_time);
        let total = self.load_time + prompt + eval;
        output::say(format_args!("total duration:       {}", output::duration(total)));
        output::say(format_args!("load duration:        {}", output::duration(self.load_time)));
        output::say(format_args!("prompt eval count:    {} token(s)", generation.prompt_tokens));
        output::say(format_args!("prompt eval duration: {}", output::duration(prompt)));
        output::say(format_args!(
            "prompt eval rate:     {:.2} tokens/s",
            rate(generation.prompt_tokens, prompt)
        ));
        output::say(format_args!("eval count:           {} token(s)", generation.tokens.len()));
        output::say(format_args!("eval duration:        {}", output::duration(eval)));
        output::say(format_args!(
            "eval rate:            {:.2} tokens/s",
            rate(generation.tokens.len(), eval)
        ));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The options as they take effect, on stderr.
fn print_effective(
    args: &Args,
    options: &GenerateOptions,
    precision: Precision,
    scheduler: &Scheduler,
) {
    let sampling = &options.sampling;
    output::say(format_args!(
        "sampling: temp {} top_k {} top_p {} min_p {} repeat_penalty {} seed {}",
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.min_p,
        sampling.repeat_penalty,
        sampling.seed
    ));
    let memory = scheduler.memory();
    output::say(format_args!(
        "context {}, keys {}, values {}, precision {}; weights {}, cache {}, compute {}, staging {}; on {}",
        scheduler.positions(),
        args.context.cache_type_k.name(),
        args.context.cache_type_v.name(),
        precision.name(),
        output::bytes(memory.weights),
        output::bytes(memory.kv),
        output::bytes(memory.compute),
        output::bytes(memory.staging),
        scheduler.device_name(),
    ));
}
