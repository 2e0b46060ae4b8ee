//! Norm, rope and the cache, and attention over it.

use super::{all_caps, check};
use engine::internals::check::probe::{AttentionCase, Probe};
use engine::internals::gpu::choice::Kernels;
use engine::internals::plan::KvLayer;
use engine::internals::spec::rope::RopeStyle;
use engine::{GpuOptions, KvType};
use engine_tests::devices::{card, gpu};
use engine_tests::real::full_tier;

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
