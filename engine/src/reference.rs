//! The oracle: every op in naive scalar f64, straight from ggml's blocks.
//!
//! It shares nothing with the executors but the plan and gguf's decode of a block: its keys and values
//! are plain lists by position, windows are a comparison of positions. No speed is asked of it.

mod recurrent;

use std::collections::HashMap;

use gguf::Gguf;

use crate::Result;
use crate::kv::KvType;
use crate::plan::{Epilogue, KvLayer, Op, Parts, Plan, RowOf, ValueId, op};
use crate::spec::ModelFile;
use crate::spec::rope::{Rope, RopeStyle};
use crate::spec::weights::{WeightId, read_f32};
use crate::spec::{
    Activation, CLAMPED_FACTOR, CLAMPED_LIMIT, GELU_CUBE, GELU_FACTOR, Gating, LEAST_SUM, NormKind,
    Routing,
};
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
    /// How far apart the last expert chosen and the first not chosen were at least, in the last step.
    margin: f64,
    cells: HashMap<(SequenceId, usize), Cells>,
    /// States by sequence and number.
    states: HashMap<(SequenceId, usize), Vec<f64>>,
}

crate::opaque::opaque_debug!(Reference { kv_types, margin });

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
        Ok(Self {
            plan,
            weights,
            kv_types: (key_type, value_type),
            margin: f64::INFINITY,
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
    pub fn run(&mut self, tokens: &[StepToken], values: &mut [Vec<Vec<f64>>]) {
        for op in self.plan.ops.clone() {
            self.compute(&op, tokens, values);
        }
    }

    fn compute(&mut self, op: &Op, tokens: &[StepToken], values: &mut [Vec<Vec<f64>>]) {
        match op {
            Op::Embed(op::Embed { table, scale, out }) => {
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
            Op::Norm(op::Norm { input, kind, weight, bias, epsilon, count, add, out }) => {
                let rows: Vec<&Vec<f64>> = self.rows_for(*out, tokens, &values[input.0]);
                let bias = bias.map(|bias| self.weights[bias.0].as_slice());
                let normed: Vec<Vec<f64>> = rows
                    .into_iter()
                    .map(|row| {
                        let mut row =
                            norm(row, *kind, Some(&self.weights[weight.0]), (*epsilon, *count));
                        for (index, x) in row.iter_mut().enumerate() {
                            *x += bias.map_or(0.0, |bias| f64::from(bias[index]));
                        }
                        row
                    })
                    .collect();
                if *add {
                    add_to(&mut values[out.0], &normed);
                } else {
                    values[out.0] = normed;
                }
            }
            Op::AddRow(op::AddRow { table, row, scale, out }) => {
                let width = self.plan.value(*out).width;
                let table = &self.weights[table.0];
                for (token, out) in tokens.iter().zip(&mut values[out.0]) {
                    let index = match (row, token.input) {
                        (RowOf::Id, Input::Id(id)) => id as usize,
                        (RowOf::Position, _) => token.position as usize,
                        _ => 0,
                    };
                    for (out, &w) in out.iter_mut().zip(&table[index * width..][..width]) {
                        *out += f64::from(w) * f64::from(*scale);
                    }
                }
            }
            Op::Scale(op::Scale { value, factor }) => {
                let width = self.plan.value(*value).width;
                values[value.0].resize(tokens.len(), vec![0.0; width]);
                for x in values[value.0].iter_mut().flatten() {
                    *x *= f64::from(*factor);
                }
            }
            Op::HeadLinear(op::HeadLinear { input, heads, weight, out }) => {
                let matrix = &self.weights[weight.0];
                let scale = f64::from(self.plan.weight(*weight).scale);
                let each = matrix.len() / heads;
                values[out.0] = values[input.0]
                    .iter()
                    .map(|row| {
                        let parts = row.chunks_exact(row.len() / heads).enumerate();
                        let product = |(head, part)| {
                            multiply(&matrix[head * each..][..each], part, scale, None)
                        };
                        parts.flat_map(product).collect()
                    })
                    .collect();
            }
            Op::NormParts(op::NormParts {
                value,
                offset,
                parts,
                width,
                stride,
                kind,
                weight,
                epsilon,
                count,
            }) => {
                let factors = weight.map(|weight| self.weights[weight.0].as_slice());
                for row in &mut values[value.0] {
                    for part in 0..*parts {
                        // Every part its own factors, or all the same.
                        let factors =
                            factors.map(|all| &all[(part * width) % all.len()..][..*width]);
                        let at = offset + part * stride;
                        let normed = norm(&row[at..at + width], *kind, factors, (*epsilon, *count));
                        row[at..at + width].copy_from_slice(&normed);
                    }
                }
            }
            Op::Linear(op::Linear { input, weights, biases, factor, epilogue, out }) => {
                let products: Vec<Vec<f64>> = values[input.0]
                    .iter()
                    .map(|row| {
                        let mut product = Vec::new();
                        for (weight, bias) in weights.iter().zip(biases) {
                            let bias = bias.map(|bias| self.weights[bias.0].as_slice());
                            let scale = f64::from(self.plan.weight(*weight).scale);
                            product.extend(
                                multiply(&self.weights[weight.0], row, scale, bias)
                                    .into_iter()
                                    .map(|y| y * f64::from(*factor)),
                            );
                        }
                        product
                    })
                    .collect();
                match epilogue {
                    Epilogue::Store => values[out.0] = products,
                    Epilogue::Activated(activation) => {
                        values[out.0] = products
                            .into_iter()
                            .map(|row| row.into_iter().map(|x| activate(x, *activation)).collect())
                            .collect();
                    }
                    Epilogue::AddTo => add_to(&mut values[out.0], &products),
                    Epilogue::Gated { activation, .. } => {
                        values[out.0] =
                            products.iter().map(|both| gated(both, *activation)).collect();
                    }
                }
            }
            Op::QkRopeStore(op::QkRopeStore {
                qkv,
                v: apart,
                layer,
                q_norm,
                k_norm,
                epsilon,
                count,
                rope,
                turn_from,
                store,
                temperature,
            }) => {
                let kv = *self.plan.kv_layer(*layer);
                let rope = rope.map(|rope| &self.plan.ropes[rope.0]);
                let norm_of =
                    |norm: &Option<WeightId>| norm.map(|id| self.weights[id.0].as_slice());
                let mut rows = std::mem::take(&mut values[qkv.0]);
                for (index, (token, row)) in tokens.iter().zip(&mut rows).enumerate() {
                    let (q, rest) = row.split_at_mut(kv.query_width());
                    let (k, behind) = rest.split_at_mut(kv.key_width());
                    let v = apart.map_or(&*behind, |v| values[v.0][index].as_slice());
                    for head in q.chunks_exact_mut(kv.key_length) {
                        norm_and_turn(
                            head,
                            (norm_of(q_norm), *epsilon, *count),
                            (rope, *turn_from),
                            token.position,
                        );
                    }
                    for head in k.chunks_exact_mut(kv.key_length) {
                        norm_and_turn(
                            head,
                            (norm_of(k_norm), *epsilon, *count),
                            (rope, *turn_from),
                            token.position,
                        );
                    }
                    if let Some(temperature) = temperature {
                        let steps = token.position as usize / temperature.length;
                        let factor = 1.0 + f64::from(temperature.scale) * (steps as f64).ln_1p();
                        for x in q {
                            *x *= factor;
                        }
                    }
                    if !store {
                        continue;
                    }
                    let cells = self.cells.entry((token.sequence, layer.0)).or_default();
                    cells.keys.truncate(token.position as usize);
                    cells.values.truncate(token.position as usize);
                    let rounded = |x: &[f64], length: usize, kind: KvType| {
                        let mut x = x.to_vec();
                        x.chunks_exact_mut(length).for_each(|head| kind.round(head));
                        x
                    };
                    cells.keys.push(rounded(k, kv.key_length, self.kv_types.0));
                    cells.values.push(rounded(v, kv.value_length, self.kv_types.1));
                }
                values[qkv.0] = rows;
            }
            Op::Attention(op::Attention { qkv, layer, scale, softcap, sinks, causal, out }) => {
                let kv = self.plan.kv_layer(*layer);
                let scores = Scores {
                    scale: f64::from(*scale),
                    softcap: softcap.map(f64::from),
                    sinks: sinks.map(|sinks| self.weights[sinks.0].as_slice()),
                };
                values[out.0] = tokens
                    .iter()
                    .zip(&values[qkv.0])
                    .map(|(token, row)| {
                        let cells = &self.cells[&(token.sequence, layer.0)];
                        let last =
                            if *causal { token.position as usize } else { cells.keys.len() - 1 };
                        let position = token.position as usize;
                        let start = kv.window.map_or(0, |w| (position + 1).saturating_sub(w));
                        attention(kv, &row[..kv.query_width()], cells, start..=last, &scores)
                    })
                    .collect();
            }
            Op::Route(op::Route { logits, bias, routing, scales, out }) => {
                let scales = scales.map(|scales| self.weights[scales.0].as_slice());
                let bias = bias.map(|bias| self.weights[bias.0].as_slice());
                let one_more = Routing { used: routing.used + 1, ..*routing };
                values[out.0] = values[logits.0]
                    .iter()
                    .map(|logits| {
                        if let [.., last, next] = route(logits, None, &one_more).as_slice() {
                            self.margin = self.margin.min((logits[last.0] - logits[next.0]).abs());
                        }
                        let chosen = route(logits, bias, routing);
                        let scale = |e: usize| scales.map_or(1.0, |all| f64::from(all[e]));
                        chosen.into_iter().flat_map(|(e, w)| [e as f64, w * scale(e)]).collect()
                    })
                    .collect();
            }
            Op::ExpertsGated(op::ExpertsGated {
                input,
                routes,
                routing,
                weights,
                biases,
                activation,
                out,
                ..
            }) => {
                let rows = values[input.0].iter().zip(&values[routes.0]);
                let hidden = rows.map(|(x, routes)| {
                    let each = routes.chunks_exact(2).map(|route| {
                        let mut both = Vec::new();
                        for (weight, bias) in weights.iter().zip(biases) {
                            both.extend(self.expert(*weight, *bias, route[0], routing, x));
                        }
                        gated(&both, *activation)
                    });
                    each.flatten().collect()
                });
                values[out.0] = hidden.collect();
            }
            Op::ExpertsDown(op::ExpertsDown {
                input,
                routes,
                routing,
                weight,
                bias,
                factor,
                out,
                ..
            }) => {
                let rows = values[input.0].iter().zip(&values[routes.0]);
                let sums: Vec<Vec<f64>> = rows
                    .map(|(hidden, routes)| {
                        let mut sum = vec![0.0; self.plan.value(*out).width];
                        let pairs = hidden.chunks_exact(hidden.len() / routing.used);
                        for (hidden, route) in pairs.zip(routes.chunks_exact(2)) {
                            let product = self.expert(*weight, *bias, route[0], routing, hidden);
                            for (sum, y) in sum.iter_mut().zip(product) {
                                *sum += f64::from(*factor) * route[1] * y;
                            }
                        }
                        sum
                    })
                    .collect();
                add_to(&mut values[out.0], &sums);
            }
            Op::AddGated(op::AddGated { gate, activation, input, factor, out }) => {
                let gated: Vec<Vec<f64>> = values[input.0]
                    .iter()
                    .zip(&values[gate.0])
                    .map(|(row, gate)| {
                        let gate = activate(gate[0], *activation) * f64::from(*factor);
                        row.iter().map(|x| x * gate).collect()
                    })
                    .collect();
                add_to(&mut values[out.0], &gated);
            }
            Op::Gate(op::Gate { gate, activation, input, shape: (parts, width), out }) => {
                for row in 0..tokens.len() {
                    for part in 0..*parts {
                        for column in 0..*width {
                            let at = |p: &Parts| p.offset + part * p.stride + column;
                            let mut y = values[gate.value.0][row][at(gate)];
                            if let Some(activation) = activation {
                                y = activate(y, *activation);
                            }
                            if let Some(input) = input {
                                y *= values[input.value.0][row][at(input)];
                            }
                            let rows = &mut values[out.value.0];
                            rows.resize(tokens.len(), vec![]);
                            rows[row].resize(self.plan.value(out.value).width, 0.0);
                            rows[row][at(out)] = y;
                        }
                    }
                }
            }
            Op::Conv(_) | Op::Mamba2(_) | Op::DeltaNet(_) => {
                self.recur(op, tokens, values);
            }
            Op::Softcap(op::Softcap { value, cap }) => {
                let cap = f64::from(*cap);
                for x in values[value.0].iter_mut().flatten() {
                    *x = cap * (*x / cap).tanh();
                }
            }
        }
    }

    /// The product of one expert's part of a weight with `x`.
    fn expert(
        &self,
        weight: WeightId,
        bias: Option<WeightId>,
        expert: f64,
        routing: &Routing,
        x: &[f64],
    ) -> Vec<f64> {
        let part = |weights: &'_ [f32]| {
            let length = weights.len() / routing.count;
            expert as usize * length..(expert as usize + 1) * length
        };
        let matrix = &self.weights[weight.0];
        let bias = bias.map(|bias| &self.weights[bias.0]);
        let bias = bias.map(|bias| &bias[part(bias)]);
        multiply(&matrix[part(matrix)], x, f64::from(self.plan.weight(weight).scale), bias)
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

fn norm_and_turn(
    head: &mut [f64],
    (factors, epsilon, count): (Option<&[f32]>, f32, usize),
    (rope, turn_from): (Option<&Rope>, usize),
    position: u32,
) {
    if factors.is_some() {
        head.copy_from_slice(&norm(head, NormKind::Rms, factors, (epsilon, count)));
    }
    let Some(rope) = rope else { return };
    let head = &mut head[turn_from..];
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

/// How scores are made of products.
struct Scores<'a> {
    scale: f64,
    softcap: Option<f64>,
    sinks: Option<&'a [f32]>,
}

fn attention(
    kv: &KvLayer,
    q: &[f64],
    cells: &Cells,
    visible: std::ops::RangeInclusive<usize>,
    how: &Scores,
) -> Vec<f64> {
    let mut out = Vec::new();
    for (head, q) in q.chunks_exact(kv.key_length).enumerate() {
        let kv_head = head / (kv.heads / kv.kv_heads);
        let scores: Vec<f64> = visible
            .clone()
            .map(|cell| {
                let k = &cells.keys[cell][kv_head * kv.key_length..][..kv.key_length];
                let score = q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * how.scale;
                how.softcap.map_or(score, |cap| cap * (score / cap).tanh())
            })
            .collect();
        let sink = how.sinks.map(|sinks| f64::from(sinks[head]));
        let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - max).exp());
        for element in 0..kv.value_length {
            let sum: f64 = visible
                .clone()
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
