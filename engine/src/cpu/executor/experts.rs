//! Mixtures of experts: each expert's part of a matrix is multiplied with the tokens that chose it, all at once.

use super::{CpuExecutor, PlacedStep};
use crate::cpu::math::{activate, exp_each, largest};
use crate::cpu::slots::Slots;
use crate::cpu::tile::Output;
use crate::plan::{ValueId, op};
use crate::spec::LEAST_SUM;
use crate::spec::weights::WeightId;
use crate::spec::{Activation, Gating, Routing};

/// Chooses experts by their logits: `out` gets pairs of the number's bits and the weight.
fn choose(
    logits: &[f32],
    (bias, scales): (Option<&[f32]>, Option<&[f32]>),
    routing: &Routing,
    out: &mut [f32],
) {
    let mut weights = logits.to_vec();
    match routing.gating {
        Gating::Softmax => softmax(&mut weights),
        Gating::Sigmoid => {
            for x in &mut weights {
                *x = activate(*x, Activation::Sigmoid);
            }
        }
        Gating::SoftmaxOfChosen => {}
    }
    let mut values = weights.clone();
    if let Some(bias) = bias {
        for (value, bias) in values.iter_mut().zip(bias) {
            *value += bias;
        }
    }
    if routing.groups > 1 {
        let per_group = routing.count / routing.groups;
        let mut scores: Vec<f32> = values
            .chunks_exact(per_group)
            .map(|group| {
                let mut group = group.to_vec();
                let best = take_best(&mut group).1;
                best + take_best(&mut group).1
            })
            .collect();
        let kept: Vec<usize> = (0..routing.groups_used).map(|_| take_best(&mut scores).0).collect();
        for (group, values) in values.chunks_exact_mut(per_group).enumerate() {
            if !kept.contains(&group) {
                values.fill(f32::NEG_INFINITY);
            }
        }
    }
    let chosen: Vec<usize> = (0..routing.used).map(|_| take_best(&mut values).0).collect();
    let mut of_chosen: Vec<f32> = chosen.iter().map(|&expert| weights[expert]).collect();
    if routing.gating == Gating::SoftmaxOfChosen {
        softmax(&mut of_chosen);
    }
    let sum = of_chosen.iter().sum::<f32>().max(LEAST_SUM as f32);
    let factor = if routing.normalize { routing.scale / sum } else { routing.scale };
    for ((out, expert), weight) in out.as_chunks_mut::<2>().0.iter_mut().zip(chosen).zip(of_chosen)
    {
        let scale = scales.map_or(1.0, |scales| scales[expert]);
        *out = [f32::from_bits(expert as u32), weight * factor * scale];
    }
}

/// The first of the largest, which then is taken out.
fn take_best(values: &mut [f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &value) in values.iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    values[best.0] = f32::NEG_INFINITY;
    best
}

fn softmax(x: &mut [f32]) {
    let total = exp_each(x, largest(x, f32::NEG_INFINITY));
    for x in x {
        *x /= total;
    }
}

/// The pairs (token * used + place) that each chosen expert works for, by expert.
fn pairs_of_experts(routes: &[f32], routing: &Routing) -> Vec<(usize, Vec<usize>)> {
    let mut pairs = vec![Vec::new(); routing.count];
    for (pair, [expert, _]) in routes.as_chunks::<2>().0.iter().enumerate() {
        // The router gives no number beyond the experts; a broken one must not be an index.
        pairs[(expert.to_bits() as usize).min(routing.count - 1)].push(pair);
    }
    pairs.into_iter().enumerate().filter(|(_, pairs)| !pairs.is_empty()).collect()
}

impl CpuExecutor {
    pub(super) fn route(&mut self, op: &op::Route, step: &PlacedStep) {
        let &op::Route { logits, bias, ref routing, scales, out } = op;
        let mut result = self.take(out);
        let scales = scales.map(|scales| self.weights.vector(scales));
        let bias = bias.map(|bias| self.weights.vector(bias));
        let logits = self.value(logits).chunks_exact(routing.count);
        for (row, logits) in
            result.chunks_exact_mut(2 * routing.used).zip(logits).take(step.tokens.len())
        {
            choose(logits, (bias, scales), routing, row);
        }
        self.put(out, result);
    }

