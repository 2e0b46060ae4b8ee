//! One conversation: text in, text out, over a sequence of a context.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::chat::{Message, Template, TemplateInputs};
use crate::load::Model;
use crate::select::Sampling;
use crate::step::{SequenceId, StepToken};
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
}

/// What a generation did.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The ids chosen, an end-of-generation id included.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Why it ended.
    pub stop: Stop,
    /// Tokens of the prompt that were computed (those the cache held are not counted).
    pub prompt_tokens: usize,
    /// From the call to the prompt's logits.
    pub prompt_time: Duration,
    /// From there to the end.
    pub generate_time: Duration,
}

/// Several sessions share a context.
pub type SharedContext = Arc<Mutex<Context>>;

/// One conversation.
pub struct Session {
    context: SharedContext,
    tokenizer: Arc<Tokenizer>,
    template: Option<Template>,
    sequence: SequenceId,
    trained: usize,
    /// The ids whose keys and values the context holds.
    cached: Vec<u32>,
    /// The ids that are to be computed next.
    prompt: Vec<u32>,
}

impl Session {
    /// A conversation in `sequence` of a context.
    pub fn new(model: &Model, context: SharedContext, sequence: SequenceId) -> Result<Self> {
        Ok(Self {
            context,
            tokenizer: model.tokenizer()?,
            template: Template::from_metadata(&model.file().gguf.metadata)?,
            sequence,
            trained: model.file().spec.context_length,
            cached: Vec::new(),
            prompt: Vec::new(),
        })
    }

    /// Whether the model's file has a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Sets the prompt to a conversation, rendered by the file's template; in a file without one the
    /// contents stand one after another as plain text. What the context already holds of it is kept.
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
            return self.push_text(&text.join("\n"));
        };
        let text = template.render(messages, true, &inputs)?;
        // Templates write BOS themselves; a second one would be another prompt.
        let written = !inputs.bos_token.is_empty() && text.starts_with(&inputs.bos_token);
        let options = EncodeOptions { add_special: !written, parse_special: true };
        let ids = self.tokenizer.encode(&text, options)?;
        self.push_ids(ids);
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
        options.sampling.check()?;
        let start = Instant::now();
        let context = self.context.clone();
        let mut context = context.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = context.cells();
        if self.prompt.is_empty() {
            return Err(Error::Option(
                "the prompt has no tokens: give some text (this model adds none of its own)".into(),
            ));
        }
        if self.prompt.len() >= cells {
            return Err(Error::ContextFull {
                wanted: self.prompt.len() + 1,
                cells,
                trained: self.trained,
            });
        }
        let mut logits = Vec::new();
        let mut prompt_tokens = 0;
        self.compute_prompt(&mut context, cancel, &mut logits, &mut prompt_tokens)?;
        let prompt_time = start.elapsed();

        let mut output = Output::new(&options.stop);
        let mut generation = Generation {
            tokens: Vec::new(),
            text: String::new(),
            stop: Stop::Length,
            prompt_tokens,
            prompt_time,
            generate_time: Duration::ZERO,
        };
        let mut recent = self.prompt.clone();
        loop {
            if cancel.load(Ordering::Relaxed) {
                generation.stop = Stop::Cancelled;
                break;
            }
            if options.max_tokens.is_some_and(|max| generation.tokens.len() >= max) {
                break;
            }
            let position = self.cached.len() as u32;
            let id = options.sampling.choose(&logits, &recent, self.sequence.0, position);
            generation.tokens.push(id);
            recent.push(id);
            if self.tokenizer.is_end(id) {
                generation.stop = Stop::End;
                break;
            }
            if output.push(&self.tokenizer, id, on_text) {
                generation.stop = Stop::StopString;
                break;
            }
            if options.max_tokens.is_some_and(|max| generation.tokens.len() >= max) {
                break;
            }
            if self.cached.len() + 1 > cells {
                generation.stop = Stop::ContextFull;
                break;
            }
            let step = StepToken::run(self.sequence, self.cached.len(), &[id], true);
            context.step_with(&step, &mut |row| replace(&mut logits, row), &mut || false)?;
            self.cached.push(id);
        }
        output.finish(generation.stop == Stop::StopString, on_text);
        generation.text = output.text;
        generation.generate_time = start.elapsed().saturating_sub(prompt_time);
        Ok(generation)
    }

    /// Computes what the context does not hold yet of the prompt; `logits` become its last token's.
    fn compute_prompt(
        &mut self,
        context: &mut Context,
        cancel: &AtomicBool,
        logits: &mut Vec<f32>,
        computed: &mut usize,
    ) -> Result<()> {
        let common = self.cached.iter().zip(&self.prompt).take_while(|(a, b)| a == b).count();
        // The last token is computed in any case: its logits are wanted.
        let keep = context.truncate(self.sequence, common.min(self.prompt.len() - 1));
        self.cached.truncate(keep);
        let tokens = StepToken::run(self.sequence, keep, &self.prompt[keep..], false);
        let done = context.step_with(&tokens, &mut |row| replace(logits, row), &mut || {
            cancel.load(Ordering::Relaxed)
        })?;
        *computed = done;
        self.cached.extend_from_slice(&self.prompt[keep..keep + done]);
        Ok(())
    }
}

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
