//! The GPU executor: adapters, weights on the device, ops lowered to dispatches, steps submitted.
//!
//! - [`adapter`]: which GPUs there are. `open`: opening one. [`Gpu`] (`device`): an opened one.
//! - [`layout`]: how a plan's weights lie in buffers. [`upload`]: streams them there.
//! - [`facts`]: what an adapter is. [`choice`]: which kernel multiplies a matrix. [`lower`]: ops to dispatches, pure. [`pipelines`]: variants compiled.
//! - [`scratch`]: the table of a context's single buffers; `numbers`: what lies where in the one of a step's numbers.
//! - `dispatch`: what a dispatch is.
//! - [`executor`]: a context's buffers, and the recording and submission of steps.
//! - `limits`: what the kernels hold of a model.
//! - `halves`: whether it converts halves exactly.
//! - [`roofline`]: what the device can do at most.

pub mod adapter;
mod budget;
pub mod choice;
mod device;
mod dispatch;
pub mod executor;
pub mod facts;
mod halves;
pub mod layout;
mod limits;
pub mod lower;
mod numbers;
mod open;
mod pipelines;
pub mod products;
pub mod roofline;
pub mod scratch;
mod sizes;
mod upload;

pub use adapter::{AdapterInfo, apis_by_environment, list, list_all};
pub use device::Gpu;
pub use executor::{GpuExecutor, compile_ahead};
pub use limits::check_limits;
pub use open::GpuOptions;
#[doc(hidden)]
pub use open::Handicap;
pub use sizes::predict;
pub use upload::GpuWeights;
