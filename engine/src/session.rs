//! One conversation: text in, text out, over a sequence of a context.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::chat::parts::{Marks, Part, PartParser};
use crate::chat::{Message, Rendered, Template, TemplateInputs};
use crate::executor::Selection;
use crate::load::Model;
use crate::select::Sampling;
use crate::step::{Input, SequenceId, StepToken};
use crate::tokenizer::{Detokenizer, EncodeOptions, Tokenizer};
use crate::{Context, Error, Result};

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model ended its answer.
    End,
    /// As many tokens as were asked for.
    Length,
    /// A stop string occurred.
    StopString,
    /// The context is full.
    ContextFull,
    /// The caller cancelled.
    Cancelled,
}

impl Stop {
    /// The word in JSON: `eos`, `length` (the context's end too), `stop`, `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            Stop::End => "eos",
            Stop::Length | Stop::ContextFull => "length",
            Stop::StopString => "stop",
            Stop::Cancelled => "cancelled",
        }
    }
}

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

/// Several sessions share a context.
pub type SharedContext = Arc<Mutex<Context>>;

/// One conversation.
pub struct Session {
    context: SharedContext,
    tokenizer: Arc<Tokenizer>,
    /// The file's template; one that does not compile says why when it is needed.
    template: Option<std::result::Result<Template, String>>,
    sequence: SequenceId,
    trained: usize,
    /// The ids whose keys and values the context holds.
    cached: Vec<u32>,
    /// The ids that are to be computed next.
    prompt: Vec<u32>,
    /// How the prompt ends, where a template made it.
    prompt_end: String,
}

