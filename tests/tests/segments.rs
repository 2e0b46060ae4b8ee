//! Plans cut into segments for several devices, and tokens that are given as rows: as if computed whole, from ids.

use std::sync::Arc;

use engine::internals::blueprint::Blueprint;
use engine::internals::cpu::{CpuExecutor, CpuLoops, CpuWeights, InstructionSet};
use engine::internals::executor::Executor;
use engine::internals::gpu::{Gpu, GpuExecutor, GpuWeights};
use engine::internals::kv::{KvTable, PlacedStep};
use engine::internals::plan::Op;
use engine::internals::reference::Reference;
use engine::internals::spec::weights::read_f32;
use engine::{
    ContextOptions, Error, GpuOptions, Input, KvType, ModelFile, Precision, SequenceId, StepToken,
};
use engine_tests::devices::{cpu_context, gpu, gpu_context};
use engine_tests::golden::{Tiny, tiny_names};

const A: SequenceId = SequenceId(1);
/// Tokens of the prompt and of the answer.
const TEXT: [usize; 2] = [40, 4];

fn options() -> ContextOptions {
    ContextOptions {
        positions: Some(128),
        key_type: KvType::F32,
        value_type: KvType::F32,
        ..ContextOptions::default()
    }
}

fn ids(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| 3 + (i * 37 + i * i) % 500).collect()
}

/// A prompt's step and those of single tokens.
fn steps(vocabulary: usize) -> Vec<Vec<StepToken>> {
    let [prompt, answer] = TEXT;
    let mut ids = ids(prompt + answer);
    for id in &mut ids {
        *id %= vocabulary as u32;
    }
    let mut all = StepToken::run(A, 0, &ids, true);
    all[1].input = Input::Row(0);
    let (prompt, answer) = all.split_at(prompt);
    std::iter::once(prompt.to_vec()).chain(answer.iter().map(|token| vec![*token])).collect()
}

fn on_cpu(model: &ModelFile, blueprint: &Blueprint) -> Box<dyn Executor> {
    let weights = CpuWeights::load(&model.gguf, &blueprint.plan).unwrap();
    let set = InstructionSet::detect();
    let loops = CpuLoops { threads: 2, set, precision: Precision::F32 };
    Box::new(CpuExecutor::new(weights, blueprint.clone(), loops))
}

fn on_gpu(gpu: &Arc<Gpu>, model: &ModelFile, blueprint: &Blueprint) -> Box<dyn Executor> {
    let kernels = gpu.kernels.clone();
    let plan = &blueprint.plan;
    let weights =
        GpuWeights::load(gpu.clone(), &model.gguf, plan, kernels, &mut |_, _| ()).unwrap();
    Box::new(GpuExecutor::new(Arc::new(weights), blueprint.clone()).unwrap())
}

/// The logits of the text with each segment on its device, values crossing between them. The prompt's second token is a row.
fn logits_of(blueprint: &Blueprint, devices: &mut [Box<dyn Executor>]) -> Vec<f32> {
    let mut table: KvTable = blueprint.table(1 << 20);
    let mut logits = Vec::new();
    for step in steps(blueprint.plan.vocabulary()) {
        let placed = placed(&mut table, &step, blueprint);
        // The device that wrote a value last.
        let mut last = 0;
        for (number, segment) in blueprint.segments.iter().enumerate() {
            for &value in &segment.reads {
                let writer = blueprint.plan.ops.iter().position(|op| op.result() == value);
                let is_writer = |s: &&engine::internals::plan::Segment| {
                    writer.is_some_and(|writer| s.ops.contains(&writer))
                };
                let from = blueprint.segments.iter().find(is_writer).unwrap().device;
                if from != segment.device {
                    let floats = step.len() * blueprint.plan.value(value).width;
                    let rows = devices[from].read_value(value, floats).unwrap();
                    devices[segment.device].write_value(value, &rows).unwrap();
                }
            }
            devices[segment.device].run(&table, &placed, number).unwrap();
            last = segment.device;
        }
        logits.extend(devices[last].logits().unwrap());
    }
    logits
}

