//! Many requests, one context: the loop that drives every generation.
//!
//! Each turn makes one step: the next token of every running request, then pieces of prompts up to the chunk, so that a long
//! prompt holds the others up for no longer than a chunk. Requests are admitted by free blocks of keys and values; where these
//! run out the youngest gives its own up and is computed again later. What a request leaves is kept for others that begin alike
//! ([`Context::keep`]).

mod jobs;
mod mailbox;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use self::jobs::Job;
use self::mailbox::Mailbox;
use self::turn::Turns;
use crate::answer::Stop;
use crate::executor::Memory;
use crate::model::Model;
use crate::select::Sampling;
use crate::{Context, ContextOptions, Error, Result};

/// What is to become of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Goal {
    /// Ids behind it, until the listener, or a limit, ends them.
    Generate {
        /// How each is chosen.
        sampling: Sampling,
        /// Which of the seed's streams of random numbers is drawn from.
        stream: u32,
        /// The most of them; none: until the context is full.
        max_tokens: Option<usize>,
        /// Whether the device may choose them, and compute the next step before the last id has come here, where it can: a step
        /// runs ahead where all that have part in it allow it.
        run_ahead: bool,
    },
    /// The rows that the model gives for the prompt's own tokens (logits, or states of an embedding model).
    Rows {
        /// For those from this one on.
        from: usize,
        /// To before this one.
        to: usize,
    },
}

/// What is asked of a [`Scheduler`].
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// What is to become of it.
    pub goal: Goal,
}

/// Who hears of a request. It is called by the scheduler's thread, which all requests wait for: what takes long is done elsewhere.
pub trait Listener: Send {
    /// The prompt was computed: so many of its tokens, `cached` others were held already.
    fn prompt_computed(&mut self, computed: usize, cached: usize);

    /// Takes a row of a goal's.
    fn row(&mut self, row: &[f32]);

    /// Takes an id; says why the generation ends with it, if it does.
    fn take(&mut self, id: u32) -> Option<Stop>;

    /// Hears of the end, after which nothing comes; where the scheduler itself ended, that it is cancelled. Rows end with
    /// [`Stop::Length`].
    fn finish(&mut self, outcome: Result<Stop>);
}

/// A request under way. Dropping it cancels the request.
#[derive(Debug)]
pub struct Ticket {
    flags: Arc<Flags>,
    mailbox: Arc<Mailbox>,
}

/// What a ticket and its request tell each other.
#[derive(Debug, Default)]
struct Flags {
    cancelled: AtomicBool,
    finished: AtomicBool,
}

