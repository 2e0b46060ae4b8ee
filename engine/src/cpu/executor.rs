//! A context on the CPU: the plan's ops as loops, shared out among a team of threads.

mod experts;
mod recurrent;

use std::sync::Arc;

use super::CpuLoops;
use super::attention::Attention;
use super::cells::Cells;
use super::math::{activate, gate_row, norm, norm_in_place, tanh};
use super::panels::{Panels, Rounding};
use super::product::{Scratch, multiply};
use super::slots::Slots;
use super::team::Team;
use super::tile::Output;
use super::vector::InstructionSet;
use super::weights::CpuWeights;
use crate::blueprint::Blueprint;
use crate::executor::{Executor, Memory, Precision};
use crate::kv::{BLOCK, KvTable, PlacedStep};
use crate::plan::{Epilogue, KvLayer, Op, RowOf, Rows, ValueId, op};
use crate::spec::rope::{Rope, RopeStyle};
use crate::spec::weights::WeightId;
use crate::spec::{Activation, NormKind};
use crate::step::Input;
use crate::{Error, Result};

/// What a model and a context will take, before anything is allocated.
pub fn predict(blueprint: &Blueprint) -> Memory {
    let Blueprint { plan, sizes, groups, buffers } = blueprint;
    let kv: u64 = plan
        .kv_layers
        .iter()
        .map(|layer| {
            let cells = groups[usize::from(layer.window.is_some())].cells();
            let bytes = layer.key_bytes(sizes.key_type) + layer.value_bytes(sizes.value_type);
            (cells * bytes) as u64
        })
        .sum();
    Memory {
        weights: plan.weights.iter().map(|weight| weight.bytes() as u64).sum(),
        kv: kv
            + plan.states.iter().map(|&floats| (floats * sizes.sequences * 4) as u64).sum::<u64>(),
        compute: buffers.floats.iter().map(|&floats| floats as u64 * 4).sum(),
        staging: 0,
    }
}

