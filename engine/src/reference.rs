//! The oracle: every op in naive scalar f64, straight from ggml's blocks.
//!
//! It shares nothing with the executors but the plan and gguf's decode of a block: its keys and values
//! are plain lists by position, windows are a comparison of positions. No speed is asked of it.

mod attention;
mod elementwise;
mod experts;
mod linear;
mod recurrent;

use std::collections::HashMap;

use gguf::Gguf;

use crate::Result;
use crate::kv::KvType;
use crate::plan::{Op, Plan, ValueId};
use crate::spec::ModelFile;
use crate::spec::weights::{WeightId, read_f32};
use crate::spec::{
    Activation, CLAMPED_FACTOR, CLAMPED_LIMIT, GELU_CUBE, GELU_FACTOR, Gating, LEAST_SUM, NormKind,
    Routing,
};
use crate::step::{SequenceId, StepToken};

/// The keys and values of one sequence in one layer, by position.
#[derive(Default, Clone)]
struct Cells {
    keys: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
}

/// The rows of each value, by its id.
type Values = [Vec<Vec<f64>>];

/// Runs a plan in f64.
pub struct Reference {
    plan: Plan,
    weights: Vec<Vec<f32>>,
    kv_types: (KvType, KvType),
    /// How far apart the last expert chosen and the first not chosen were at least, in the last step.
    margin: f64,
    cells: HashMap<(SequenceId, usize), Cells>,
    /// The embeddings of a step's tokens that are given as rows.
    rows: Vec<Vec<f64>>,
    /// States by sequence and number.
    states: HashMap<(SequenceId, usize), Vec<f64>>,
}

crate::opaque::opaque_debug!(Reference { kv_types, margin });

impl Reference {
    /// Prepares a model: all its weights are decoded, so it should be a small one.
    pub fn new(
        model: &ModelFile,
        positions: usize,
        key_type: KvType,
        value_type: KvType,
    ) -> Result<Self> {
        Self::with_plan(Plan::new(model, positions)?, &model.gguf, key_type, value_type)
    }

    /// Prepares any plan over the weights of a file.
    pub fn with_plan(
        plan: Plan,
        file: &Gguf,
        key_type: KvType,
        value_type: KvType,
    ) -> Result<Self> {
        let weights = plan
            .weights
            .iter()
            .map(|weight| read_f32(file, &weight.name))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            plan,
            weights,
            kv_types: (key_type, value_type),
            margin: f64::INFINITY,
            rows: Vec::new(),
            states: HashMap::new(),
            cells: HashMap::new(),
        })
    }

    /// Gives a sequence's layer its keys and values, one row a position from 0 on.
    pub fn set_cells(
        &mut self,
        sequence: SequenceId,
        layer: usize,
        keys: Vec<Vec<f64>>,
        values: Vec<Vec<f64>>,
    ) {
        self.cells.insert((sequence, layer), Cells { keys, values });
    }

    /// Gives the embeddings for steps whose tokens are given as rows, by their numbers.
    pub fn set_rows(&mut self, rows: Vec<Vec<f64>>) {
        self.rows = rows;
    }

    /// Computes a step: a row of logits for each token that wants them.
    pub fn step(&mut self, tokens: &[StepToken]) -> Vec<Vec<f64>> {
        let mut values = vec![Vec::new(); self.plan.values.len()];
        self.margin = f64::INFINITY;
        self.run(tokens, &mut values);
        std::mem::take(&mut values[self.plan.logits.0])
    }

    /// How far apart the last expert chosen and the first not chosen were at least in the last step, in what they are
    /// chosen by: below what an executor rounds, another choice is as right.
    pub fn routing_margin(&self) -> f64 {
        self.margin
    }

    /// Runs all ops on given values: rows of each, by the ids of the plan.
    pub fn run(&mut self, tokens: &[StepToken], values: &mut Values) {
        for op in self.plan.ops.clone() {
            // Ops that change a value find it where their result will be.
            if let Some(before) = op.before() {
                let rows = values[before.0].clone();
                values[op.result().0] = rows;
            }
            self.compute(&op, tokens, values);
        }
    }

    fn compute(&mut self, op: &Op, tokens: &[StepToken], values: &mut Values) {
        match op {
            Op::Embed(op) => self.embed(op, tokens, values),
            Op::Norm(op) => self.norm(op, tokens, values),
            Op::AddRow(op) => self.add_row(op, tokens, values),
            Op::Scale(op) => Self::scale(op, values),
            Op::HeadLinear(op) => self.head_linear(op, values),
            Op::NormParts(op) => self.norm_parts(op, values),
            Op::Linear(op) => self.linear(op, values),
            Op::QkRopeStore(op) => self.qk_rope_store(op, tokens, values),
            Op::Attention(op) => self.attention(op, tokens, values),
            Op::Route(op) => self.route(op, values),
            Op::ExpertsGated(op) => self.experts_gated(op, values),
            Op::ExpertsDown(op) => self.experts_down(op, values),
            Op::AddGated(op) => Self::add_gated(op, values),
            Op::Gate(op) => self.gate(op, values),
            Op::Conv(op) => self.conv(op, tokens, values),
            Op::Mamba2(op) => self.mamba2(op, tokens, values),
            Op::DeltaNet(op) => self.delta_net(op, tokens, values),
            Op::Softcap(op) => Self::softcap(op, values),
        }
    }

    /// A weight's numbers.
    fn weight(&self, id: WeightId) -> &[f32] {
        &self.weights[id.0]
    }

    /// Adds rows to a value's.
    fn add_to(values: &mut Values, out: ValueId, rows: &[Vec<f64>]) {
        for (out, row) in values[out.0].iter_mut().zip(rows) {
            for (out, x) in out.iter_mut().zip(row) {
                *out += x;
            }
        }
    }
}