    pub(super) fn experts_gated(&mut self, op: &op::ExpertsGated, step: &PlacedStep) {
        let op::ExpertsGated { input, routes, routing, weights, biases, activation, both, out } =
            op;
        let (used, width) = (routing.used, self.blueprint.plan.value(*out).width / routing.used);
        let pairs = step.tokens.len() * used;
        let by_expert = pairs_of_experts(&self.value(*routes)[..2 * pairs], routing);
        let mut result = self.take(*both);
        let mut offset = 0;
        for (&weight, &bias) in weights.iter().zip(biases) {
            let rows = self.blueprint.plan.weight(weight).rows / routing.count;
            let at = (2 * width, offset);
            let (of, from) = ((weight, bias), (*input, used));
            self.by_expert(&by_expert, of, routing.count, from, &mut result, at);
            offset += rows;
        }
        self.gate_both(*activation, &result, width, pairs, *out);
        self.put(*both, result);
    }

    pub(super) fn experts_down(&mut self, op: &op::ExpertsDown, step: &PlacedStep) {
        let &op::ExpertsDown {
            input,
            routes,
            ref routing,
            weight,
            bias,
            factor,
            parts,
            add_to,
            out,
        } = op;
        let (used, width) = (routing.used, self.blueprint.plan.value(out).width);
        let pairs = step.tokens.len() * used;
        let by_expert = pairs_of_experts(&self.value(routes)[..2 * pairs], routing);
        let mut products = self.take(parts);
        let (of, from) = ((weight, bias), (input, 1));
        self.by_expert(&by_expert, of, routing.count, from, &mut products, (width, 0));
        let mut result = self.take(out);
        let routes = self.value(routes);
        for (token, out) in result.chunks_exact_mut(width).take(step.tokens.len()).enumerate() {
            if add_to.is_none() {
                out.fill(0.0);
            }
            for pair in token * used..(token + 1) * used {
                let weight = routes[2 * pair + 1] * factor;
                for (out, y) in out.iter_mut().zip(&products[pair * width..]) {
                    *out += weight * y;
                }
            }
        }
        self.put(out, result);
        self.put(parts, products);
    }

    /// A matrix for each head: as experts, of which every token uses all in order.
    pub(super) fn head_linear(&mut self, op: &op::HeadLinear, step: &PlacedStep) {
        let &op::HeadLinear { input, heads, weight, out } = op;
        let rows = self.blueprint.plan.weight(weight).rows / heads;
        let tokens = step.tokens.len();
        let by_expert: Vec<(usize, Vec<usize>)> = (0..heads)
            .map(|head| (head, (0..tokens).map(|token| token * heads + head).collect()))
            .collect();
        let mut result = self.take(out);
        self.by_expert(&by_expert, (weight, None), heads, (input, 1), &mut result, (rows, 0));
        self.put(out, result);
    }

    /// The products of each expert's rows with the inputs of its pairs, at `offset` of the pairs' rows of `stride`. A
    /// pair's input is row pair / `pairs_per_row`.
    fn by_expert(
        &mut self,
        by_expert: &[(usize, Vec<usize>)],
        (weight, bias): (WeightId, Option<WeightId>),
        experts: usize,
        (input, pairs_per_row): (ValueId, usize),
        result: &mut [f32],
        (stride, offset): (usize, usize),
    ) {
        let (rows, columns, scale) = {
            let info = self.blueprint.plan.weight(weight);
            (info.rows / experts, self.blueprint.plan.weight(weight).columns, info.scale)
        };
        let rounding = self.rounding(&[weight]);
        let mut panels = std::mem::take(&mut self.panels);
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for (expert, pairs) in by_expert {
            inputs.clear();
            for pair in pairs {
                let row = pair / pairs_per_row;
                inputs.extend_from_slice(&self.value(input)[row * columns..][..columns]);
            }
            outputs.clear();
            outputs.resize(pairs.len() * rows, 0.0);
            panels.fill(self.set, &self.team, &inputs, columns, rounding);
            let output = Output {
                cells: Slots::new(&mut outputs, 1),
                stride: rows,
                offset: 0,
                scale,
                bias: bias.map(|id| &self.weights.vector(id)[expert * rows..][..rows]),
                factor: 1.0,
                add: false,
            };
            self.multiply_rows(weight, expert * rows..(expert + 1) * rows, &panels, &output);
            for (pair, row) in pairs.iter().zip(outputs.chunks_exact(rows)) {
                result[pair * stride + offset..][..rows].copy_from_slice(row);
            }
        }
        self.panels = panels;
    }
}
