//! Products of rows with matrices.

use super::{Reference, Values, activate, gated, multiply};
use crate::plan::{Epilogue, op};

impl Reference {
    pub(super) fn linear(&self, op: &op::Linear, values: &mut Values) {
        let product = |row: &Vec<f64>| -> Vec<f64> {
            let mut products = Vec::new();
            for (weight, bias) in op.weights.iter().zip(&op.biases) {
                let bias = bias.map(|bias| self.weight(bias));
                let scale = f64::from(self.plan.weight(*weight).scale);
                products.extend(multiply(self.weight(*weight), row, scale, bias));
            }
            products.iter().map(|y| y * f64::from(op.factor)).collect()
        };
        let width = self.plan.value(op.out).width;
        let before = op.before.map(|_| std::mem::take(&mut values[op.out.0]));
        let rows = values[op.input.0].iter().enumerate().map(|(index, row)| {
            let product = product(row);
            let made: Vec<f64> = match op.epilogue {
                Epilogue::Store | Epilogue::AddTo => product,
                Epilogue::Activated(activation) => {
                    product.into_iter().map(|x| activate(x, activation)).collect()
                }
                Epilogue::Gated { activation, .. } => gated(&product, activation),
            };
            let mut out =
                before.as_ref().map_or_else(|| vec![0.0; width], |all| all[index].clone());
            for (out, y) in out[op.offset..].iter_mut().zip(made) {
                *out = if op.epilogue == Epilogue::AddTo { *out + y } else { y };
            }
            out
        });
        values[op.out.0] = rows.collect();
    }

    pub(super) fn head_linear(&self, op: &op::HeadLinear, values: &mut Values) {
        let matrix = self.weight(op.weight);
        let scale = f64::from(self.plan.weight(op.weight).scale);
        let each = matrix.len() / op.heads;
        let rows = values[op.input.0].iter().map(|row| {
            let parts = row.chunks_exact(row.len() / op.heads).enumerate();
            let product =
                |(head, part)| multiply(&matrix[head * each..][..each], part, scale, None);
            parts.flat_map(product).collect()
        });
        values[op.out.0] = rows.collect();
    }
}
