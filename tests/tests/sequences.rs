//! Several sequences in a context, and a sequence cut, copied, saved: always as if computed alone and afresh.

use engine::GpuOptions;
use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::internals::cpu::InstructionSet;
use engine::internals::gpu::Handicap;
use engine::internals::model::predict;
use engine::{Advice, Context, ContextOptions, Device, Error, LoadOptions, Model};
use engine::{Input, SequenceId, StepToken};
use engine_tests::devices::{cpu_context, cpu_device, gpu, gpu_context};
use engine_tests::golden::Tiny;
use engine_tests::real::full_tier;

const A: SequenceId = SequenceId(10);
const B: SequenceId = SequenceId(20);
const C: SequenceId = SequenceId(30);

/// Models that keep sequences in different ways: everything, windows of 32, states, shared and windowed, compressed.
fn models() -> &'static [&'static str] {
    let all = &["llama", "gemma3", "qwen35", "gemma4", "falcon-h1", "lfm2", "deepseek2-v3"];
    if full_tier() { all } else { &all[..3] }
}

/// Runs a test with contexts of a model on the CPU and on the GPU.
fn on_both(
    cells: usize,
    sequences: usize,
    chunk: usize,
    test: impl Fn(&mut dyn FnMut() -> Context),
) {
    let gpu = gpu(&GpuOptions::default());
    for name in models() {
        let model = ModelFile::open(Tiny::load(name).path()).unwrap();
        for kv in [KvType::F32, KvType::F16] {
            let options = ContextOptions {
                positions: Some(cells),
                pool: None,
                sequences,
                chunk,
                outputs: None,
                key_type: kv,
                value_type: kv,
            };
            test(&mut || cpu_context(&model, &options, InstructionSet::detect(), Precision::F32));
            test(&mut || gpu_context(&gpu, &model, &options));
        }
    }
}

fn ids(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| 3 + (i * 37 + seed * 101 + i * i) % 500).collect()
}

/// The logits after each of `ids` in a fresh context.
fn alone(fresh: &mut dyn FnMut() -> Context, ids: &[u32]) -> Vec<Vec<f32>> {
    fresh().step(&StepToken::run(A, 0, ids, true)).unwrap()
}

#[track_caller]
fn assert_near(ours: &[f32], expected: &[f32], what: &str) {
    // Other chunks add in another order; an F16 cache may round a key the other way.
    let worst = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(ours.len() == expected.len() && worst < 2e-2, "{what}: {worst}");
}

#[test]
fn interleaved_sequences_are_as_each_alone() {
    on_both(512, 3, 64, |fresh| {
        let texts = [(A, ids(1, 150)), (B, ids(2, 40)), (C, ids(3, 97))];
        let mut context = fresh();
        let mut done = [0; 3];
        let mut last = [vec![], vec![], vec![]];
        // Steps that take a different number of tokens of each.
        for round in 0.. {
            let mut step = Vec::new();
            let mut owners = Vec::new();
            for (index, (id, ids)) in texts.iter().enumerate() {
                let count = (1 + (round + index) % 4 * 3).min(ids.len() - done[index]);
                if count > 0 {
                    let from = done[index];
                    step.extend(StepToken::run(*id, from, &ids[from..from + count], false));
                    owners.push(index);
                    done[index] += count;
                }
            }
            if step.is_empty() {
                break;
            }
            for (row, index) in context.step(&step).unwrap().into_iter().zip(owners) {
                last[index] = row;
            }
        }
        for (index, (id, ids)) in texts.iter().enumerate() {
            assert_eq!(context.length(*id), ids.len());
            let expected = alone(fresh, ids);
            assert_near(&last[index], expected.last().unwrap(), "interleaved");
        }
    });
}

#[test]
fn truncated_and_forked_sequences_are_as_fresh_ones() {
    on_both(512, 2, 32, |fresh| {
        let text = ids(4, 160);
        let mut context = fresh();
        context.step(&StepToken::run(A, 0, &text, false)).unwrap();
        let kept = context.truncate(A, 155);
        assert!(kept == 155 || kept == 0);
        context.step(&StepToken::run(A, kept, &text[kept..155], false)).unwrap();

        // Two ways on from the same prefix.
        context.fork(A, B).unwrap();
        for (id, seed) in [(A, 5), (B, 6), (A, 7)] {
            let from = context.length(id);
            let more = ids(seed, 30);
            let ours = context.step(&StepToken::run(id, from, &more, true)).unwrap();
            let mut whole = text[..155].to_vec();
            if seed == 7 {
                whole.extend(ids(5, 30));
            }
            whole.extend(&more);
            let expected = alone(fresh, &whole);
            for (ours, expected) in ours.iter().zip(&expected[whole.len() - 30..]) {
                assert_near(ours, expected, "forked");
            }
        }
        // Far back: a window may have been lost; then everything is computed again.
        let kept = context.truncate(A, 20);
        assert!(kept == 20 || kept == 0);
        let ours = context.step(&StepToken::run(A, kept, &text[kept..60], false)).unwrap();
        assert_near(&ours[0], alone(fresh, &text[..60]).last().unwrap(), "truncated");
    });
}

