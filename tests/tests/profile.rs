//! Steps timed dispatch by dispatch: they compute what ordinary steps compute, and their costs are the model's.

use std::sync::Arc;
use std::time::Duration;

use engine::GpuOptions;
use engine::ModelFile;
use engine::internals::check::tune;
use engine::internals::gpu::choice::{Count, ProductShape};
use engine::internals::gpu::{Gpu, Handicap, roofline};
use engine::internals::profile::{Roof, by_variant};
use engine::{Advice, Context, ContextOptions};
use engine::{SequenceId, StepToken};
use engine_tests::devices::{gpu, gpu_context};
use engine_tests::golden::Tiny;

fn timed() -> Arc<Gpu> {
    gpu(&GpuOptions { timestamps: true, ..GpuOptions::default() })
}

fn context(gpu: &Arc<Gpu>, name: &str) -> (Context, ModelFile) {
    let model = ModelFile::open(Tiny::load(name).path()).unwrap();
    let options = ContextOptions { positions: Some(256), chunk: 64, ..ContextOptions::default() };
    (gpu_context(gpu, &model, &options), model)
}

/// `count` tokens from a position on, the last of which wants logits.
fn tokens(first: usize, count: usize) -> Vec<StepToken> {
    let ids: Vec<u32> = (first..first + count).map(|index| (index * 7 + 3) as u32 % 100).collect();
    StepToken::run(SequenceId(0), first, &ids, false)
}

#[test]
fn a_timed_step_computes_what_an_ordinary_step_does() {
    let gpu = timed();
    for name in ["llama.Q4_0", "gemma3", "gpt-oss.MXFP4_MOE", "mixtral", "falcon-h1", "qwen35"] {
        let (mut plain, _) = context(&gpu, name);
        let (mut profiled, _) = context(&gpu, name);
        // A prompt, a few, one.
        for (first, count) in [(0, 40), (40, 3), (43, 1)] {
            plain.step(&tokens(first, count)).unwrap();
            let profile = profiled.profile_step(&tokens(first, count)).unwrap();
            assert!(profile.dispatches.len() > 4, "{name}");
            for dispatch in &profile.dispatches {
                let kernel = &dispatch.variant;
                assert!(dispatch.nanoseconds.is_finite(), "{name}: {kernel}");
                assert!(dispatch.cost.bytes > 0, "{name}: {kernel} moves nothing");
            }
            let sum: f64 = profile.dispatches.iter().map(|d| d.nanoseconds).sum();
            assert!(sum > 0.0 && profile.span >= 0.5 * sum, "{name}: {sum} of {}", profile.span);
        }
        // What both have in their caches shows in what follows.
        let next = tokens(44, 1);
        assert_eq!(plain.step(&next).unwrap(), profiled.step(&next).unwrap(), "{name}");
    }
}

/// Multiply-adds of a dense llama, counted from its file.
#[test]
fn multiply_adds_are_the_models() {
    let gpu = timed();
    let (mut context, model) = context(&gpu, "llama.Q4_0");
    let spec = &model.spec;
    let matrices = |start: &str| -> u64 {
        let matrix = |t: &&gguf::TensorInfo| t.name.starts_with(start) && t.shape.len() == 2;
        model.gguf.tensors.iter().filter(matrix).map(gguf::TensorInfo::elements).sum()
    };
    let head = matrices("output.weight");
    assert!(head > 0 && matrices("blk.") > 0);
    for (first, count) in [(0, 40), (40, 5), (45, 1)] {
        let profile = context.profile_step(&tokens(first, count)).unwrap();
        let seen: u64 = (first..first + count).map(|position| position as u64 + 1).sum();
        let attention: u64 = spec
            .layers
            .iter()
            .map(|l| (l.heads * (l.key_length + l.value_length)) as u64 * seen)
            .sum();
        let wanted = count as u64 * matrices("blk.") + head + attention;
        let counted: u64 = profile.dispatches.iter().map(|d| d.cost.multiply_adds).sum();
        assert_eq!(counted, wanted, "{count} tokens from {first}");
        // Every block of every matrix is read once.
        let weights: u64 = profile.dispatches.iter().map(|d| d.cost.bytes).sum();
        let blocks = (matrices("blk.") + head) / 32 * 18;
        assert!(weights > blocks, "{weights} of at least {blocks} bytes");
        assert!(count > 1 || weights < 2 * blocks, "{weights} of about {blocks} bytes");
    }
}

