//! The oracle: every op in naive scalar f64, straight from ggml's blocks.
//!
//! It shares nothing with the executors but the plan and gguf's decode of a block: its keys and values
//! are plain lists by position, windows are a comparison of positions. No speed is asked of it.

use std::collections::HashMap;

use gguf::Gguf;

use crate::Result;
use crate::kv::KvType;
use crate::model::ModelFile;
use crate::model::rope::{Rope, RopeStyle};
use crate::model::spec::{Activation, GELU_CUBE, GELU_FACTOR};
use crate::model::weights::read_f32;
use crate::plan::{Epilogue, KvLayer, Op, Plan, ValueId};
use crate::step::{Input, SequenceId, StepToken};

/// The keys and values of one sequence in one layer, by position.
#[derive(Default, Clone)]
struct Cells {
    keys: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
}

/// Runs a plan in f64.
pub struct Reference {
    plan: Plan,
    weights: Vec<Vec<f32>>,
    kv_types: (KvType, KvType),
    cells: HashMap<(SequenceId, usize), Cells>,
}

impl Reference {
    /// Prepares a model: all its weights are decoded, so it should be a small one.
    pub fn new(
        model: &ModelFile,
        cells: usize,
        key_type: KvType,
        value_type: KvType,
    ) -> Result<Self> {
        Self::with_plan(Plan::new(model, cells)?, &model.gguf, key_type, value_type)
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
        Ok(Self { plan, weights, kv_types: (key_type, value_type), cells: HashMap::new() })
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

    /// Computes a step: a row of logits for each token that wants them.
    pub fn step(&mut self, tokens: &[StepToken]) -> Vec<Vec<f64>> {
        let mut values = vec![Vec::new(); self.plan.values.len()];
        self.run(tokens, &mut values);
        std::mem::take(&mut values[self.plan.logits.0])
    }

    /// Runs all ops on given values: rows of each, by the ids of the plan.
    pub fn run(&mut self, tokens: &[StepToken], values: &mut [Vec<Vec<f64>>]) {
        for op in self.plan.ops.clone() {
            self.compute(&op, tokens, values);
        }
    }

    fn compute(&mut self, op: &Op, tokens: &[StepToken], values: &mut [Vec<Vec<f64>>]) {
        match op {
            Op::Embed { table, scale, out } => {
                let width = self.plan.value(*out).width;
                let table = &self.weights[table.0];
                values[out.0] = tokens
                    .iter()
                    .map(|token| {
                        let Input::Id(id) = token.input else { return vec![f64::NAN; width] };
                        let row = &table[id as usize * width..][..width];
                        row.iter().map(|&w| f64::from(w) * f64::from(*scale)).collect()
                    })
                    .collect();
            }
            Op::Norm { input, weight, epsilon, add, out } => {
                let rows: Vec<&Vec<f64>> = self.rows_for(*out, tokens, &values[input.0]);
                let normed: Vec<Vec<f64>> = rows
                    .into_iter()
                    .map(|row| rms_norm(row, &self.weights[weight.0], *epsilon))
                    .collect();
                if *add {
                    add_to(&mut values[out.0], &normed);
                } else {
                    values[out.0] = normed;
                }
            }
            Op::Linear { input, weights, biases, epilogue, out } => {
                let products: Vec<Vec<f64>> = values[input.0]
                    .iter()
                    .map(|row| {
                        let mut product = Vec::new();
                        for (weight, bias) in weights.iter().zip(biases) {
                            let bias = bias.map(|bias| self.weights[bias.0].as_slice());
                            product.extend(multiply(&self.weights[weight.0], row, bias));
                        }
                        product
                    })
                    .collect();
                match epilogue {
                    Epilogue::Store => values[out.0] = products,
                    Epilogue::AddTo => add_to(&mut values[out.0], &products),
                    Epilogue::Gated { activation, .. } => {
                        values[out.0] =
                            products.iter().map(|both| gated(both, *activation)).collect();
                    }
                }
            }
            Op::QkRopeStore { qkv, layer, q_norm, k_norm, epsilon, rope } => {
                let kv = *self.plan.kv_layer(*layer);
                let rope = &self.plan.ropes[rope.0];
                let norm_of = |norm: &Option<crate::model::weights::WeightId>| {
                    norm.map(|id| self.weights[id.0].as_slice())
                };
                for (token, row) in tokens.iter().zip(&mut values[qkv.0]) {
                    let (q, rest) = row.split_at_mut(kv.query_width());
                    let (k, v) = rest.split_at_mut(kv.key_width());
                    for head in q.chunks_exact_mut(kv.key_length) {
                        norm_and_turn(head, norm_of(q_norm), *epsilon, rope, token.position);
                    }
                    for head in k.chunks_exact_mut(kv.key_length) {
                        norm_and_turn(head, norm_of(k_norm), *epsilon, rope, token.position);
                    }
                    let cells = self.cells.entry((token.sequence, layer.0)).or_default();
                    cells.keys.truncate(token.position as usize);
                    cells.values.truncate(token.position as usize);
                    cells.keys.push(k.iter().map(|&x| self.kv_types.0.round(x)).collect());
                    cells.values.push(v.iter().map(|&x| self.kv_types.1.round(x)).collect());
                }
            }
            Op::Attention { qkv, layer, scale, out } => {
                let kv = self.plan.kv_layer(*layer);
                values[out.0] = tokens
                    .iter()
                    .zip(&values[qkv.0])
                    .map(|(token, row)| {
                        let cells = &self.cells[&(token.sequence, layer.0)];
                        attention(kv, &row[..kv.query_width()], cells, token.position, *scale)
                    })
                    .collect();
            }
        }
    }

    /// The input's rows that a norm reads: all, or those whose logits are wanted.
    fn rows_for<'a>(
        &self,
        out: ValueId,
        tokens: &[StepToken],
        input: &'a [Vec<f64>],
    ) -> Vec<&'a Vec<f64>> {
        match self.plan.value(out).rows {
            crate::plan::Rows::Tokens => input.iter().collect(),
            crate::plan::Rows::Outputs => tokens
                .iter()
                .zip(input)
                .filter(|(token, _)| token.want_logits)
                .map(|(_, row)| row)
                .collect(),
        }
    }
}

