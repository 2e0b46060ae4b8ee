//! Language models from GGUF files on any GPU: tokens to tokens.
//!
//! From the bottom up:
//! - [`spec`]: a file's metadata read into a [`spec::Spec`]; one small file per architecture.
//! - [`plan`]: the Spec turned into ops over named values, once for every architecture.
//! - [`reference`]: the ops in naive f64, the oracle. [`gpu`] and [`cpu`]: the executors.
//! - [`kv`]: which cell holds a position's keys and values.
//! - [`blueprint`]: a plan with the sizes of its context, which all below take.
//! - [`context`]: sequences on a device, step by step. [`answer`]: ids made an answer. [`session`]: a conversation in a sequence.
//! - [`synthetic`]: models made up for measurements. [`profile`]: what each dispatch of a step took.
//! - [`tokenizer`], [`chat`], [`select`]: text to ids, messages to text, logits to an id.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use std::sync::{Arc, Mutex};
//! use engine::{Device, DeviceOptions, GenerateOptions, LoadOptions, Model, Session};
//!
//! # fn main() -> engine::Result<()> {
//! let device = Device::open(&DeviceOptions::default())?;
//! let options = LoadOptions::default();
//! let model = Model::load(&[device], "model.gguf", &options)?;
//! let context = Arc::new(Mutex::new(model.context(&options.context)?));
//! let mut session = Session::new(&model, context)?;
//! session.push_chat(&[engine::chat::Message::user("Why is the sky blue?")])?;
//! let options = GenerateOptions { max_tokens: Some(100), ..GenerateOptions::default() };
//! session.generate(&options, &AtomicBool::new(false), &mut |text| print!("{text}"))?;
//! # Ok(())
//! # }
//! ```

pub mod answer;
pub mod blueprint;
pub mod cache;
pub mod chat;
pub mod check;
pub mod context;
pub mod cpu;
pub mod device;
pub mod embed;
pub mod executor;
pub mod gpu;
pub mod kv;
pub mod model;
pub mod perplexity;
pub mod plan;
pub mod profile;
pub mod reference;
pub mod select;
pub mod session;
pub mod spec;
pub mod step;
pub mod synthetic;
pub mod tokenizer;

mod error;
mod generate;
mod sequence;

pub use answer::Stop;
pub use blueprint::{Blueprint, ContextOptions};
pub use context::{Context, Pending, RunAhead, Snapshot};
pub use device::{Device, DeviceOptions};
pub use error::{Advice, Error, Result};
pub use model::{LoadOptions, Model};
pub use sequence::Sequence;
pub use session::{GenerateOptions, Generation, Session};
