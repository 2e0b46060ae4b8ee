//! A context on the GPU: its buffers, its recordings, its steps.
//!
//! A plan is lowered once per class of steps; a recording holds each dispatch's pipeline and bind group, so
//! that a step creates none: it writes the step's numbers and submits its commands, encoded then or ahead
//! (`commands`).

mod commands;
mod profile;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use shaders::{Multiplies, Variant};
use wgpu::BufferUsages as Usage;

use self::commands::{Encoded, Work};
use super::choice::{Count, Family, Kernels};
use super::device::Gpu;
use super::dispatch::Scratch;
use super::layout::Layout;
use super::lower::{
    Dispatch, Extent, Lowering, MOST_CANDIDATES, Resource, StepClass, kept_candidates,
    lower_selection,
};
use super::numbers::{Numbers, Range, TOKEN_WORDS};
use super::pipelines::Pipeline;
use super::scratch::{self, RING_LENGTH, SELECTIONS_IN_FLIGHT, block_bytes};
use super::sizes::{BufferSizes, values_apart};
use super::upload::GpuWeights;
use crate::blueprint::Blueprint;
use crate::error::Advice;
use crate::executor::{Executor, Memory, Selection};
use crate::kv::{BLOCK, KvTable, PlacedStep};
use crate::plan::ValueId;
use crate::profile::StepProfile;
use crate::select::Sampling;
use crate::spec::rope::Rope;
use crate::step::Input;
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
}

/// A dispatch made ready.
struct Recorded {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    grid: [Extent; 3],
    /// Multiply-adds per row, about.
    work: u64,
}

impl Recorded {
    /// Encodes it for a step of so many tokens and outputs; answers whether there is anything to do.
    fn encode(&self, pass: &mut wgpu::ComputePass, tokens: u32, outputs: u32) -> bool {
        let [x, y, z] = self.grid.map(|extent| extent.count(tokens, outputs));
        if x * y * z == 0 {
            return false;
        }
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
        true
    }
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
    recordings: HashMap<StepClass, Arc<Vec<Recorded>>>,
    /// By the number of candidates and whether there is a penalty.
    selections: HashMap<(usize, bool), Arc<Vec<Recorded>>>,
    /// The submissions that bring selected ids to the host.
    bring_ids: [Option<wgpu::SubmissionIndex>; SELECTIONS_IN_FLIGHT],
    memory: Memory,
    tables_written: Vec<u32>,
    step_written: [u32; 4],
    output_rows: usize,
    /// Whether the last step's logits are on their way to `readback`.
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
        let cells = blueprint.sizes.positions;
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
                    positions: (cells as u64 * gpu.kernels.adapter.max_binding_bytes / largest)
                        as usize
                        / BLOCK
                        * BLOCK,
                    refused: cells,
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
            bring_ids: [const { None }; SELECTIONS_IN_FLIGHT],
            tables_written: vec![u32::MAX; bytes.scratch[Scratch::Tables as usize] as usize / 4],
            step_written: [u32::MAX; 4],
            output_rows: 0,
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

    /// The dispatches of a class of steps, lowered and bound on first use.
    fn recording(&mut self, class: StepClass) -> Result<Arc<Vec<Recorded>>> {
        if let Some(recording) = self.recordings.get(&class) {
            return Ok(recording.clone());
        }
        let dispatches = self.lower(class)?;
        let recording = Arc::new(self.record(&dispatches, class.tokens)?);
        self.recordings.insert(class, recording.clone());
        Ok(recording)
    }

    /// The dispatches of a class of steps.
    pub fn lower(&self, class: StepClass) -> Result<Vec<Dispatch>> {
        let (layout, kernels) = (&self.weights.layout, &self.weights.kernels);
        Lowering { blueprint: &self.blueprint, layout, kernels, class }.lower()
    }

