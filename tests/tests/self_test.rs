//! The self-test: a faulty kernel is caught, named and replaced.

use engine::GpuOptions;
use engine::ModelFile;
use engine::internals::blueprint::Blueprint;
use engine::internals::check::self_test;
use engine::internals::gpu::Handicap;
use engine::internals::gpu::choice::{Family, Kernels};
use engine::{Advice, ContextOptions, Device, LoadOptions, Model, SelfTest};
use engine::{SequenceId, StepToken};
use engine_tests::devices::{card, gpu, with_family};
use engine_tests::golden::Tiny;

fn fault(text: &str, instead: &str) -> GpuOptions {
    let injected_fault = Some((text.into(), instead.into()));
    GpuOptions {
        handicap: Handicap { injected_fault, ..Handicap::default() },
        ..GpuOptions::default()
    }
}

fn verdict(options: &GpuOptions) -> engine::Result<self_test::Verdict> {
    verdict_with(options, Kernels::clone)
}

/// The same with the kernels of a graphics card instead of those of a software driver.
fn verdict_of_card(options: &GpuOptions) -> engine::Result<self_test::Verdict> {
    verdict_with(options, card)
}

/// The same with other kernels than the device's own, from what it offers.
fn verdict_with(
    options: &GpuOptions,
    kernels: impl Fn(&Kernels) -> Kernels,
) -> engine::Result<self_test::Verdict> {
    verdict_on("gemma3", options, kernels)
}

fn verdict_on(
    model: &str,
    options: &GpuOptions,
    kernels: impl Fn(&Kernels) -> Kernels,
) -> engine::Result<self_test::Verdict> {
    let model = ModelFile::open(Tiny::load(model).path()).unwrap();
    let blueprint = Blueprint::new(&model, &ContextOptions::default()).unwrap();
    let gpu = gpu(options);
    self_test::run(&gpu, &blueprint, &kernels(&gpu.kernels), false)
}

#[test]
fn a_good_driver_passes() {
    let gpu = gpu(&GpuOptions::default());
    let verdict = verdict(&GpuOptions::default()).unwrap();
    assert_eq!((verdict.kernels, verdict.warnings), (gpu.kernels.clone(), vec![]));
}

#[test]
fn a_fault_of_subgroups_is_worked_around() {
    if !gpu(&GpuOptions::default()).kernels.subgroups {
        println!("SKIPPED: this device has no subgroups");
        return;
    }
    // A driver whose subgroup sum forgets one lane: in norms, and in products, where rows are summed together.
    for (text, wrong) in [
        ("subgroupAdd(value)", "subgroupAdd(select(value, 0.0, subgroup_lane == 1u))"),
        ("subgroupAdd(sum_0_0_0)", "subgroupAdd(select(sum_0_0_0, 0.0, subgroup_lane == 1u))"),
    ] {
        let verdict = verdict_of_card(&fault(text, wrong)).unwrap();
        assert!(!verdict.kernels.subgroups && verdict.kernels.tiles, "{text}: {verdict:?}");
        assert!(verdict.warnings[0].contains("subgroups"), "{text}: {verdict:?}");
        assert!(verdict.warnings[0].contains("times its bound"), "{text}: {verdict:?}");
    }
}

#[test]
fn a_fault_of_rows_by_lane_is_worked_around() {
    if gpu(&GpuOptions::default()).kernels.adapter.subgroup_min < 8 {
        println!("SKIPPED: this device's subgroups may be smaller than a cluster of eight");
        return;
    }
    // A driver whose shuffles come from the wrong lane in the second half of a group.
    let options = fault("- inner + 1u * 4u + 2u;", "- inner + 1u * 4u + 1u;");
    // Only a software driver is given these kernels, whatever this device is.
    let software = |offered: &Kernels| with_family(offered, Family::Software);
    let verdict = verdict_with(&options, software).unwrap();
    assert!(
        !verdict.kernels.lanewise && verdict.kernels.subgroups && verdict.kernels.tiles,
        "{verdict:?}"
    );
    assert!(verdict.warnings[0].contains("lanewise"), "{verdict:?}");
    assert!(verdict.warnings.iter().any(|w| w.contains("rows by lane")), "{verdict:?}");
}

