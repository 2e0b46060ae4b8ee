//! WGSL compute kernels: assembled, validated and reflected variants.

/// Why a kernel variant could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source has a fault.
    #[error("kernel {kernel}: {why}")]
    Source {
        /// The kernel's name.
        kernel: String,
        /// What is wrong.
        why: String,
    },
}
