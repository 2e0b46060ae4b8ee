//! What a file says of itself, in the words that llama-bench and Ollama use.

use std::collections::BTreeMap;

use gguf::{FileType, Gguf};

/// `general.file_type` in words, as llama.cpp names it; the most used tensor type where it is absent or unknown.
pub fn quantization(file: &Gguf) -> String {
    let id = file.metadata.u32("general.file_type").ok().flatten();
    if let Some(file_type) = id.and_then(FileType::of) {
        return file_type.words.into();
    }
    let types = tensor_types(file);
    types
        .into_iter()
        .max_by_key(|(_, summary)| summary.elements)
        .map_or_else(|| "none".into(), |(name, _)| name)
}

/// What the tensors of one type amount to.
#[derive(Debug, Clone, Copy, Default)]
pub struct TypeSummary {
    /// How many tensors.
    pub tensors: u64,
    /// Their elements.
    pub elements: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Tensors by type.
pub fn tensor_types(file: &Gguf) -> BTreeMap<String, TypeSummary> {
    let mut types: BTreeMap<String, TypeSummary> = BTreeMap::new();
    for tensor in &file.tensors {
        let summary = types.entry(tensor.tensor_type.name()).or_default();
        summary.tensors += 1;
        summary.elements += tensor.elements();
        summary.bytes += tensor.bytes.unwrap_or(0);
    }
    types
}

/// Bytes of all tensors.
pub fn tensor_bytes(file: &Gguf) -> u64 {
    file.tensors.iter().filter_map(|tensor| tensor.bytes).sum()
}

/// A size in a word: the file's label, else the parameters rounded (`135M`, `7B`).
pub fn size_label(file: &Gguf) -> String {
    if let Ok(Some(label)) = file.metadata.str("general.size_label") {
        return label.into();
    }
    let parameters = engine::internals::model::parameters(file) as f64;
    if parameters >= 1e9 {
        format!("{:.0}B", parameters / 1e9)
    } else {
        format!("{:.0}M", parameters / 1e6)
    }
}
