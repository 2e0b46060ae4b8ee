//! Embeddings, norms and what else goes row by row or element by element.

use super::{CpuExecutor, PlacedStep, ROWS_TOGETHER};
use crate::cpu::math::{activate, norm, norm_in_place, tanh};
use crate::cpu::slots::Slots;
use crate::kv::Placed;
use crate::plan::{Parts, RowOf, Rows, op};
use crate::step::Input;
use crate::{Error, Result};

/// The ids of a step's tokens, those among them that were chosen here being the last of their seat's; none for tokens given as
/// rows. Refused before anything is computed if another device chose one.
fn ids(step: &PlacedStep, chosen: &[Vec<u32>]) -> Result<Vec<Option<usize>>> {
    let id = |(index, token): (usize, &Placed)| match token.input {
        Input::Id(id) => Ok(Some(id as usize)),
        Input::Row(_) => Ok(None),
        Input::Pending => {
            let why = || "an id that another device chose is not known to the CPU".into();
            let last = chosen[token.seat as usize].last();
            let id = last.ok_or_else(|| Error::Step { index, why: why() })?;
            Ok(Some(*id as usize))
        }
    };
    step.tokens.iter().enumerate().map(id).collect()
}

impl CpuExecutor {
    pub(super) fn embed(&mut self, op: &op::Embed, step: &PlacedStep) -> Result<()> {
        let &op::Embed { table, scale, out } = op;
        let columns = self.blueprint.plan.weight(table).columns;
        let given = step.tokens.iter().filter(|token| matches!(token.input, Input::Row(_)));
        if given.count() * columns != step.rows.len() {
            return Err(Error::Internal("a step's rows are not those of its tokens".into()));
        }
        let ids = ids(step, &self.recent)?;
        let mut result = self.take(out);
        let info = self.blueprint.plan.weight(table);
        let (blocks, row_bytes) = (self.weights.blocks(table), info.row_bytes());
        let mut given = step.rows.chunks_exact(info.columns);
        for (id, row) in ids.into_iter().zip(result.chunks_exact_mut(info.columns)) {
            if let Some(id) = id {
                info.format.decode(&blocks[id * row_bytes..][..row_bytes], row);
                for x in row {
                    *x *= scale;
                }
            } else if let Some(given) = given.next() {
                row.copy_from_slice(given);
            }
        }
        self.put(out, result);
        Ok(())
    }

    pub(super) fn add_row(&mut self, op: &op::AddRow, step: &PlacedStep) -> Result<()> {
        let &op::AddRow { table, row, scale, out, .. } = op;
        let ids = ids(step, &self.recent)?;
        let mut result = self.take(out);
        let info = self.blueprint.plan.weight(table);
        let (blocks, row_bytes) = (self.weights.blocks(table), info.row_bytes());
        let mut decoded = vec![0.0; info.columns];
        for ((token, id), out) in
            step.tokens.iter().zip(ids).zip(result.chunks_exact_mut(info.columns))
        {
            let at = match row {
                RowOf::First => 0,
                RowOf::Position => token.position as usize,
                // A row in place of an id has the padding's.
                RowOf::Id => id.unwrap_or(0),
            };
            info.format.decode(&blocks[at * row_bytes..][..row_bytes], &mut decoded);
            for (out, x) in out.iter_mut().zip(&decoded) {
                *out += scale * x;
            }
        }
        self.put(out, result);
        Ok(())
    }

    pub(super) fn norm(&mut self, op: &op::Norm, step: &PlacedStep) {
        let &op::Norm { input, kind, weight, bias, epsilon, count, add_to, out } = op;
        let mut result = self.take(out);
        let width = self.width(out);
        let gather = self.blueprint.plan.value(out).rows == Rows::Outputs;
        let rows: Vec<usize> = (0..step.tokens.len())
            .filter(|&index| !gather || step.tokens[index].want_logits)
            .collect();
        let factors = self.weights.vector(weight);
        let bias = bias.map(|bias| self.weights.vector(bias));
        let input = self.value(input);
        let outputs = Slots::new(&mut result, width);
        self.team.share(rows.len(), ROWS_TOGETHER, &|range| {
            for index in range {
                let x = &input[rows[index] * width..][..width];
                outputs.with(index, |out| {
                    norm(x, kind, (factors, bias), (epsilon, count), add_to.is_some(), out);
                });
            }
        });
        self.put(out, result);
    }

