//! The CPU executor: the fallback without a GPU.
//!
//! It runs the same plan as the GPU, with activations in f32 or rounded to bytes, straight from ggml's blocks in the mapped
//! file: blocks are decoded in registers or a few rows at a time and never kept.

mod attention;
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "bytes are multiplied by instructions of x86-64 only, so far")
)]
mod byte_tiles;
mod cells;
mod executor;
mod float_tiles;
mod math;
mod panels;
mod product;
mod slots;
mod team;
mod tile;
mod vector;
mod weights;

use crate::executor::Precision;
pub use executor::{CpuExecutor, predict};
pub use team::Team;
pub use vector::InstructionSet;
pub use weights::CpuWeights;

/// How the CPU's loops run.
#[derive(Debug, Clone, Copy)]
pub struct CpuLoops {
    /// Threads that work.
    pub threads: usize,
    /// The instructions that they use.
    pub set: InstructionSet,
    /// How exactly products are computed; the CPU has no tiles of f16 and computes those in f32.
    pub precision: Precision,
}

/// The processor's name as the operating system gives it, or the architecture's.
pub fn processor_name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    model.map_or_else(|| std::env::consts::ARCH.to_string(), str::to_string)
}

/// Free bytes of main memory, where the operating system says.
pub fn free_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The number of threads where nothing else is asked for: the processor's cores.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
