//! Models beyond what the GPU kernels hold: files like others, which the CPU computes and a GPU refuses before it loads
//! anything.

use std::sync::Arc;

use engine::internals::cpu::InstructionSet;
use engine::internals::gpu::Gpu;
use engine::internals::gpu::adapter::without_driver;
use engine::internals::gpu::choice::{Adapter, Family, Kernels};
use engine::internals::gpu::layout::Layout;
use engine::internals::gpu::lower::{Lowering, StepClass};
use engine::internals::reference::Reference;
use engine::internals::select::log_softmax;
use engine::internals::{blueprint::Blueprint, model::predict};
use engine::{
    Advice, ContextOptions, Device, Error, GpuOptions, KvType, LoadOptions, Model, ModelFile,
    Precision, SequenceId, StepToken,
};
use engine_tests::devices::cpu_context;
use engine_tests::made::{Recipe, Widths};
use gguf::{BytesSource, Format, Gguf, Value};

/// Positions of every context here.
const CELLS: usize = 64;
/// How far a log-probability may be from that of f64: as `widths.rs` asks of the same models within the limits.
const TOLERANCE: f64 = 1e-4;
/// Router logits nearer than this are a tie to sums in f32: some hundred roundings of 2^-24 of numbers below 10.
const TIE: f64 = 1e-4;

/// Models beyond a limit each, and what their refusal says.
fn beyond() -> Vec<(Recipe, &'static str)> {
    let of = |name, base, widths: Widths| {
        Recipe::new(name, base, Format::F16, Widths { embedding: 128, ..widths })
    };
    let experts = |count| Widths { experts: Some(count), ..Widths::default() };
    let u32s = |n| Value::U32(n);
    // As the base has them: they are asked for.
    let compressed = Widths {
        heads: Some((4, 1)),
        ranks: Some((48, 64)),
        latent: Some((32, 16, 32)),
        ..Widths::default()
    };
    vec![
        (of("1100-experts", "qwen3moe", experts(1100)), "2 of 1100 experts"),
        (
            of("65-chosen", "qwen3moe", experts(128)).key("expert_used_count", u32s(65)),
            "65 of 128 experts",
        ),
        (
            of("65-groups", "deepseek2-v3", Widths { experts: Some(130), ..compressed })
                .key("expert_group_count", u32s(65))
                .key("expert_group_used_count", u32s(33)),
            "65 groups of experts",
        ),
        (
            of("9-taps", "lfm2", Widths { taps: Some(9), ..Widths::default() }),
            "a convolution with 9 taps",
        ),
    ]
}

fn options() -> ContextOptions {
    let f32 = KvType::F32;
    ContextOptions {
        positions: Some(CELLS),
        key_type: f32,
        value_type: f32,
        ..ContextOptions::default()
    }
}

fn open(recipe: &Recipe) -> ModelFile {
    let source = Arc::new(BytesSource::new(recipe.name, recipe.file(recipe.format)));
    let file = Gguf::from_sources(vec![source]).unwrap();
    ModelFile::from_gguf(file).unwrap_or_else(|error| panic!("{}: {error}", recipe.name))
}

#[test]
fn the_cpu_computes_what_no_kernel_holds() {
    for (recipe, _) in beyond() {
        let (name, model) = (recipe.name, open(&recipe));
        let tokens = StepToken::run(SequenceId(0), 0, &[1, 40, 300, 7, 99], false);
        let mut reference = Reference::new(&model, CELLS, KvType::F32, KvType::F32).unwrap();
        let expected: Vec<f32> = reference.step(&tokens)[0].iter().map(|&x| x as f32).collect();
        assert!(reference.routing_margin() > TIE, "{name}: a tie");
        let mut cpu = cpu_context(&model, &options(), InstructionSet::detect(), Precision::F32);
        let ours = cpu.step(&tokens).unwrap().remove(0);
        let pairs = log_softmax(&ours).into_iter().zip(log_softmax(&expected));
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{name}: largest difference {worst:.1e}");
        assert!(worst < TOLERANCE, "{name}: {worst}");
    }
}

#[test]
fn a_gpu_refuses_it_before_it_loads_anything() {
    let gpu = Gpu::open(&without_driver().unwrap(), &GpuOptions::default()).unwrap();
    let device = Device::Gpu(gpu);
    let kernels = Kernels::new(Adapter::new(Family::Nvidia, Some((32, 32))));
    for (recipe, says) in beyond() {
        let (name, model) = (recipe.name, open(&recipe));
        let refused = |error: Error| match error {
            Error::Unsupported { why, advice: Some(Advice::UseCpu) } => {
                assert!(why.starts_with(says), "{name}: {why}");
            }
            other => panic!("{name}: {other}"),
        };
        let blueprint = Blueprint::new(&model, &options()).unwrap();
        let layout = Layout::new(&blueprint.plan, &kernels).unwrap();
        let class = StepClass::of(1, 1);
        let lowering =
            Lowering { blueprint: &blueprint, layout: &layout, kernels: &kernels, class };
        refused(lowering.lower().unwrap_err());
        refused(predict(&model, &device, &options(), Precision::F32).unwrap_err());
        let load = LoadOptions::from(options());
        let mut nothing = |_, _| panic!("{name}: something was loaded");
        let devices = std::slice::from_ref(&device);
        refused(Model::load_file(devices, model, &load, &mut nothing).unwrap_err());
    }
}