    /// Binds the dispatches of steps of `count` tokens.
    fn record(&self, dispatches: &[Dispatch], count: Count) -> Result<Vec<Recorded>> {
        let numbers = Numbers::new(&self.blueprint, count);
        let alignment =
            self.gpu.device.limits().min_uniform_buffer_offset_alignment.max(16) as usize;
        let mut starts = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        let mut pipelines = Vec::new();
        compile(&self.gpu, dispatches)?;
        for dispatch in dispatches {
            let pipeline = self.gpu.pipelines.get(&dispatch.variant)?;
            let fault = |why: String| {
                Error::Kernel(shaders::Error::Source { kernel: dispatch.variant.to_string(), why })
            };
            let start = bytes.len().next_multiple_of(alignment);
            bytes.resize(start + pipeline.params.bytes as usize, 0);
            for (name, offset) in &pipeline.params.members {
                let given = dispatch.params.iter().find(|(given, _)| given == name);
                let (_, value) =
                    given.ok_or_else(|| fault(format!("params.{name} is not given")))?;
                let at = start + *offset as usize;
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            starts.push((start as u64, u64::from(pipeline.params.bytes)));
            pipelines.push(pipeline);
        }
        let params =
            self.gpu.buffer("params", bytes.len() as u64, Usage::UNIFORM | Usage::COPY_DST);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.gpu.queue.write_buffer(&params, 0, &bytes);
        let mut recorded = Vec::new();
        for ((dispatch, pipeline), (start, size)) in dispatches.iter().zip(pipelines).zip(starts) {
            let mut entries = Vec::new();
            for binding in &pipeline.bindings {
                let resource = if binding.name == "params" {
                    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &params,
                        offset: start,
                        size: std::num::NonZeroU64::new(size),
                    })
                } else {
                    let given = dispatch.bindings.iter().find(|(name, _)| *name == binding.name);
                    let Some(&(_, resource)) = given else {
                        let why = format!("the binding {} is not given", binding.name);
                        let kernel = dispatch.variant.to_string();
                        return Err(Error::Kernel(shaders::Error::Source { kernel, why }));
                    };
                    self.resource(resource, binding.bytes, (count, &numbers))
                };
                entries.push(wgpu::BindGroupEntry { binding: binding.index, resource });
            }
            let bind_group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.variant.kernel),
                layout: &pipeline.layout,
                entries: &entries,
            });
            let param = |name| {
                dispatch.params.iter().find(|(n, _)| *n == name).map_or(1, |(_, v)| u64::from(*v))
            };
            let work = match dispatch.variant.multiplies() {
                Multiplies::Nothing => 0,
                _ => param("rows") * param("groups") * 32,
            };
            recorded.push(Recorded { pipeline, bind_group, grid: dispatch.grid, work });
        }
        self.gpu.check()?;
        Ok(recorded)
    }

    /// What stands behind a resource; of a value or a vector `bytes` from its start on, or all of it if that is 0.
    fn resource(
        &self,
        resource: Resource,
        bytes: u32,
        (count, numbers): (Count, &Numbers),
    ) -> wgpu::BindingResource<'_> {
        let part = |buffer, start: usize, bytes: u64| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: start as u64,
                size: std::num::NonZeroU64::new(bytes),
            })
        };
        let number =
            |range: Range| part(self.scratch(Scratch::Numbers), range.start as usize, range.bytes);
        match resource {
            Resource::Matrix(index) => self.weights.matrices[index].as_entire_binding(),
            Resource::Vector(id) => {
                let vector = &self.weights.layout.vectors[id.0];
                let all = (vector.length * 4) as u64;
                let bytes = if bytes > 0 { u64::from(bytes) } else { all };
                part(&self.weights.vectors, vector.start, bytes)
            }
            Resource::Value(id) => {
                let apart = self.apart.get(&id.0).filter(|_| count != Count::Many);
                part(apart.unwrap_or(self.value_buffer(id)), 0, u64::from(bytes))
            }
            Resource::Keys(layer) => self.keys[layer.0].as_entire_binding(),
            Resource::Values(layer) => self.kv_values[layer.0].as_entire_binding(),
            Resource::Tokens => number(numbers.tokens),
            Resource::Outputs => number(numbers.outputs),
            Resource::Angles(rope) => number(numbers.angles[rope.0]),
            Resource::Selection => number(numbers.selection),
            Resource::Scratch(scratch) => self.scratch(scratch).as_entire_binding(),
            Resource::State(id) => self.states[id.0].as_entire_binding(),
        }
    }

    fn value_buffer(&self, id: ValueId) -> &wgpu::Buffer {
        &self.values[self.blueprint.buffers.buffer_of[id.0]]
    }

    /// Writes a step's numbers. Answers its class, its dispatches, and what must be copied before.
    fn begin(
        &mut self,
        table: &KvTable,
        step: &PlacedStep,
        selection: Option<&Selection>,
    ) -> Result<(StepClass, Arc<Vec<Recorded>>, Option<wgpu::CommandBuffer>)> {
        let copies = (!step.copies.is_empty()).then(|| {
            let mut encoder = self.encoder();
            for copy in &step.copies {
                for (buffer, bytes) in self.group_buffers(copy.group) {
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
        let recording = self.recording(class)?;
        self.counts = StepCounts::default();
        self.logits_copied = false;
        self.write_tables(table);
        self.write_step(step, selection, class.tokens);
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

    /// Writes the tables of all sequences where they changed.
    fn write_tables(&mut self, table: &KvTable) {
        let table_starts = self.group_table_starts();
        let mut words = vec![0; self.tables_written.len()];
        for (group, &start) in table_starts.iter().enumerate() {
            let length = self.blueprint.groups[group].table_blocks;
            table.write_table(group, |seat, blocks| {
                let out = &mut words[start + seat as usize * length..][..length];
                for (out, block) in out.iter_mut().zip(blocks) {
                    *out = block.unwrap_or(0);
                }
            });
        }
        if words != self.tables_written {
            self.write(Scratch::Tables, 0, bytemuck::cast_slice(&words));
            self.tables_written = words;
        }
    }

    /// Writes the step's numbers: the selection, outputs, tokens, angles. Of a few tokens all in one.
    fn write_step(&mut self, step: &PlacedStep, selection: Option<&Selection>, count: Count) {
        let table_starts = self.group_table_starts();
        let mut tokens = Vec::with_capacity(step.tokens.len() * TOKEN_WORDS);
        let mut outputs = Vec::new();
        for (index, token) in step.tokens.iter().enumerate() {
            let (id_or_ring, is_pending) = match token.input {
                Input::Id(id) => (id, 0),
                Input::Pending(ring) => (ring % RING_LENGTH as u32, 1),
            };
            let table_of = |group: usize| {
                table_starts.get(group).map_or(0, |start| {
                    (start + token.seat as usize * self.blueprint.groups[group].table_blocks) as u32
                })
            };
            tokens.extend_from_slice(&[
                id_or_ring,
                is_pending,
                token.position,
                table_of(0),
                table_of(1),
                token.cells[0],
                token.cells[1],
                token.seat,
            ]);
            if token.want_logits {
                outputs.push(index as u32);
            }
        }
        self.output_rows = outputs.len();
        let counts = [step.tokens.len() as u32, outputs.len() as u32, 0, 0];
        if counts != self.step_written {
            self.write(Scratch::Step, 0, bytemuck::cast_slice(&counts));
            self.step_written = counts;
        }
        let numbers = Numbers::new(&self.blueprint, count);
        let selection = selection.map(selection_words);
        let angles: Vec<_> =
            self.blueprint.plan.ropes.iter().map(|rope| angles_of(rope, step)).collect();
        let mut parts: Vec<(Range, &[u8])> = Vec::new();
        if let Some(words) = &selection {
            parts.push((numbers.selection, bytemuck::cast_slice(words)));
        }
        parts.push((numbers.outputs, bytemuck::cast_slice(&outputs)));
        parts.push((numbers.tokens, bytemuck::cast_slice(&tokens)));
        for (&range, angles) in numbers.angles.iter().zip(&angles) {
            parts.push((range, bytemuck::cast_slice(angles)));
        }
        parts.retain(|(_, bytes)| !bytes.is_empty());
        if count == Count::Many {
            for (range, bytes) in parts {
                self.write(Scratch::Numbers, range.start, bytes);
            }
            return;
        }
        let mut all = vec![0; numbers.end as usize];
        for (range, bytes) in parts {
            all[range.start as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        self.write(Scratch::Numbers, 0, &all);
    }

    /// Where each group's tables start in the buffer of tables, in words.
    fn group_table_starts(&self) -> Vec<usize> {
        let mut start = 0;
        self.blueprint
            .groups
            .iter()
            .map(|group| {
                let here = start;
                start += group.table_blocks * self.blueprint.sizes.sequences;
                here
            })
            .collect()
    }

    /// What the last step took, and choosing an id after it.
    pub fn counts(&self) -> StepCounts {
        self.counts
    }

    /// The dispatches that choose an id, lowered and bound on first use.
    fn selection_recording(&mut self, sampling: &Sampling) -> Result<Arc<Vec<Recorded>>> {
        let key = (kept_candidates(candidates(sampling)), sampling.has_penalty());
        if let Some(recording) = self.selections.get(&key) {
            return Ok(recording.clone());
        }
        let dispatches = lower_selection(&self.blueprint.plan, key.0, key.1);
        let recording = Arc::new(self.record(&dispatches, Count::One)?);
        self.selections.insert(key, recording.clone());
        Ok(recording)
    }

    /// Has `encoder` bring the id of a selection to the host. Answers where it will be.
    fn copy_selected(&self, ring: u32, encoder: &mut wgpu::CommandEncoder) -> usize {
        let place = ring as usize % SELECTIONS_IN_FLIGHT;
        let readback = self.scratch(ID_READBACKS[place]);
        let at = u64::from(ring % RING_LENGTH as u32) * 4;
        encoder.copy_buffer_to_buffer(self.scratch(Scratch::Selected), at, readback, 0, 4);
        encoder.copy_buffer_to_buffer(self.scratch(Scratch::Flags), 0, readback, 4, 4);
        place
    }

    /// Bytes of the last step's logits.
    fn logits_bytes(&self) -> u64 {
        (self.output_rows * self.blueprint.plan.vocabulary() * 4) as u64
    }

    /// Computes a step; with a selection has an id chosen from its logits, else has them brought to the host.
    fn compute(
        &mut self,
        table: &KvTable,
        step: &PlacedStep,
        selection: Option<&Selection>,
    ) -> Result<()> {
        let (_, recording, copies) = self.begin(table, step, selection)?;
        let choice = match selection {
            Some(selection) => Some(self.selection_recording(&selection.sampling)?),
            None => None,
        };
        let (tokens, outputs) = (step.tokens.len() as u32, self.output_rows as u32);
        let work = Work { recording, choice, tokens, outputs };
        if let Some(selection) = selection {
            let mut encoder = self.encoder();
            let place = self.copy_selected(selection.ring, &mut encoder);
            let submission = self.submit_step(work, copies, Some(encoder.finish()));
            self.bring_ids[place] = Some(submission);
        } else {
            self.submit_step(work, copies, None);
            self.logits_copied = outputs > 0;
        }
        self.gpu.check()
    }

    fn copy_out(&self, from: &wgpu::Buffer, at: u64, to: &wgpu::Buffer, to_at: u64, bytes: u64) {
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(from, at, to, to_at, bytes);
        self.gpu.queue.submit([encoder.finish()]);
    }

    /// Each layer's key and value buffers with their bytes per block, for a group.
    fn group_buffers(&self, group: usize) -> impl Iterator<Item = (&wgpu::Buffer, u64)> {
        let bytes = block_bytes(&self.blueprint, group);
        self.keys
            .iter()
            .zip(&self.kv_values)
            .zip(bytes)
            .flat_map(|((keys, values), (k, v))| [(keys, k), (values, v)])
            .filter(|(_, bytes)| *bytes > 0)
    }
}

/// The distinct variants of some dispatches.
fn variants(dispatches: &[Dispatch]) -> Vec<Variant> {
    let variants: BTreeSet<_> = dispatches.iter().map(|dispatch| &dispatch.variant).collect();
    variants.into_iter().cloned().collect()
}

/// Compiles the kernels of a prompt's steps and of single tokens, so that they are ready when the weights are.
pub fn compile_ahead(gpu: &Gpu, blueprint: &Blueprint, kernels: &Kernels) -> Result<()> {
    let Blueprint { plan, sizes, .. } = blueprint;
    let layout = Layout::new(plan, kernels)?;
    // The largest logit, and the default top-k.
    let top_ks = [1, Sampling::default().top_k];
    let mut dispatches: Vec<_> =
        top_ks.iter().flat_map(|&k| lower_selection(plan, kept_candidates(k), false)).collect();
    let one = StepClass::of(1, 1);
    let mut classes = vec![one, StepClass::of(sizes.chunk, 1)];
    // In the middle of an answer a card's compiler would be waited for. A software driver's takes longer than it is worth.
    if kernels.adapter.family != Family::Software && sizes.positions >= kernels.split_from as usize
    {
        classes.push(StepClass { long: true, ..one });
    }
    for class in classes {
        dispatches.extend(Lowering { blueprint, layout: &layout, kernels, class }.lower()?);
    }
    compile(gpu, &dispatches)
}

/// Compiles the kernels of some dispatches on several threads.
pub(crate) fn compile(gpu: &Gpu, dispatches: &[Dispatch]) -> Result<()> {
    gpu.pipelines.warm(&variants(dispatches))
}

/// How many of the likeliest ids are to be kept.
fn candidates(sampling: &Sampling) -> usize {
    if sampling.is_greedy() { 1 } else { sampling.top_k }
}

/// The kernels' `Selection`.
fn selection_words(selection: &Selection) -> [u32; 12] {
    let sampling = &selection.sampling;
    [
        selection.ring % RING_LENGTH as u32,
        selection.sequence.0,
        selection.position,
        sampling.seed as u32,
        (sampling.seed >> 32) as u32,
        candidates(sampling) as u32,
        sampling.temperature.to_bits(),
        sampling.top_p.to_bits(),
        sampling.min_p.to_bits(),
        sampling.repeat_penalty.to_bits(),
        u32::from(sampling.is_greedy()),
        0,
    ]
}

/// Cosine and sine of each pair for each token.
fn angles_of(rope: &Rope, step: &PlacedStep) -> Vec<[f32; 2]> {
    let mut angles = Vec::with_capacity(step.tokens.len() * rope.pairs());
    for token in &step.tokens {
        angles.extend(rope.angles(token.position).map(|(cos, sin)| [cos as f32, sin as f32]));
    }
    angles
}

impl Executor for GpuExecutor {
    fn step(&mut self, table: &KvTable, step: &PlacedStep) -> Result<()> {
        self.compute(table, step, None)
    }

    fn step_and_select(
        &mut self,
        table: &KvTable,
        step: &PlacedStep,
        selection: &Selection,
    ) -> Result<()> {
        self.compute(table, step, Some(selection))
    }

    fn profile(&mut self, table: &KvTable, step: &PlacedStep) -> Result<StepProfile> {
        self.profile_dispatches(table, step, true)
    }

    fn can_select(&self, sampling: &Sampling) -> bool {
        let few = sampling.is_greedy() || (1..=MOST_CANDIDATES).contains(&sampling.top_k);
        self.weights.kernels.selection && few && sampling.repeat_last == 64
    }

    fn set_recent(&mut self, ids: &[u32]) {
        let mut words = vec![ids.len() as u32];
        words.resize(65, 0);
        // The ring's place of an id is its number modulo the ring's length.
        for (index, &id) in ids.iter().enumerate().skip(ids.len().saturating_sub(64)) {
            words[1 + index % 64] = id;
        }
        self.gpu.queue.write_buffer(self.scratch(Scratch::Recent), 0, bytemuck::cast_slice(&words));
    }

    fn select(&mut self, selection: &Selection) -> Result<()> {
        let recording = self.selection_recording(&selection.sampling)?;
        let words = selection_words(selection);
        self.write(Scratch::Numbers, 0, bytemuck::cast_slice(&words));
        let mut encoder = self.encoder();
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for recorded in recording.iter() {
            recorded.encode(&mut pass, 1, 1);
        }
        drop(pass);
        let place = self.copy_selected(selection.ring, &mut encoder);
        self.bring_ids[place] = Some(self.submit([encoder.finish()]));
        self.gpu.check()
    }

    fn selected(&mut self, ring: u32) -> Result<Option<u32>> {
        let place = ring as usize % SELECTIONS_IN_FLIGHT;
        let brought = self.bring_ids[place].take();
        let readback = self.scratch(ID_READBACKS[place]);
        let words: Vec<u32> = self.gpu.read_mapped_after(readback, 8, brought)?;
        Ok((words[1] == 0).then_some(words[0]))
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let bytes = self.logits_bytes();
        if bytes == 0 {
            self.gpu.wait()?;
            return Ok(Vec::new());
        }
        if !self.logits_copied {
            self.copy_out(
                self.value_buffer(self.blueprint.plan.logits),
                0,
                self.scratch(Scratch::LogitsReadback),
                0,
                bytes,
            );
        }
        self.logits_copied = false;
        self.gpu.read_mapped(self.scratch(Scratch::LogitsReadback), bytes)
    }

    fn read_block(&mut self, group: usize, block: u32) -> Result<Vec<u8>> {
        let mut at = 0;
        for (buffer, bytes) in self.group_buffers(group) {
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
        for (buffer, length) in self.group_buffers(group) {
            let Some((part, after)) = rest.split_at_checked(length as usize) else {
                return Err(Error::Snapshot);
            };
            self.gpu.queue.write_buffer(buffer, u64::from(block) * length, part);
            rest = after;
        }
        self.gpu.check()
    }

    fn copy_state(&mut self, from: u32, to: u32) -> Result<()> {
        let bytes = self.read_state(from)?;
        self.write_state(to, &bytes)
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
