//! Mixtures of experts.

use super::{COMMON, all_caps, caps_of, check, small_bindings};
use engine::internals::check::probe::{ExpertsCase, Probe};
use engine::internals::spec::{Activation, Gating, Routing};
use engine::{GpuOptions, Precision};
use engine_tests::devices::gpu;
use engine_tests::real::full_tier;
use gguf::Format;

/// The same with experts, whose tiles round.
#[test]
fn rounded_experts() {
    let gpu = gpu(&GpuOptions { cooperative: true, ..GpuOptions::default() });
    let routing = Routing {
        count: 8,
        used: 3,
        gating: Gating::Softmax,
        normalize: true,
        scale: 1.0,
        groups: 1,
        groups_used: 1,
    };
    for precision in [Precision::Int8, Precision::F16Tiles] {
        let (mut worst, mut rounded) = (0f64, 0);
        for &format in if full_tier() { Format::ALL } else { &COMMON } {
            // Few pairs of a token and an expert, and more than a tile of one expert: rows of whole pairs of groups, and others.
            let unit = format.block_size().max(32);
            for (columns, width, tokens) in
                [(3 * unit, unit, 3), (3 * unit, 2 * unit, 9), (2 * unit, 3 * unit, 300)]
            {
                let case = ExpertsCase {
                    format,
                    columns,
                    width,
                    tokens,
                    routing,
                    bias: tokens == 9,
                    activation: Activation::Silu,
                    fused: tokens == 9,
                    precision,
                };
                let probe = Probe::experts(&case).unwrap();
                let kernels = caps_of(&gpu, precision);
                let name = format!("{} {case:?}", precision.name());
                worst = worst.max(check(&name, &probe, &gpu, &kernels));
                let exact =
                    Probe::experts(&ExpertsCase { precision: Precision::F32, ..case }).unwrap();
                let ours = probe.on_gpu(&gpu, &kernels[kernels.len() - 1]).unwrap();
                let halves = precision == Precision::F16Tiles && gpu.kernels.cooperative;
                let may_round = tokens > 8 && (precision.rounds_inputs(format) || halves);
                let rounds = exact.worst(&ours) > 1.0;
                assert!(may_round || !rounds, "{name}: {}", exact.worst(&ours));
                rounded += usize::from(rounds);
            }
        }
        // Halves are for matrix units alone. (Of formats with small samples results are small beside their bound.)
        let rounds = precision == Precision::Int8 || gpu.kernels.cooperative;
        assert_eq!(rounded > 0, rounds, "{}", precision.name());
        assert!(worst > 0.05 || !rounds, "{}: the bound is loose: {worst}", precision.name());
        println!("{}: {worst:.3} of the bound", precision.name());
    }
}

/// Every way of choosing experts, with few tokens and many, gate and up together and fused, biases, and a matrix that does
/// not fit a binding.
#[test]
fn experts() {
    let gpu = gpu(&GpuOptions::default());
    let kernels = all_caps(&gpu);
    let plain = Routing {
        count: 8,
        used: 2,
        gating: Gating::Softmax,
        normalize: true,
        scale: 1.0,
        groups: 1,
        groups_used: 1,
    };
    let grouped = Routing { count: 32, used: 6, groups: 8, groups_used: 3, scale: 2.5, ..plain };
    let routings = [
        (plain, false, Activation::Silu),
        (Routing { normalize: false, used: 1, ..plain }, false, Activation::Gelu),
        (Routing { gating: Gating::Sigmoid, ..grouped }, true, Activation::Silu),
        (
            Routing { gating: Gating::SoftmaxOfChosen, normalize: false, ..grouped },
            true,
            Activation::ClampedSwiglu,
        ),
        (
            Routing { count: 130, used: 8, groups: 1, groups_used: 1, ..grouped },
            false,
            Activation::Silu,
        ),
    ];
    let mut worst = 0f64;
    for (index, (routing, bias, activation)) in routings.into_iter().enumerate() {
        for (tokens, fused) in [(1, false), (5, true), (9, true), (70, false)] {
            let format = [Format::Q8_0, Format::MXFP4, Format::F16][(index + tokens) % 3];
            // Rows of whole fours of groups, and others.
            let (columns, width) = [(96, 64), (256, 128)][index % 2];
            let precision = Precision::F32;
            let case = ExpertsCase {
                format,
                columns,
                width,
                tokens,
                routing,
                bias,
                activation,
                fused,
                precision,
            };
            let probe = Probe::experts(&case).unwrap();
            worst = worst.max(check(&format!("{case:?}"), &probe, &gpu, &kernels));
        }
    }
    println!("experts: {worst:.3} of the bound");
    let small = engine_tests::devices::gpu(&small_bindings(66 << 10));
    for tokens in [2, 36] {
        let case = ExpertsCase {
            format: Format::F16,
            columns: 96,
            width: 64,
            tokens,
            routing: plain,
            bias: true,
            activation: Activation::Silu,
            fused: tokens == 2,
            precision: Precision::F32,
        };
        let probe = Probe::experts(&case).unwrap();
        check(
            &format!("in pieces: {case:?}"),
            &probe,
            &small,
            std::slice::from_ref(&small.kernels),
        );
    }
}