/// A norm of x, of which `count` are numbers and the others zeros (behind them, where a mean is taken), times factors
/// where there are some.
pub fn norm(
    x: &[f64],
    kind: NormKind,
    factors: Option<&[f32]>,
    (epsilon, numbers): (f32, usize),
) -> Vec<f64> {
    let (count, epsilon) = (numbers as f64, f64::from(epsilon));
    let mean = if kind == NormKind::Layer { x.iter().sum::<f64>() / count } else { 0.0 };
    let squares: f64 = if kind == NormKind::Layer {
        x[..numbers].iter().map(|x| (x - mean).powi(2)).sum()
    } else {
        x.iter().map(|x| x.powi(2)).sum()
    };
    let scale = match kind {
        NormKind::Rms | NormKind::Layer => 1.0 / (squares / count + epsilon).sqrt(),
        NormKind::L2 => 1.0 / (squares + epsilon).sqrt(),
    };
    let factor = |index: usize| factors.map_or(1.0, |factors| f64::from(factors[index]));
    x.iter().enumerate().map(|(index, x)| (x - mean) * scale * factor(index)).collect()
}

/// The product of a matrix (rows of `x.len()` weights) with `x`, times `scale`, plus the bias.
pub fn multiply(matrix: &[f32], x: &[f64], scale: f64, bias: Option<&[f32]>) -> Vec<f64> {
    matrix
        .chunks_exact(x.len())
        .enumerate()
        .map(|(row, weights)| {
            let product: f64 = weights.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum();
            product * scale + bias.map_or(0.0, |bias| f64::from(bias[row]))
        })
        .collect()
}