impl Session {
    /// A conversation in `sequence` of a context. A chat template that cannot be used is no error here: texts and ids
    /// need none.
    pub fn new(model: &Model, context: SharedContext, sequence: SequenceId) -> Result<Self> {
        model.file().language_model()?;
        let template = match Template::from_metadata(&model.file().gguf.metadata) {
            Ok(template) => template.map(Ok),
            Err(Error::Template(why)) => Some(Err(why)),
            Err(error) => Some(Err(error.to_string())),
        };
        Ok(Self {
            context,
            tokenizer: model.tokenizer()?,
            template,
            sequence,
            trained: model.file().spec.context_length,
            cached: Vec::new(),
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
        options.sampling.check()?;
        let start = Instant::now();
        let context = self.context.clone();
        let mut context = context.lock().unwrap_or_else(PoisonError::into_inner);
        let positions = context.positions();
        if self.prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if self.prompt.len() >= positions {
            let tokens = self.prompt.len();
            return Err(Error::PromptTooLong { tokens, positions, trained: self.trained });
        }
        let parser = PartParser::new(self.marks(), &self.prompt_end);
        let mut run = Generating {
            session: self,
            parser,
            on_part,
            options,
            cancel,
            on_text,
            output: Output::new(&options.stop),
            start,
            generation: Generation {
                tokens: Vec::new(),
                text: String::new(),
                parts: Vec::new(),
                stop: Stop::Cancelled,
                prompt_tokens: 0,
                prompt_time: Duration::ZERO,
                generate_time: Duration::ZERO,
            },
        };
        if options.run_ahead && context.can_select(&options.sampling) {
            run.ahead(&mut context)?;
        } else {
            run.on_host(&mut context)?;
        }
        Ok(run.finish())
    }

    /// Keeps what the context holds of the prompt and answers the steps for the rest. The last token is
    /// computed in any case: its logits are wanted.
    fn prompt_steps(&mut self, context: &mut Context) -> Vec<StepToken> {
        let common = self.cached.iter().zip(&self.prompt).take_while(|(a, b)| a == b).count();
        let keep = context.truncate(self.sequence, common.min(self.prompt.len() - 1));
        self.cached.truncate(keep);
        StepToken::run(self.sequence, keep, &self.prompt[keep..], false)
    }

    /// Notes that the first `done` of the prompt's steps were computed.
    fn prompt_computed(&mut self, done: usize) {
        let keep = self.cached.len();
        self.cached.extend_from_slice(&self.prompt[keep..keep + done]);
    }
}

/// One generation under way.
struct Generating<'a> {
    session: &'a mut Session,
    options: &'a GenerateOptions,
    cancel: &'a AtomicBool,
    on_text: &'a mut dyn FnMut(&str),
    on_part: &'a mut dyn FnMut(&Part),
    parser: PartParser,
    output: Output<'a>,
    start: Instant,
    generation: Generation,
}

impl Generating<'_> {
    /// Whether one more token than there are is wanted.
    fn wants_more(&self) -> bool {
        self.options.max_tokens.is_none_or(|max| self.generation.tokens.len() < max)
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Takes an id; says why the generation ends with it, if it does.
    fn accept(&mut self, id: u32) -> Option<Stop> {
        self.generation.tokens.push(id);
        let tokenizer = &self.session.tokenizer;
        if tokenizer.is_mark(id) {
            // No text for people, but marks are made of them.
            let mark = String::from_utf8_lossy(tokenizer.piece_with_special(id));
            let mut add = add_part(&mut self.generation.parts, self.on_part);
            self.parser.push(&mark, &mut add);
        }
        if self.session.tokenizer.is_end(id) {
            return Some(Stop::End);
        }
        let before = self.output.text.len() + self.output.held.len();
        let stops = self.output.push(&self.session.tokenizer, id, self.on_text);
        let after = self.output.text.len() + self.output.held.len();
        if after > before {
            // What came is the end of what was given out and what is held back.
            let held = &self.output.held;
            let piece = if after - before <= held.len() {
                held[held.len() - (after - before)..].to_string()
            } else {
                format!("{}{held}", &self.output.text[before..])
            };
            let mut add = add_part(&mut self.generation.parts, self.on_part);
            self.parser.push(&piece, &mut add);
        }
        if stops {
            return Some(Stop::StopString);
        }
        if !self.wants_more() {
            return Some(Stop::Length);
        }
        None
    }

    /// Notes that the prompt's `done` steps are computed.
    fn prompt_done(&mut self, done: usize) {
        self.session.prompt_computed(done);
        self.generation.prompt_tokens = done;
        self.generation.prompt_time = self.start.elapsed();
    }

    /// The loop that reads logits and chooses here.
    fn on_host(&mut self, context: &mut Context) -> Result<()> {
        let positions = context.positions();
        let sequence = self.session.sequence;
        let steps = self.session.prompt_steps(context);
        let mut logits = Vec::new();
        let cancel = self.cancel;
        let done = context.step_with(&steps, &mut |row| replace(&mut logits, row), &mut || {
            cancel.load(Ordering::Relaxed)
        })?;
        self.prompt_done(done);
        let mut recent = self.session.prompt.clone();
        if !self.wants_more() {
            self.generation.stop = Stop::Length;
            return Ok(());
        }
        while !self.cancelled() && done == steps.len() {
            let position = self.session.cached.len();
            let id = self.options.sampling.choose(&logits, &recent, sequence.0, position as u32);
            recent.push(id);
            let stop = self.accept(id);
            if let Some(stop) = stop.or((position >= positions).then_some(Stop::ContextFull)) {
                self.generation.stop = stop;
                return Ok(());
            }
            let step = StepToken::run(sequence, position, &[id], true);
            context.step_with(&step, &mut |row| replace(&mut logits, row), &mut || false)?;
            self.session.cached.push(id);
        }
        Ok(())
    }

    /// The loop that runs ahead: the device chooses ids and computes the next step before the last id has
    /// come here. What was computed beyond the end is undone.
    fn ahead(&mut self, context: &mut Context) -> Result<()> {
        let positions = context.positions();
        let sequence = self.session.sequence;
        let steps = self.session.prompt_steps(context);
        let selection = |position: usize, ring: u32| Selection {
            sampling: self.options.sampling.clone(),
            sequence,
            position: position as u32,
            ring,
        };
        context.set_recent(&self.session.prompt);
        let cancel = self.cancel;
        let first = selection(self.session.prompt.len(), 0);
        let done =
            context.step_and_select(&steps, &first, &mut || cancel.load(Ordering::Relaxed))?;
        if done < steps.len() || !self.wants_more() {
            if done == steps.len() {
                self.generation.stop = Stop::Length;
            }
            self.prompt_done(done);
            return Ok(());
        }
        // Waits for the prompt; the id is asked for again below.
        let mut ring = 0;
        let mut waiting = Some(context.selected(ring, first.position)?);
        self.prompt_done(done);
        while !self.cancelled() {
            let position = self.session.cached.len();
            // One more than the id that is on its way.
            let one_more =
                self.options.max_tokens.is_none_or(|max| self.generation.tokens.len() + 1 < max);
            let ahead = one_more && position < positions;
            if ahead {
                let step = [StepToken {
                    input: Input::Pending(ring % RING),
                    sequence,
                    position: position as u32,
                    want_logits: true,
                }];
                context
                    .step_and_select(&step, &selection(position + 1, ring + 1), &mut || false)?;
            }
            let id = match waiting.take() {
                Some(id) => id,
                None => context.selected(ring, position as u32)?,
            };
            let stop = self.accept(id);
            if let Some(stop) = stop.or((!ahead).then_some(Stop::ContextFull)) {
                self.generation.stop = stop;
                context.truncate(sequence, position);
                return Ok(());
            }
            self.session.cached.push(id);
            ring += 1;
        }
        // The last step's id was not taken.
        Ok(())
    }

    fn finish(mut self) -> Generation {
        let before = self.output.text.len() + self.output.held.len();
        self.output.finish(self.generation.stop == Stop::StopString, self.on_text);
        let rest = self.output.text.get(before..).unwrap_or_default().to_string();
        {
            let mut add = add_part(&mut self.generation.parts, self.on_part);
            self.parser.push(&rest, &mut add);
            self.parser.finish(&mut add);
        }
        self.generation.text = self.output.text;
        self.generation.generate_time =
            self.start.elapsed().saturating_sub(self.generation.prompt_time);
        self.generation
    }
}

/// Hands a part over and keeps it, joined to the one before if that is of its kind.
fn add_part<'a>(
    parts: &'a mut Vec<Part>,
    on_part: &'a mut dyn FnMut(&Part),
) -> impl FnMut(Part) + 'a {
    move |part| {
        on_part(&part);
        match (parts.last_mut(), part) {
            (Some(Part::Text(all)), Part::Text(more))
            | (Some(Part::Thinking(all)), Part::Thinking(more)) => all.push_str(&more),
            (_, part) => parts.push(part),
        }
    }
}

