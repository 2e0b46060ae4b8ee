//! Probes of the smaller ops, which stand between a model's products, each with the shapes that it has in a plan.

use gguf::Format;

use super::{Probe, Weights, floats, sizes, value};
use crate::Result;
use crate::blueprint::Sizes;
use crate::kv::KvType;
use crate::plan::{Id, Op, Plan, StateId, ValueId, op};
use crate::spec::weights::{Weight, WeightId};

/// The most rows of a table that are kept.
const TABLE_ROWS: usize = 64;
/// Steps, of which the second starts from the first's states.
const STEPS: usize = 2;

/// An op out of a plan, by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct OpCase {
    /// The op, its values, weights and states numbered from 0.
    op: Op,
    /// Floats a row of each value.
    widths: Vec<usize>,
    /// Format, columns and rows of each weight.
    weights: Vec<(Format, usize, usize)>,
    /// Floats of each state.
    states: Vec<usize>,
    /// Rows of each step.
    tokens: usize,
}

/// Numbers things in the order in which they are met.
struct Renumbered<T>(Vec<T>);

impl<T: Copy + PartialEq> Renumbered<T> {
    fn number(&mut self, id: T) -> usize {
        self.0.iter().position(|&known| known == id).unwrap_or_else(|| {
            self.0.push(id);
            self.0.len() - 1
        })
    }
}

impl OpCase {
    /// An op of a plan; none for those that have cases of their own.
    pub fn of(plan: &Plan, op: &Op, tokens: usize) -> Option<Self> {
        // The others' cases are LinearCase, ExpertsCase, AttentionCase and those of norms and embeddings.
        let is_small = matches!(
            op,
            Op::Scale(_)
                | Op::Softcap(_)
                | Op::AddRow(_)
                | Op::HeadLinear(_)
                | Op::NormParts(_)
                | Op::AddGated(_)
                | Op::Gate(_)
                | Op::Conv(_)
                | Op::Mamba2(_)
                | Op::DeltaNet(_)
        );
        if !is_small {
            return None;
        }
        let mut values = Renumbered::<ValueId>(Vec::new());
        let mut weights = Renumbered::<WeightId>(Vec::new());
        let mut states = Renumbered::<StateId>(Vec::new());
        let op = op.renumbered(&mut |id| match id {
            Id::Value(id) => Id::Value(ValueId(values.number(id))),
            Id::Weight(id) => Id::Weight(WeightId(weights.number(id))),
            Id::State(id) => Id::State(StateId(states.number(id))),
        });
        let is_table = matches!(op, Op::AddRow(_));
        let shape = |id: &WeightId| {
            let Weight { format, columns, rows, .. } = *plan.weight(*id);
            (format, columns, if is_table { rows.min(TABLE_ROWS) } else { rows })
        };
        Some(Self {
            widths: values.0.iter().map(|&id| plan.value(id).width).collect(),
            weights: weights.0.iter().map(shape).collect(),
            states: states.0.iter().map(|id| plan.states[id.0]).collect(),
            op,
            tokens,
        })
    }

    /// The op's name and how wide its result is.
    pub fn name(&self) -> String {
        format!("{} of {}", self.op.name(), self.widths[self.out().0])
    }

    /// The kind of op.
    pub fn kind(&self) -> &'static str {
        self.op.name()
    }

    fn out(&self) -> ValueId {
        self.op.result()
    }

    /// How many roundings may add up in a number of the result, before a random walk's root.
    fn terms(&self) -> usize {
        let steps = STEPS * self.tokens;
        match self.op {
            Op::HeadLinear(_) => self.weights[0].1,
            Op::NormParts(op::NormParts { width, .. }) => width,
            Op::Conv(op::Conv { taps, .. }) => taps,
            Op::Mamba2(op::Mamba2 { mamba, .. }) => mamba.state * steps,
            Op::DeltaNet(op::DeltaNet { net, .. }) => 2 * net.size * steps,
            _ => 1,
        }
    }

    /// What inputs are multiplied by, from -1 to 1 before: logits are large, heads of a delta net normed.
    fn spread(&self) -> f32 {
        match self.op {
            Op::Softcap(op::Softcap { cap, .. }) => 2.0 * cap,
            Op::DeltaNet(op::DeltaNet { net, .. }) => (3.0 / net.size as f32).sqrt(),
            _ => 1.0,
        }
    }

    /// Which of the weights are decays, which have to be negative.
    fn decays(&self) -> Option<WeightId> {
        match self.op {
            Op::Mamba2(op::Mamba2 { a, .. }) | Op::DeltaNet(op::DeltaNet { a, .. }) => Some(a),
            _ => None,
        }
    }
}

impl Probe {
    /// An op by itself, in two steps. Bound: 2^-20 of the largest result for each of as many terms as a random walk
    /// over all of them adds up (their root): the functions of WGSL are a few roundings off, sums half of one a term.
    pub fn op(case: &OpCase) -> Result<Self> {
        let mut weights = Weights::new();
        for (number, &(format, columns, rows)) in case.weights.iter().enumerate() {
            if case.decays() == Some(WeightId(number)) {
                let decays = floats(number as u64 + 30, columns * rows);
                let data = decays.iter().flat_map(|x| (-0.1 - x.abs()).to_le_bytes()).collect();
                weights.add_data(Format::F32, columns, rows, data)?;
            } else {
                weights.add(format, columns, rows)?;
            }
        }
        let (file, list) = weights.finish()?;
        let out = case.out();
        let plan = Plan {
            ops: vec![case.op.clone()],
            values: case.widths.iter().map(|&width| value("value", width)).collect(),
            weights: list,
            states: case.states.clone(),
            logits: out,
            ..Plan::default()
        };
        let spread = case.spread();
        let (read, _) = case.op.uses();
        let inputs = case.widths.iter().enumerate().map(|(id, width)| {
            let floats = floats(id as u64 + 7, width * case.tokens);
            (ValueId(id), floats.into_iter().map(|x| x * spread).collect())
        });
        let inputs = inputs.filter(|(id, _)| read.contains(id));
        let positions = STEPS * case.tokens;
        let sizes =
            Sizes { positions, pool: positions, ..sizes(case.tokens, KvType::F32, KvType::F32) };
        let (inputs, bound) = (inputs.collect(), vec![]);
        let mut probe =
            Self::with_steps(plan, file, (0, case.tokens, STEPS), sizes, inputs, bound)?;
        let largest = probe.expected.iter().fold(1e-30f64, |most, x| most.max(x.abs()));
        let bound = largest * (case.terms() as f64).sqrt() / f64::from(1 << 20);
        probe.bound = vec![bound; probe.expected.len()];
        Ok(probe)
    }
}