/// The chosen experts with their weights, the best first; of equals the first.
pub fn route(logits: &[f64], bias: Option<&[f32]>, routing: &Routing) -> Vec<(usize, f64)> {
    let softmax = |x: &[f64]| -> Vec<f64> {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
        let total: f64 = powers.iter().sum();
        powers.iter().map(|power| power / total).collect()
    };
    let weights = match routing.gating {
        Gating::Softmax => softmax(logits),
        Gating::Sigmoid => logits.iter().map(|x| activate(*x, Activation::Sigmoid)).collect(),
        Gating::SoftmaxOfChosen => logits.to_vec(),
    };
    let best = |of: &[f64], count: usize| -> Vec<usize> {
        let mut order: Vec<usize> = (0..of.len()).collect();
        order.sort_by(|&a, &b| of[b].total_cmp(&of[a]));
        order.truncate(count);
        order
    };
    let bias = |expert: usize| bias.map_or(0.0, |bias| f64::from(bias[expert]));
    let mut values: Vec<f64> = weights.iter().enumerate().map(|(e, w)| w + bias(e)).collect();
    if routing.groups > 1 {
        let per_group = routing.count / routing.groups;
        let scores: Vec<f64> = values
            .chunks_exact(per_group)
            .map(|group| best(group, 2).iter().map(|&e| group[e]).sum())
            .collect();
        let kept = best(&scores, routing.groups_used);
        for (expert, value) in values.iter_mut().enumerate() {
            if !kept.contains(&(expert / per_group)) {
                *value = f64::NEG_INFINITY;
            }
        }
    }
    let chosen = best(&values, routing.used);
    let mut of_chosen: Vec<f64> = chosen.iter().map(|&expert| weights[expert]).collect();
    if routing.gating == Gating::SoftmaxOfChosen {
        of_chosen = softmax(&of_chosen);
    }
    if routing.normalize {
        let sum = of_chosen.iter().sum::<f64>().max(LEAST_SUM);
        for weight in &mut of_chosen {
            *weight /= sum;
        }
    }
    let scale = f64::from(routing.scale);
    chosen.into_iter().zip(of_chosen).map(|(expert, weight)| (expert, weight * scale)).collect()
}

/// activation(first half) * second half.
pub fn gated(both: &[f64], activation: Activation) -> Vec<f64> {
    let (gate, up) = both.split_at(both.len() / 2);
    gate.iter().zip(up).map(|(&gate, &up)| gate_times_up(gate, up, activation)).collect()
}

/// ln(1 + e^x); x itself above 20, as llama.cpp has it.
pub fn softplus(x: f64) -> f64 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// activation(gate) * up.
pub fn gate_times_up(gate: f64, up: f64, activation: Activation) -> f64 {
    match activation {
        Activation::ClampedSwiglu => {
            activate(gate, activation) * (up.clamp(-CLAMPED_LIMIT, CLAMPED_LIMIT) + 1.0)
        }
        _ => activate(gate, activation) * up,
    }
}

/// The activation of one number.
pub fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::ClampedSwiglu => {
            let x = x.min(CLAMPED_LIMIT);
            x / (1.0 + (-CLAMPED_FACTOR * x).exp())
        }
        Activation::Gelu => 0.5 * x * (1.0 + (GELU_FACTOR * (x + GELU_CUBE * x * x * x)).tanh()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sum of weights below 2^-14 counts as that; groups go by their two best; a bias is for the choice alone.
    #[test]
    fn routes_are_the_formulas() {
        let plain = Routing {
            count: 4,
            used: 2,
            gating: Gating::Sigmoid,
            normalize: true,
            scale: 2.0,
            groups: 1,
            groups_used: 1,
        };
        let tiny = route(&[-20.0, -21.0, -30.0, -40.0], None, &plain);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert_eq!((tiny[0].0, tiny[1].0), (0, 1));
        assert!((tiny[0].1 - sigmoid(-20.0) * 16384.0 * 2.0).abs() < 1e-12);

        let biased = route(&[0.0, 0.1, 0.2, -1.0], Some(&[0.0, 0.0, 0.0, 5.0]), &plain);
        assert_eq!((biased[0].0, biased[1].0), (3, 2));
        let sum = sigmoid(-1.0) + sigmoid(0.2);
        assert!((biased[0].1 - 2.0 * sigmoid(-1.0) / sum).abs() < 1e-12);

        // The best expert of all is in a group whose two best are worse together.
        let grouped = Routing { groups: 2, groups_used: 1, ..plain };
        let chosen = route(&[3.0, -9.0, 1.0, 0.9], None, &grouped);
        assert_eq!((chosen[0].0, chosen[1].0), (2, 3));
    }
}
