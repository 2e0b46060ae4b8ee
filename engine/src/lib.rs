//! Language models from GGUF files on any GPU: tokens to tokens.
//!
//! The names below are the library's face. What lies behind them, from the bottom up:
//! - `spec`: a file's metadata read into a `Spec`; one small file per architecture.
//! - `plan`: the Spec turned into ops over named values, once for every architecture.
//! - `reference`: the ops in naive f64, the oracle. `gpu` and `cpu`: the executors.
//! - `kv`: which cell holds a position's keys and values.
//! - `blueprint`: a plan with the sizes of its context, which all below take.
//! - `context`: sequences on a device, step by step. `scheduler`: many requests, one context. `answer`: ids made an answer.
//!   `session`: a conversation, by requests to a scheduler.
//! - `model`, `device`: what of a file lies where. `executor`: what a context asks of a device.
//! - `sequence`, `step`: whose tokens, and which. `embed`, `perplexity`: what else is asked of a scheduler.
//! - `check`: the self-test on first use, tuning, probes of single ops. `error`: kinds, each with an advice. `cache`: what is kept from run to run.
//! - `synthetic`: models made up for measurements. `profile`: what each dispatch of a step took.
//! - `tokenizer`, `chat`, `select`: text to ids, messages to text, logits to an id.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use engine::{
//!     Device, DeviceOptions, GenerateOptions, LoadOptions, Message, Model, Scheduler, Session,
//! };
//!
//! # fn main() -> engine::Result<()> {
//! let device = Device::open(&DeviceOptions::default())?;
//! let options = LoadOptions::default();
//! let model = Model::load(&[device], "model.gguf", &options)?;
//! let scheduler = Scheduler::start(&model, &options.context)?;
//! let mut session = Session::new(&scheduler)?;
//! session.push_chat(&[Message::user("Why is the sky blue?")])?;
//! let options = GenerateOptions { max_tokens: Some(100), ..GenerateOptions::default() };
//! session.generate(&options, &AtomicBool::new(false), &mut |text| print!("{text}"))?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod blueprint;
mod cache;
mod chat;
mod check;
mod context;
mod cpu;
mod device;
mod embed;
mod error;
mod executor;
mod gpu;
mod kv;
mod model;
mod opaque;
mod perplexity;
mod plan;
mod profile;
mod reference;
mod scheduler;
mod select;
mod sequence;
mod session;
mod spec;
mod step;
mod synthetic;
mod tokenizer;

#[doc(hidden)]
pub mod internals;

pub use answer::Stop;
pub use blueprint::ContextOptions;
pub use chat::Message;
pub use chat::parts::Part;
pub use context::{Choice, Context, Flight, Pair, Snapshot};
pub use device::{Device, DeviceOptions};
pub use embed::{embed, normalized};
pub use error::{Advice, Error, Result};
pub use executor::{Memory, Precision};
pub use gpu::GpuOptions;
pub use kv::KvType;
pub use model::{LoadOptions, Model, SelfTest};
pub use scheduler::{Goal, Listener, Request, Scheduler, Ticket};
pub use select::Sampling;
pub use sequence::Sequence;
pub use session::{GenerateOptions, Generation, Session};
pub use spec::ModelFile;
pub use step::{Input, SequenceId, StepToken};
pub use tokenizer::{EncodeOptions, Tokenizer};
/// The graphics library, in the version that [`Device::from_wgpu`] takes.
pub use wgpu;

// Shared by all threads of a server.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Model>();
    is_shared::<ModelFile>();
    is_shared::<Device>();
    const fn is_sent<T: Send>() {}
    is_sent::<Context>();
    is_sent::<Session>();
    is_shared::<Scheduler>();
};
