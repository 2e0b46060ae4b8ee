//! One test, and one result: its parameters and what was measured.

use engine::Device;
use engine::KvType;
use engine::Precision;
use engine::internals::cpu;
use serde_json::{Map, Value, json};

use crate::options::GpuLayers;

/// One test: a prompt, tokens generated after it, or both, after `depth` tokens that are not measured.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens generated.
    pub generate: usize,
    /// Tokens in the cache before.
    pub depth: usize,
}

impl Test {
    /// Positions that it needs.
    pub fn positions(&self) -> usize {
        self.prompt + self.generate + self.depth
    }

    /// llama-bench's name: `pp512`, `tg128 @ d4096`, `pp8+tg4`.
    pub fn name(&self) -> String {
        let test = match (self.prompt, self.generate) {
            (n, 0) => format!("pp{n}"),
            (0, n) => format!("tg{n}"),
            (prompt, generate) => format!("pp{prompt}+tg{generate}"),
        };
        if self.depth == 0 { test } else { format!("{test} @ d{}", self.depth) }
    }
}

/// One row of the table.
pub struct Row {
    /// What the model is, in llama-bench's words.
    pub name: String,
    /// Bytes of its tensors.
    pub size: u64,
    /// Its parameters.
    pub parameters: u64,
    /// What computed.
    pub device: Device,
    /// The model's file.
    pub file: String,
    /// Threads of the CPU.
    pub threads: usize,
    /// The type of keys.
    pub key_type: KvType,
    /// The type of values.
    pub value_type: KvType,
    /// The most tokens of a prompt handed over at once.
    pub batch: usize,
    /// The most tokens computed at once.
    pub ubatch: usize,
    /// Layers on the GPU as they were asked for.
    pub gpu_layers: GpuLayers,
    /// Whether the CPU mapped the file.
    pub map: bool,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens generated.
    pub generate: usize,
    /// Tokens in the cache before.
    pub depth: usize,
    /// What each repetition took.
    pub samples_ns: Vec<u64>,
    /// When, by RFC 3339.
    pub time: String,
    /// What loading took.
    pub load_ns: u64,
    /// Bytes on the device.
    pub memory: u64,
    /// How exactly products were computed.
    pub precision: Precision,
}

impl Row {
    /// Tokens a second of each repetition.
    pub fn speeds(&self) -> Vec<f64> {
        let tokens = (self.prompt + self.generate) as f64;
        self.samples_ns.iter().map(|&ns| tokens * 1e9 / ns.max(1) as f64).collect()
    }

    /// The test's name: `pp512`, `tg128`, `pp512+tg128`, `pp512 @ d4096`.
    pub fn test(&self) -> String {
        Test { prompt: self.prompt, generate: self.generate, depth: self.depth }.name()
    }

    /// The interface to the device, in llama.cpp's spelling.
    pub fn backend(&self) -> &'static str {
        match self.device.id().split(':').next() {
            Some("vulkan") => "Vulkan",
            Some("metal") => "Metal",
            Some("dx12") => "DX12",
            _ => "CPU",
        }
    }

    /// `mmap` or `none`, by llama-bench's name for how weights are read.
    pub fn load_mode(&self) -> &'static str {
        if self.map { "mmap" } else { "none" }
    }

    /// llama-bench's fields, in its order, of which each means something here; then `load_ns`, `device_memory`, `device`
    /// and `precision`, which are ours.
    pub fn fields(&self) -> Map<String, Value> {
        let speeds = self.speeds();
        let nanoseconds: Vec<f64> = self.samples_ns.iter().map(|&ns| ns as f64).collect();
        let gpu = if self.device.is_cpu() { String::new() } else { self.device.name() };
        // -1 or -2 stand for "all", as llama-bench writes them.
        let layers: i64 = match self.gpu_layers {
            GpuLayers::Auto => -1,
            GpuLayers::All => -2,
            GpuLayers::Count(count) => count as i64,
        };
        let fields = json!({
            "build_commit": env!("CARGO_PKG_VERSION"),
            "build_number": 0,
            "cpu_info": cpu::processor_name(),
            "gpu_info": gpu,
            "backends": self.backend(),
            "model_filename": self.file,
            "model_type": self.name,
            "model_size": self.size,
            "model_n_params": self.parameters,
            "n_batch": self.batch,
            "n_ubatch": self.ubatch,
            "n_threads": self.threads,
            "type_k": self.key_type.name(),
            "type_v": self.value_type.name(),
            "n_gpu_layers": layers,
            "flash_attn": 1,
            "devices": self.device.id(),
            "load_mode": self.load_mode(),
            "n_prompt": self.prompt,
            "n_gen": self.generate,
            "n_depth": self.depth,
            "test_time": self.time,
            "avg_ns": mean(&nanoseconds).round() as u64,
            "stddev_ns": deviation(&nanoseconds).round() as u64,
            "avg_ts": mean(&speeds),
            "stddev_ts": deviation(&speeds),
            "load_ns": self.load_ns,
            "device_memory": self.memory,
            "device": self.device.name(),
            "precision": self.precision.name(),
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// The fields and every repetition, which tables have no column for.
    pub fn json(&self) -> Value {
        let mut fields = self.fields();
        fields.insert("samples_ns".into(), json!(self.samples_ns));
        fields.insert("samples_ts".into(), json!(self.speeds()));
        Value::Object(fields)
    }
}

/// The mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The sample standard deviation; 0 of fewer than two values.
pub fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations() {
        assert_eq!(mean(&[1.0, 2.0, 3.0]), 2.0);
        assert_eq!(deviation(&[1.0, 2.0, 3.0]), 1.0);
        assert_eq!(deviation(&[5.0]), 0.0);
    }
}
