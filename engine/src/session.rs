//! One conversation: text in, text out, by requests to a scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::answer::{Answer, Piece, Stop, join_part};
use crate::chat::parts::{Marks, Part};
use crate::chat::{Message, Rendered, Template, TemplateInputs};
use crate::scheduler::{Goal, Listener, Request, Scheduler};
use crate::select::Sampling;
use crate::tokenizer::{EncodeOptions, Tokenizer};
use crate::{Error, Result};

/// What a generation may do.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// How ids are chosen.
    pub sampling: Sampling,
    /// The most tokens; none: until the model ends or the context is full.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Whether the device may choose ids and compute the next step before the last id has come back, where
    /// it can.
    pub run_ahead: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { sampling: Sampling::default(), max_tokens: None, stop: Vec::new(), run_ahead: true }
    }
}

/// What a generation did.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The ids chosen, an end-of-generation id included.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: String,
    /// The answer in parts: what the model thought, said and called, as its family marks them.
    pub parts: Vec<Part>,
    /// Why it ended.
    pub stop: Stop,
    /// Tokens of the prompt that were computed (those the cache held are not counted).
    pub prompt_tokens: usize,
    /// From the call to the prompt's logits.
    pub prompt_time: Duration,
    /// From there to the end.
    pub generate_time: Duration,
}

impl Generation {
    /// What is said: the parts that are text, without thoughts and calls.
    pub fn said(&self) -> String {
        let said = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Thinking(_) | Part::ToolCall { .. } => "",
        });
        said.collect()
    }
}

/// How long a session waits before it looks whether it was cancelled.
const PATIENCE: Duration = Duration::from_millis(20);

/// One conversation.
pub struct Session {
    scheduler: Scheduler,
    tokenizer: Arc<Tokenizer>,
    /// The file's template; one that does not compile says why when it is needed.
    template: Option<std::result::Result<Template, String>>,
    /// The ids that are to be computed next.
    prompt: Vec<u32>,
    /// How the prompt ends, where a template made it.
    prompt_end: String,
}

crate::opaque::opaque_debug!(Session { scheduler, prompt });

impl Session {
    /// A conversation whose answers a scheduler generates. A chat template that cannot be used is no error here: texts and ids
    /// need none.
    ///
    /// # Errors
    /// If the model gives embeddings only, or the file has no usable vocabulary.
    pub fn new(scheduler: &Scheduler) -> Result<Self> {
        let model = scheduler.model();
        model.file().language_model()?;
        let template = match Template::from_metadata(&model.file().gguf.metadata) {
            Ok(template) => template.map(Ok),
            Err(Error::Template(why)) => Some(Err(why)),
            Err(error) => Some(Err(error.to_string())),
        };
        Ok(Self {
            scheduler: scheduler.clone(),
            tokenizer: model.tokenizer()?,
            template,
            prompt: Vec::new(),
            prompt_end: String::new(),
        })
    }