impl Ticket {
    /// Ends the request before its next token. Its listener hears of it.
    pub fn cancel(&self) {
        self.flags.cancelled.store(true, Ordering::Relaxed);
        if !self.flags.finished.load(Ordering::Relaxed) {
            self.mailbox.ring();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Drives all requests to a context, on a thread of its own. A cheap handle: the thread ends with the last of them, and what is
/// under way is cancelled.
#[derive(Debug, Clone)]
pub struct Scheduler(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
    model: Arc<Model>,
    positions: usize,
    /// Positions that a single request can have, all blocks being its own.
    pool: usize,
    chunk: usize,
    memory: Memory,
    device: String,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.mailbox.close();
        // (A listener may have held the last handle: the thread does not wait for itself.)
        let here = std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != here) {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

impl Scheduler {
    /// Starts one over a new context of a model.
    ///
    /// # Errors
    /// If the context cannot be made.
    pub fn start(model: &Arc<Model>, options: &ContextOptions) -> Result<Self> {
        Self::over(model, model.context(options)?)
    }

    /// Starts one over a context of a model.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn over(model: &Arc<Model>, context: Context) -> Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let mut handle = Handle {
            mailbox: mailbox.clone(),
            thread: None,
            model: model.clone(),
            positions: context.positions(),
            pool: context.sizes().pool,
            chunk: context.sizes().chunk,
            memory: context.memory(),
            device: context.device_name(),
        };
        // Where tokens see later ones, a text is one step.
        let is_whole = model.file().spec.sees_ahead();
        let thread = std::thread::Builder::new()
            .name("scheduler".into())
            .spawn(move || {
                // Also where a listener panics: whoever waits, or comes later, is told.
                let _closed = mailbox.closed_at_the_end();
                Turns::new(context, is_whole).run(&mailbox);
            })
            .map_err(|why| Error::unsupported(format!("no thread can be started: {why}"), None))?;
        handle.thread = Some(thread);
        Ok(Self(Arc::new(handle)))
    }

    /// Takes a request, whose listener hears what becomes of it.
    ///
    /// # Errors
    /// If it can never be served: it has no tokens, is longer than the context or its pool, or its numbers are out of range.
    pub fn submit(&self, request: Request, listener: Box<dyn Listener>) -> Result<Ticket> {
        self.check(&request)?;
        let flags = Arc::new(Flags::default());
        let job = Job::new(request, listener, flags.clone());
        if !self.0.mailbox.put(job) {
            return Err(Error::Internal("the thread of the scheduler ended".into()));
        }
        Ok(Ticket { flags, mailbox: self.0.mailbox.clone() })
    }

    fn check(&self, request: &Request) -> Result<()> {
        let tokens = request.prompt.len();
        if tokens == 0 {
            return Err(Error::EmptyPrompt);
        }
        let (positions, pool) = (self.0.positions, self.0.pool);
        let spec = &self.0.model.file().spec;
        let trained = spec.context_length;
        let mut room = positions.min(pool);
        if spec.sees_ahead() {
            room = room.min(self.0.chunk);
        }
        match &request.goal {
            Goal::Generate { sampling, .. } => {
                self.0.model.file().language_model()?;
                sampling.check()?;
                if tokens >= room {
                    return Err(Error::PromptTooLong { tokens, positions: room, trained });
                }
            }
            Goal::Rows { from, to } => {
                if from >= to || *to > tokens {
                    let why = format!("rows {from} to {to} of {tokens} are none");
                    return Err(Error::Step { index: *from, why });
                }
                if tokens > room {
                    return Err(Error::PromptTooLong { tokens, positions: room, trained });
                }
            }
        }
        let vocabulary = spec.vocabulary;
        if let Some(index) = request.prompt.iter().position(|&id| id as usize >= vocabulary) {
            let id = request.prompt[index];
            let why = format!("id {id} is not in the vocabulary of {vocabulary} tokens");
            return Err(Error::Step { index, why });
        }
        Ok(())
    }

    /// Computes a prompt and hands over the rows of its tokens `from..to`, on the scheduler's thread. Returns when that is done.
    ///
    /// # Errors
    /// If the prompt is refused, or the device fails.
    pub(crate) fn rows(
        &self,
        prompt: Vec<u32>,
        (from, to): (usize, usize),
        on_row: impl FnMut(&[f32]) + Send + 'static,
    ) -> Result<()> {
        let (sender, done) = mpsc::channel();
        let request = Request { prompt, goal: Goal::Rows { from, to } };
        let _ticket = self.submit(request, Box::new(Rows { on_row, done: sender }))?;
        let ended = || Error::Internal("the thread of the scheduler ended".into());
        done.recv().map_err(|_| ended())?.map(|_| ())
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.0.model
    }

    /// Positions that a request may have, prompt and answer together.
    pub fn positions(&self) -> usize {
        self.0.positions
    }

    /// The most tokens of a step.
    pub(crate) fn chunk(&self) -> usize {
        self.0.chunk
    }

    /// Bytes allocated for model and context.
    pub fn memory(&self) -> Memory {
        self.0.memory
    }

    /// The device's name.
    pub fn device_name(&self) -> &str {
        &self.0.device
    }
}

/// Takes rows, and says when it has all of them.
struct Rows<F> {
    on_row: F,
    done: Sender<Result<Stop>>,
}

impl<F: FnMut(&[f32]) + Send> Listener for Rows<F> {
    fn prompt_computed(&mut self, _computed: usize, _cached: usize) {}

    fn row(&mut self, row: &[f32]) {
        (self.on_row)(row);
    }

    fn take(&mut self, _id: u32) -> Option<Stop> {
        None
    }

    fn finish(&mut self, outcome: Result<Stop>) {
        // Nobody waits any more where this fails.
        let _ = self.done.send(outcome);
    }
}
