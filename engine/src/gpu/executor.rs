//! A context on the GPU: its buffers, its recordings, its steps.
//!
//! A plan is lowered once per class of steps; a recording holds each dispatch's pipeline and bind group, so
//! that a step creates none: it writes the step's numbers and submits its commands, encoded then or ahead
//! (`commands`).

mod commands;
mod numbers;
mod profile;
mod recording;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use wgpu::BufferUsages as Usage;

use self::commands::{Encoded, Work};
use self::numbers::selection_words;
use self::recording::Recorded;
pub(crate) use self::recording::compile;
pub use self::recording::compile_ahead;
use super::device::Gpu;
use super::dispatch::Scratch;
use super::lower::{MOST_CANDIDATES, StepClass};
use super::scratch::{self, RECENT_WORDS, SELECTIONS_IN_FLIGHT, block_bytes};
use super::sizes::{BufferSizes, values_apart};
use super::upload::GpuWeights;
use crate::blueprint::Blueprint;
use crate::error::Advice;
use crate::executor::{Executor, Memory, Selection, nothing_selected};
use crate::kv::{BLOCK, KvTable, PlacedStep};
use crate::plan::{KvLayerId, ValueId};
use crate::profile::StepProfile;
use crate::select::Sampling;
use crate::{Error, Result};

/// Multiply-adds of a submit, about: meant to take a slow integrated GPU a tenth of a second (an estimate, not
/// yet measured on one), far below a driver's watchdog (2 s on Windows).
const SUBMIT_WORK: u64 = 10_000_000_000;
/// The same for cards with memory of their own, the slowest of which do 10^12 a second.
const CARD_SUBMIT_WORK: u64 = 100_000_000_000;

/// Where selected ids come to the host, in turns.
const ID_READBACKS: [Scratch; SELECTIONS_IN_FLIGHT] =
    [Scratch::IdReadback, Scratch::OtherIdReadback];

/// What a step took, for reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// Dispatches of the plan, without those that choose an id.
    pub dispatches: usize,
    /// Submissions.
    pub submits: usize,
    /// Writes into buffers.
    pub writes: usize,
    /// Times that the host waited for numbers.
    pub readbacks: usize,
}

/// Selected ids on their way to the host.
struct Brought {
    /// The submission that brings them.
    submission: wgpu::SubmissionIndex,
    /// Where it brings them to.
    readback: Scratch,
    /// Their seats.
    seats: Vec<u32>,
}

/// A context's device side on a GPU.
pub struct GpuExecutor {
    gpu: Arc<Gpu>,
    weights: Arc<GpuWeights>,
    blueprint: Blueprint,
    values: Vec<wgpu::Buffer>,
    /// Of [`values_apart`], for steps of few tokens.
    apart: HashMap<usize, wgpu::Buffer>,
    keys: Vec<wgpu::Buffer>,
    kv_values: Vec<wgpu::Buffer>,
    states: Vec<wgpu::Buffer>,
    /// Of the rows of [`scratch::TABLE`].
    scratch: Vec<wgpu::Buffer>,
    /// By the class of step and the segment.
    recordings: HashMap<(StepClass, usize), Arc<Vec<Recorded>>>,
    /// By the number of candidates and whether there is a penalty.
    selections: HashMap<(usize, bool), Arc<Vec<Recorded>>>,
    /// The last submission of each step that nobody has waited for.
    under_way: VecDeque<wgpu::SubmissionIndex>,
    /// Selected ids that were not asked for, the oldest first.
    brought: VecDeque<Brought>,
    /// Selections so far.
    selections_made: usize,
    memory: Memory,
    tables_written: Vec<u32>,
    step_written: [u32; 4],
    output_rows: usize,
    /// The last step's rows of logits that no id was chosen from.
    rows_left: Vec<Range<u32>>,
    /// Whether these are on their way to the host.
    logits_copied: bool,
    /// The commands of a step like the last one.
    ahead: Option<Encoded>,
    counts: StepCounts,
}

crate::opaque::opaque_debug!(GpuExecutor { gpu, memory, counts });

