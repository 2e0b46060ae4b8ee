//! Models of odd widths, and decoders without a causal mask, made from seeds: the reference, the CPU and the GPU against
//! what llama.cpp computes of the same files.

use std::sync::Arc;

use engine::GpuOptions;
use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::internals::cpu::InstructionSet;
use engine::internals::embed::embed;
use engine::internals::reference::{Reference, multiply};
use engine::internals::select::log_softmax;
use engine::internals::spec::weights::read_f32;
use engine::internals::spec::{Activation, Pooling};
use engine::{ContextOptions, Device, LoadOptions, Model, Scheduler};
use engine::{SequenceId, StepToken};
use engine_tests::devices::{cpu_context, cpu_device, gpu, gpu_context};
use engine_tests::made::{Made, Recipe, Widths, golden};
use gguf::{Array, BytesSource, Format, Gguf, Value};

/// Positions of every context here.
const CELLS: usize = 64;
/// How far a log-probability may be off, and a number of a vector: llama.cpp's own are in f32 and kept to 5 digits.
const TOLERANCE: f64 = 1e-4;
/// The same where llama.cpp looks GELU up in a table of halves, whose steps are 2^-11 of a number: the reference in f64 is
/// as far from it as the others.
const TOLERANCE_OF_TABLE: f64 = 5e-3;

fn u32s(n: u32) -> Value {
    Value::U32(n)
}

/// Widths that are no multiples of 32, of an architecture of each kind.
fn odd() -> Vec<Recipe> {
    let none = Widths::default();
    let with = |embedding, heads, head, hidden| Widths {
        embedding,
        heads: Some(heads),
        head: Some(head),
        hidden: Some(hidden),
        ..none
    };
    let experts =
        |widths: Widths, expert, shared| Widths { expert: Some(expert), shared, ..widths };
    let latent = |heads, ranks, latent, (hidden, shared)| Widths {
        embedding: 56,
        heads: Some((heads, 1)),
        ranks: Some(ranks),
        latent: Some(latent),
        hidden: Some(hidden),
        expert: Some(20),
        shared: Some(shared),
        ..none
    };
    let turned = |n| u32s(n);
    vec![
        Recipe::new("llama-48", "llama", Format::F16, with(48, (4, 2), (12, 12), 172))
            .key("rope.dimension_count", turned(12)),
        Recipe::new("llama-40-bf16", "llama", Format::BF16, with(40, (2, 1), (20, 20), 36))
            .key("rope.dimension_count", turned(20)),
        Recipe::new("llama-36-f32", "llama", Format::F32, with(36, (3, 1), (12, 12), 68))
            .key("rope.dimension_count", turned(12)),
        // 8 heads of 30.
        Recipe::new("qwen3-8x30", "qwen3", Format::F16, with(60, (8, 2), (30, 30), 44))
            .key("rope.dimension_count", turned(30)),
        Recipe::new("qwen3-80", "qwen3", Format::F16, with(80, (3, 1), (80, 80), 100))
            .key("rope.dimension_count", turned(80)),
        Recipe::new("qwen3-14", "qwen3", Format::F16, with(44, (2, 2), (14, 14), 50))
            .key("rope.dimension_count", turned(14)),
        Recipe::new("gemma3-40", "gemma3", Format::F16, with(40, (4, 1), (20, 20), 36))
            .key("rope.dimension_count", turned(20)),
        // q of 8 x (20 + 10) = 240.
        Recipe::new(
            "deepseek2-240",
            "deepseek2-lite",
            Format::F16,
            latent(8, (0, 24), (20, 10, 12), (52, 40)),
        )
        .key("expert_shared_count", u32s(2)),
        Recipe::new(
            "deepseek2-ranks",
            "deepseek2-v3",
            Format::F16,
            latent(6, (20, 28), (12, 6, 20), (44, 20)),
        ),
        Recipe::new("bert-48", "bert", Format::F16, with(48, (4, 4), (12, 12), 70)),
        Recipe::new("nomic-bert-48", "nomic-bert", Format::F32, with(48, (4, 4), (12, 12), 50))
            .key("rope.dimension_count", turned(12)),
        Recipe::new(
            "gpt-oss-48",
            "gpt-oss",
            Format::F16,
            experts(with(48, (4, 2), (12, 12), 40), 20, None),
        )
        .key("rope.dimension_count", turned(12)),
        Recipe::new("phi2-44", "phi2", Format::F16, with(44, (2, 2), (22, 22), 50))
            .key("rope.dimension_count", turned(10)),
        Recipe::new("olmo2-44", "olmo2", Format::F16, with(44, (2, 1), (22, 22), 50))
            .key("rope.dimension_count", turned(22)),
        Recipe::new("command-r-44", "command-r", Format::F16, with(44, (2, 1), (22, 22), 50))
            .key("rope.dimension_count", turned(22)),
        Recipe::new("starcoder2-44", "starcoder2", Format::F16, with(44, (2, 1), (22, 22), 50))
            .key("rope.dimension_count", turned(22)),
        Recipe::new("glm4-44", "glm4", Format::F16, with(44, (2, 1), (22, 22), 50))
            .key("rope.dimension_count", turned(10)),
        Recipe::new(
            "qwen2moe-44",
            "qwen2moe",
            Format::F16,
            experts(with(44, (2, 1), (22, 22), 50), 20, Some(12)),
        )
        .key("rope.dimension_count", turned(22)),
        Recipe::new(
            "gemma4-44",
            "gemma4",
            Format::F16,
            Widths { embedding: 44, layer_input: Some(10), ..none },
        ),
        Recipe::new(
            "gemma4-moe-44",
            "gemma4-moe",
            Format::F16,
            Widths { embedding: 44, hidden: Some(50), expert: Some(20), ..none },
        ),
        Recipe::new("lfm2-44", "lfm2", Format::F16, with(44, (2, 1), (22, 22), 50))
            .key("rope.dimension_count", turned(22))
            .key("attention.head_count_kv", Value::Array(Array::I32(vec![0, 1, 0]))),
        Recipe::new("falcon-h1-44", "falcon-h1", Format::F16, with(44, (2, 1), (22, 22), 50))
            .key("rope.dimension_count", turned(22)),
        Recipe::new("mamba2-44", "mamba2", Format::F16, Widths { embedding: 44, ..none }),
        Recipe::new(
            "qwen35-44",
            "qwen35",
            Format::F16,
            Widths { embedding: 44, hidden: Some(50), ..none },
        ),
    ]
}

