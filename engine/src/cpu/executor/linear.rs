//! Products of all rows of some matrices with the step's rows, and what is done with them.

use super::{CpuExecutor, PlacedStep, ROWS_TOGETHER};
use crate::cpu::math::{activate, gate_row};
use crate::cpu::panels::{Panels, Rounding};
use crate::cpu::product::{Scratch, multiply};
use crate::cpu::slots::Slots;
use crate::cpu::tile::Output;
use crate::plan::{Epilogue, ValueId, op};
use crate::spec::Activation;
use crate::spec::weights::WeightId;

thread_local! {
    /// A thread's decoded rows.
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

impl CpuExecutor {
    pub(super) fn linear(&mut self, op: &op::Linear, step: &PlacedStep) {
        let &op::Linear { input, ref weights, ref biases, factor, epilogue, offset, out, .. } = op;
        let rows = self.rows(out, step);
        // Gate and up are both needed for an element: their products go to `both` first.
        let to = match epilogue {
            Epilogue::Gated { both, .. } => both,
            _ => out,
        };
        let mut result = self.take(to);
        let stride = self.width(to);
        let columns = self.width(input);
        let mut panels = std::mem::take(&mut self.panels);
        panels.fill(
            self.set,
            &self.team,
            &self.value(input)[..rows * columns],
            columns,
            self.rounding(weights),
        );
        let (first, mut offset) = (offset, offset);
        for (&weight, bias) in weights.iter().zip(biases) {
            let info = self.blueprint.plan.weight(weight);
            let output = Output {
                cells: Slots::new(&mut result[..rows * stride], 1),
                stride,
                offset,
                scale: info.scale,
                bias: bias.map(|id| self.weights.vector(id)),
                factor,
                add: epilogue == Epilogue::AddTo,
            };
            self.multiply_rows(weight, 0..info.rows, &panels, &output);
            offset += info.rows;
        }
        self.panels = panels;
        match epilogue {
            Epilogue::Gated { activation, .. } => {
                self.gate_both(activation, &result, stride / 2, rows, out);
            }
            Epilogue::Activated(activation) => {
                let outputs = Slots::new(&mut result, stride);
                self.team.share(rows, ROWS_TOGETHER, &|range| {
                    for index in range {
                        outputs.with(index, |row| {
                            for x in &mut row[first..offset] {
                                *x = activate(*x, activation);
                            }
                        });
                    }
                });
            }
            Epilogue::Store | Epilogue::AddTo => {}
        }
        self.put(to, result);
    }

    /// How the inputs of products with these weights are rounded.
    pub(super) fn rounding(&self, weights: &[WeightId]) -> Rounding {
        let rounds =
            |&id: &WeightId| self.precision.rounds_inputs(self.blueprint.plan.weight(id).format);
        match (weights.iter().any(rounds), weights.iter().all(rounds)) {
            (false, _) => Rounding::None,
            (true, true) => Rounding::Bytes,
            (true, false) => Rounding::BytesAsFloats,
        }
    }

    /// Multiplies some rows of a weight with all inputs, shared out among the team; the first is row 0 of the output.
    pub(super) fn multiply_rows(
        &self,
        weight: WeightId,
        rows: std::ops::Range<usize>,
        panels: &Panels,
        output: &Output,
    ) {
        let info = self.blueprint.plan.weight(weight);
        let bytes = rows.start * info.row_bytes()..rows.end * info.row_bytes();
        let blocks = &self.weights.blocks(weight)[bytes];
        // A few runs a thread balance the load; a run is long enough to be worth handing out.
        let grain = (rows.len() / (self.team.threads() * 4))
            .clamp(8, 256)
            .next_multiple_of(self.set.tile_rows());
        self.team.share(rows.len(), grain, &|range| {
            let bytes = range.start * info.row_bytes()..range.end * info.row_bytes();
            SCRATCH.with_borrow_mut(|scratch| {
                let rows = &blocks[bytes.clone()];
                multiply(self.set, info.format, rows, range.start, panels, scratch, output);
            });
        });
    }

    /// activation(gate) * up for `rows` rows of gate and up side by side, each of `width`.
    pub(super) fn gate_both(
        &mut self,
        activation: Activation,
        both: &[f32],
        width: usize,
        rows: usize,
        out: ValueId,
    ) {
        let mut gated = self.take(out);
        let outputs = Slots::new(&mut gated, width);
        let set = self.set;
        self.team.share(rows, ROWS_TOGETHER, &|range| {
            for index in range {
                let gate_and_up = both[index * 2 * width..][..2 * width].split_at(width);
                outputs.with(index, |out| gate_row(set, gate_and_up, activation, out));
            }
        });
        self.put(out, gated);
    }
}