    pub(super) fn norm_parts(&mut self, op: &op::NormParts, step: &PlacedStep) {
        let &op::NormParts {
            offset, parts, width, stride, kind, weight, epsilon, count, out, ..
        } = op;
        let mut buffer = self.take(out);
        let factors = weight.map(|weight| self.weights.vector(weight));
        let rows = Slots::new(&mut buffer, self.width(out));
        self.team.share(self.rows(out, step), ROWS_TOGETHER, &|range| {
            for index in range {
                rows.with(index, |row| {
                    let parts = row[offset..].chunks_mut(stride).take(parts);
                    for (part, x) in parts.enumerate() {
                        // Every part its own factors, or all the same.
                        let factors = factors.map(|all| &all[part * width % all.len()..][..width]);
                        norm_in_place(&mut x[..width], kind, factors, (epsilon, count));
                    }
                });
            }
        });
        self.put(out, buffer);
    }

    pub(super) fn scale(&mut self, op: &op::Scale, step: &PlacedStep) {
        let &op::Scale { factor, out, .. } = op;
        let floats = self.rows(out, step) * self.width(out);
        let mut buffer = self.take(out);
        for x in &mut buffer[..floats] {
            *x *= factor;
        }
        self.put(out, buffer);
    }

    pub(super) fn softcap(&mut self, op: &op::Softcap, step: &PlacedStep) {
        let &op::Softcap { cap, out, .. } = op;
        let floats = self.rows(out, step) * self.width(out);
        let mut buffer = self.take(out);
        for x in &mut buffer[..floats] {
            *x = cap * tanh(*x / cap);
        }
        self.put(out, buffer);
    }

    pub(super) fn add_gated(&mut self, op: &op::AddGated, step: &PlacedStep) {
        let &op::AddGated { gate, activation, input, factor, out, .. } = op;
        let mut result = self.take(out);
        let width = self.width(out);
        let rows = self.value(input).chunks_exact(width).zip(self.value(gate));
        for (out, (row, &gate)) in result.chunks_exact_mut(width).zip(rows).take(step.tokens.len())
        {
            let gate = activate(gate, activation) * factor;
            for (out, x) in out.iter_mut().zip(row) {
                *out += gate * x;
            }
        }
        self.put(out, result);
    }

    pub(super) fn gate(&mut self, op: &op::Gate, step: &PlacedStep) {
        let &op::Gate { gate, activation, input, shape: (parts, width), out, .. } = op;
        let strides = |p: Parts| self.width(p.value);
        let (gate_row, out_row) = (strides(gate), strides(out));
        let input_row = input.map(strides);
        let mut result = self.take(out.value);
        let buffer_of = |p: Parts| self.blueprint.buffers.buffer_of[p.value.0];
        for row in 0..step.tokens.len() {
            for part in 0..parts {
                let at = |p: Parts, stride: usize| row * stride + p.offset + part * p.stride;
                for column in 0..width {
                    // The result may be written over both.
                    let read = |p: Parts, stride: usize| {
                        let is_out = buffer_of(p) == buffer_of(out);
                        let from = if is_out { &result[..] } else { self.value(p.value) };
                        from[at(p, stride) + column]
                    };
                    let mut y = read(gate, gate_row);
                    if let Some(activation) = activation {
                        y = activate(y, activation);
                    }
                    if let (Some(input), Some(stride)) = (input, input_row) {
                        y *= read(input, stride);
                    }
                    result[at(out, out_row) + column] = y;
                }
            }
        }
        self.put(out.value, result);
    }
}
