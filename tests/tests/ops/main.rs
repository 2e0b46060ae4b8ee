//! Every kernel and every CPU loop against the f64 reference, each with its bound; and a check that the
//! bounds are tight enough to notice a wrong kernel.

mod attention;
mod experts;
mod linear;
mod others;
mod powers;

use engine::internals::check::probe::Probe;
use engine::internals::cpu::InstructionSet;
use engine::internals::gpu::choice::Kernels;
use engine::internals::gpu::{Gpu, Handicap};
use engine::{GpuOptions, Precision};
use engine_tests::devices::card;
use gguf::Format;
use std::sync::Arc;

/// Formats that most files are made of: all shapes in every tier, the others' kernels differ by their decoding alone.
const COMMON: [Format; 8] = [
    Format::F32,
    Format::F16,
    Format::Q4_0,
    Format::Q5_0,
    Format::Q8_0,
    Format::Q4_K,
    Format::Q6_K,
    Format::MXFP4,
];

/// Runs a probe on the CPU (each instruction set) and on the GPU (each kernels); answers the worst ratio.
fn check(name: &str, probe: &Probe, gpu: &Arc<Gpu>, kernels: &[Kernels]) -> f64 {
    let mut worst = 0f64;
    for set in InstructionSet::available() {
        let ratio = probe.worst(&probe.on_cpu(set, probe.precision).unwrap());
        assert!(ratio <= 1.0, "{name} on the CPU ({}): {ratio:.3} times its bound", set.name());
        worst = worst.max(ratio);
    }
    for kernels in kernels {
        let ratio = probe.worst(&probe.on_gpu(gpu, kernels).unwrap());
        assert!(ratio <= 1.0, "{name} on the GPU ({kernels:?}): {ratio:.3} times its bound");
        worst = worst.max(ratio);
    }
    worst
}

/// A device that binds no more than so many bytes at once.
fn small_bindings(bytes: u64) -> GpuOptions {
    let handicap = Handicap { max_binding_bytes: Some(bytes), ..Handicap::default() };
    GpuOptions { handicap, ..GpuOptions::default() }
}

/// What the adapter offers, the same without its optional features, and the kernels that a graphics card would get.
fn all_caps(gpu: &Gpu) -> Vec<Kernels> {
    let offered = gpu.kernels.clone();
    let plain = Kernels { subgroups: false, native_halves: false, ..offered.clone() };
    if !offered.subgroups {
        return vec![plain];
    }
    let card = card(&offered);
    vec![offered, plain, card]
}

/// The two that differ most, for what differs by its numbers alone: what the adapter offers, and a graphics card's.
fn two_caps(gpu: &Gpu) -> Vec<Kernels> {
    let mut kernels = all_caps(gpu);
    let last = kernels.pop();
    kernels.into_iter().take(1).chain(last).collect()
}

/// The same capabilities with another class of precision.
fn caps_of(gpu: &Gpu, precision: Precision) -> Vec<Kernels> {
    two_caps(gpu).iter().map(|kernels| Kernels { precision, ..kernels.clone() }).collect()
}
