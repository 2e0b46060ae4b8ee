//! Products, in every format, shape and class.

use super::{COMMON, all_caps, caps_of, check, small_bindings, two_caps};
use engine::internals::check::probe::{LinearCase, Probe};
use engine::internals::cpu::InstructionSet;
use engine::internals::gpu::choice::{Adapter, Count, Kernels, ProductKernel, ProductShape};
use engine::internals::plan::{Epilogue, ValueId};
use engine::internals::spec::Activation;
use engine::{GpuOptions, Precision};
use engine_tests::devices::gpu;
use engine_tests::real::full_tier;
use gguf::Format;

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
