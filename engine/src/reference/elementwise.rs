//! Embeddings, norms and what else goes row by row or element by element.

use super::{Reference, Values, activate, norm};
use crate::plan::{Parts, RowOf, Rows, op};
use crate::step::{Input, StepToken};

impl Reference {
    pub(super) fn embed(&self, op: &op::Embed, tokens: &[StepToken], values: &mut Values) {
        let width = self.plan.value(op.out).width;
        let table = self.weight(op.table);
        let row = |token: &StepToken| {
            let id = match token.input {
                Input::Id(id) => id,
                Input::Row(row) => return self.rows[row as usize].clone(),
                Input::Pending => return vec![f64::NAN; width],
            };
            let row = &table[id as usize * width..][..width];
            row.iter().map(|&w| f64::from(w) * f64::from(op.scale)).collect()
        };
        values[op.out.0] = tokens.iter().map(row).collect();
    }

    pub(super) fn norm(&self, op: &op::Norm, tokens: &[StepToken], values: &mut Values) {
        let bias = op.bias.map(|bias| self.weight(bias));
        let outputs_only = self.plan.value(op.out).rows == Rows::Outputs;
        let rows = values[op.input.0].iter().zip(tokens);
        let rows = rows.filter(|(_, token)| !outputs_only || token.want_logits);
        let normed = rows.map(|(row, _)| {
            let how = (op.epsilon, op.count);
            let mut row = norm(row, op.kind, Some(self.weight(op.weight)), how);
            for (index, x) in row.iter_mut().enumerate() {
                *x += bias.map_or(0.0, |bias| f64::from(bias[index]));
            }
            row
        });
        let normed: Vec<_> = normed.collect();
        match op.add_to {
            Some(_) => Self::add_to(values, op.out, &normed),
            None => values[op.out.0] = normed,
        }
    }

    pub(super) fn add_row(&self, op: &op::AddRow, tokens: &[StepToken], values: &mut Values) {
        let width = self.plan.value(op.out).width;
        let table = self.weight(op.table);
        for (token, out) in tokens.iter().zip(&mut values[op.out.0]) {
            let index = match (op.row, token.input) {
                (RowOf::Id, Input::Id(id)) => id as usize,
                (RowOf::Position, _) => token.position as usize,
                _ => 0,
            };
            for (out, &w) in out.iter_mut().zip(&table[index * width..][..width]) {
                *out += f64::from(w) * f64::from(op.scale);
            }
        }
    }

    pub(super) fn scale(op: &op::Scale, values: &mut Values) {
        for x in values[op.out.0].iter_mut().flatten() {
            *x *= f64::from(op.factor);
        }
    }

    pub(super) fn norm_parts(&self, op: &op::NormParts, values: &mut Values) {
        let &op::NormParts { offset, parts, width, stride, kind, weight, epsilon, count, .. } = op;
        let factors = weight.map(|weight| self.weight(weight));
        for row in &mut values[op.out.0] {
            for part in 0..parts {
                // Every part its own factors, or all the same.
                let factors = factors.map(|all| &all[(part * width) % all.len()..][..width]);
                let at = offset + part * stride;
                let normed = norm(&row[at..at + width], kind, factors, (epsilon, count));
                row[at..at + width].copy_from_slice(&normed);
            }
        }
    }

    pub(super) fn add_gated(op: &op::AddGated, values: &mut Values) {
        let gated: Vec<Vec<f64>> = values[op.input.0]
            .iter()
            .zip(&values[op.gate.0])
            .map(|(row, gate)| {
                let gate = activate(gate[0], op.activation) * f64::from(op.factor);
                row.iter().map(|x| x * gate).collect()
            })
            .collect();
        Self::add_to(values, op.out, &gated);
    }

    pub(super) fn gate(&self, op: &op::Gate, values: &mut Values) {
        let &op::Gate { gate, activation, input, shape: (parts, width), out, .. } = op;
        let rows = values[gate.value.0].len();
        let mut result = std::mem::take(&mut values[out.value.0]);
        result.resize(rows, vec![0.0; self.plan.value(out.value).width]);
        for (row, result) in result.iter_mut().enumerate() {
            for part in 0..parts {
                for column in 0..width {
                    let at = |p: Parts| p.offset + part * p.stride + column;
                    let mut y = values[gate.value.0][row][at(gate)];
                    if let Some(activation) = activation {
                        y = activate(y, activation);
                    }
                    if let Some(input) = input {
                        y *= values[input.value.0][row][at(input)];
                    }
                    result[at(out)] = y;
                }
            }
        }
        values[out.value.0] = result;
    }

    pub(super) fn softcap(op: &op::Softcap, values: &mut Values) {
        let cap = f64::from(op.cap);
        for x in values[op.out.0].iter_mut().flatten() {
            *x = cap * (*x / cap).tanh();
        }
    }
}
