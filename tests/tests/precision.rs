//! The precision classes that round, each by its own goldens: f16-tiles by the tolerance of an F16 cache, int8 by
//! llama.cpp's own distance from the exact computation.

use engine::GpuOptions;
use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::internals::cpu::InstructionSet;
use engine::internals::gpu::Gpu;
use engine::internals::gpu::choice::Kernels;
use engine::{Context, ContextOptions, Device, LoadOptions, Model};
use engine::{SequenceId, StepToken};
use engine_tests::devices::{cpu_context, cpu_device, gpu, gpu_context_with};
use engine_tests::golden::{Tiny, tiny_names, tolerance_f16_tiles};
use engine_tests::real::{
    Allowed, Distance, GEMMA3, RealModel, SMOLLM2, check_teacher_forced, full_tier,
};
use engine_tests::stepper::{Cut, check_sequence_within};

fn options(golden: &Tiny, kv: KvType) -> ContextOptions {
    ContextOptions {
        positions: Some(golden.n_ctx),
        sequences: golden.sequences.len(),
        key_type: kv,
        value_type: kv,
        ..ContextOptions::default()
    }
}

/// A card's kernels, which use tiles for prompts.
fn card(gpu: &Gpu, precision: Precision) -> Kernels {
    Kernels { precision, ..engine_tests::devices::card(&gpu.kernels) }
}

#[test]
fn f16_tiles_are_as_near_as_an_f16_cache() {
    let gpu = gpu(&GpuOptions::default());
    let kernels = card(&gpu, Precision::F16Tiles);
    for name in tiny_names() {
        let golden = Tiny::load(&name);
        let model = ModelFile::open(golden.path()).unwrap();
        let options = options(&golden, KvType::F32);
        let mut context = gpu_context_with(&gpu, &kernels, &model, &options);
        let mut worst = 0f64;
        for (index, sequence) in golden.sequences.iter().enumerate() {
            let place = (SequenceId(index as u32), Cut::Whole);
            let bound = tolerance_f16_tiles(&golden);
            let seen = check_sequence_within(&mut context, &golden, sequence, place, bound);
            worst = worst.max(seen / bound);
        }
        println!("{name}: {worst:.3} of the tolerance");
    }
}

/// Mean divergence and relative root mean square from the exact logits of the last positions.
fn distances(context: &mut Context, golden: &Tiny) -> (f64, f64) {
    let (mut divergence, mut squares, mut size) = (0.0, 0.0, 0.0);
    for (index, sequence) in golden.sequences.iter().enumerate() {
        let id = SequenceId(index as u32);
        let rows = context.step(&StepToken::run(id, 0, &sequence.ids, true)).unwrap();
        let ours: Vec<f64> = rows[rows.len() - 1].iter().map(|&x| f64::from(x)).collect();
        let (p, q) = (log_softmax(&sequence.last_logits), log_softmax(&ours));
        divergence += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        let pairs = ours.iter().zip(&sequence.last_logits);
        squares += pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        size += sequence.last_logits.iter().map(|b| b * b).sum::<f64>();
    }
    (divergence / golden.sequences.len() as f64, (squares / size).sqrt())
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::MIN, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
    logits.iter().map(|logit| logit - most - total.ln()).collect()
}

#[test]
fn int8_is_no_farther_from_exact_than_llama_cpp() {
    let gpu = gpu(&GpuOptions::default());
    let kernels = Kernels { precision: Precision::Int8, ..gpu.kernels.clone() };
    for name in tiny_names() {
        let golden = Tiny::load(&name);
        let Some(native) = &golden.tolerance.native_kvf32 else { continue };
        let model = ModelFile::open(golden.path()).unwrap();
        if !model.gguf.tensors.iter().any(|t| model.gguf.format(t).unwrap().has_codes()) {
            continue;
        }
        let options = options(&golden, KvType::F32);
        let mut places = vec![
            ("lanewise".to_string(), gpu_context_with(&gpu, &kernels, &model, &options)),
            ("card".into(), gpu_context_with(&gpu, &card(&gpu, Precision::Int8), &model, &options)),
        ];
        for set in InstructionSet::available() {
            let context = cpu_context(&model, &options, set, Precision::Int8);
            places.push((format!("CPU with {}", set.name()), context));
        }
        for (place, mut context) in places {
            let (divergence, rms) = distances(&mut context, &golden);
            println!(
                "{name} on {place}: KL {divergence:.2e} (llama.cpp {:.2e}), relative RMS {rms:.2e} ({:.2e})",
                native.kl_mean, native.rel_rms
            );
            // Models with recurrent layers compute in f32 in every class.
            let rounds = rms > 1e-4 || name.starts_with("qwen35");
            assert!(rounds, "{name} on {place}: nothing was rounded");
            assert!(divergence <= native.kl_mean, "{name} on {place}: {divergence}");
            assert!(rms <= native.rel_rms, "{name} on {place}: {rms}");
        }
    }
}

fn real(real: &RealModel, device: Device, precision: Precision, prompts: &[&str]) -> Distance {
    let golden = real.load();
    let context_options = ContextOptions {
        positions: Some(1024),
        key_type: KvType::F32,
        value_type: KvType::F32,
        ..ContextOptions::default()
    };
    let load = LoadOptions { precision, ..LoadOptions::from(context_options.clone()) };
    let model = Model::load(&[device], real.path(), &load).unwrap();
    let mut context = model.context(&context_options).unwrap();
    let mut distance = Distance::default();
    for prompt in &golden.prompts {
        if !full_tier() && !prompts.contains(&prompt.id.as_str()) {
            continue;
        }
        let allowed = match precision {
            Precision::Int8 => Allowed::anything(),
            _ => Allowed::f16_tiles(),
        };
        context.free(SequenceId(0));
        distance.add(check_teacher_forced(&mut context, prompt, SequenceId(0), &allowed));
    }
    let (ours, native) = (
        distance.ours_sum / distance.ours_count as f64,
        distance.native_sum / distance.native_count.max(1) as f64,
    );
    println!(
        "{} {} on {}: distance from exact: ours max {:.4} mean {ours:.5}, llama.cpp's default max {:.4} mean {native:.5}",
        real.golden,
        precision.name(),
        context.device_name(),
        distance.ours_max,
        distance.native_max,
    );
    if precision == Precision::Int8 {
        assert!(ours <= native, "{}: {ours} {native}", real.golden);
    }
    distance
}

const PROMPTS: [&str; 4] = ["plain_short", "json", "chat_special", "cjk"];

#[test]
fn int8_on_the_real_models() {
    for model in [SMOLLM2, GEMMA3] {
        real(&model, cpu_device(), Precision::Int8, &PROMPTS);
        let device = Device::Gpu(gpu(&GpuOptions::default()));
        real(&model, device, Precision::Int8, &PROMPTS[..2]);
    }
}

#[test]
fn f16_tiles_on_the_real_models() {
    for model in [SMOLLM2, GEMMA3] {
        let device = Device::Gpu(gpu(&GpuOptions::default()));
        real(&model, device, Precision::F16Tiles, &PROMPTS[..2]);
    }
}