/// A step with its cells and its rows.
fn placed(table: &mut KvTable, step: &[StepToken], blueprint: &Blueprint) -> PlacedStep {
    let mut placed = table.prepare(step).unwrap();
    let width = blueprint.plan.value(blueprint.plan.embedding().unwrap()).width;
    let rows = step.iter().filter(|token| matches!(token.input, Input::Row(_)));
    placed.rows = rows.flat_map(|_| (0..width).map(|i| (i % 13) as f32 * 0.01 - 0.06)).collect();
    placed
}

fn farthest(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn layers_on_two_devices_are_as_on_one() {
    let gpu = gpu(&GpuOptions::default());
    // Whole attention, windows, states, inputs for each layer.
    for name in ["llama", "gemma3", "qwen35", "gemma4"] {
        let model = ModelFile::open(Tiny::load(name).path()).unwrap();
        let whole = Blueprint::new(&model, &options()).unwrap();
        let layers = whole.plan.layers.len();
        assert!(layers >= 2, "{name}");
        // Two or more segments: by halves; and in turns, where no layer reads another's keys and values.
        let halves: Vec<usize> =
            (0..layers).map(|layer| usize::from(2 * layer >= layers)).collect();
        let turns: Vec<usize> = (0..layers).map(|layer| layer % 2).collect();
        let placements = [halves, turns].into_iter().map(|places| whole.clone().split(&places));
        let blueprints: Vec<Blueprint> = placements.flatten().collect();
        assert!(!blueprints.is_empty(), "{name}");
        let on_one = logits_of(&whole, &mut [on_cpu(&model, &whole)]);
        let on_one_gpu = logits_of(&whole, &mut [on_gpu(&gpu, &model, &whole)]);
        for split in &blueprints {
            assert!(split.segments.len() > 1, "{name}");
            let mut both = [on_cpu(&model, split), on_cpu(&model, split)];
            assert_eq!(logits_of(split, &mut both), on_one, "{name} on two CPUs");
            let mut both = [on_gpu(&gpu, &model, split), on_gpu(&gpu, &model, split)];
            assert_eq!(logits_of(split, &mut both), on_one_gpu, "{name} on two GPUs");
            let mut both = [on_gpu(&gpu, &model, split), on_cpu(&model, split)];
            let far = farthest(&logits_of(split, &mut both), &on_one);
            assert!(far < 5e-4, "{name} on a GPU and a CPU: {far:e}");
            // One device may do all segments too.
            let mut one = on_gpu(&gpu, &model, split);
            let mut table = split.table(1 << 20);
            let mut logits = Vec::new();
            for step in steps(split.plan.vocabulary()) {
                let placed = placed(&mut table, &step, split);
                one.step(&table, &placed).unwrap();
                logits.extend(one.logits().unwrap());
            }
            assert_eq!(logits, on_one_gpu, "{name} in segments");
        }
    }
}

/// Every architecture, half of its layers on one device and half on the other: two CPUs are as one, a GPU and a CPU as far as
/// their sums allow.
#[test]
fn every_architecture_by_halves() {
    let gpu = gpu(&GpuOptions::default());
    let (mut cut, mut whole_only) = (0, Vec::new());
    for name in tiny_names() {
        let model = ModelFile::open(Tiny::load(&name).path()).unwrap();
        let whole = Blueprint::new(&model, &options()).unwrap();
        let layers = whole.plan.layers.len();
        let halves: Vec<usize> =
            (0..layers).map(|layer| usize::from(2 * layer >= layers)).collect();
        let Ok(split) = whole.clone().split(&halves) else {
            whole_only.push(name);
            continue;
        };
        let on_one = logits_of(&whole, &mut [on_cpu(&model, &whole)]);
        let mut both = [on_cpu(&model, &split), on_cpu(&model, &split)];
        assert_eq!(logits_of(&split, &mut both), on_one, "{name} on two CPUs");
        let mut both = [on_gpu(&gpu, &model, &split), on_cpu(&model, &split)];
        let far = farthest(&logits_of(&split, &mut both), &on_one);
        println!("{name} on a GPU and a CPU: {far:.1e}");
        assert!(far < 5e-4, "{name} on a GPU and a CPU: {far:e}");
        cut += 1;
    }
    println!("{cut} models cut; whole only: {whole_only:?}");
    assert!(cut > 20 && whole_only.len() < 4);
}

#[test]
fn what_cannot_be_split_is_refused() {
    let model = ModelFile::open(Tiny::load("llama").path()).unwrap();
    let whole = Blueprint::new(&model, &options()).unwrap();
    let error = whole.split(&[0]).unwrap_err();
    assert!(error.to_string().contains("1 devices are given for"), "{error}");
    // The tiny gemma4's last layers read keys and values of earlier ones.
    let model = ModelFile::open(Tiny::load("gemma4").path()).unwrap();
    let whole = Blueprint::new(&model, &options()).unwrap();
    let layers = whole.plan.layers.len();
    let places: Vec<usize> = (0..layers).map(|layer| usize::from(layer + 1 == layers)).collect();
    let error = whole.split(&places).unwrap_err();
    assert!(error.to_string().contains("must be on one device"), "{error}");
}

/// Rows that hold what the embedding makes of ids give what the ids give.
#[test]
fn rows_are_as_the_ids_that_they_stand_for() {
    let gpu = gpu(&GpuOptions::default());
    for name in ["llama", "gemma3", "qwen35"] {
        let model = ModelFile::open(Tiny::load(name).path()).unwrap();
        let plan = Blueprint::new(&model, &options()).unwrap().plan;
        let Some(Op::Embed(embed)) = plan.ops.first() else { panic!("{name}") };
        let table = read_f32(&model.gguf, "token_embd.weight").unwrap();
        let width = model.spec.embedding_numbers;
        let row = |id: u32| -> Vec<f32> {
            let row = &table[id as usize * width..][..width];
            row.iter().map(|w| w * embed.scale).collect()
        };
        let ids = ids(44);
        // Every third token is a row.
        let mut tokens = StepToken::run(A, 0, &ids, true);
        let mut rows = Vec::new();
        for (token, &id) in tokens.iter_mut().zip(&ids).skip(1).step_by(3) {
            token.input = Input::Row(rows.len() as u32);
            rows.push(row(id));
        }
        // In pieces, so that each gets the rows that are its own.
        let options = ContextOptions { chunk: 16, ..options() };
        for mut context in [
            cpu_context(&model, &options, InstructionSet::detect(), Precision::F32),
            gpu_context(&gpu, &model, &options),
        ] {
            let expected = context.step(&StepToken::run(A, 0, &ids, true)).unwrap().concat();
            context.free(A);
            let mut logits = Vec::new();
            let mut keep = |row: &[f32]| logits.extend_from_slice(row);
            context.step_with_rows(&tokens, &rows, &mut keep, &mut || false).unwrap();
            let mut reference = Reference::new(&model, 128, KvType::F32, KvType::F32).unwrap();
            let wide = model.spec.embedding;
            let padded = rows.iter().map(|row| {
                let zeros = std::iter::repeat_n(0.0, wide - width);
                row.iter().map(|&x| f64::from(x)).chain(zeros).collect()
            });
            reference.set_rows(padded.collect());
            let exact: Vec<f32> =
                reference.step(&tokens).concat().iter().map(|&x| x as f32).collect();
            let far = farthest(&logits, &exact);
            assert!(far < 5e-4, "{name} on {} and in f64: {far:e}", context.device_name());
            let far = farthest(&logits, &expected);
            assert!(far < 1e-5, "{name} on {}: {far:e}", context.device_name());

            context.free(A);
            let error = context.step(&tokens).unwrap_err();
            assert!(error.to_string().contains("row 0 is not among the 0 given"), "{error}");
            let short = vec![vec![0.0; width - 1]; rows.len()];
            let error =
                context.step_with_rows(&tokens, &short, &mut |_| (), &mut || false).unwrap_err();
            assert!(matches!(error, Error::Step { index: 1, .. }), "{error}");
        }
    }
}
