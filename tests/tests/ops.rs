//! Every kernel and every CPU loop against the f64 reference, each with its bound; and a check that the
//! bounds are tight enough to notice a wrong kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::GpuOptions;
use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::internals::check::probe::{AttentionCase, ExpertsCase, LinearCase, OpCase, Probe};
use engine::internals::cpu::InstructionSet;
use engine::internals::gpu::choice::{Adapter, Count, Kernels, ProductKernel, ProductShape};
use engine::internals::gpu::{Gpu, Handicap};
use engine::internals::plan::{Epilogue, KvLayer, Plan, ValueId};
use engine::internals::spec::rope::RopeStyle;
use engine::internals::spec::{Activation, Gating, NormKind, Routing};
use engine_tests::devices::{card, gpu};
use engine_tests::golden::{Embedding, Tiny, embedding_names, tiny_names};
use engine_tests::real::full_tier;
use gguf::Format;

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

fn gated(activation: Activation) -> Epilogue {
    Epilogue::Gated { activation, both: ValueId(2) }
}

/// Columns, rows and tokens: 1, odd, around a tile, long enough that every loop wraps, real ones.
fn shapes(format: Format) -> Vec<(usize, usize, usize)> {
    let unit = format.block_size().max(32);
    let mut shapes = vec![
        (unit, 2, 1),
        (3 * unit, 7, 3),
        (2304, 65, 1),
        (2304, 65, 8),
        (unit, 63, 9),
        (768, 64, 31),
        (2304, 129, 33),
    ];
    if full_tier() {
        shapes.extend([(4096, 96, 2), (768, 1000, 65), (2048, 640, 1), (1536, 576, 100)]);
    } else if !COMMON.contains(&format) {
        shapes.retain(|shape| matches!(shape, (2304, 65, 8) | (2304, 129, 33)) || shape.2 == 1);
    }
    shapes
}

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

#[test]
fn linear() {
    let gpu = gpu(&GpuOptions::default());
    for &format in Format::ALL {
        let all = full_tier() || COMMON.contains(&format);
        let kernels = if all { all_caps(&gpu) } else { two_caps(&gpu) };
        let mut worst = 0f64;
        for (columns, rows, tokens) in shapes(format) {
            let plain = LinearCase {
                weights: vec![(format, rows)],
                columns,
                tokens,
                bias: false,
                epilogue: Epilogue::Store,
                norm: false,
                precision: Precision::F32,
            };
            let name = format!("{} {columns}x{rows}x{tokens}", format.name());
            let probe = Probe::linear(&plain).unwrap();
            worst = worst.max(check(&name, &probe, &gpu, &kernels));
            // The rest once per format, with the smaller shapes.
            let rest = (columns, tokens) == (2304, 8) || (columns, tokens) == (768, 31);
            if rest && (full_tier() || COMMON.contains(&format)) {
                let kernels = if full_tier() { all_caps(&gpu) } else { two_caps(&gpu) };
                for (bias, epilogue, norm) in [
                    (true, Epilogue::Store, true),
                    (false, Epilogue::AddTo, false),
                    (true, gated(Activation::Silu), false),
                    (false, gated(Activation::Gelu), true),
                ] {
                    let weights = match epilogue {
                        Epilogue::Gated { .. } => vec![(format, rows), (format, rows)],
                        _ => vec![(format, rows)],
                    };
                    let case = LinearCase { weights, bias, epilogue, norm, ..plain.clone() };
                    let name = format!("{name} bias {bias} {epilogue:?}");
                    worst = worst.max(check(&name, &Probe::linear(&case).unwrap(), &gpu, &kernels));
                }
            }
        }
        println!("{}: {worst:.3} of the bound", format.name());
    }
}

