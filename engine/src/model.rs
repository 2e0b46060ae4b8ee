//! A model: its file, its numbers and choices ([`Spec`]), and the tensors that a plan uses.

mod arch;
mod keys;
mod pad;
pub mod rope;
pub mod spec;
pub mod weights;

use std::path::Path;
use std::sync::Arc;

use gguf::Gguf;

use crate::{Error, Result};
pub use arch::known as known_architectures;
pub use keys::Keys;
pub use spec::Spec;

/// A model's file, opened and understood. Immutable; cheap to clone.
#[derive(Clone)]
pub struct ModelFile {
    /// The file or files.
    pub gguf: Arc<Gguf>,
    /// Numbers and choices.
    pub spec: Arc<Spec>,
}

impl ModelFile {
    /// Opens the model at `path` and reads its Spec.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_gguf(Gguf::open(path)?)
    }

    /// Reads the Spec of an opened file.
    pub fn from_gguf(mut gguf: Gguf) -> Result<Self> {
        if gguf.tensors.is_empty() {
            return Err(Error::Model {
                file: gguf.file().into(),
                why: "the file holds no tensors: it can be inspected and tokenized with, not run"
                    .into(),
            });
        }
        let mut spec = arch::read_spec(&gguf)?;
        pad::pad(&mut gguf, &mut spec)?;
        arch::check(&gguf, &spec)?;
        Ok(Self { gguf: Arc::new(gguf), spec: Arc::new(spec) })
    }
}