/// A driver that flushes subnormal halves: found before anything is tested, and then not relied on.
#[test]
fn halves_that_are_flushed_are_converted_by_integers() {
    if !gpu(&GpuOptions::default()).kernels.native_halves {
        println!("SKIPPED: this device converts halves inexactly, and is not relied on for it");
        return;
    }
    let flushed = "select(unpack2x16float(bits), vec2<f32>(0.0), abs(unpack2x16float(bits)) < vec2<f32>(0x1p-14f))";
    let options = fault("unpack2x16float(bits)", flushed);
    assert!(!gpu(&options).kernels.native_halves);
    let verdict = verdict_of_card(&options).unwrap();
    assert!(!verdict.kernels.native_halves && verdict.kernels.tiles, "{verdict:?}");
    assert!(!verdict.warnings.iter().any(|w| w.contains("times its bound")), "{verdict:?}");
}

/// One that flushes them only where the conversion is part of a product.
#[test]
fn halves_that_are_flushed_in_a_product_are_converted_by_integers() {
    let wrong = "unpack2x16float(even & 0x000f0000u)";
    let options = fault("unpack2x16float(even & 0x000f000fu)", wrong);
    let verdict = verdict_on("llama-w256.Q4_K_M", &options, card).unwrap();
    assert!(!verdict.kernels.native_halves && verdict.kernels.subgroups, "{verdict:?}");
    assert!(verdict.warnings.iter().any(|w| w.contains("halves converted")), "{verdict:?}");
}

#[test]
fn a_fault_of_tiles_is_worked_around() {
    let verdict = verdict_with(&fault("fma(w.w, x3.w,", "fma(w.w, x2.w,"), card).unwrap();
    assert!(!verdict.kernels.tiles, "{verdict:?}");
    assert!(verdict.warnings.iter().any(|w| w.contains("matmul")), "{verdict:?}");
}

#[test]
fn a_fault_of_the_choice_of_ids_is_worked_around() {
    // Of the sort, of the search for the largest.
    for (text, instead) in [
        ("sorted[b]) != falling", "sorted[b]) == falling"),
        ("if comes_first(other, best)", "if comes_first(best, other)"),
    ] {
        let verdict = verdict(&fault(text, instead)).unwrap();
        // All else stays as the device offers it.
        let offered = gpu(&GpuOptions::default()).kernels.clone();
        assert_eq!(verdict.kernels, Kernels { selection: false, ..offered }, "{text}: {verdict:?}");
        let named = |warning: &String| warning.contains("the choice of");
        assert!(verdict.warnings.iter().any(named), "{text}: {verdict:?}");
    }
}

#[test]
fn a_fault_without_a_way_round_refuses_the_device() {
    let error =
        verdict(&fault("let earlier = exp(maximum - most);", "let earlier = 1.0;")).unwrap_err();
    assert!(error.to_string().contains("attention"), "{error}");
    assert_eq!(error.advice(), Some(Advice::StartAgainOrUseCpu), "{error}");
}

/// A token behind many positions has a kernel of its own, which nothing before the middle of an answer asks for.
#[test]
fn a_fault_of_attention_in_parts_is_noticed() {
    let options = fault("vec2<f32>(maximum, all)", "vec2<f32>(maximum, all + 1.0)");
    for kernels in [Kernels::clone, card] {
        let error = verdict_on("llama.Q4_0", &options, kernels).unwrap_err().to_string();
        assert!(error.contains("attention") && error.contains("positions"), "{error}");
    }
}

/// The model then answers as on a good driver.
#[test]
fn a_worked_around_model_is_right() {
    let golden = Tiny::load("llama.Q4_0");
    let ids = &golden.sequences[2].ids;
    let mut rows = Vec::new();
    for options in
        [GpuOptions::default(), fault("subgroupAdd(value)", "(subgroupAdd(value) * 1.01)")]
    {
        let device = Device::Gpu(gpu(&options));
        let load = LoadOptions { self_test: SelfTest::Always, ..LoadOptions::default() };
        let model = Model::load(&[device], golden.path(), &load).unwrap();
        let mut context = model.context(&load.context).unwrap();
        let tokens = StepToken::run(SequenceId(0), 0, ids, false);
        rows.push(context.step(&tokens).unwrap().remove(0));
    }
    let worst = rows[0].iter().zip(&rows[1]).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst < 1e-2, "{worst}");
}
