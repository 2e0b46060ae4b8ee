//! The self-test: a faulty kernel is caught, named and replaced.

use engine::gpu::{GpuOptions, self_test};
use engine::model::ModelFile;
use engine::plan::Plan;
use engine::step::{SequenceId, StepToken};
use engine::{ContextOptions, Device, LoadOptions, Model, load::SelfTest};
use engine_tests::devices::{card, gpu};
use engine_tests::golden::Tiny;

fn fault(text: &str, instead: &str) -> GpuOptions {
    GpuOptions { injected_fault: Some((text.into(), instead.into())), ..GpuOptions::default() }
}

fn verdict(options: &GpuOptions) -> engine::Result<self_test::Verdict> {
    let model = ModelFile::open(Tiny::load("gemma3").path()).unwrap();
    let sizes = ContextOptions::default().sizes(&model.spec).unwrap();
    let plan = Plan::new(&model, sizes.cells).unwrap();
    let gpu = gpu(options);
    self_test::run(&gpu, &plan, &sizes, &gpu.caps, false)
}

/// The same with the kernels of a graphics card instead of those of a software driver.
fn verdict_of_card(options: &GpuOptions) -> engine::Result<self_test::Verdict> {
    let model = ModelFile::open(Tiny::load("gemma3").path()).unwrap();
    let sizes = ContextOptions::default().sizes(&model.spec).unwrap();
    let plan = Plan::new(&model, sizes.cells).unwrap();
    let gpu = gpu(options);
    self_test::run(&gpu, &plan, &sizes, &card(&gpu.caps), false)
}

#[test]
fn a_good_driver_passes() {
    let gpu = gpu(&GpuOptions::default());
    let verdict = verdict(&GpuOptions::default()).unwrap();
    assert_eq!((verdict.caps, verdict.warnings), (gpu.caps.clone(), vec![]));
}

#[test]
fn a_fault_of_subgroups_is_worked_around() {
    if !gpu(&GpuOptions::default()).caps.subgroups {
        println!("SKIPPED: this device has no subgroups");
        return;
    }
    // A driver whose subgroup sum forgets one lane.
    let wrong = "subgroupAdd(select(value, 0.0, subgroup_lane == 1u))";
    let verdict = verdict(&fault("subgroupAdd(value)", wrong)).unwrap();
    assert!(!verdict.caps.subgroups && verdict.caps.tiles, "{verdict:?}");
    assert!(verdict.warnings[0].contains("subgroups"), "{verdict:?}");
    assert!(verdict.warnings[0].contains("times its bound"), "{verdict:?}");
}

#[test]
fn a_fault_of_rows_by_lane_is_worked_around() {
    if gpu(&GpuOptions::default()).caps.subgroup_min < 8 {
        println!("SKIPPED: this device's subgroups may be smaller than a cluster of eight");
        return;
    }
    // A driver whose shuffles come from the wrong lane in the second half of a group.
    let verdict = verdict(&fault("- inner + 1u * 4u + 2u;", "- inner + 1u * 4u + 1u;")).unwrap();
    assert!(!verdict.caps.lanewise && verdict.caps.subgroups && verdict.caps.tiles, "{verdict:?}");
    assert!(verdict.warnings[0].contains("lanewise"), "{verdict:?}");
    assert!(verdict.warnings.iter().any(|w| w.contains("rows by lane")), "{verdict:?}");
}

#[test]
fn a_fault_of_tiles_is_worked_around() {
    let verdict = verdict_of_card(&fault("fma(w.w, x3.w,", "fma(w.w, x2.w,")).unwrap();
    assert!(!verdict.caps.tiles, "{verdict:?}");
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
        let caps = &verdict.caps;
        assert!(!caps.selection && caps.tiles && caps.subgroups, "{text}: {verdict:?}");
        let named = |warning: &String| warning.contains("the choice of");
        assert!(verdict.warnings.iter().any(named), "{text}: {verdict:?}");
    }
}

#[test]
fn a_fault_without_a_way_round_refuses_the_device() {
    let error = verdict(&fault(
        "correction[my_query] = exp(maximum[my_query] - most);",
        "correction[my_query] = 1.0;",
    ))
    .unwrap_err()
    .to_string();
    assert!(error.contains("attention") && error.contains("--device cpu"), "{error}");
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
