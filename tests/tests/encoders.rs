//! Embedding models against llama.cpp's vectors, on every executor.

use engine::GpuOptions;
use engine::KvType;
use engine::ModelFile;
use engine::internals::embed::embed;
use engine::internals::reference::Reference;
use engine::internals::spec::Pooling;
use engine::{ContextOptions, Device, LoadOptions, Model, Scheduler};
use engine::{SequenceId, StepToken};
use engine_tests::devices::{cpu_device, gpu};
use engine_tests::golden::{Embedding, embedding_names};

/// The cosine that every executor must reach.
const COSINE: f64 = 0.99999;

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn check(name: &str, executor: &str, ours: &[f64], golden: &[f64]) {
    assert_eq!(ours.len(), golden.len());
    let cosine = cosine(ours, golden);
    let worst = ours.iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!(
        "{name} on {executor}: 1 - cosine {:.1e}, largest difference {worst:.1e}",
        1.0 - cosine
    );
    assert!(cosine >= COSINE && worst < 1e-3, "{name} on {executor}: {cosine}, {worst}");
}

#[test]
fn encoders_equal_llama_cpp() {
    let names = embedding_names();
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        let golden = Embedding::load(&name);
        let file = ModelFile::open(golden.path()).unwrap();
        let pooling = file.spec.pooling.unwrap();
        for sequence in &golden.sequences {
            let mut reference =
                Reference::new(&file, golden.n_ctx, KvType::F32, KvType::F32).unwrap();
            let states = reference.step(&StepToken::run(SequenceId(0), 0, &sequence.ids, true));
            let pooled: Vec<f64> = match pooling {
                Pooling::First => states[0].clone(),
                Pooling::Last => states[states.len() - 1].clone(),
                Pooling::Mean => (0..states[0].len())
                    .map(|i| states.iter().map(|row| row[i]).sum::<f64>() / states.len() as f64)
                    .collect(),
            };
            check(&name, "reference", &pooled, &sequence.embedding);
        }
        let context = ContextOptions {
            positions: Some(golden.n_ctx),
            key_type: KvType::F32,
            value_type: KvType::F32,
            ..ContextOptions::default()
        };
        let gpu = Device::Gpu(gpu(&GpuOptions::default()));
        for device in [gpu, cpu_device()] {
            let model = Model::load(
                std::slice::from_ref(&device),
                golden.path(),
                &LoadOptions::from(context.clone()),
            )
            .unwrap();
            let scheduler = Scheduler::start(&model, &context).unwrap();
            for sequence in &golden.sequences {
                let ours = embed(&scheduler, &sequence.ids).unwrap();
                let ours: Vec<f64> = ours.into_iter().map(f64::from).collect();
                check(&name, &device.name(), &ours, &sequence.embedding);
            }
        }
    }
}
