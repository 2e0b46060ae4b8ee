//! What ops become, in the cases that are easy to get wrong.

use super::*;
use crate::blueprint::ContextOptions;
use crate::gpu::choice::Adapter;
use crate::plan::Value;

fn card() -> Kernels {
    Kernels::new(Adapter::new(Family::Nvidia, Some((32, 32))))
}

fn blueprint(name: &str) -> Blueprint {
    let options = ContextOptions { positions: Some(1024), ..ContextOptions::default() };
    Blueprint::new(&crate::synthetic::open(name).unwrap(), &options).unwrap()
}

fn lower(blueprint: &Blueprint, class: StepClass) -> Vec<Dispatch> {
    let kernels = card();
    let layout = Layout::new(&blueprint.plan, &kernels).unwrap();
    Lowering { blueprint, layout: &layout, kernels: &kernels, class }.lower().unwrap()
}

#[test]
fn extents_cover_all_rows() {
    assert_eq!(Extent::Fixed(3).count(100, 7), 3);
    assert_eq!(Extent::Per(Rows::Tokens, 8).count(17, 1), 3);
    assert_eq!(Extent::Per(Rows::Outputs, 8).count(17, 1), 1);
    assert_eq!(Extent::Per(Rows::Outputs, 8).count(17, 0), 0);
    assert_eq!(Extent::Times(4).count(5, 1), 20);
    // 5 tokens of 2 experts are 10 pairs: spread over 10 of 32 experts, each begins a tile.
    let tiles = Extent::Tiles { used: 2, per: 8, experts: 32 };
    assert_eq!(tiles.count(5, 1), 10 / 8 + 10);
    // Many pairs: a tile begun for each expert at most.
    assert_eq!(tiles.count(512, 1), 1024 / 8 + 32);
}

#[test]
fn a_steps_class_says_whether_tokens_follow_each_other() {
    let token = |seat, position| Placed {
        input: crate::step::Input::Id(1),
        position,
        seat,
        cells: [0, 0],
        want_logits: position % 2 == 1,
    };
    let class = |tokens| StepClass::of_step(&PlacedStep { tokens, ..PlacedStep::default() }, 128);
    let follows = class((3..12).map(|position| token(0, position)).collect());
    assert_eq!(follows, StepClass::of(9, 5));
    assert!(!class(vec![token(0, 3), token(0, 5)]).together);
    assert!(!class(vec![token(0, 3), token(1, 4)]).together);
    assert!(!class(vec![token(0, 127)]).long);
    assert!(class(vec![token(0, 3), token(1, 128)]).long);
}

#[test]
fn norms_go_into_products_that_read_their_rows_once() {
    let blueprint = blueprint("smollm2-135m/2:q4_0");
    let normed = |class| {
        let dispatches = lower(&blueprint, class);
        let norms = dispatches.iter().filter(|d| d.variant.kernel == "norm").count();
        let fused = |d: &&Dispatch| d.variant.defines.contains("NORM");
        (norms, dispatches.iter().filter(fused).count())
    };
    // A token: q, k and v of each layer as one, gate and up as one. The last norm chooses rows too.
    assert_eq!(normed(StepClass::of(1, 1)), (1, 4));
    // A prompt: two in each layer and the last are dispatches of their own.
    assert_eq!(normed(StepClass::of(512, 1)), (5, 0));
}

#[test]
fn what_lives_on_is_copied_before_it_is_changed() {
    let value = Value { name: "x", width: 64, rows: Rows::Tokens };
    let scale = |input: usize, out: usize| op::Scale {
        input: ValueId(input),
        factor: 2.0,
        out: ValueId(out),
    };
    let plan = |ops: Vec<op::Scale>, logits: usize| Plan {
        ops: ops.into_iter().map(Op::from).collect(),
        values: vec![value; 3],
        logits: ValueId(logits),
        ..Plan::default()
    };
    let kernels = |plan: Plan| -> Vec<(&'static str, usize)> {
        let sizes = blueprint("llama-1b/1:q4_0").sizes;
        let dispatches = lower(&Blueprint::of(plan, sizes), StepClass::of(1, 1));
        dispatches.iter().map(|d| (d.variant.kernel, d.op)).collect()
    };
    let in_place = kernels(plan(vec![scale(0, 1), scale(1, 2)], 2));
    assert_eq!(in_place, [("softcap", 0), ("softcap", 1)]);
    // The caller reads value 1 at the end.
    let lives_on = kernels(plan(vec![scale(0, 1), scale(1, 2)], 1));
    assert_eq!(lives_on, [("softcap", 0), ("gate_parts", 1), ("softcap", 1)]);
}

#[test]
fn dispatches_of_a_segment_hold_together() {
    // A norm whose products are of another segment must write its result.
    let whole = blueprint("smollm2-135m/2:q4_0");
    let class = StepClass::of(1, 1);
    let is_norm = |blueprint: &Blueprint, index: usize| {
        let dispatches = lower(blueprint, class);
        dispatches.iter().any(|d| d.op == index && d.variant.kernel == "norm")
    };
    let first = whole.plan.layers[1].start;
    assert!(matches!(whole.plan.ops[first], Op::Norm(_)));
    assert!(!is_norm(&whole, first));
    let mut cut = whole.clone();
    let mut segment = cut.segments[0].clone();
    segment.ops = first + 1..cut.plan.ops.len();
    cut.segments[0].ops = 0..first + 1;
    cut.segments.push(segment);
    assert!(is_norm(&cut, first));
}
