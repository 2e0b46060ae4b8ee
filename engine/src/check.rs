//! What asks the executors from above: whether their kernels compute rightly, and which are fastest. Both go by the products
//! that lowering makes ([`crate::gpu::products`]).
//!
//! - [`probe`]: one op on one executor against the reference.
//! - [`self_test`]: the kernels that a plan uses, on first use of a device.
//! - [`tune`]: the kernels of a product, measured.

pub mod probe;
pub mod self_test;
pub mod tune;
