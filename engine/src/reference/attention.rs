//! What goes into the cache of a layer, and what attention reads from it.

use super::{Cells, Reference, Values, norm};
use crate::kv::KvType;
use crate::plan::{KvLayer, op};
use crate::spec::NormKind;
use crate::spec::rope::{Rope, RopeStyle};
use crate::step::StepToken;

impl Reference {
    pub(super) fn qk_rope_store(
        &mut self,
        op: &op::QkRopeStore,
        tokens: &[StepToken],
        values: &mut Values,
    ) {
        let kv = *self.plan.kv_layer(op.layer);
        let rope = op.rope.map(|rope| &self.plan.ropes[rope.0]);
        let norms = [op.q_norm, op.k_norm].map(|norm| norm.map(|id| self.weights[id.0].as_slice()));
        let mut rows = std::mem::take(&mut values[op.out.0]);
        for (index, (token, row)) in tokens.iter().zip(&mut rows).enumerate() {
            let (q, rest) = row.split_at_mut(kv.query_width());
            let (k, behind) = rest.split_at_mut(kv.key_width());
            let v = op.v.map_or(&*behind, |v| values[v.0][index].as_slice());
            for (part, norm) in [(&mut *q, norms[0]), (&mut *k, norms[1])] {
                for head in part.chunks_exact_mut(kv.key_length) {
                    let norm = (norm, op.epsilon, op.count);
                    norm_and_turn(head, norm, (rope, op.turn_from), token.position);
                }
            }
            if let Some(temperature) = op.temperature {
                let steps = token.position as usize / temperature.length;
                let factor = 1.0 + f64::from(temperature.scale) * (steps as f64).ln_1p();
                for x in q {
                    *x *= factor;
                }
            }
            if !op.store {
                continue;
            }
            let cells = self.cells.entry((token.sequence, op.layer.0)).or_default();
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
        values[op.out.0] = rows;
    }

    pub(super) fn attention(&self, op: &op::Attention, tokens: &[StepToken], values: &mut Values) {
        let kv = self.plan.kv_layer(op.layer);
        let scores = Scores {
            scale: f64::from(op.scale),
            softcap: op.softcap.map(f64::from),
            sinks: op.sinks.map(|sinks| self.weight(sinks)),
        };
        let rows = tokens.iter().zip(&values[op.qkv.0]).map(|(token, row)| {
            let cells = &self.cells[&(token.sequence, op.layer.0)];
            let position = token.position as usize;
            let last = if op.causal { position } else { cells.keys.len() - 1 };
            let start = kv.window.map_or(0, |w| (position + 1).saturating_sub(w));
            attention(kv, &row[..kv.query_width()], cells, start..=last, &scores)
        });
        values[op.out.0] = rows.collect();
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