fn add_to(out: &mut [Vec<f64>], rows: &[Vec<f64>]) {
    for (out, row) in out.iter_mut().zip(rows) {
        for (out, x) in out.iter_mut().zip(row) {
            *out += x;
        }
    }
}

/// x w / sqrt(mean(x^2) + epsilon).
pub fn rms_norm(x: &[f64], weight: &[f32], epsilon: f32) -> Vec<f64> {
    let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean_square + f64::from(epsilon)).sqrt();
    x.iter().zip(weight).map(|(x, &w)| x * scale * f64::from(w)).collect()
}

/// The product of a matrix (rows of `x.len()` weights) with `x`, plus the bias.
pub fn multiply(matrix: &[f32], x: &[f64], bias: Option<&[f32]>) -> Vec<f64> {
    matrix
        .chunks_exact(x.len())
        .enumerate()
        .map(|(row, weights)| {
            let product: f64 = weights.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum();
            product + bias.map_or(0.0, |bias| f64::from(bias[row]))
        })
        .collect()
}

/// activation(first half) * second half.
pub fn gated(both: &[f64], activation: Activation) -> Vec<f64> {
    let (gate, up) = both.split_at(both.len() / 2);
    gate.iter().zip(up).map(|(&gate, up)| activate(gate, activation) * up).collect()
}

/// The activation of one number.
pub fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + (GELU_FACTOR * (x + GELU_CUBE * x * x * x)).tanh()),
    }
}

fn norm_and_turn(head: &mut [f64], norm: Option<&[f32]>, epsilon: f32, rope: &Rope, position: u32) {
    if let Some(norm) = norm {
        head.copy_from_slice(&rms_norm(head, norm, epsilon));
    }
    for (pair, (cos, sin)) in rope.angles(position).enumerate() {
        let (a, b) = match rope.style {
            RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
            RopeStyle::Halves => (pair, pair + rope.pairs()),
        };
        let (x0, x1) = (head[a], head[b]);
        head[a] = x0 * cos - x1 * sin;
        head[b] = x0 * sin + x1 * cos;
    }
}

fn attention(kv: &KvLayer, q: &[f64], cells: &Cells, position: u32, scale: f32) -> Vec<f64> {
    let position = position as usize;
    let start = kv.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let mut out = Vec::new();
    for (head, q) in q.chunks_exact(kv.key_length).enumerate() {
        let kv_head = head / (kv.heads / kv.kv_heads);
        let scores: Vec<f64> = (start..=position)
            .map(|cell| {
                let k = &cells.keys[cell][kv_head * kv.key_length..][..kv.key_length];
                q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * f64::from(scale)
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        for element in 0..kv.value_length {
            let sum: f64 = (start..=position)
                .zip(&weights)
                .map(|(cell, weight)| {
                    weight * cells.values[cell][kv_head * kv.value_length + element]
                })
                .sum();
            out.push(sum / total);
        }
    }
    out
}
