//! Reads an architecture's metadata keys, `ARCH.NAME`, with errors that name them.

use gguf::Gguf;

use crate::{Error, Result};

/// The metadata of a file, seen by one architecture.
#[derive(Debug)]
pub struct Keys<'a> {
    file: &'a Gguf,
    architecture: &'static str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(file: &'a Gguf, architecture: &'static str) -> Self {
        Self { file, architecture }
    }

    /// The architecture's name.
    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// The file, for tensors.
    pub fn file(&self) -> &'a Gguf {
        self.file
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// An error about this model.
    pub fn error(&self, why: impl Into<String>) -> Error {
        Error::Model { file: self.file.file().into(), why: why.into() }
    }

    /// A count that may be absent.
    pub fn count(&self, name: &str) -> Result<Option<usize>> {
        Ok(self.file.metadata.u32(&self.key(name))?.map(|n| n as usize))
    }

    /// A count that must be there and at least 1.
    pub fn required(&self, name: &str) -> Result<usize> {
        let key = self.key(name);
        match self.count(name)? {
            None => Err(self.file.metadata.missing(&key).into()),
            Some(0) => Err(self.error(format!("the metadata key {key} is 0, expected at least 1"))),
            Some(n) => Ok(n),
        }
    }

    /// A number that may be absent.
    pub fn number(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.file.metadata.f32(&self.key(name))?)
    }

    /// A number that must be there.
    pub fn required_number(&self, name: &str) -> Result<f32> {
        let key = self.key(name);
        self.number(name)?.ok_or_else(|| self.file.metadata.missing(&key).into())
    }

    /// A string that may be absent.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        Ok(self.file.metadata.str(&self.key(name))?)
    }

    /// The number of layers, checked against the file's tensors before anything is sized by it.
    pub fn layers(&self) -> Result<usize> {
        let blocks = self.required("block_count")?;
        let drafts = self.count("nextn_predict_layers")?.unwrap_or(0);
        if blocks > self.file.tensors.len() || drafts >= blocks {
            return Err(self.error(format!(
                "the metadata key {} is {blocks}, but the file has {} tensors; it is damaged or incomplete",
                self.key("block_count"),
                self.file.tensors.len()
            )));
        }
        Ok(blocks - drafts)
    }

    /// A count per layer: one number for all, or an array with one for each; none if absent.
    pub fn per_layer(&self, name: &str, layers: usize) -> Result<Option<Vec<usize>>> {
        let key = self.key(name);
        let Some(value) = self.file.metadata.get(&key) else { return Ok(None) };
        if value.as_array().is_none() {
            return Ok(self.count(name)?.map(|n| vec![n; layers]));
        }
        let counts = self.file.metadata.u32s(&key)?.unwrap_or_default();
        if counts.len() < layers {
            return Err(self.error(format!(
                "the metadata key {key} has {} entries for {layers} layers",
                counts.len()
            )));
        }
        Ok(Some(counts[..layers].iter().map(|&n| n as usize).collect()))
    }

    /// Yes or no that may be absent.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.file.metadata.bool(&self.key(name))?)
    }

    /// Yes or no per layer, where the file has an array of them.
    pub fn flags(&self, name: &str, layers: usize) -> Result<Option<Vec<bool>>> {
        let key = self.key(name);
        let array = self.file.metadata.get(&key).and_then(|value| value.as_array());
        let Some(gguf::Array::Bool(flags)) = array else { return Ok(None) };
        if flags.len() < layers {
            return Err(
                self.error(format!("{key} has {} entries for {layers} layers", flags.len()))
            );
        }
        Ok(Some(flags[..layers].to_vec()))
    }

    /// All counts of an array; empty if absent.
    pub fn counts(&self, name: &str) -> Result<Vec<usize>> {
        let counts = self.file.metadata.u32s(&self.key(name))?.unwrap_or_default();
        Ok(counts.into_iter().map(|n| n as usize).collect())
    }
}
