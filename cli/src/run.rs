//! `engine run`: answers a prompt, or chats.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use engine::chat::Message;
use engine::chat::parts::{Marks, Part};
use engine::executor::Precision;
use engine::select::Sampling;
use engine::step::SequenceId;
use engine::{ContextOptions, GenerateOptions, Generation, LoadOptions, Session, Stop};
use serde_json::json;

use crate::options::{ContextArgs, DeviceArgs, PrecisionArgs};
use crate::{catalogue, models, output, tokenize};

/// Answer a prompt, or chat.
#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
#[command(
    after_help = "Examples:\n  engine run smollm2:135m \"Why is the sky blue?\"\n  engine run model.gguf --raw --temp 0 -n 20 \"Once upon a time\"\n  engine run                     (chats with the default model)"
)]
pub struct Args {
    /// A file, a catalogue name or a name on the hub [default: smollm2:135m]
    model: Option<String>,
    /// What to answer; without it stdin is the prompt, or in a terminal a chat begins
    prompt: Option<String>,
    /// Continue the text as it is, without the chat template
    #[arg(long)]
    raw: bool,
    /// The most tokens to generate [default: until the model ends]
    #[arg(short = 'n', long = "predict")]
    predict: Option<usize>,
    /// Temperature; 0: the most likely token always
    #[arg(long, default_value_t = Sampling::default().temperature)]
    temp: f32,
    /// Sample among the K most likely tokens; 0: all
    #[arg(long, default_value_t = Sampling::default().top_k)]
    top_k: usize,
    /// Sample among the most likely tokens that reach this probability together; 1: all
    #[arg(long, default_value_t = Sampling::default().top_p)]
    top_p: f32,
    /// Leave out tokens below this share of the most likely one's probability; 0: none
    #[arg(long, default_value_t = Sampling::default().min_p)]
    min_p: f32,
    /// Make tokens of the last 64 less likely; 1: not
    #[arg(long, default_value_t = Sampling::default().repeat_penalty)]
    repeat_penalty: f32,
    /// Seed of the random numbers [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
    /// End the answer at this text; may be given several times
    #[arg(long)]
    stop: Vec<String>,
    /// What the model is told about itself
    #[arg(long)]
    system: Option<String>,
    /// Print timings and effective options on stderr
    #[arg(long)]
    verbose: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let options = generate_options(args)?;
    let name = match &args.model {
        Some(name) => name.clone(),
        None => catalogue::load()?.default,
    };
    let chat = args.prompt.is_none() && std::io::stdin().is_terminal();
    let prompt = match &args.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if !chat => Some(tokenize::read_stdin()?),
        None => None,
    };
    let path = models::resolve(&name)?;
    let device = args.device.open_for(args.precision.class())?;
    // Only the last token of a step wants logits.
    let context_options = ContextOptions { outputs: Some(1), ..args.context.options() };
    let load = LoadOptions {
        precision: args.precision.class(),
        ..LoadOptions::from(context_options.clone())
    };
    let model = models::load(&device, &path, &load)?;
    let context = model.context(&context_options)?;
    if args.verbose {
        print_effective(args, &options, model.precision(), &context);
    }
    let session = Session::new(&model, Arc::new(Mutex::new(context)), SequenceId(0))?;
    for warning in session.tokenizer().warnings() {
        eprintln!("{warning}");
    }
    if !session.has_template() && !args.raw {
        eprintln!("{name} has no chat template: the prompt is continued as plain text");
    }
    let mut run = Run {
        args,
        name,
        device: device.name(),
        session,
        options,
        cancel: cancel_flag()?,
        load_time: start.elapsed(),
        messages: args.system.iter().map(Message::system).collect(),
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
    let seed = args.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64)
    });
    let sampling = Sampling {
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
        seed,
        ..Sampling::default()
    };
    sampling.check()?;
    Ok(GenerateOptions {
        sampling,
        max_tokens: args.predict,
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

    /// A minimal chat: a line a turn, until Ctrl+D or /bye.
    fn chat(&mut self) -> Result<ExitCode> {
        eprintln!(
            "{} on {}. Ctrl+C stops an answer, Ctrl+D or /bye leaves.",
            self.name, self.device
        );
        let mut lines = std::io::stdin().lock().lines();
        loop {
            eprint!(">>> ");
            std::io::stderr().flush()?;
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
                    eprintln!("error: {error:#}");
                }
                Err(error) => return Err(error),
            }
        }
        eprintln!();
        Ok(ExitCode::SUCCESS)
    }

    /// Generates, streaming to stdout if `stream`.
    fn generate(&mut self, stream: bool) -> Result<Generation> {
        let broken = std::cell::RefCell::new(None);
        let cancel = self.cancel.clone();
        let print = |text: &str| {
            if stream && broken.borrow().is_none() {
                if let Err(error) = output::print_text(text) {
                    *broken.borrow_mut() = Some(error);
                    cancel.store(true, Ordering::Relaxed);
                }
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
            return Err(error.into());
        }
        if generation.stop == Stop::ContextFull {
            eprintln!("\nthe context is full: the answer ends here; use a larger --ctx");
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
        eprintln!("total duration:       {}", output::duration(total));
        eprintln!("load duration:        {}", output::duration(self.load_time));
        eprintln!("prompt eval count:    {} token(s)", generation.prompt_tokens);
        eprintln!("prompt eval duration: {}", output::duration(prompt));
        eprintln!("prompt eval rate:     {:.2} tokens/s", rate(generation.prompt_tokens, prompt));
        eprintln!("eval count:           {} token(s)", generation.tokens.len());
        eprintln!("eval duration:        {}", output::duration(eval));
        eprintln!("eval rate:            {:.2} tokens/s", rate(generation.tokens.len(), eval));
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
    context: &engine::Context,
) {
    let sampling = &options.sampling;
    eprintln!(
        "sampling: temp {} top_k {} top_p {} min_p {} repeat_penalty {} seed {}",
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.min_p,
        sampling.repeat_penalty,
        sampling.seed
    );
    let memory = context.memory();
    eprintln!(
        "context {}, keys {}, values {}, precision {}; weights {}, cache {}, compute {}, staging {}; on {}",
        context.cells(),
        args.context.cache_type_k.name(),
        args.context.cache_type_v.name(),
        precision.name(),
        output::bytes(memory.weights),
        output::bytes(memory.kv),
        output::bytes(memory.compute),
        output::bytes(memory.staging),
        context.device_name(),
    );
}
