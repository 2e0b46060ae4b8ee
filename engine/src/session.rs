//! One conversation: text in, text out, over a sequence of a context.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::answer::{Answer, Piece, Stop, join_part};
use crate::chat::parts::{Marks, Part};
use crate::chat::{Message, Rendered, Template, TemplateInputs};
use crate::generate::{Listener, Task, generate};
use crate::model::Model;
use crate::select::Sampling;
use crate::sequence::Sequence;
use crate::tokenizer::{EncodeOptions, Tokenizer};
use crate::{Context, Error, Result};

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

/// Several sessions share a context.
pub type SharedContext = Arc<Mutex<Context>>;

/// One conversation.
pub struct Session {
    context: SharedContext,
    tokenizer: Arc<Tokenizer>,
    /// The file's template; one that does not compile says why when it is needed.
    template: Option<std::result::Result<Template, String>>,
    sequence: Sequence,
    trained: usize,
    /// The ids whose keys and values the context holds.
    cached: Vec<u32>,
    /// The ids that are to be computed next.
    prompt: Vec<u32>,
    /// How the prompt ends, where a template made it.
    prompt_end: String,
}

crate::opaque::opaque_debug!(Session { sequence, trained, prompt });

impl Session {
    /// A conversation in a sequence of its own of a context, free again when the session is dropped. A chat template that cannot
    /// be used is no error here: texts and ids need none.
    ///
    /// # Errors
    /// If the model gives embeddings only, the file has no usable vocabulary, or the context's sequences are all taken.
    pub fn new(model: &Model, context: SharedContext) -> Result<Self> {
        model.file().language_model()?;
        let sequence = context.lock().unwrap_or_else(PoisonError::into_inner).sequence()?;
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
        let mut under_way = UnderWay {
            answer: Answer::new(
                self.tokenizer.clone(),
                &options.stop,
                self.marks(),
                &self.prompt_end,
            ),
            on_text,
            on_part,
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
        let mut task = Task {
            sequence: self.sequence.id(),
            cached: &mut self.cached,
            prompt: &self.prompt,
            sampling: &options.sampling,
            max_tokens: options.max_tokens,
            cancelled: &|| cancel.load(Ordering::Relaxed),
        };
        let stop = generate(&mut context, &mut task, options.run_ahead, &mut under_way)?;
        Ok(under_way.finish(stop))
    }
}

/// A generation under way, as the session's caller sees it.
struct UnderWay<'a> {
    answer: Answer,
    on_text: &'a mut dyn FnMut(&str),
    on_part: &'a mut dyn FnMut(&Part),
    start: Instant,
    generation: Generation,
}

impl UnderWay<'_> {
    /// Hands a piece over and keeps it.
    fn add(&mut self, piece: Piece) {
        if !piece.text.is_empty() {
            (self.on_text)(&piece.text);
            self.generation.text.push_str(&piece.text);
        }
        for part in piece.parts {
            (self.on_part)(&part);
            join_part(&mut self.generation.parts, part);
        }
    }

    fn finish(mut self, stop: Stop) -> Generation {
        let rest = self.answer.finish(stop);
        self.add(rest);
        self.generation.stop = stop;
        self.generation.generate_time =
            self.start.elapsed().saturating_sub(self.generation.prompt_time);
        self.generation
    }
}

impl Listener for UnderWay<'_> {
    fn prompt_computed(&mut self, tokens: usize) {
        self.generation.prompt_tokens = tokens;
        self.generation.prompt_time = self.start.elapsed();
    }

    fn take(&mut self, id: u32) -> Option<Stop> {
        self.generation.tokens.push(id);
        let piece = self.answer.push(id);
        let stop = piece.stop;
        self.add(piece);
        stop
    }
}