/// A token of a mixture of experts multiplies with those that it chose, and reads these alone.
#[test]
fn experts_count_where_they_are_used() {
    let gpu = timed();
    let (mut context, model) = context(&gpu, "gpt-oss.MXFP4_MOE");
    let metadata = &model.gguf.metadata;
    let count = |key: &str| u64::from(metadata.u32(&format!("gpt-oss.{key}")).unwrap().unwrap());
    let (all, used) = (count("expert_count"), count("expert_used_count"));
    assert!(used < all);
    let experts: u64 = model
        .gguf
        .tensors
        .iter()
        .filter(|tensor| tensor.name.ends_with("_exps.weight"))
        .map(gguf::TensorInfo::elements)
        .sum();
    let of_experts = |context: &mut Context, first, count| -> u64 {
        let profile = context.profile_step(&tokens(first, count)).unwrap();
        let is_expert = |op: &str| op.starts_with("experts_");
        profile.dispatches.iter().filter(|d| is_expert(d.op)).map(|d| d.cost.multiply_adds).sum()
    };
    assert_eq!(of_experts(&mut context, 0, 40), 40 * experts * used / all);
    assert_eq!(of_experts(&mut context, 40, 1), experts * used / all);
}

/// A device whose clock cannot be read.
fn untimed() -> Arc<Gpu> {
    let without = engine::internals::gpu::adapter::Features::TIMESTAMP_QUERY;
    let handicap = Handicap { without, ..Handicap::default() };
    gpu(&GpuOptions { handicap, timestamps: true, ..GpuOptions::default() })
}

/// Products are measured by the device's clock, else by the host's; what is chosen was measured in turns with the default.
#[test]
fn products_are_measured_by_either_clock() {
    let counts = [Count::One, Count::Few, Count::Many];
    let shape = |count| ProductShape {
        format: gguf::Format::Q8_0,
        rows: 256,
        columns: 512,
        gated: false,
        count,
    };
    for gpu in [timed(), untimed()] {
        let all = tune::measure(&gpu, shape(Count::One), &counts, &gpu.kernels).unwrap();
        let tokens: Vec<usize> = all.iter().map(|measured| measured.tokens).collect();
        assert!(tokens == [1, 4, 64] || tokens == [1, 4, 512], "{tokens:?}");
        assert!(all.iter().all(|m| m.seconds > 0.0 && m.seconds < 0.1), "{all:?}");
        let shapes = counts.map(shape);
        let mut measured = Vec::new();
        let limit = Duration::from_secs(3);
        let mut report = |m: &tune::Measurement| measured.push((m.shape, m.kernel, m.seconds));
        let verdict = tune::tune(&gpu, &shapes, &gpu.kernels, limit, &mut report).unwrap();
        assert!(verdict.contains_key(&shapes[0]));
        for (shape, kernel) in verdict {
            let default = gpu.kernels.default_product(&shape);
            let last = |kernel| measured.iter().rfind(|m| m.0 == shape && m.1 == kernel).unwrap().2;
            assert!(kernel == default || last(default) > 1.02 * last(kernel), "{shape:?}");
        }
    }
}

#[test]
fn what_cannot_be_timed_says_so() {
    let untimed = untimed();
    let (mut context, _) = context(&untimed, "llama.Q4_0");
    let error = context.profile_step(&tokens(0, 1)).unwrap_err();
    assert!(error.to_string().contains("no timestamps"), "{error}");
    assert_eq!(error.advice(), Some(Advice::HostClock));
    let error = context.profile_step(&tokens(0, 65)).unwrap_err().to_string();
    assert!(error.contains("1 to 64 tokens"), "{error}");
    assert!(context.profile_step(&[]).is_err());
}

#[test]
fn a_roofline_is_plausible() {
    let measured = roofline::measure(&timed()).unwrap();
    println!("{measured:?}");
    if measured.half_multiply_adds.is_none() {
        println!("SKIPPED f16: this device has none");
    }
    for (what, value) in [
        ("f16", measured.half_multiply_adds.unwrap_or(1e9)),
        ("f16 by matrices", measured.matrix_multiply_adds.unwrap_or(1e9)),
        ("read", measured.read),
        ("copy", measured.copy),
        ("f32", measured.multiply_adds),
        ("int8", measured.byte_multiply_adds),
    ] {
        // From a slow processor to a card of the next years.
        assert!((1e7..1e16).contains(&value), "{what}: {value}");
    }
    for seconds in [measured.dependent_dispatch, measured.independent_dispatch] {
        assert!((0.0..0.01).contains(&seconds), "{seconds}");
    }
    let gpu = timed();
    let (mut context, _) = context(&gpu, "llama.Q4_0");
    let sums = by_variant(&[context.profile_step(&tokens(0, 1)).unwrap()]);
    let roof: Roof = measured.roof();
    assert!(sums.iter().all(|sum| sum.share(&roof) > 0.0), "{sums:?}");
}