/// Slots on the device for ids that are on their way.
const RING: u32 = crate::gpu::RING_LENGTH as u32;

/// Makes `logits` a copy of `row` in the same memory.
fn replace(logits: &mut Vec<f32>, row: &[f32]) {
    logits.clear();
    logits.extend_from_slice(row);
}

/// Text on its way out: held back while it may be the start of a stop string.
struct Output<'a> {
    detokenizer: Detokenizer,
    stop: &'a [String],
    /// All text so far that is certain.
    text: String,
    /// Text that may be the start of a stop string.
    held: String,
}

impl<'a> Output<'a> {
    fn new(stop: &'a [String]) -> Self {
        Self { detokenizer: Detokenizer::new(), stop, text: String::new(), held: String::new() }
    }

    /// Takes a token; true if a stop string is complete.
    fn push(&mut self, tokenizer: &Tokenizer, id: u32, on_text: &mut dyn FnMut(&str)) -> bool {
        let piece = self.detokenizer.push(tokenizer, id);
        self.held.push_str(&piece);
        let stops = self.stop.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops.clone().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return true;
        }
        // The longest end of the text that is a start of a stop string stays back.
        let keep = stops
            .flat_map(|stop| {
                (1..stop.len()).filter(|&n| stop.is_char_boundary(n)).map(move |n| &stop[..n])
            })
            .filter(|start| self.held.ends_with(start))
            .map(str::len)
            .max()
            .unwrap_or(0);
        let certain = self.held.len() - keep;
        self.release(certain, on_text);
        false
    }

    fn release(&mut self, bytes: usize, on_text: &mut dyn FnMut(&str)) {
        if bytes > 0 {
            on_text(&self.held[..bytes]);
            self.text.push_str(&self.held[..bytes]);
            self.held.drain(..bytes);
        }
    }

    fn finish(&mut self, stopped: bool, on_text: &mut dyn FnMut(&str)) {
        if !stopped {
            let rest = self.detokenizer.finish();
            self.held.push_str(&rest);
        }
        self.release(self.held.len(), on_text);
    }
}