    /// Whether the model's file has a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// How the family of the template marks the parts of an answer.
    pub fn marks(&self) -> Marks {
        let template = self.template.as_ref().and_then(|template| template.as_ref().ok());
        template.map_or(Marks::None, Template::marks)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Sets the prompt to a conversation, rendered by the file's template; in a file without one the
    /// contents stand one after another as plain text. What the context already holds of it is kept. Control
    /// tokens come of the template alone: those that the messages spell are text.
    pub fn push_chat(&mut self, messages: &[Message]) -> Result<()> {
        let token_text =
            |id: Option<u32>| id.map_or_else(String::new, |id| self.tokenizer.text(id));
        let inputs = TemplateInputs {
            bos_token: token_text(self.tokenizer.bos),
            eos_token: token_text(self.tokenizer.eos),
            now: None,
        };
        let Some(template) = &self.template else {
            let text: Vec<_> = messages.iter().map(|message| message.content.as_str()).collect();
            let text = Rendered::plain(text.join("\n"), &self.tokenizer);
            let ids = self.tokenizer.encode_rendered(&text)?;
            self.push_ids(ids);
            return Ok(());
        };
        let unusable = |why: &String| Error::TemplateUnusable { why: why.clone() };
        let template = template.as_ref().map_err(unusable)?;
        let request = serde_json::json!({ "messages": messages, "add_generation_prompt": true });
        let rendered = template.render_for(&request, &inputs, &self.tokenizer)?;
        let ids = self.tokenizer.encode_rendered(&rendered)?;
        let text = rendered.text();
        self.push_ids(ids);
        // As long as any mark that it may end with.
        let start = text.char_indices().rev().nth(63).map_or(0, |(at, _)| at);
        self.prompt_end = text[start..].into();
        Ok(())
    }

    /// Sets the prompt to a text as it is, special tokens in it recognised.
    pub fn push_text(&mut self, text: &str) -> Result<()> {
        let ids = self.tokenizer.encode(text, EncodeOptions::default())?;
        self.push_ids(ids);
        Ok(())
    }

    /// Sets the prompt to ids.
    pub fn push_ids(&mut self, ids: Vec<u32>) {
        self.prompt_end.clear();
        self.prompt = ids;
    }

    /// The prompt's ids.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Computes the prompt and generates, handing over text as it becomes certain. `cancel` ends it
    /// between tokens and between pieces of a long prompt.
    pub fn generate(
        &mut self,
        options: &GenerateOptions,
        cancel: &AtomicBool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Generation> {
        self.generate_parts(options, cancel, on_text, &mut |_| ())
    }

    /// The same, handing over the parts of the answer too, text and thoughts in pieces as they become certain.
    pub fn generate_parts(
        &mut self,
        options: &GenerateOptions,
        cancel: &AtomicBool,
        on_text: &mut dyn FnMut(&str),
        on_part: &mut dyn FnMut(&Part),
    ) -> Result<Generation> {
        if cancel.load(Ordering::Relaxed) {
            return Ok(Generation::default());
        }
        let start = Instant::now();
        let (sender, events) = mpsc::channel();
        let answer =
            Answer::new(self.tokenizer.clone(), &options.stop, self.marks(), &self.prompt_end);
        let request = Request {
            prompt: self.prompt.clone(),
            goal: Goal::Generate {
                sampling: options.sampling.clone(),
                stream: 0,
                max_tokens: options.max_tokens,
                run_ahead: options.run_ahead,
            },
        };
        let ticket = self.scheduler.submit(request, Box::new(Writer { answer, sender }))?;
        let mut generation = Generation::default();
        let (mut is_cancelled, mut missed) = (false, false);
        loop {
            match events.recv_timeout(PATIENCE) {
                Ok(Event::Prompt { tokens, at }) => {
                    generation.prompt_tokens = tokens;
                    generation.prompt_time = at.duration_since(start);
                }
                // What was chosen before the scheduler heard of the end is nobody's.
                Ok(Event::Id(..)) if is_cancelled => missed = true,
                Ok(Event::Id(id, piece)) => {
                    generation.tokens.push(id);
                    generation.add(piece, on_text, on_part);
                }
                Ok(Event::End(outcome, at)) => {
                    let (stop, rest) = outcome?;
                    if !missed {
                        generation.add(rest, on_text, on_part);
                    }
                    generation.stop = if is_cancelled { Stop::Cancelled } else { stop };
                    let whole = at.duration_since(start);
                    generation.generate_time = whole.saturating_sub(generation.prompt_time);
                    return Ok(generation);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Internal("the thread of the scheduler ended".into()));
                }
            }
            if !is_cancelled && cancel.load(Ordering::Relaxed) {
                is_cancelled = true;
                ticket.cancel();
            }
        }
    }
}

/// What a session hears of its request.
enum Event {
    /// So many tokens of the prompt were computed.
    Prompt { tokens: usize, at: Instant },
    /// An id, and what it adds to the answer.
    Id(u32, Piece),
    /// The end, with the rest of the answer.
    End(Result<(Stop, Piece)>, Instant),
}

/// Makes an answer of ids, and sends it to the session.
struct Writer {
    answer: Answer,
    sender: Sender<Event>,
}

impl Writer {
    /// Nobody listens to one who has gone: its ticket, too, was dropped.
    fn send(&self, event: Event) {
        let _ = self.sender.send(event);
    }
}

impl Listener for Writer {
    fn prompt_computed(&mut self, computed: usize, _cached: usize) {
        self.send(Event::Prompt { tokens: computed, at: Instant::now() });
    }

    fn row(&mut self, _row: &[f32]) {}

    fn take(&mut self, id: u32) -> Option<Stop> {
        let piece = self.answer.push(id);
        let stop = piece.stop;
        self.send(Event::Id(id, piece));
        stop
    }

    fn finish(&mut self, outcome: Result<Stop>) {
        let outcome = outcome.map(|stop| (stop, self.answer.finish(stop)));
        self.send(Event::End(outcome, Instant::now()));
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            text: String::new(),
            parts: Vec::new(),
            stop: Stop::Cancelled,
            prompt_tokens: 0,
            prompt_time: Duration::ZERO,
            generate_time: Duration::ZERO,
        }
    }
}

impl Generation {
    /// Hands a piece over and keeps it.
    fn add(&mut self, piece: Piece, on_text: &mut dyn FnMut(&str), on_part: &mut dyn FnMut(&Part)) {
        if !piece.text.is_empty() {
            on_text(&piece.text);
            self.text.push_str(&piece.text);
        }
        for part in piece.parts {
            on_part(&part);
            join_part(&mut self.parts, part);
        }
    }
}
