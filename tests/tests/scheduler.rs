//! Many requests at once, on the CPU and on a GPU: each answer is what it is alone.

use std::sync::Arc;

use engine::internals::executor::Executor as _;
use engine::internals::gpu::{GpuExecutor, GpuWeights};
use engine::{
    ContextOptions, Device, Error, Goal, GpuOptions, LoadOptions, Model, Sampling, Scheduler,
};
use engine_tests::devices::{cpu_device, gpu};
use engine_tests::golden::Tiny;
use engine_tests::requests::{refusal, submit, wait};

fn load(device: &Device, name: &str) -> Arc<Model> {
    let golden = Tiny::load(name);
    Model::load(std::slice::from_ref(device), golden.path(), &LoadOptions::default()).unwrap()
}

fn start(model: &Arc<Model>, sequences: usize, positions: usize) -> Scheduler {
    let options = ContextOptions {
        positions: Some(positions),
        pool: Some(positions * sequences),
        sequences,
        chunk: 64,
        ..ContextOptions::default()
    };
    Scheduler::start(model, &options).unwrap()
}

fn prompt(number: usize) -> Vec<u32> {
    (0..5 + number * 13 % 70).map(|i| (3 + number * 101 + i * 17) as u32 % 500).collect()
}

fn goal(sampling: Sampling, run_ahead: bool) -> Goal {
    Goal::Generate { sampling, stream: 0, max_tokens: Some(12), run_ahead }
}

fn devices() -> [Device; 2] {
    [cpu_device(), Device::Gpu(gpu(&GpuOptions::default()))]
}

/// One, three and sixteen sequences of different lengths: full attention, windows, states, experts.
#[test]
fn beside_others_as_alone() {
    let sampled = |seed| Sampling { temperature: 1.0, top_k: 20, seed, ..Sampling::default() };
    for device in devices() {
        for name in ["llama", "gemma3", "qwen35", "gpt-oss"] {
            let model = load(&device, name);
            let of = |number: usize| match number % 2 {
                0 => Sampling::greedy(),
                _ => sampled(number as u64),
            };
            let alone: Vec<_> = (0..16)
                .map(|number| {
                    let scheduler = start(&model, 1, 128);
                    wait(submit(&scheduler, &prompt(number), goal(of(number), false))).ids
                })
                .collect();
            for count in [1, 3, 16] {
                for run_ahead in [true, false] {
                    let scheduler = start(&model, count, 128);
                    let under_way: Vec<_> = (0..count)
                        .map(|i| submit(&scheduler, &prompt(i), goal(of(i), run_ahead)))
                        .collect();
                    for (number, answer) in under_way.into_iter().map(wait).enumerate() {
                        assert_eq!(
                            answer.ids,
                            alone[number],
                            "{name} on {}: {number} of {count}, ahead: {run_ahead}",
                            device.name()
                        );
                    }
                }
            }
        }
    }
}

/// A second request with the same start computes what follows alone, and answers as if it had computed all.
#[test]
fn what_begins_alike_is_computed_once() {
    for device in devices() {
        for name in ["llama", "gemma3", "qwen35"] {
            let model = load(&device, name);
            let scheduler = start(&model, 3, 256);
            let start_of_both: Vec<u32> = (0..150).map(|i| 5 + i * 11 % 490).collect();
            let with = |end: &[u32]| [&start_of_both[..], end].concat();
            let first = with(&[7, 8]);
            let greedy = || goal(Sampling::greedy(), true);
            let answer = wait(submit(&scheduler, &first, greedy()));
            assert_eq!(answer.prompt, (152, 0));
            // The chat goes on.
            let second = [&first[..], &answer.ids, &[9, 10]].concat();
            let fresh = wait(submit(&start(&model, 1, 256), &second, greedy()));
            let held = wait(submit(&scheduler, &second, greedy()));
            assert_eq!(held.ids, fresh.ids, "{name} on {}", device.name());
            // The last id was chosen but never computed.
            assert_eq!(held.prompt, (3, 163), "{name} on {}", device.name());
            // The same question again: what has windows or states finds the copy before its last token.
            let again = wait(submit(&scheduler, &first, greedy()));
            assert_eq!(again.ids, answer.ids, "{name} on {}", device.name());
            assert_eq!(again.prompt, (1, 151), "{name} on {}", device.name());
        }
    }
}

/// What cannot be served is refused at once, and nobody else hears of it.
#[test]
fn what_can_never_fit_is_refused() {
    let model = load(&cpu_device(), "llama");
    let options = ContextOptions {
        positions: Some(256),
        pool: Some(128),
        sequences: 2,
        ..ContextOptions::default()
    };
    let scheduler = Scheduler::start(&model, &options).unwrap();
    let refused = |prompt: Vec<u32>| refusal(&scheduler, prompt, goal(Sampling::greedy(), true));
    let error = refused(vec![4; 200]);
    assert!(matches!(error, Error::PromptTooLong { tokens: 200, positions: 128, .. }), "{error}");
    assert!(matches!(refused(vec![]), Error::EmptyPrompt));
    assert!(matches!(refused(vec![1, 512]), Error::Step { index: 1, .. }));
    // A dropped ticket ends its request, and the next is served.
    drop(submit(&scheduler, &prompt(1), goal(Sampling::greedy(), true)));
    assert_eq!(wait(submit(&scheduler, &prompt(2), goal(Sampling::greedy(), true))).ids.len(), 12);
}

/// Sixteen sequences' next tokens are one submission and one wait, and no logits come to the host.
#[test]
fn a_step_of_many_is_one_submission_and_one_readback() {
    use engine::internals::blueprint::Blueprint;
    use engine::internals::executor::Selection;
    use engine::{ModelFile, SequenceId, StepToken};
    let gpu = gpu(&GpuOptions::default());
    let model = ModelFile::open(Tiny::load("llama.Q4_0").path()).unwrap();
    let options = ContextOptions {
        positions: Some(128),
        sequences: 16,
        pool: Some(2048),
        ..ContextOptions::default()
    };
    let blueprint = Blueprint::new(&model, &options).unwrap();
    let kernels = gpu.kernels.clone();
    let weights =
        GpuWeights::load(gpu.clone(), &model.gguf, &blueprint.plan, kernels, &mut |_, _| ())
            .unwrap();
    let mut table = blueprint.table(128);
    let mut executor = GpuExecutor::new(weights.into(), blueprint).unwrap();
    // Greedy and drawn, with a penalty and without; across the end of a block.
    let samplings = [
        Sampling::greedy(),
        Sampling { seed: 3, ..Sampling::default() },
        Sampling { repeat_penalty: 1.2, ..Sampling::greedy() },
    ];
    for position in 0..70_u32 {
        let step: Vec<_> = (0..16)
            .flat_map(|i| StepToken::run(SequenceId(i), position as usize, &[i + 1], true))
            .collect();
        let placed = table.prepare(&step).unwrap();
        let choose = |(row, token): (usize, &engine::internals::kv::Placed)| Selection {
            sampling: samplings[row % samplings.len()].clone(),
            row: row as u32,
            seat: token.seat,
            stream: 0,
            position: position + 1,
        };
        let selections: Vec<_> = placed.tokens.iter().enumerate().map(choose).collect();
        executor.step_and_select(&table, &placed, &selections).unwrap();
        assert_eq!(executor.selected().unwrap().len(), 16);
        let counts = executor.counts();
        assert_eq!((counts.submits, counts.readbacks), (1, 1), "{counts:?}");
        assert!(executor.logits().unwrap().is_empty());
    }
}