thread_local! {
    /// A thread's decoded rows.
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

/// Rows of element-wise work that a thread takes at once.
const ROWS_TOGETHER: usize = 4;

/// A context's device side on the CPU.
pub struct CpuExecutor {
    weights: Arc<CpuWeights>,
    blueprint: Blueprint,
    team: Team,
    set: InstructionSet,
    values: Vec<Vec<f32>>,
    panels: Panels,
    /// How exactly products are computed.
    precision: Precision,
    /// Each group's blocks by seat and position, as of this step.
    tables: Vec<Vec<Vec<Option<u32>>>>,
    keys: Vec<Cells>,
    kv_values: Vec<Cells>,
    /// Each state of all places for sequences.
    states: Vec<Vec<f32>>,
    output_rows: usize,
    memory: Memory,
    name: String,
}

crate::opaque::opaque_debug!(CpuExecutor { name, set, precision, memory });

impl CpuExecutor {
    /// Allocates a context's memory.
    pub fn new(weights: Arc<CpuWeights>, blueprint: Blueprint, loops: CpuLoops) -> Self {
        let memory = predict(&blueprint);
        let Blueprint { plan, sizes, groups, buffers } = &blueprint;
        let cells = |layer: &KvLayer| groups[usize::from(layer.window.is_some())].cells();
        let keys = plan
            .kv_layers
            .iter()
            .map(|layer| Cells::new(sizes.key_type, cells(layer), layer.kv_heads, layer.key_length))
            .collect();
        let kv_values = plan
            .kv_layers
            .iter()
            .map(|layer| {
                let length = layer.value_length;
                Cells::new(sizes.value_type, cells(layer), layer.kv_heads, length)
            })
            .collect();
        Self {
            weights,
            team: Team::new(loops.threads),
            set: loops.set,
            panels: Panels::default(),
            precision: loops.precision,
            tables: Vec::new(),
            values: buffers.floats.iter().map(|&floats| vec![0.0; floats]).collect(),
            keys,
            kv_values,
            states: plan.states.iter().map(|&floats| vec![0.0; floats * sizes.sequences]).collect(),
            output_rows: 0,
            memory,
            name: format!("CPU ({})", super::processor_name()),
            blueprint,
        }
    }

    /// An activation's buffer, taken out so that others can be read beside it; it goes back by `put`.
    fn take(&mut self, id: ValueId) -> Vec<f32> {
        std::mem::take(&mut self.values[self.blueprint.buffers.buffer_of[id.0]])
    }

    fn put(&mut self, id: ValueId, buffer: Vec<f32>) {
        self.values[self.blueprint.buffers.buffer_of[id.0]] = buffer;
    }

    fn value(&self, id: ValueId) -> &[f32] {
        &self.values[self.blueprint.buffers.buffer_of[id.0]]
    }

    fn rows(&self, id: ValueId, step: &PlacedStep) -> usize {
        match self.blueprint.plan.value(id).rows {
            Rows::Tokens => step.tokens.len(),
            Rows::Outputs => self.output_rows,
        }
    }

    fn compute(&mut self, op: &Op, step: &PlacedStep) -> Result<()> {
        match op {
            Op::Embed(op::Embed { table: weight, scale, out }) => {
                self.embed(*weight, *scale, *out, step)
            }
            Op::Norm(op::Norm { input, kind, weight, bias, epsilon, count, add, out }) => {
                let mut result = self.take(*out);
                let width = self.blueprint.plan.value(*out).width;
                let gather = self.blueprint.plan.value(*out).rows == Rows::Outputs;
                let rows: Vec<usize> = (0..step.tokens.len())
                    .filter(|&index| !gather || step.tokens[index].want_logits)
                    .collect();
                let factors = self.weights.vector(*weight);
                let bias = bias.map(|bias| self.weights.vector(bias));
                let input = self.value(*input);
                let outputs = Slots::new(&mut result, width);
                self.team.share(rows.len(), ROWS_TOGETHER, &|range| {
                    for index in range {
                        let x = &input[rows[index] * width..][..width];
                        outputs.with(index, |out| {
                            norm(x, *kind, (factors, bias), (*epsilon, *count), *add, out);
                        });
                    }
                });
                self.put(*out, result);
                Ok(())
            }
            Op::AddRow(op::AddRow { table, row, scale, out }) => {
                self.add_row(*table, *row, *scale, *out, step)
            }
            Op::Scale(op::Scale { value, factor }) => {
                let mut buffer = self.take(*value);
                let floats = self.rows(*value, step) * self.blueprint.plan.value(*value).width;
                // By 0 it is made 0, whatever was there.
                let factor = *factor;
                for x in &mut buffer[..floats] {
                    *x = if factor == 0.0 { 0.0 } else { *x * factor };
                }
                self.put(*value, buffer);
                Ok(())
            }
            Op::HeadLinear(op) => {
                self.head_linear(op, step);
                Ok(())
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
                let mut buffer = self.take(*value);
                let factors = weight.map(|weight| self.weights.vector(weight));
                let rows = Slots::new(&mut buffer, self.blueprint.plan.value(*value).width);
                self.team.share(self.rows(*value, step), ROWS_TOGETHER, &|range| {
                    for index in range {
                        rows.with(index, |row| {
                            let parts = row[*offset..].chunks_mut(*stride).take(*parts);
                            for (part, x) in parts.enumerate() {
                                let x = &mut x[..*width];
                                // Every part its own factors, or all the same.
                                let factors =
                                    factors.map(|all| &all[part * width % all.len()..][..*width]);
                                norm_in_place(x, *kind, factors, (*epsilon, *count));
                            }
                        });
                    }
                });
                self.put(*value, buffer);
                Ok(())
            }
            Op::Linear(op) => {
                self.linear(op, step);
                Ok(())
            }
            Op::Route(op::Route { logits, bias, routing, scales, out }) => {
                let mut result = self.take(*out);
                let scales = scales.map(|scales| self.weights.vector(scales));
                let bias = bias.map(|bias| self.weights.vector(bias));
                let logits = self.value(*logits).chunks_exact(routing.count);
                for (row, logits) in
                    result.chunks_exact_mut(2 * routing.used).zip(logits).take(step.tokens.len())
                {
                    experts::route(logits, (bias, scales), routing, row);
                }
                self.put(*out, result);
                Ok(())
            }
            Op::Gate(op) => {
                self.gate_parts(op, step);
                Ok(())
            }
            Op::Conv(op) => {
                self.conv(op, step);
                Ok(())
            }
            Op::Mamba2(op) => {
                self.mamba2(op, step);
                Ok(())
            }
            Op::DeltaNet(op) => {
                self.delta_net(op, step);
                Ok(())
            }
            Op::ExpertsGated(op) => {
                self.experts_gated(op, step);
                Ok(())
            }
            Op::ExpertsDown(op) => {
                self.experts_down(op, step);
                Ok(())
            }
            Op::AddGated(op::AddGated { gate, activation, input, factor, out }) => {
                let mut result = self.take(*out);
                let width = self.blueprint.plan.value(*out).width;
                let rows = self.value(*input).chunks_exact(width).zip(self.value(*gate));
                for (out, (row, &gate)) in
                    result.chunks_exact_mut(width).zip(rows).take(step.tokens.len())
                {
                    let gate = activate(gate, *activation) * factor;
                    for (out, x) in out.iter_mut().zip(row) {
                        *out += gate * x;
                    }
                }
                self.put(*out, result);
                Ok(())
            }
            Op::Softcap(op::Softcap { value, cap }) => {
                let mut buffer = self.take(*value);
                let floats = self.rows(*value, step) * self.blueprint.plan.value(*value).width;
                for x in &mut buffer[..floats] {
                    *x = cap * tanh(*x / cap);
                }
                self.put(*value, buffer);
                Ok(())
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
                let kv = *self.blueprint.plan.kv_layer(*layer);
                let mut buffer = self.take(*qkv);
                let norms = [q_norm, k_norm].map(|norm| norm.map(|id| self.weights.vector(id)));
                let rope = rope.map(|rope| &self.blueprint.plan.ropes[rope.0]);
                let group = usize::from(kv.window.is_some());
                let width = self.blueprint.plan.value(*qkv).width;
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
                                    norm_and_turn(
                                        head,
                                        (norm, *epsilon, *count),
                                        turned.as_ref(),
                                        *turn_from,
                                    );
                                }
                            }
                            if let Some(temperature) = temperature {
                                let steps = (position as usize / temperature.length) as f32;
                                let factor = 1.0 + temperature.scale * steps.ln_1p();
                                for x in q {
                                    *x *= factor;
                                }
                            }
                        });
                    }
                });
                let apart = apart.map(|v| (v, self.take(v)));
                let (keys, values) = (&mut self.keys[layer.0], &mut self.kv_values[layer.0]);
                let stored = if *store { step.tokens.as_slice() } else { &[] };
                for (index, (token, row)) in
                    stored.iter().zip(buffer.chunks_exact(width)).enumerate()
                {
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
                self.put(*qkv, buffer);
                Ok(())
            }
            Op::Attention(op::Attention { qkv, layer, scale, softcap, sinks, causal, out }) => {
                let kv = *self.blueprint.plan.kv_layer(*layer);
                let group = usize::from(kv.window.is_some());
                let mut result = self.take(*out);
                let width = kv.heads * kv.value_length;
                let attention = Attention {
                    kv,
                    keys: &self.keys[layer.0],
                    values: &self.kv_values[layer.0],
                    scale: *scale,
                    softcap: *softcap,
                    causal: *causal,
                    sinks: sinks.map(|sinks| self.weights.vector(sinks)),
                    tokens: &step.tokens,
                    qkv: self.value(*qkv),
                    qkv_width: self.blueprint.plan.value(*qkv).width,
                    tables: &self.tables[group],
                    table_blocks: self.blueprint.groups[group].table_blocks,
                    set: self.set,
                };
                attention.run(&self.team, &mut result[..step.tokens.len() * width]);
                self.put(*out, result);
                Ok(())
            }
        }
    }

    fn embed(
        &mut self,
        weight: WeightId,
        scale: f32,
        out: ValueId,
        step: &PlacedStep,
    ) -> Result<()> {
        let mut result = self.take(out);
        let info = self.blueprint.plan.weight(weight);
        let blocks = self.weights.blocks(weight);
        let row_bytes = info.row_bytes();
        for (index, (token, row)) in
            step.tokens.iter().zip(result.chunks_exact_mut(info.columns)).enumerate()
        {
            let Input::Id(id) = token.input else {
                let why = "ids selected on a GPU are not known to the CPU".into();
                return Err(Error::Step { index, why });
            };
            info.format.decode(&blocks[id as usize * row_bytes..][..row_bytes], row);
            for x in row {
                *x *= scale;
            }
        }
        self.put(out, result);
        Ok(())
    }

    fn add_row(
        &mut self,
        table: WeightId,
        row: RowOf,
        scale: f32,
        out: ValueId,
        step: &PlacedStep,
    ) -> Result<()> {
        let mut result = self.take(out);
        let info = self.blueprint.plan.weight(table);
        let (blocks, row_bytes) = (self.weights.blocks(table), info.row_bytes());
        let mut decoded = vec![0.0; info.columns];
        for (index, (token, out)) in
            step.tokens.iter().zip(result.chunks_exact_mut(info.columns)).enumerate()
        {
            let at = match (row, token.input) {
                (RowOf::First, _) => 0,
                (RowOf::Position, _) => token.position as usize,
                (RowOf::Id, Input::Id(id)) => id as usize,
                (RowOf::Id, Input::Pending(_)) => {
                    let why = "ids selected on a GPU are not known to the CPU".into();
                    return Err(Error::Step { index, why });
                }
            };
            info.format.decode(&blocks[at * row_bytes..][..row_bytes], &mut decoded);
            for (out, x) in out.iter_mut().zip(&decoded) {
                *out += scale * x;
            }
        }
        self.put(out, result);
        Ok(())
    }

    fn linear(&mut self, op: &op::Linear, step: &PlacedStep) {
        let &op::Linear { input, ref weights, ref biases, factor, epilogue, out } = op;
        let rows = self.rows(out, step);
        // Gate and up are both needed for an element: their products go to `both` first.
        let to = match epilogue {
            Epilogue::Gated { both, .. } => both,
            _ => out,
        };
        let mut result = self.take(to);
        let stride = self.blueprint.plan.value(to).width;
        let columns = self.blueprint.plan.value(input).width;
        let mut panels = std::mem::take(&mut self.panels);
        panels.fill(
            self.set,
            &self.team,
            &self.value(input)[..rows * columns],
            columns,
            self.rounding(weights),
        );
        let mut offset = 0;
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
                self.gate(activation, &result, stride / 2, rows, out);
            }
            Epilogue::Activated(activation) => {
                let outputs = Slots::new(&mut result, stride);
                self.team.share(rows, ROWS_TOGETHER, &|range| {
                    for index in range {
                        outputs.with(index, |row| {
                            for x in row {
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
    pub(super) fn gate(
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

    /// The keys and values of each layer of a group.
    fn group_cells(&mut self, group: usize) -> impl Iterator<Item = &mut Cells> {
        let layers = self.blueprint.plan.kv_layers.iter();
        let here: Vec<_> =
            layers.map(|layer| usize::from(layer.window.is_some()) == group).collect();
        self.keys
            .iter_mut()
            .zip(&mut self.kv_values)
            .zip(here)
            .filter(|(_, here)| *here)
            .flat_map(|((keys, values), _)| [keys, values])
    }
}

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

impl Executor for CpuExecutor {
    fn step(&mut self, table: &KvTable, step: &PlacedStep) -> Result<()> {
        for copy in &step.copies {
            for cells in self.group_cells(copy.group) {
                cells.copy(copy.from as usize * BLOCK, copy.to as usize * BLOCK, BLOCK);
            }
        }
        self.output_rows = step.tokens.iter().filter(|token| token.want_logits).count();
        self.tables.resize(self.blueprint.groups.len(), Vec::new());
        for (group, tables) in self.tables.iter_mut().enumerate() {
            table.write_table(group, |seat, blocks| {
                let seat = seat as usize;
                if tables.len() <= seat {
                    tables.resize(seat + 1, Vec::new());
                }
                tables[seat].clear();
                tables[seat].extend_from_slice(blocks);
            });
        }
        let plan = self.blueprint.plan.clone();
        for op in &plan.ops {
            self.compute(op, step)?;
        }
        Ok(())
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let floats = self.output_rows * self.blueprint.plan.vocabulary();
        Ok(self.value(self.blueprint.plan.logits)[..floats].to_vec())
    }

    fn read_block(&mut self, group: usize, block: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for cells in self.group_cells(group) {
            bytes.extend_from_slice(cells.bytes(block as usize * BLOCK, BLOCK));
        }
        Ok(bytes)
    }

    fn write_block(&mut self, group: usize, block: u32, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for cells in self.group_cells(group) {
            let length = cells.bytes(0, BLOCK).len();
            let Some((part, after)) = rest.split_at_checked(length) else {
                return Err(Error::Snapshot);
            };
            cells.set_bytes(block as usize * BLOCK, BLOCK, part);
            rest = after;
        }
        Ok(())
    }

    fn copy_state(&mut self, from: u32, to: u32) -> Result<()> {
        let bytes = self.read_state(from)?;
        self.write_state(to, &bytes)
    }

    fn read_state(&mut self, seat: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (state, &floats) in self.states.iter().zip(&self.blueprint.plan.states) {
            let of_seat = &state[seat as usize * floats..][..floats];
            bytes.extend_from_slice(bytemuck::cast_slice(of_seat));
        }
        Ok(bytes)
    }

    fn write_state(&mut self, seat: u32, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (state, &floats) in self.states.iter_mut().zip(&self.blueprint.plan.states) {
            let Some((part, after)) = rest.split_at_checked(floats * 4) else {
                return Err(Error::Snapshot);
            };
            let of_seat = &mut state[seat as usize * floats..][..floats];
            bytemuck::cast_slice_mut::<_, u8>(of_seat).copy_from_slice(part);
            rest = after;
        }
        Ok(())
    }

    fn write_value(&mut self, id: ValueId, rows: &[f32]) -> Result<()> {
        let buffer = &mut self.values[self.blueprint.buffers.buffer_of[id.0]];
        buffer[..rows.len()].copy_from_slice(rows);
        Ok(())
    }

    fn read_value(&mut self, id: ValueId, floats: usize) -> Result<Vec<f32>> {
        Ok(self.value(id)[..floats].to_vec())
    }

    fn device_name(&self) -> String {
        self.name.clone()
    }

    fn memory(&self) -> Memory {
        self.memory
    }
}
