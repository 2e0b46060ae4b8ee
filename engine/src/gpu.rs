//! The GPU executor: adapters, weights on the device, ops lowered to dispatches, steps submitted.
//!
//! - [`adapter`]: which GPUs there are. [`Gpu`]: one of them, opened.
//! - [`layout`]: how a plan's weights lie in buffers. [`upload`]: streams them there.
//! - [`facts`]: what an adapter is. [`choice`]: which kernel multiplies a matrix. [`lower`]: ops to dispatches, pure. [`pipelines`]: variants compiled.
//! - [`scratch`]: the table of a context's single buffers.
//! - [`executor`]: a context's buffers, and the recording and submission of steps.
//! - `halves`: whether it converts halves exactly.
//! - [`roofline`]: what the device can do at most.

pub mod adapter;
mod budget;
pub mod choice;
pub mod executor;
pub mod facts;
mod halves;
pub mod layout;
pub mod lower;
mod pipelines;
pub mod products;
pub mod roofline;
pub mod scratch;
mod sizes;
mod upload;

#[doc(hidden)]
pub use adapter::Handicap;
pub use adapter::{AdapterInfo, Gpu, GpuOptions, apis_by_environment, list, list_all};
pub use executor::{GpuExecutor, compile_ahead};
pub use scratch::RING_LENGTH;
pub use sizes::predict;
pub use upload::GpuWeights;