/// Every kernel in every shape that `engine tune` may choose, for a format of codes and one of floats.
#[test]
fn every_shape_of_a_kernel() {
    let gpu = gpu(&GpuOptions::default());
    let mut worst = 0f64;
    let mut count = 0;
    for (format, epilogue, norm) in [
        (Format::Q4_K, Epilogue::Store, true),
        (Format::Q6_K, gated(Activation::Silu), true),
        (Format::F16, Epilogue::AddTo, false),
    ] {
        for tokens in [1, 5, 12] {
            let parts = if matches!(epilogue, Epilogue::Gated { .. }) { 2 } else { 1 };
            let (columns, rows) = (512, 37);
            let weights = vec![(format, rows); parts];
            let precision = Precision::F32;
            let case =
                LinearCase { weights, columns, tokens, bias: true, epilogue, norm, precision };
            let probe = Probe::linear(&case).unwrap();
            let shape = ProductShape {
                format,
                rows: rows * parts,
                columns,
                gated: parts == 2,
                count: Count::of(tokens),
            };
            let mut kernels = gpu.kernels.candidates(&shape);
            if !full_tier() {
                // Compiling takes the time: every fifth, others for each number of tokens.
                let keep = |index: &usize| index % 5 == tokens % 5;
                kernels = (0..kernels.len()).filter(keep).map(|index| kernels[index]).collect();
            }
            for kernel in kernels {
                let kernels = Kernels { forced: Some(kernel), ..gpu.kernels.clone() };
                let ratio = probe.worst(&probe.on_gpu(&gpu, &kernels).unwrap());
                assert!(ratio <= 1.0, "{kernel:?}, {tokens} tokens: {ratio:.3} times its bound");
                worst = worst.max(ratio);
                count += 1;
            }
        }
    }
    println!("{count} kernels: {worst:.3} of the bound");
}

/// The same capabilities with another class of precision.
fn caps_of(gpu: &Gpu, precision: Precision) -> Vec<Kernels> {
    two_caps(gpu).iter().map(|kernels| Kernels { precision, ..kernels.clone() }).collect()
}

/// The classes that round: each product within what its roundings allow, and not as exact as f32.
#[test]
fn rounded_products() {
    let gpu = gpu(&GpuOptions { cooperative: true, ..GpuOptions::default() });
    for precision in [Precision::Int8, Precision::F16Tiles] {
        let mut worst = 0f64;
        for &format in Format::ALL {
            // One token, few and many have kernels of their own.
            let all = full_tier() || COMMON.contains(&format);
            for &tokens in if all { &[1, 3, 11, 40][..] } else { &[3, 40] } {
                let (columns, rows) = (512, 37);
                let case = LinearCase {
                    weights: vec![(format, rows)],
                    columns,
                    tokens,
                    bias: true,
                    epilogue: Epilogue::Store,
                    norm: tokens == 3,
                    precision,
                };
                let probe = Probe::linear(&case).unwrap();
                let kernels = caps_of(&gpu, precision);
                let name = format!("{} {} x {tokens}", precision.name(), format.name());
                worst = worst.max(check(&name, &probe, &gpu, &kernels));
                // The bound is no blank cheque: f32 is well inside it where rounding takes place.
                let exact =
                    Probe::linear(&LinearCase { precision: Precision::F32, ..case }).unwrap();
                let ours = probe.on_gpu(&gpu, &kernels[kernels.len() - 1]).unwrap();
                let halves = precision == Precision::F16Tiles && gpu.kernels.cooperative;
                let rounds = precision.rounds_inputs(format) || tokens > 8 && halves;
                assert_eq!(exact.worst(&ours) > 1.0, rounds, "{name}: {}", exact.worst(&ours));
            }
        }
        // Halves are for matrix units alone.
        let loose = worst <= 0.05 && (precision == Precision::Int8 || gpu.kernels.cooperative);
        assert!(!loose, "{}: the bound is loose: {worst}", precision.name());
        println!("{}: {worst:.3} of the bound", precision.name());
    }
}

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