/// Decoders whose tokens see later ones.
fn unmasked() -> Vec<Recipe> {
    let no = || Value::Bool(false);
    let of = |name, base| {
        Recipe::new(name, base, Format::F16, Widths { embedding: 128, ..Widths::default() })
            .key("attention.causal", no())
    };
    vec![
        of("all-llama-mean", "llama").key("pooling_type", u32s(1)),
        of("all-qwen2-last", "qwen2").key("pooling_type", u32s(3)),
        of("all-qwen3-first", "qwen3").key("pooling_type", u32s(2)),
        of("all-phi2-mean", "phi2").key("pooling_type", u32s(1)),
        // A window still hides what is before it.
        of("all-gemma3-window", "gemma3")
            .key("pooling_type", u32s(1))
            .key("attention.sliding_window", u32s(3)),
        // A layer behind the pooling.
        of("all-lfm2-dense", "lfm2")
            .key("pooling_type", u32s(1))
            .tensor("dense_2.weight", &[128, 128], true)
            .tensor("dense_2.bias", &[128], false),
        // Convolutions see later tokens as well.
        of("all-lfm2-last", "lfm2").key("pooling_type", u32s(3)),
        of("all-lfm2-first", "lfm2").key("pooling_type", u32s(2)),
        // Encoders never have a mask.
        of("all-bert-last", "bert").key("pooling_type", u32s(3)),
        of("all-nomic-bert-last", "nomic-bert").key("pooling_type", u32s(3)),
        // Without pooling it gives logits, of a text that sees itself whole.
        of("all-llama-logits", "llama"),
        of("all-gpt-oss-logits", "gpt-oss").key("attention.sliding_window", u32s(3)),
    ]
}

fn open(recipe: &Recipe) -> ModelFile {
    let source = Arc::new(BytesSource::new(recipe.name, recipe.file(recipe.format)));
    let file = Gguf::from_sources(vec![source]).unwrap();
    ModelFile::from_gguf(file).unwrap_or_else(|error| panic!("{}: {error}", recipe.name))
}

fn check((name, model): (&str, &ModelFile), executor: &str, ours: &[f64], golden: &[f64]) {
    let table = model.spec.activation == Activation::Gelu;
    let tolerance = if table { TOLERANCE_OF_TABLE } else { TOLERANCE };
    assert_eq!(ours.len(), golden.len(), "{name} on {executor}");
    let worst = ours.iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{name} on {executor}: largest difference {worst:.1e}");
    assert!(worst < tolerance, "{name} on {executor}: {worst}");
}

/// Executors are as near to the reference as llama.cpp is where no table comes between.
fn near(name: &str, executor: &str, ours: &[f64], reference: &[f64]) {
    let worst = ours.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < TOLERANCE, "{name} on {executor}: {worst} from the reference");
}

