//! What a file says of itself, in the words that llama-bench and Ollama use.

use std::collections::BTreeMap;

use gguf::Gguf;

/// `general.file_type` in words, as llama.cpp names it; the most used tensor type where it is absent.
pub fn quantization(file: &Gguf) -> String {
    let id = file.metadata.u32("general.file_type").ok().flatten();
    let name = match id {
        Some(0) => "all F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(10) => "Q2_K - Medium",
        Some(11) => "Q3_K - Small",
        Some(12) => "Q3_K - Medium",
        Some(13) => "Q3_K - Large",
        Some(14) => "Q4_K - Small",
        Some(15) => "Q4_K - Medium",
        Some(16) => "Q5_K - Small",
        Some(17) => "Q5_K - Medium",
        Some(18) => "Q6_K",
        Some(19) => "IQ2_XXS - 2.0625 bpw",
        Some(20) => "IQ2_XS - 2.3125 bpw",
        Some(21) => "Q2_K - Small",
        Some(22) => "IQ3_XS - 3.3 bpw",
        Some(23) => "IQ3_XXS - 3.0625 bpw",
        Some(24) => "IQ1_S - 1.5625 bpw",
        Some(25) => "IQ4_NL - 4.5 bpw",
        Some(26) => "IQ3_S - 3.4375 bpw",
        Some(27) => "IQ3_S mix - 3.66 bpw",
        Some(28) => "IQ2_S - 2.5 bpw",
        Some(29) => "IQ2_M - 2.7 bpw",
        Some(30) => "IQ4_XS - 4.25 bpw",
        Some(31) => "IQ1_M - 1.75 bpw",
        Some(32) => "BF16",
        Some(36) => "TQ1_0 - 1.69 bpw ternary",
        Some(37) => "TQ2_0 - 2.06 bpw ternary",
        Some(38) => "MXFP4 MoE",
        _ => "",
    };
    if !name.is_empty() {
        return name.into();
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
