//! One face for every executor, and the check of a tiny golden against it.

use engine::Context;
use engine::KvType;
use engine::ModelFile;
use engine::internals::reference::Reference;
use engine::internals::spec::FeedForward;
use engine::{SequenceId, StepToken};

use crate::golden::{Sequence, Tiny, tolerance};

/// Something that computes steps.
pub trait Stepper {
    /// A row of logits for each token that wants them.
    fn step(&mut self, tokens: &[StepToken]) -> Vec<Vec<f32>>;
}

impl Stepper for Reference {
    fn step(&mut self, tokens: &[StepToken]) -> Vec<Vec<f32>> {
        let logits = Reference::step(self, tokens);
        logits.into_iter().map(|row| row.into_iter().map(|x| x as f32).collect()).collect()
    }
}

/// A reference for a golden's model.
///
/// # Panics
/// If the model cannot be loaded.
pub fn reference(golden: &Tiny, kv: KvType) -> Reference {
    let model = ModelFile::open(golden.path()).expect("a tiny model");
    Reference::new(&model, golden.n_ctx, kv, kv).expect("a plan")
}

/// The index of the largest logit.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = index;
        }
    }
    best as u32
}

/// How a sequence is cut into steps.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// All in one step.
    Whole,
    /// Steps of so many tokens.
    Chunks(usize),
}

/// Checks one sequence of a golden: logits at every position, then the greedy continuation. Returns the
/// largest difference seen.
///
/// # Panics
/// If a difference exceeds the tolerance.
pub fn check_sequence(
    stepper: &mut dyn Stepper,
    golden: &Tiny,
    sequence: &Sequence,
    id: SequenceId,
    cut: Cut,
    kv: KvType,
) -> f64 {
    check_sequence_within(stepper, golden, sequence, (id, cut), tolerance(golden, kv, kv))
}

/// The same within a bound of another class.
///
/// # Panics
/// If a difference exceeds it.
pub fn check_sequence_within(
    stepper: &mut dyn Stepper,
    golden: &Tiny,
    sequence: &Sequence,
    (id, cut): (SequenceId, Cut),
    bound: f64,
) -> f64 {
    let mut check = Checker { bound, worst: 0.0, name: format!("{} {cut:?}", golden.file) };
    let sure = if bound > tolerance(golden, KvType::F32, KvType::F32) {
        positions_with_sure_routing(golden, sequence)
    } else {
        usize::MAX
    };
    let chunk = match cut {
        Cut::Whole => sequence.ids.len(),
        Cut::Chunks(n) => n,
    };
    let mut position = 0;
    let mut last = Vec::new();
    for ids in sequence.ids.chunks(chunk) {
        for row in stepper.step(&StepToken::run(id, position, ids, true)) {
            if position >= sure {
                return check.worst;
            }
            let expected = sequence.argmax[position];
            let logit = sequence.argmax_logit[position];
            check.near(f64::from(row[expected as usize]), logit, || format!("position {position}"));
            let ours = row[argmax(&row) as usize];
            assert!(
                f64::from(ours) - logit <= bound,
                "{}: position {position}: the largest logit is {ours}, llama.cpp's {logit}",
                check.name
            );
            last = row;
            position += 1;
        }
    }
    assert_eq!(position, sequence.ids.len(), "{}: a row of logits per token", check.name);
    check.all(&last, &sequence.last_logits);
    for (index, &expected) in sequence.greedy.iter().enumerate() {
        if position > sure {
            return check.worst;
        }
        let ours = argmax(&last);
        check.near(f64::from(last[expected as usize]), sequence.greedy_logit[index], || {
            format!("greedy {index}")
        });
        assert!(
            ours == expected || sequence.greedy_margin[index] <= 2.0 * bound,
            "{}: greedy {index} is {ours}, llama.cpp's {expected}",
            check.name
        );
        last = stepper.step(&StepToken::run(id, position, &[expected], true)).remove(0);
        position += 1;
    }
    check.worst
}

/// Router logits nearer than this are a tie to an executor that rounds its cache to halves, which moves them by as much.
const TIE: f64 = 3e-3;

/// How many positions of a sequence and its continuation come before one whose choice of experts is a tie: beyond it an
/// executor that rounds may choose otherwise and is as right. (With an F32 cache nothing is rounded and all positions count.)
fn positions_with_sure_routing(golden: &Tiny, sequence: &Sequence) -> usize {
    let model = ModelFile::open(golden.path()).expect("a tiny model");
    if !model.spec.layers.iter().any(|layer| matches!(layer.feed_forward, FeedForward::Experts(_)))
    {
        return usize::MAX;
    }
    let mut reference = reference(golden, KvType::F32);
    let ids = sequence.ids.iter().chain(&sequence.greedy);
    for (position, &id) in ids.enumerate() {
        reference.step(&StepToken::run(SequenceId(0), position, &[id], false));
        if reference.routing_margin() < TIE {
            return position;
        }
    }
    usize::MAX
}

struct Checker {
    bound: f64,
    worst: f64,
    name: String,
}

impl Checker {
    fn near(&mut self, ours: f64, theirs: f64, place: impl Fn() -> String) {
        let difference = (ours - theirs).abs();
        self.worst = self.worst.max(difference);
        assert!(
            difference <= self.bound,
            "{}: {}: {ours} is {difference:.2e} from llama.cpp's {theirs}, allowed {:.2e}",
            self.name,
            place(),
            self.bound
        );
    }

    fn all(&mut self, ours: &[f32], theirs: &[f64]) {
        assert_eq!(ours.len(), theirs.len(), "{}", self.name);
        for (index, (&ours, &theirs)) in ours.iter().zip(theirs).enumerate() {
            self.near(f64::from(ours), theirs, || format!("last logit {index}"));
        }
    }
}

impl Stepper for Context {
    fn step(&mut self, tokens: &[StepToken]) -> Vec<Vec<f32>> {
        Context::step(self, tokens).unwrap_or_else(|error| panic!("{error}"))
    }
}