/// Tiles whose rows and tokens end within one, in grids whose rows of workgroups go on in z.
#[test]
fn tiles_with_tails() {
    let gpu = gpu(&GpuOptions::default());
    let mut worst = 0f64;
    for (tile, rows, tokens) in [(32, 1, 9), (32, 130, 63), (64, 65, 65), (64, 200, 127)] {
        for (format, precision) in [(Format::F32, Precision::F32), (Format::Q4_K, Precision::Int8)]
        {
            let case = LinearCase {
                weights: vec![(format, rows)],
                columns: 512,
                tokens,
                bias: true,
                epilogue: if tile == 32 { Epilogue::AddTo } else { Epilogue::Store },
                norm: false,
                precision,
            };
            let forced = Some(ProductKernel::Matmul { tokens: tile });
            let adapter = Adapter { max_workgroups: 2, ..gpu.kernels.adapter };
            let kernels = Kernels { adapter, forced, precision, ..gpu.kernels.clone() };
            let probe = Probe::linear(&case).unwrap();
            let ratio = probe.worst(&probe.on_gpu(&gpu, &kernels).unwrap());
            assert!(ratio <= 1.0, "{case:?} in tiles of {tile}: {ratio:.3} times its bound");
            worst = worst.max(ratio);
        }
    }
    println!("tiles: {worst:.3} of the bound");
}

/// q, k and v of one format lie in one buffer, of different formats in several.
#[test]
fn several_weights_at_once() {
    let gpu = gpu(&GpuOptions::default());
    for formats in [[Format::Q4_K; 3], [Format::Q4_K, Format::Q4_K, Format::Q6_K]] {
        for tokens in [1, 20] {
            let rows = [96, 32, 64];
            let case = LinearCase {
                weights: formats.into_iter().zip(rows).collect(),
                columns: 512,
                tokens,
                bias: true,
                epilogue: Epilogue::Store,
                norm: false,
                precision: Precision::F32,
            };
            check("qkv", &Probe::linear(&case).unwrap(), &gpu, &all_caps(&gpu));
            let case = LinearCase {
                weights: vec![(formats[1], 96), (formats[2], 96)],
                epilogue: gated(Activation::Silu),
                ..case
            };
            check("gate and up", &Probe::linear(&case).unwrap(), &gpu, &all_caps(&gpu));
        }
    }
}

/// A device that binds little: matrices come in pieces.
#[test]
fn matrices_larger_than_a_binding() {
    let gpu = gpu(&small_bindings(100 << 10));
    for format in [Format::Q4_0, Format::Q6_K, Format::F32] {
        for tokens in [1, 12] {
            let case = LinearCase {
                weights: vec![(format, 800)],
                columns: 256,
                tokens,
                bias: true,
                epilogue: Epilogue::Store,
                norm: false,
                precision: Precision::F32,
            };
            check("pieces", &Probe::linear(&case).unwrap(), &gpu, &all_caps(&gpu));
        }
        let probe = Probe::embed(format, 256, 800, 50).unwrap();
        check("embeddings in pieces", &probe, &gpu, &all_caps(&gpu));
    }
}

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

/// Products in some columns of a value that is read later too: it is copied first, its other columns stay.
#[test]
fn products_in_part_of_a_value() {
    let gpu = gpu(&GpuOptions::default());
    let kernels = two_caps(&gpu);
    for format in [Format::Q4_0, Format::Q6_K, Format::F16] {
        for tokens in [1, 5, 40] {
            for epilogue in
                [Epilogue::Store, Epilogue::AddTo, Epilogue::Activated(Activation::Silu)]
            {
                let probe = Probe::linear_in_part((format, 40, 512), tokens, epilogue).unwrap();
                let name = format!("{} x {tokens}, {epilogue:?}", format.name());
                check(&name, &probe, &gpu, &kernels);
            }
        }
    }
}

