//! The smaller ops, which stand between the products.

use super::{all_caps, check, two_caps};
use engine::internals::check::probe::{OpCase, Probe};
use engine::internals::plan::Plan;
use engine::internals::spec::NormKind;
use engine::{GpuOptions, ModelFile};
use engine_tests::devices::gpu;
use engine_tests::golden::{Embedding, Tiny, embedding_names, tiny_names};
use gguf::Format;
use std::collections::BTreeMap;

/// The ops that stand between products, as the tiny models have them.
#[test]
fn the_other_ops_of_the_tiny_models() {
    let gpu = gpu(&GpuOptions::default());
    let mut cases: Vec<OpCase> = Vec::new();
    let models = tiny_names().into_iter().map(|name| Tiny::load(&name).path());
    let encoders = embedding_names().into_iter().map(|name| Embedding::load(&name).path());
    for path in models.chain(encoders) {
        let model = ModelFile::open(path).unwrap();
        let plan = Plan::new(&model, 64).unwrap();
        for op in &plan.ops {
            for case in [1, 5].iter().filter_map(|&tokens| OpCase::of(&plan, op, tokens)) {
                if !cases.contains(&case) {
                    cases.push(case);
                }
            }
        }
    }
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    for case in &cases {
        let probe = Probe::op(case).unwrap();
        let ratio = check(&case.name(), &probe, &gpu, &two_caps(&gpu));
        // A hundredth more would be noticed.
        let wrong: Vec<f32> = probe.expected.iter().map(|&x| x as f32 * 1.01).collect();
        assert!(probe.worst(&wrong) > 1.0, "the bound is too wide: {case:?}");
        let known = worst.entry(case.kind()).or_default();
        *known = known.max(ratio);
    }
    println!("{} cases, the worst of each in units of its bound: {worst:.3?}", cases.len());
    let kinds = [
        "add_gated",
        "add_row",
        "conv",
        "delta_net",
        "gate",
        "head_linear",
        "mamba2",
        "norm_parts",
        "scale",
        "softcap",
    ];
    assert_eq!(worst.keys().copied().collect::<Vec<_>>(), kinds);
}

#[test]
fn embeddings_and_norms() {
    let gpu = gpu(&GpuOptions::default());
    let kernels = all_caps(&gpu);
    for &format in Format::ALL {
        for (columns, rows, tokens) in [(256, 5, 1), (2304, 33, 17)] {
            let probe = Probe::embed(format, columns, rows, tokens).unwrap();
            check(&format!("embed {}", format.name()), &probe, &gpu, &kernels);
        }
    }
    let widths = [(32, 32, 1), (96, 96, 3), (576, 576, 9), (2048, 2048, 33), (8192, 8192, 2)];
    // Fewer numbers than the width, the others zeros.
    let padded = [(32, 5, 1), (64, 48, 3), (576, 545, 9)];
    for (width, count, tokens) in widths.into_iter().chain(padded) {
        for (kind, add) in [NormKind::Rms, NormKind::Layer]
            .into_iter()
            .flat_map(|kind| [(kind, false), (kind, true)])
        {
            let probe = Probe::norm((width, count), tokens, kind, add).unwrap();
            check(&format!("norm {count} of {width} {kind:?}"), &probe, &gpu, &kernels);
        }
    }
}
