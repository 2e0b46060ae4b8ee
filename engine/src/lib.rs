//! Language models from GGUF files on any GPU: tokens to tokens.

pub mod context;
pub mod cpu;
pub mod executor;
pub mod gpu;
pub mod kv;
pub mod model;
pub mod plan;
pub mod reference;
pub mod step;
pub mod tokenizer;

mod error;

pub use context::{Context, ContextOptions, Snapshot};
pub use error::{Error, Result};
