//! A model's file, opened and understood.

use std::path::Path;
use std::sync::Arc;

use gguf::Gguf;

use super::{Spec, arch, pad};
use crate::{Error, Result};

/// A model's file, opened and understood. Immutable; cheap to clone.
#[derive(Debug, Clone)]
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
        if let Some(why) = not_a_model(&gguf) {
            return Err(Error::Model { file: gguf.file().into(), why: why.into() });
        }
        let mut spec = arch::read_spec(&gguf)?;
        pad::pad(&mut gguf, &mut spec)?;
        arch::check(&gguf, &spec)?;
        Ok(Self { gguf: Arc::new(gguf), spec: Arc::new(spec) })
    }

    /// An error if the model makes embeddings, not logits: no text can be generated, scored or predicted with it.
    pub fn language_model(&self) -> Result<()> {
        if self.spec.pooling.is_none() {
            return Ok(());
        }
        Err(Error::NotALanguageModel {
            file: self.gguf.file().into(),
            architecture: self.spec.architecture,
        })
    }
}

/// What a GGUF file holds that is no model by itself, and what to do.
fn not_a_model(file: &Gguf) -> Option<&'static str> {
    let kind = file.metadata.text("general.type").unwrap_or_default();
    let architecture = file.metadata.text("general.architecture").unwrap_or_default();
    match (&*kind, &*architecture) {
        ("adapter", _) => Some(
            "it is a LoRA adapter, which changes a model and is none; merge it into its model with llama.cpp's llama-export-lora and give the result",
        ),
        ("mmproj", _) | (_, "clip") => Some(
            "it is a projector (mmproj), the part of a model that sees or hears; give the model's own file, which lies beside it",
        ),
        ("imatrix", _) | (_, "imatrix") => Some(
            "it is an importance matrix, which helps to quantize a model; give the model's own file, which lies beside it",
        ),
        ("controlvector", _) | (_, "controlvector") => {
            Some("it is a control vector, which steers a model and is none; give a model's file")
        }
        _ if file.tensors.iter().all(|tensor| tensor.elements() == 0) => {
            Some("the file holds no weights: it can be inspected and tokenized with, not run")
        }
        _ => None,
    }
}