impl GpuExecutor {
    /// Allocates a context's buffers.
    pub fn new(weights: Arc<GpuWeights>, blueprint: Blueprint) -> Result<Self> {
        let gpu = weights.gpu.clone();
        let bytes = BufferSizes::new(&blueprint, &weights.kernels);
        let positions = blueprint.sizes.positions;
        let largest = bytes.values.iter().chain(&bytes.keys).chain(&bytes.kv_values).max();
        if let Some(&largest) =
            largest.filter(|&&largest| largest > gpu.kernels.adapter.max_binding_bytes)
        {
            return Err(Error::TooLargeToBind {
                device: gpu.name.clone(),
                what: "this context".into(),
                needed: largest,
                most: gpu.kernels.adapter.max_binding_bytes,
                advice: Advice::ContextOf {
                    positions: (positions as u64 * gpu.kernels.adapter.max_binding_bytes / largest)
                        as usize
                        / BLOCK
                        * BLOCK,
                    refused: positions,
                },
            });
        }
        let memory = Memory { weights: weights.bytes(), ..bytes.memory() };
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let storage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
        let with = |label: &str, sizes: &[u64], usage| -> Vec<wgpu::Buffer> {
            sizes.iter().map(|&bytes| gpu.buffer(label, bytes, usage)).collect()
        };
        let many = |label: &str, sizes: &[u64]| with(label, sizes, storage);
        let executor = Self {
            values: with("value", &bytes.values, storage),
            apart: values_apart(&blueprint.plan)
                .zip(many("v", &bytes.apart))
                .flat_map(|(ids, buffer)| ids.into_iter().map(move |id| (id.0, buffer.clone())))
                .collect(),
            keys: many("keys", &bytes.keys),
            kv_values: many("values", &bytes.kv_values),
            states: many("state", &bytes.states),
            scratch: scratch::TABLE
                .iter()
                .zip(&bytes.scratch)
                .map(|(row, &bytes)| gpu.buffer(row.label, bytes, row.usage))
                .collect(),
            recordings: HashMap::new(),
            selections: HashMap::new(),
            under_way: VecDeque::new(),
            brought: VecDeque::new(),
            selections_made: 0,
            tables_written: vec![u32::MAX; bytes.scratch[Scratch::Tables as usize] as usize / 4],
            step_written: [u32::MAX; 4],
            output_rows: 0,
            rows_left: Vec::new(),
            logits_copied: false,
            ahead: None,
            counts: StepCounts::default(),
            memory,
            gpu: gpu.clone(),
            weights,
            blueprint,
        };
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::OutOfMemory {
                device: gpu.name.clone(),
                needed: memory.total() - memory.weights,
                what: "the context",
                why: error.to_string(),
                advice: Advice::SmallerContextOrUseCpu,
            });
        }
        Ok(executor)
    }

    fn value_buffer(&self, id: ValueId) -> &wgpu::Buffer {
        &self.values[self.blueprint.buffers.buffer_of[id.0]]
    }

    /// Writes the numbers of a step of which a segment is computed. Answers its class, the segment's dispatches, and what
    /// must be copied before.
    fn begin(
        &mut self,
        table: &KvTable,
        (step, segment): (&PlacedStep, usize),
        selections: &[Selection],
    ) -> Result<(StepClass, Arc<Vec<Recorded>>, Option<wgpu::CommandBuffer>)> {
        let copies = (!step.copies.is_empty()).then(|| {
            let mut encoder = self.encoder();
            let layers = &self.blueprint.segments[segment].kv_layers;
            for copy in &step.copies {
                let is_here = |layer: usize| layers.contains(&KvLayerId(layer));
                for (buffer, bytes) in self.group_buffers(copy.group, is_here) {
                    let (from, to) = (u64::from(copy.from) * bytes, u64::from(copy.to) * bytes);
                    // A buffer can't be copied within itself.
                    encoder.copy_buffer_to_buffer(
                        buffer,
                        from,
                        self.scratch(Scratch::BlockCopy),
                        0,
                        bytes,
                    );
                    encoder.copy_buffer_to_buffer(
                        self.scratch(Scratch::BlockCopy),
                        0,
                        buffer,
                        to,
                        bytes,
                    );
                }
            }
            encoder.finish()
        });
        let class = StepClass::of_step(step, self.weights.kernels.split_from);
        let recording = self.recording(class, segment)?;
        self.counts = StepCounts::default();
        self.logits_copied = false;
        self.write_tables(table);
        self.write_step(step, selections, class.tokens);
        self.write_rows(step, segment);
        self.rows_left = rows_left(self.output_rows as u32, selections);
        Ok((class, recording, copies))
    }

    fn scratch(&self, scratch: Scratch) -> &wgpu::Buffer {
        &self.scratch[scratch as usize]
    }

    fn write(&mut self, to: Scratch, at: u64, bytes: &[u8]) {
        self.gpu.queue.write_buffer(self.scratch(to), at, bytes);
        self.counts.writes += 1;
    }

    fn submit(
        &mut self,
        commands: impl IntoIterator<Item = wgpu::CommandBuffer>,
    ) -> wgpu::SubmissionIndex {
        self.counts.submits += 1;
        self.gpu.queue.submit(commands)
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    /// Multiply-adds of a submit, about.
    fn submit_work(&self) -> u64 {
        if self.gpu.is_card { CARD_SUBMIT_WORK } else { SUBMIT_WORK }
    }

    /// What the last step took, and choosing an id after it.
    pub fn counts(&self) -> StepCounts {
        self.counts
    }

    /// Commands that bring selected ids to the host, and where to.
    fn bring_selected(&self) -> Result<(wgpu::CommandBuffer, Scratch)> {
        if self.brought.len() == SELECTIONS_IN_FLIGHT {
            return Err(Error::Internal("ids were chosen twice and not asked for".into()));
        }
        let readback = ID_READBACKS[self.selections_made % SELECTIONS_IN_FLIGHT];
        let (from, to) = (self.scratch(Scratch::Selected), self.scratch(readback));
        let mut encoder = self.encoder();
        encoder.copy_buffer_to_buffer(from, 0, to, 0, from.size());
        Ok((encoder.finish(), readback))
    }

    /// Notes that a submission brings the ids of these selections.
    fn note_brought(
        &mut self,
        submission: wgpu::SubmissionIndex,
        readback: Scratch,
        selections: &[Selection],
    ) {
        let seats = selections.iter().map(|selection| selection.seat).collect();
        self.brought.push_back(Brought { submission, readback, seats });
        self.selections_made += 1;
    }

    /// Has `encoder` bring rows of logits to the host, one behind another. Answers their bytes.
    fn copy_logits(&self, rows: &[Range<u32>], encoder: &mut wgpu::CommandEncoder) -> u64 {
        let logits = self.value_buffer(self.blueprint.plan.logits);
        let row_bytes = self.blueprint.plan.vocabulary() as u64 * 4;
        let mut end = 0;
        for rows in rows {
            let bytes = rows.len() as u64 * row_bytes;
            let (from, to) =
                (u64::from(rows.start) * row_bytes, self.scratch(Scratch::LogitsReadback));
            encoder.copy_buffer_to_buffer(logits, from, to, end, bytes);
            end += bytes;
        }
        end
    }

    /// Computes a segment of a step. Behind the last has ids chosen from the logits, and brought to the host with those logits
    /// that none is chosen from.
    fn compute(
        &mut self,
        table: &KvTable,
        (step, segment): (&PlacedStep, usize),
        selections: &[Selection],
    ) -> Result<()> {
        let (_, recording, copies) = self.begin(table, (step, segment), selections)?;
        let choice = match selections {
            [] => None,
            some => Some((self.selection_recording(some)?, some.len() as u32)),
        };
        let (tokens, outputs) = (step.tokens.len() as u32, self.output_rows as u32);
        let is_last = segment + 1 == self.blueprint.segments.len();
        let brought = if is_last { self.rows_left.clone() } else { Vec::new() };
        let work = Work { recording, choice, brought, tokens, outputs };
        if selections.is_empty() {
            let submission = self.submit_step(work, copies, None);
            if is_last {
                self.under_way.push_back(submission);
            }
        } else {
            let (bring, readback) = self.bring_selected()?;
            let submission = self.submit_step(work, copies, Some(bring));
            self.note_brought(submission, readback, selections);
        }
        self.logits_copied = is_last;
        self.gpu.check()
    }

    fn copy_out(&self, from: &wgpu::Buffer, at: u64, to: &wgpu::Buffer, to_at: u64, bytes: u64) {
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(from, at, to, to_at, bytes);
        self.gpu.queue.submit([encoder.finish()]);
    }

    /// The key and value buffers, with their bytes per block, of each layer of a group that is `wanted`.
    fn group_buffers(
        &self,
        group: usize,
        wanted: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = (&wgpu::Buffer, u64)> {
        let bytes = block_bytes(&self.blueprint, group);
        self.keys
            .iter()
            .zip(&self.kv_values)
            .zip(bytes)
            .enumerate()
            .filter(move |(layer, _)| wanted(*layer))
            .flat_map(|(_, ((keys, values), (k, v)))| [(keys, k), (values, v)])
            .filter(|(_, bytes)| *bytes > 0)
    }
}

impl Executor for GpuExecutor {
    fn run(&mut self, table: &KvTable, step: &PlacedStep, segment: usize) -> Result<()> {
        self.compute(table, (step, segment), &[])
    }

    fn segments(&self) -> usize {
        self.blueprint.segments.len()
    }

    fn step_and_select(
        &mut self,
        table: &KvTable,
        step: &PlacedStep,
        selections: &[Selection],
    ) -> Result<()> {
        let last = self.blueprint.segments.len() - 1;
        (0..last).try_for_each(|segment| self.run(table, step, segment))?;
        self.compute(table, (step, last), selections)
    }

    fn profile(&mut self, table: &KvTable, step: &PlacedStep) -> Result<StepProfile> {
        self.profile_dispatches(table, step, true)
    }

    fn can_select(&self, sampling: &Sampling) -> bool {
        let few = sampling.is_greedy() || (1..=MOST_CANDIDATES).contains(&sampling.top_k);
        self.weights.kernels.selection && few && sampling.repeat_last == 64
    }

    fn is_asynchronous(&self) -> bool {
        true
    }

    fn keep_pace(&mut self) -> Result<()> {
        while self.under_way.len() > 1 {
            self.gpu.wait_for(self.under_way.pop_front())?;
        }
        Ok(())
    }

    fn set_recent(&mut self, seat: u32, ids: &[u32]) {
        let mut words = vec![0; RECENT_WORDS];
        words[0] = ids.len() as u32;
        // The ring's place of an id is its number modulo the ring's length.
        let ring = RECENT_WORDS - 1;
        for (index, &id) in ids.iter().enumerate().skip(ids.len().saturating_sub(ring)) {
            words[1 + index % ring] = id;
        }
        let at = u64::from(seat) * RECENT_WORDS as u64 * 4;
        let recent = self.scratch(Scratch::Recent);
        self.gpu.queue.write_buffer(recent, at, bytemuck::cast_slice(&words));
    }

    fn select(&mut self, selections: &[Selection]) -> Result<()> {
        let recording = self.selection_recording(selections)?;
        let words: Vec<_> = selections.iter().map(selection_words).collect();
        self.write(Scratch::Numbers, 0, bytemuck::cast_slice(&words));
        let (bring, readback) = self.bring_selected()?;
        let mut encoder = self.encoder();
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for recorded in recording.iter() {
            recorded.encode(&mut pass, 1, selections.len() as u32);
        }
        drop(pass);
        let submission = self.submit([encoder.finish(), bring]);
        self.note_brought(submission, readback, selections);
        self.gpu.check()
    }

    fn forget_selected(&mut self) {
        self.brought.clear();
    }

    fn selected(&mut self) -> Result<Vec<Option<u32>>> {
        let Brought { submission, readback, seats } =
            self.brought.pop_front().ok_or_else(nothing_selected)?;
        let readback = self.scratch(readback);
        let words: Vec<u32> =
            self.gpu.read_mapped_after(readback, readback.size(), Some(submission))?;
        self.counts.readbacks += 1;
        // What came before is done too.
        self.under_way.clear();
        let (ids, flags) = words.split_at(words.len() / 2);
        let id = |seat: u32| (flags[seat as usize] == 0).then_some(ids[seat as usize]);
        Ok(seats.into_iter().map(id).collect())
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let rows = self.rows_left.iter().map(ExactSizeIterator::len).sum::<usize>();
        let bytes = (rows * self.blueprint.plan.vocabulary() * 4) as u64;
        if bytes == 0 {
            self.gpu.wait()?;
            return Ok(Vec::new());
        }
        if !self.logits_copied {
            let mut encoder = self.encoder();
            self.copy_logits(&self.rows_left, &mut encoder);
            self.gpu.queue.submit([encoder.finish()]);
        }
        self.logits_copied = false;
        self.counts.readbacks += 1;
        self.under_way.clear();
        self.gpu.read_mapped(self.scratch(Scratch::LogitsReadback), bytes)
    }

    fn read_block(&mut self, group: usize, block: u32) -> Result<Vec<u8>> {
        let mut at = 0;
        for (buffer, bytes) in self.group_buffers(group, |_| true) {
            self.copy_out(
                buffer,
                u64::from(block) * bytes,
                self.scratch(Scratch::BlockReadback),
                at,
                bytes,
            );
            at += bytes;
        }
        if at == 0 {
            return Ok(Vec::new());
        }
        self.gpu.read_mapped(self.scratch(Scratch::BlockReadback), at)
    }

    fn write_block(&mut self, group: usize, block: u32, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (buffer, length) in self.group_buffers(group, |_| true) {
            let Some((part, after)) = rest.split_at_checked(length as usize) else {
                return Err(Error::Snapshot);
            };
            self.gpu.queue.write_buffer(buffer, u64::from(block) * length, part);
            rest = after;
        }
        self.gpu.check()
    }

    fn copy_state(&mut self, from: u32, to: u32) -> Result<()> {
        let mut encoder = self.encoder();
        for (buffer, &floats) in self.states.iter().zip(&self.blueprint.plan.states) {
            let bytes = floats as u64 * 4;
            let [from, to] = [from, to].map(|seat| u64::from(seat) * bytes);
            // A buffer can't be copied within itself.
            let between = self.scratch(Scratch::BlockCopy);
            encoder.copy_buffer_to_buffer(buffer, from, between, 0, bytes);
            encoder.copy_buffer_to_buffer(between, 0, buffer, to, bytes);
        }
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.check()
    }

    fn read_state(&mut self, seat: u32) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        for (buffer, &floats) in self.states.iter().zip(&self.blueprint.plan.states) {
            let bytes = floats as u64 * 4;
            let usage = Usage::MAP_READ | Usage::COPY_DST;
            let readback = self.gpu.buffer("state readback", bytes, usage);
            self.copy_out(buffer, u64::from(seat) * bytes, &readback, 0, bytes);
            all.extend(self.gpu.read_mapped::<u8>(&readback, bytes)?);
        }
        Ok(all)
    }

    fn write_state(&mut self, seat: u32, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (buffer, &floats) in self.states.iter().zip(&self.blueprint.plan.states) {
            let Some((part, after)) = rest.split_at_checked(floats * 4) else {
                return Err(Error::Snapshot);
            };
            self.gpu.queue.write_buffer(buffer, u64::from(seat) * floats as u64 * 4, part);
            rest = after;
        }
        self.gpu.check()
    }

    fn write_value(&mut self, id: ValueId, rows: &[f32]) -> Result<()> {
        let bytes = bytemuck::cast_slice(rows);
        self.gpu.queue.write_buffer(self.value_buffer(id), 0, bytes);
        if let Some(apart) =
            self.apart.get(&id.0).filter(|apart| apart.size() >= bytes.len() as u64)
        {
            self.gpu.queue.write_buffer(apart, 0, bytes);
        }
        self.gpu.check()
    }

    fn read_value(&mut self, id: ValueId, floats: usize) -> Result<Vec<f32>> {
        let bytes = (floats * 4) as u64;
        let usage = Usage::MAP_READ | Usage::COPY_DST;
        let readback = self.gpu.buffer("readback", bytes, usage);
        self.copy_out(self.value_buffer(id), 0, &readback, 0, bytes);
        self.gpu.read_mapped(&readback, bytes)
    }

    fn device_name(&self) -> String {
        self.gpu.name.clone()
    }

    fn memory(&self) -> Memory {
        self.memory
    }
}

/// Which of so many rows of logits no id is chosen from.
fn rows_left(rows: u32, selections: &[Selection]) -> Vec<Range<u32>> {
    let mut left: Vec<Range<u32>> = Vec::new();
    for row in (0..rows).filter(|&row| selections.iter().all(|selection| selection.row != row)) {
        match left.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => left.push(row..row + 1),
        }
    }
    left
}