fn log_probabilities(logits: impl Iterator<Item = f64>) -> Vec<f64> {
    let logits: Vec<f32> = logits.map(|x| x as f32).collect();
    log_softmax(&logits)
}

fn check_logits(name: &str, model: &ModelFile, golden: &Made) {
    let tokens = StepToken::run(SequenceId(0), 0, &golden.ids, false);
    let mut reference = Reference::new(model, CELLS, KvType::F32, KvType::F32).unwrap();
    let rows = reference.step(&tokens);
    let of_reference = log_probabilities(rows[0].iter().copied());
    check((name, model), "reference", &of_reference, &golden.logits);
    let options = options();
    let cpu = cpu_context(model, &options, InstructionSet::detect(), Precision::F32);
    let gpu = gpu(&GpuOptions::default());
    for mut context in [cpu, gpu_context(&gpu, model, &options)] {
        let rows = context.step(&tokens).unwrap();
        let ours = log_probabilities(rows[0].iter().map(|&x| f64::from(x)));
        check((name, model), &context.device_name(), &ours, &golden.logits);
        near(name, &context.device_name(), &ours, &of_reference);
        // Token by token, where those before are all that is seen.
        if !model.spec.sees_ahead() {
            context.free(SequenceId(0));
            let mut last = Vec::new();
            for token in &tokens {
                last = context.step(std::slice::from_ref(token)).unwrap();
            }
            let ours = log_probabilities(last[0].iter().map(|&x| f64::from(x)));
            check((name, model), "the same, token by token", &ours, &golden.logits);
            near(name, "the same, token by token", &ours, &of_reference);
        }
    }
}

fn check_vector(name: &str, file: &ModelFile, golden: &Made) {
    let mut reference = Reference::new(file, CELLS, KvType::F32, KvType::F32).unwrap();
    let states = reference.step(&StepToken::run(SequenceId(0), 0, &golden.ids, true));
    let numbers = file.spec.embedding_numbers;
    let pooled: Vec<f64> = match file.spec.pooling.unwrap() {
        Pooling::First => states[0][..numbers].to_vec(),
        Pooling::Last => states[states.len() - 1][..numbers].to_vec(),
        Pooling::Mean => (0..numbers)
            .map(|i| states.iter().map(|row| row[i]).sum::<f64>() / states.len() as f64)
            .collect(),
    };
    let pooled = behind_the_pooling(file, pooled);
    check((name, file), "reference", &pooled, &golden.vector);
    for device in [cpu_device(), Device::Gpu(gpu(&GpuOptions::default()))] {
        let load = LoadOptions::from(options());
        let devices = std::slice::from_ref(&device);
        let model = Model::load_file(devices, file.clone(), &load, &mut |_, _| ()).unwrap();
        let scheduler = Scheduler::start(&model, &options()).unwrap();
        let ours = embed(&scheduler, &golden.ids).unwrap();
        let ours: Vec<f64> = ours.into_iter().map(f64::from).collect();
        check((name, file), &device.name(), &ours, &golden.vector);
        near(name, &device.name(), &ours, &pooled);
    }
}

/// A vector through the layer that some files have behind the pooling, in f64.
fn behind_the_pooling(file: &ModelFile, vector: Vec<f64>) -> Vec<f64> {
    if file.gguf.tensor("dense_2.weight").is_none() {
        return vector;
    }
    let matrix = read_f32(&file.gguf, "dense_2.weight").unwrap();
    let bias = read_f32(&file.gguf, "dense_2.bias").unwrap();
    multiply(&matrix, &vector, 1.0, Some(&bias))
}

fn options() -> ContextOptions {
    ContextOptions {
        positions: Some(CELLS),
        key_type: KvType::F32,
        value_type: KvType::F32,
        ..ContextOptions::default()
    }
}

fn check_all(recipes: Vec<Recipe>) {
    if let Some(folder) = std::env::var_os("ENGINE_TEST_WRITE_MADE") {
        for recipe in recipes {
            let path = std::path::Path::new(&folder).join(format!("{}.gguf", recipe.name));
            std::fs::write(path, recipe.file(Format::F32)).unwrap();
        }
        return;
    }
    for recipe in recipes {
        let (model, golden) = (open(&recipe), golden(recipe.name));
        if golden.vector.is_empty() {
            check_logits(recipe.name, &model, &golden);
        } else {
            check_vector(recipe.name, &model, &golden);
        }
    }
}

#[test]
fn odd_widths_equal_llama_cpp() {
    check_all(odd());
}

#[test]
fn decoders_without_a_causal_mask_equal_llama_cpp() {
    check_all(unmasked());
}