#[test]
fn snapshots_bring_a_sequence_back() {
    on_both(512, 2, 64, |fresh| {
        let text = ids(8, 120);
        let mut context = fresh();
        context.step(&StepToken::run(A, 0, &text[..100], false)).unwrap();
        let snapshot = context.snapshot(A).unwrap();
        assert_eq!(snapshot.length(), 100);
        context.free(A);
        context.step(&StepToken::run(A, 0, &ids(9, 70), false)).unwrap();
        context.step(&StepToken::run(B, 0, &ids(9, 90), false)).unwrap();
        context.free(B);
        context.restore(B, &snapshot).unwrap();
        let ours = context.step(&StepToken::run(B, 100, &text[100..], false)).unwrap();
        let expected = alone(fresh, &text);
        assert_near(&ours[0], expected.last().unwrap(), "restored");
        // Into another context too.
        let mut other = fresh();
        other.restore(A, &snapshot).unwrap();
        let ours = other.step(&StepToken::run(A, 100, &text[100..], false)).unwrap();
        assert_near(&ours[0], expected.last().unwrap(), "restored elsewhere");
    });
}

#[test]
fn a_full_context_and_wrong_steps_are_errors() {
    on_both(64, 1, 64, |fresh| {
        let mut context = fresh();
        let error = context.step(&StepToken::run(A, 0, &ids(1, 65), false)).unwrap_err();
        assert!(matches!(error, Error::ContextFull { wanted: 65, positions: 64, .. }), "{error}");
        assert!(matches!(error.advice(), Some(Advice::LargerContext { .. })), "{error}");
        context.free(A);
        context.step(&StepToken::run(A, 0, &ids(1, 64), false)).unwrap();
        let error = context.step(&StepToken::run(A, 64, &[1], false)).unwrap_err();
        assert!(matches!(error, Error::ContextFull { .. }), "{error}");
        let error = context.step(&StepToken::run(B, 0, &[1], false)).unwrap_err();
        assert!(error.to_string().contains("no place for another sequence"), "{error}");
        let bad =
            [StepToken { input: Input::Id(512), sequence: A, position: 0, want_logits: true }];
        let pending =
            [StepToken { input: Input::Pending, sequence: A, position: 0, want_logits: true }];
        let error = context.step(&pending).unwrap_err();
        assert!(error.to_string().contains("continued by Flight::follow"), "{error}");
        context.free(A);
        context.step(&StepToken::run(A, 0, &[1, 2], true)).unwrap();
        let error = context.step(&bad).unwrap_err();
        assert!(error.to_string().contains("id 512 is not in the vocabulary of 512"), "{error}");
    });
}

/// Every split or chunk is a parameter; any of them gives the same.
#[test]
fn chunks_make_no_difference() {
    let text = ids(11, 130);
    let gpu = gpu(&GpuOptions::default());
    let model = ModelFile::open(Tiny::load("gemma3").path()).unwrap();
    let mut expected: Option<Vec<Vec<f32>>> = None;
    for chunk in [512, 64, 33, 8, 1] {
        let options = ContextOptions { positions: Some(512), chunk, ..ContextOptions::default() };
        for mut context in [
            gpu_context(&gpu, &model, &options),
            cpu_context(&model, &options, InstructionSet::detect(), Precision::F32),
        ] {
            let ours = context.step(&StepToken::run(A, 0, &text, true)).unwrap();
            let expected = expected.get_or_insert_with(|| ours.clone());
            for (ours, expected) in ours.iter().zip(expected) {
                assert_near(ours, expected, &format!("chunks of {chunk}"));
            }
        }
    }
}

