//! What goes into the cache of a layer, and what attention reads from it.

use super::{CpuExecutor, PlacedStep, ROWS_TOGETHER};
use crate::cpu::attention::Attention;
use crate::cpu::math::norm_in_place;
use crate::cpu::slots::Slots;
use crate::plan::op;
use crate::spec::NormKind;
use crate::spec::rope::{Rope, RopeStyle};

/// Norms a head, where there are factors, and turns it, where there are angles.
fn norm_and_turn(
    head: &mut [f32],
    (factors, epsilon, count): (Option<&[f32]>, f32, usize),
    turned: Option<&(&Rope, Vec<(f32, f32)>)>,
    turn_from: usize,
) {
    if factors.is_some() {
        norm_in_place(head, NormKind::Rms, factors, (epsilon, count));
    }
    let Some((rope, angles)) = turned else { return };
    let head = &mut head[turn_from..];
    for (pair, &(cos, sin)) in angles.iter().enumerate() {
        let (a, b) = match rope.style {
            RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
            RopeStyle::Halves => (pair, pair + angles.len()),
        };
        let (x, y) = (head[a], head[b]);
        head[a] = x * cos - y * sin;
        head[b] = x * sin + y * cos;
    }
}

impl CpuExecutor {
    pub(super) fn qk_rope_store(&mut self, op: &op::QkRopeStore, step: &PlacedStep) {
        let kv = *self.blueprint.plan.kv_layer(op.layer);
        let mut buffer = self.take(op.out);
        let norms = [op.q_norm, op.k_norm].map(|norm| norm.map(|id| self.weights.vector(id)));
        let rope = op.rope.map(|rope| &self.blueprint.plan.ropes[rope.0]);
        let width = self.width(op.out);
        let rows = Slots::new(&mut buffer, width);
        self.team.share(step.tokens.len(), ROWS_TOGETHER, &|range| {
            for index in range {
                let position = step.tokens[index].position;
                let turned = rope.map(|rope| {
                    let angles = rope.angles(position);
                    (rope, angles.map(|(c, s)| (c as f32, s as f32)).collect::<Vec<_>>())
                });
                rows.with(index, |row| {
                    let (q, k) = row.split_at_mut(kv.query_width());
                    let k = &mut k[..kv.key_width()];
                    for (part, norm) in [(&mut *q, norms[0]), (k, norms[1])] {
                        for head in part.chunks_exact_mut(kv.key_length) {
                            let norm = (norm, op.epsilon, op.count);
                            norm_and_turn(head, norm, turned.as_ref(), op.turn_from);
                        }
                    }
                    if let Some(temperature) = op.temperature {
                        let steps = (position as usize / temperature.length) as f32;
                        let factor = 1.0 + temperature.scale * steps.ln_1p();
                        for x in q {
                            *x *= factor;
                        }
                    }
                });
            }
        });
        if op.store {
            self.store(op, &buffer, step);
        }
        self.put(op.out, buffer);
    }

    /// Stores keys, and values that lie behind them in `rows` or are a value of their own.
    fn store(&mut self, op: &op::QkRopeStore, rows: &[f32], step: &PlacedStep) {
        let kv = *self.blueprint.plan.kv_layer(op.layer);
        let group = self.blueprint.group_of(op.layer);
        let apart = op.v.map(|v| (v, self.take(v)));
        let (keys, values) = (&mut self.keys[op.layer.0], &mut self.kv_values[op.layer.0]);
        let rows = rows.chunks_exact(self.blueprint.plan.value(op.out).width);
        for (index, (token, row)) in step.tokens.iter().zip(rows).enumerate() {
            let (k, behind) = row[kv.query_width()..].split_at(kv.key_width());
            let v = match &apart {
                Some((_, v)) => &v[index * kv.value_width()..][..kv.value_width()],
                None => behind,
            };
            let cell = token.cells[group] as usize;
            keys.store(cell, k);
            values.store(cell, v);
        }
        if let Some((v, buffer)) = apart {
            self.put(v, buffer);
        }
    }

    pub(super) fn attention(&mut self, op: &op::Attention, step: &PlacedStep) {
        let &op::Attention { qkv, layer, scale, softcap, sinks, causal, out } = op;
        let kv = *self.blueprint.plan.kv_layer(layer);
        let group = self.blueprint.group_of(layer);
        let mut result = self.take(out);
        let width = kv.heads * kv.value_length;
        let attention = Attention {
            kv,
            keys: &self.keys[layer.0],
            values: &self.kv_values[layer.0],
            scale,
            softcap,
            causal,
            sinks: sinks.map(|sinks| self.weights.vector(sinks)),
            tokens: &step.tokens,
            qkv: self.value(qkv),
            qkv_width: self.width(qkv),
            tables: &self.tables[group],
            table_blocks: self.blueprint.groups[group].table_blocks,
            set: self.set,
        };
        attention.run(&self.team, &mut result[..step.tokens.len() * width]);
        self.put(out, result);
    }
}