/// Dropping a block of a row, or one block's scale times 1.001, must not pass.
#[test]
fn the_bounds_notice_a_wrong_kernel() {
    let gpu = gpu(&GpuOptions::default());
    for &format in Format::ALL {
        let columns = 4 * format.block_size().max(32);
        for tokens in [1, 12] {
            let case = LinearCase {
                weights: vec![(format, 40)],
                columns,
                tokens,
                bias: false,
                epilogue: Epilogue::Store,
                norm: false,
                precision: Precision::F32,
            };
            let probe = Probe::linear(&case).unwrap();
            let ours = probe.on_gpu(&gpu, &gpu.kernels).unwrap();
            let cpu = probe.on_cpu(InstructionSet::detect(), Precision::F32).unwrap();
            let block = format.block_size().max(32);
            // Random scales include tiny ones: change the block that matters most in the first row.
            let largest = |w: &mut [f32]| {
                let weight =
                    |b: &usize| w[b * block..][..block].iter().map(|w| w.abs()).sum::<f32>();
                let best = (0..columns / block).max_by(|a, b| weight(a).total_cmp(&weight(b)));
                best.unwrap() * block
            };
            let dropped = probe
                .with_changed_weight(|w| {
                    let at = largest(w);
                    w[at..at + block].fill(0.0);
                })
                .unwrap();
            let scaled = probe
                .with_changed_weight(|w| {
                    let at = largest(w);
                    w[at..at + block].iter_mut().for_each(|w| *w *= 1.001);
                })
                .unwrap();
            for (name, wrong) in [("dropped", dropped), ("scaled", scaled)] {
                for ours in [&ours, &cpu] {
                    let ratio = wrong.worst(ours);
                    assert!(ratio > 1.0, "{} {name}: only {ratio:.3} of the bound", format.name());
                }
            }
        }
    }
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

fn layer(heads: usize, kv_heads: usize, length: usize, window: Option<usize>) -> KvLayer {
    KvLayer { heads, kv_heads, key_length: length, value_length: length, window }
}

#[test]
fn attention_with_rope_and_norm() {
    let gpu = gpu(&GpuOptions::default());
    let kernels = all_caps(&gpu);
    let cases = [
        (layer(1, 1, 32, None), 1, RopeStyle::Interleaved, 32, false),
        (layer(4, 2, 32, None), 31, RopeStyle::Halves, 16, true),
        (layer(9, 3, 64, None), 70, RopeStyle::Interleaved, 64, false),
        (layer(4, 1, 256, Some(24)), 130, RopeStyle::Halves, 256, true),
        (layer(2, 2, 96, Some(64)), 65, RopeStyle::Halves, 96, false),
        (
            KvLayer { heads: 4, kv_heads: 2, key_length: 64, value_length: 32, window: None },
            40,
            RopeStyle::Interleaved,
            64,
            true,
        ),
    ];
    for (layer, tokens, style, turned, qk_norm) in cases {
        for (key_type, value_type) in [
            (KvType::F32, KvType::F32),
            (KvType::F16, KvType::F16),
            (KvType::F16, KvType::F32),
            (KvType::F32, KvType::F16),
            (KvType::Bf16, KvType::Bf16),
            (KvType::Q8_0, KvType::Q4_0),
            (KvType::Q4_0, KvType::Q8_0),
        ] {
            let case = AttentionCase {
                layer,
                tokens,
                history: 0,
                style,
                turned,
                qk_norm,
                v_apart: tokens % 2 == 0,
                key_type,
                value_type,
                scale: 1.0 / (layer.key_length as f32).sqrt(),
                softcap: (tokens % 3 == 1).then_some(0.5),
                sinks: tokens % 2 == 1,
            };
            let name = format!("attention {case:?}");
            check(&name, &Probe::attention(&case).unwrap(), &gpu, &kernels[..1]);
        }
    }
}

/// A token far into a sequence: many cells, and angles of far positions; the cells in one part and in several.
#[test]
fn attention_over_long_histories() {
    let gpu = gpu(&GpuOptions::default());
    let whole = Kernels { split_from: u32::MAX, ..gpu.kernels.clone() };
    let kernels = [
        whole.clone(),
        Kernels { split_from: 1, ..gpu.kernels.clone() },
        Kernels { split_from: 1, subgroups: false, ..card(&whole) },
    ];
    let cases = [
        (layer(2, 1, 32, None), 0),
        (layer(2, 1, 32, None), 30),
        (layer(4, 2, 64, None), 4096),
        (layer(2, 1, 32, None), 32_768),
        (layer(8, 2, 256, None), 200),
        (layer(9, 3, 64, Some(700)), 1000),
        // The window keeps the reference quick where only the angles are far.
        (layer(2, 1, 64, Some(100)), 131_071),
        (layer(2, 1, 64, Some(100)), 65_535),
    ];
    for (layer, history) in cases {
        for (kv, style) in [(KvType::F32, RopeStyle::Interleaved), (KvType::F16, RopeStyle::Halves)]
        {
            let case = AttentionCase {
                layer,
                tokens: 1,
                history,
                style,
                turned: layer.key_length,
                qk_norm: false,
                v_apart: kv == KvType::F16,
                key_type: kv,
                value_type: kv,
                scale: 1.0 / (layer.key_length as f32).sqrt(),
                softcap: None,
                sinks: true,
            };
            let ratio =
                check(&format!("{case:?}"), &Probe::attention(&case).unwrap(), &gpu, &kernels);
            println!("{history} positions, {}: {ratio:.3} of the bound", kv.name());
        }
    }
}

/// Contexts that end around the end of a block, of two blocks (from where on cards split them) and far on: in one part, in
/// a software driver's few, in a card's 64, most of which may be empty.
#[test]
fn attention_in_parts() {
    let gpu = gpu(&GpuOptions::default());
    let whole = Kernels { split_from: u32::MAX, ..gpu.kernels.clone() };
    let kernels = [
        whole.clone(),
        Kernels { split_from: 0, ..gpu.kernels.clone() },
        Kernels { split_from: 0, unrolls: true, subgroups: false, ..card(&whole) },
    ];
    let (f32, f16, bf16) = (KvType::F32, KvType::F16, KvType::Bf16);
    let (q8_0, q4_0) = (KvType::Q8_0, KvType::Q4_0);
    // Key heads, heads of a key head, elements, window, types of keys and values, softcap and sinks.
    let shapes = [
        (1, 4, 64, None, (f32, f32), false),
        (2, 1, 80, None, (f16, f16), true),
        (8, 1, 64, Some(100), (f32, f32), true),
        (1, 7, 96, None, (q8_0, q8_0), false),
        (2, 4, 128, None, (f16, f32), false),
        (1, 8, 128, Some(65), (bf16, q4_0), false),
        (1, 4, 256, None, (f32, f16), true),
        (1, 2, 512, None, (q4_0, bf16), false),
        (1, 4, 512, None, (f16, f32), false),
        (8, 2, 128, None, (q8_0, f32), true),
    ];
    let mut worst = 0f64;
    for (index, (kv_heads, per_kv, length, window, types, both)) in shapes.into_iter().enumerate() {
        // A software driver takes long to compile what is unrolled.
        if !full_tier() && index % 2 == 1 {
            continue;
        }
        // (positions before, tokens): one token, a few, many.
        let mut steps =
            vec![(0, 1), (62, 1), (63, 1), (126, 1), (127, 1), (128, 1), (125, 5), (100, 30)];
        if index == 0 || full_tier() {
            steps.push((4096, 1));
            steps.push((4090, 2));
        }
        if (full_tier() && kv_heads * per_kv * length <= 1024) || index == 0 {
            steps.push((32_768, 1));
        }
        for (history, tokens) in steps {
            let case = AttentionCase {
                layer: layer(kv_heads * per_kv, kv_heads, length, window),
                tokens,
                history,
                style: RopeStyle::Halves,
                turned: length,
                qk_norm: false,
                v_apart: tokens == 1,
                key_type: types.0,
                value_type: types.1,
                scale: 1.0 / (length as f32).sqrt(),
                softcap: both.then_some(0.5),
                sinks: both,
            };
            let probe = Probe::attention(&case).unwrap();
            worst = worst.max(check(&format!("{case:?}"), &probe, &gpu, &kernels));
        }
    }
    println!("{worst:.3} of the bound at the worst");
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
