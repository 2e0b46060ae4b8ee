//! A context on the CPU: the plan's ops as loops, shared out among a team of threads.

mod attention;
mod elementwise;
mod experts;
mod linear;
mod recurrent;

use std::collections::VecDeque;
use std::sync::Arc;

use super::CpuLoops;
use super::cells::Cells;
use super::panels::Panels;
use super::team::Team;
use super::vector::InstructionSet;
use super::weights::CpuWeights;
use crate::blueprint::Blueprint;
use crate::executor::{Executor, Memory, Precision, Selection, all_finite, nothing_selected};
use crate::kv::{BLOCK, KvTable, PlacedStep};
use crate::plan::{KvLayer, KvLayerId, Op, Rows, Segment, ValueId};
use crate::select::Sampling;
use crate::{Error, Result};

/// What a model and a context will take, before anything is allocated.
pub fn predict(blueprint: &Blueprint) -> Memory {
    let Blueprint { plan, sizes, groups, buffers, .. } = blueprint;
    let kv: u64 = plan
        .kv_layers
        .iter()
        .map(|layer| {
            let cells = groups[layer.group()].cells();
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
    /// The ids so far of each seat's sequence, and the one chosen last.
    recent: Vec<Vec<u32>>,
    /// Ids that were chosen and not asked for, by the calls that chose them.
    selected: VecDeque<Vec<Option<u32>>>,
    /// Rows of the last step's logits that ids were chosen from.
    taken: Vec<u32>,
    memory: Memory,
    name: String,
}

crate::opaque::opaque_debug!(CpuExecutor { name, set, precision, memory });

impl CpuExecutor {
    /// Allocates a context's memory.
    pub fn new(weights: Arc<CpuWeights>, blueprint: Blueprint, loops: CpuLoops) -> Self {
        let memory = predict(&blueprint);
        let Blueprint { plan, sizes, groups, buffers, .. } = &blueprint;
        let cells = |layer: &KvLayer| groups[layer.group()].cells();
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
            recent: vec![Vec::new(); sizes.sequences],
            selected: VecDeque::new(),
            taken: Vec::new(),
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

    /// Floats of a value's row.
    fn width(&self, id: ValueId) -> usize {
        self.blueprint.plan.value(id).width
    }

    fn rows(&self, id: ValueId, step: &PlacedStep) -> usize {
        match self.blueprint.plan.value(id).rows {
            Rows::Tokens => step.tokens.len(),
            Rows::Outputs => self.output_rows,
        }
    }

    fn compute(&mut self, op: &Op, step: &PlacedStep) -> Result<()> {
        self.copy_before(op, step);
        match op {
            Op::Embed(op) => self.embed(op, step)?,
            Op::Norm(op) => self.norm(op, step),
            Op::AddRow(op) => self.add_row(op, step)?,
            Op::Scale(op) => self.scale(op, step),
            Op::HeadLinear(op) => self.head_linear(op, step),
            Op::NormParts(op) => self.norm_parts(op, step),
            Op::Linear(op) => self.linear(op, step),
            Op::QkRopeStore(op) => self.qk_rope_store(op, step),
            Op::Attention(op) => self.attention(op, step),
            Op::Route(op) => self.route(op, step),
            Op::ExpertsGated(op) => self.experts_gated(op, step),
            Op::ExpertsDown(op) => self.experts_down(op, step),
            Op::AddGated(op) => self.add_gated(op, step),
            Op::Gate(op) => self.gate(op, step),
            Op::Conv(op) => self.conv(op, step),
            Op::Mamba2(op) => self.mamba2(op, step),
            Op::DeltaNet(op) => self.delta_net(op, step),
            Op::Softcap(op) => self.softcap(op, step),
        }
        Ok(())
    }

    /// Copies what an op changes, where that lives on, so that its result has a buffer of its own.
    fn copy_before(&mut self, op: &Op, step: &PlacedStep) {
        let Some((before, result)) = self.blueprint.copied_before(op) else { return };
        let floats = self.rows(result, step) * self.width(result);
        let mut copy = self.take(result);
        copy[..floats].copy_from_slice(&self.value(before)[..floats]);
        self.put(result, copy);
    }

    /// The keys and values of each layer of a group that is `wanted`.
    fn group_cells(
        &mut self,
        group: usize,
        wanted: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = &mut Cells> {
        let layers = self.blueprint.plan.kv_layers.iter().enumerate();
        let here: Vec<_> =
            layers.map(|(number, layer)| layer.group() == group && wanted(number)).collect();
        self.keys
            .iter_mut()
            .zip(&mut self.kv_values)
            .zip(here)
            .filter(|(_, here)| *here)
            .flat_map(|((keys, values), _)| [keys, values])
    }
}

impl Executor for CpuExecutor {
    fn run(&mut self, table: &KvTable, step: &PlacedStep, segment: usize) -> Result<()> {
        let Segment { ops, kv_layers, .. } = self.blueprint.segments[segment].clone();
        for copy in &step.copies {
            let is_here = |layer: usize| kv_layers.contains(&KvLayerId(layer));
            for cells in self.group_cells(copy.group, is_here) {
                cells.copy(copy.from as usize * BLOCK, copy.to as usize * BLOCK, BLOCK);
            }
        }
        self.output_rows = step.tokens.iter().filter(|token| token.want_logits).count();
        self.taken.clear();
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
        for op in &plan.ops[ops] {
            self.compute(op, step)?;
        }
        Ok(())
    }

    fn segments(&self) -> usize {
        self.blueprint.segments.len()
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let vocabulary = self.blueprint.plan.vocabulary();
        let all = &self.value(self.blueprint.plan.logits)[..self.output_rows * vocabulary];
        let rows = all.chunks_exact(vocabulary).zip(0..);
        let mut left = Vec::with_capacity(all.len());
        for (logits, _) in rows.filter(|(_, row)| !self.taken.contains(row)) {
            left.extend_from_slice(logits);
        }
        Ok(left)
    }

    fn can_select(&self, _sampling: &Sampling) -> bool {
        true
    }

    fn set_recent(&mut self, seat: u32, ids: &[u32]) {
        self.recent[seat as usize] = ids.to_vec();
    }

    fn select(&mut self, selections: &[Selection]) -> Result<()> {
        let vocabulary = self.blueprint.plan.vocabulary();
        let mut ids = Vec::with_capacity(selections.len());
        for selection in selections {
            let Selection { sampling, row, seat, stream, position } = selection;
            let logits =
                &self.value(self.blueprint.plan.logits)[*row as usize * vocabulary..][..vocabulary];
            let is_finite = all_finite(logits);
            let recent = &self.recent[*seat as usize];
            let id = sampling.choose(logits, recent, *stream, *position);
            self.recent[*seat as usize].push(id);
            self.taken.push(*row);
            ids.push(is_finite.then_some(id));
        }
        self.selected.push_back(ids);
        Ok(())
    }

    fn forget_selected(&mut self) {
        self.selected.clear();
    }

    fn selected(&mut self) -> Result<Vec<Option<u32>>> {
        self.selected.pop_front().ok_or_else(nothing_selected)
    }

    fn read_block(&mut self, group: usize, block: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for cells in self.group_cells(group, |_| true) {
            bytes.extend_from_slice(cells.bytes(block as usize * BLOCK, BLOCK));
        }
        Ok(bytes)
    }

    fn write_block(&mut self, group: usize, block: u32, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for cells in self.group_cells(group, |_| true) {
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