/// Without subgroups, and with a binding so small that tensors are split.
#[test]
fn masked_features_and_tiny_bindings_make_no_difference() {
    let golden = Tiny::load("llama.Q4_0");
    let model = ModelFile::open(golden.path()).unwrap();
    let options = ContextOptions { positions: Some(128), ..ContextOptions::default() };
    let text = &golden.sequences[2].ids;
    let mut rows = Vec::new();
    for handicap in [
        Handicap::default(),
        Handicap {
            without: engine::internals::gpu::adapter::Features::SUBGROUP,
            ..Handicap::default()
        },
        Handicap { max_binding_bytes: Some(300 << 10), ..Handicap::default() },
    ] {
        let gpu = gpu(&GpuOptions { handicap, ..GpuOptions::default() });
        let small = ContextOptions { chunk: 32, ..options.clone() };
        let mut context = gpu_context(&gpu, &model, &small);
        rows.push(context.step(&StepToken::run(A, 0, text, false)).unwrap().remove(0));
    }
    assert_near(&rows[1], &rows[0], "without subgroups");
    assert_near(&rows[2], &rows[0], "tiny bindings");
}

/// What is predicted before anything is allocated is what the device's allocator then reports.
#[test]
fn predicted_memory_is_allocated_memory() {
    for name in ["llama.Q4_0", "gemma3"] {
        let gpu = gpu(&GpuOptions::default());
        let model = ModelFile::open(Tiny::load(name).path()).unwrap();
        let device = Device::Gpu(gpu.clone());
        let options =
            ContextOptions { positions: Some(512), sequences: 2, ..ContextOptions::default() };
        let predicted = predict(&model, &device, &options, Precision::F32).unwrap();
        let before = gpu.allocated_bytes().expect("an allocator report");
        let loaded =
            Model::load_file(&[device], model, &LoadOptions::from(options.clone()), &mut |_, _| ())
                .unwrap();
        let mut context = loaded.context(&options).unwrap();
        assert_eq!(context.memory(), predicted, "{name}");
        context.step(&StepToken::run(A, 0, &[1, 2, 3], false)).unwrap();
        let allocated = gpu.allocated_bytes().unwrap() - before;
        println!("{name}: predicted {}, allocated {allocated}", predicted.total());
        // Parameters of recorded steps, and what wgpu itself keeps, come on top; alignment too.
        let extra = allocated.abs_diff(predicted.total());
        assert!(extra < 2 << 20, "{name}: predicted {}, allocated {allocated}", predicted.total());
    }
}

#[test]
fn models_that_do_not_fit_are_refused_with_advice() {
    let golden = Tiny::load("llama");
    let load = |limit: u64, cells: usize| {
        let options = engine::DeviceOptions {
            name: Some("cpu".into()),
            memory_limit: Some(limit),
            ..Default::default()
        };
        let device = Device::open(&options).unwrap();
        let context = ContextOptions { positions: Some(cells), ..ContextOptions::default() };
        Model::load(&[device], golden.path(), &LoadOptions::from(context)).map(|_| ())
    };
    let error = load(4 << 20, 1 << 16).unwrap_err();
    assert!(error.to_string().contains("bytes are missing"), "{error}");
    let Some(Advice::ContextOf { positions: advised, refused: 65_536 }) = error.advice() else {
        panic!("{error}: {:?}", error.advice());
    };
    load(4 << 20, advised).unwrap();
    assert!(load(4 << 20, advised + 256).is_err());
    assert_eq!(load(1000, 512).unwrap_err().advice(), Some(Advice::SmallerModel));
    drop(cpu_device());
}

/// A device that goes away is an error, again and again, and never a panic or a hang; another one serves.
#[test]
fn a_lost_device_is_an_error_and_a_session_can_be_rebuilt() {
    let golden = Tiny::load("llama.Q4_0");
    let ids = &golden.sequences[1].ids;
    let load = || {
        let gpu = gpu(&GpuOptions::default());
        let model =
            Model::load(&[Device::Gpu(gpu.clone())], golden.path(), &LoadOptions::default())
                .unwrap();
        let context = model.context(&ContextOptions::default()).unwrap();
        (gpu, context)
    };
    let (gpu, mut context) = load();
    context.step(&StepToken::run(A, 0, &ids[..5], false)).unwrap();
    gpu.destroy();
    for _ in 0..2 {
        let from = context.length(A);
        let error = context.step(&StepToken::run(A, from, &ids[5..6], true)).unwrap_err();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
        assert_eq!(error.advice(), Some(Advice::StartAgainOrUseCpu), "{error}");
    }
    assert!(context.snapshot(A).is_err());
    let (_gpu, mut context) = load();
    context.step(&StepToken::run(A, 0, ids, true)).unwrap();
}
