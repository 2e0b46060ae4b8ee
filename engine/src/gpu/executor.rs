//! A context on the GPU: its buffers, its recordings, its steps.
//!
//! A plan is lowered once per class of steps; a recording holds each dispatch's pipeline and bind group, so
//! that a step creates nothing: it writes the step's numbers, encodes one pass, submits.

mod profile;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use shaders::Variant;
use wgpu::BufferUsages as Usage;

use super::adapter::Gpu;
use super::choice::Caps;
use super::layout::Layout;
use super::lower::{
    Dispatch, Extent, Lowering, MOST_CANDIDATES, Resource, StepClass, kept_candidates,
    lower_selection,
};
use super::pipelines::Pipeline;
use super::sizes::{
    BufferSizes, RECENT_BYTES, SELECTED_SLOTS, SELECTION_BYTES, SELECTIONS_IN_FLIGHT, TOKEN_WORDS,
    block_bytes,
};
use super::upload::GpuWeights;
use crate::executor::{Executor, Memory, Selection, Sizes};
use crate::kv::{BLOCK, Group, KvTable, Prepared};
use crate::model::rope::Rope;
use crate::plan::{Placement, Plan, ValueId, place};
use crate::profile::StepProfile;
use crate::select::Sampling;
use crate::step::Input;
use crate::{Error, Result};

/// Multiply-adds of a submit, about: meant to take a slow integrated GPU a tenth of a second (an estimate, not
/// yet measured on one), far below a driver's watchdog (2 s on Windows).
const SUBMIT_WORK: u64 = 10_000_000_000;

/// A dispatch made ready.
struct Recorded {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    grid: [Extent; 3],
    /// Multiply-adds per row, about.
    work: u64,
}

/// A context's device side on a GPU.
pub struct GpuExecutor {
    gpu: Arc<Gpu>,
    weights: Arc<GpuWeights>,
    plan: Arc<Plan>,
    sizes: Sizes,
    groups: Vec<Group>,
    placement: Placement,
    values: Vec<wgpu::Buffer>,
    keys: Vec<wgpu::Buffer>,
    kv_values: Vec<wgpu::Buffer>,
    tokens: wgpu::Buffer,
    outputs: wgpu::Buffer,
    tables: wgpu::Buffer,
    angles: Vec<wgpu::Buffer>,
    selected: wgpu::Buffer,
    step: wgpu::Buffer,
    readback: wgpu::Buffer,
    block_readback: wgpu::Buffer,
    /// Where a block waits on its way to another place in the same buffer.
    block_copy: wgpu::Buffer,
    recordings: HashMap<StepClass, Arc<Vec<Recorded>>>,
    selections: HashMap<usize, Arc<Vec<Recorded>>>,
    candidates: [wgpu::Buffer; 2],
    part_sums: wgpu::Buffer,
    part_maxima: wgpu::Buffer,
    expert_tiles: wgpu::Buffer,
    rounded: wgpu::Buffer,
    rounded_scales: wgpu::Buffer,
    states: Vec<wgpu::Buffer>,
    selection: wgpu::Buffer,
    recent: wgpu::Buffer,
    flags: wgpu::Buffer,
    /// Where selected ids come to the host, and the submission that brings each.
    id_readbacks: Vec<(wgpu::Buffer, Option<wgpu::SubmissionIndex>)>,
    memory: Memory,
    tables_written: Vec<u32>,
    output_rows: usize,
    dispatches: usize,
}

impl GpuExecutor {
    /// Allocates a context's buffers.
    pub fn new(
        weights: Arc<GpuWeights>,
        plan: Arc<Plan>,
        groups: Vec<Group>,
        sizes: Sizes,
    ) -> Result<Self> {
        let gpu = weights.gpu.clone();
        let placement = place(&plan, sizes.chunk, sizes.outputs);
        let bytes = BufferSizes::new(&plan, &placement, &groups, &sizes, &weights.caps);
        let largest = bytes.values.iter().chain(&bytes.keys).chain(&bytes.kv_values).max();
        if let Some(&largest) = largest.filter(|&&largest| largest > gpu.caps.max_binding_bytes) {
            return Err(Error::DoesNotFit {
                device: gpu.name.clone(),
                needed: largest,
                available: gpu.caps.max_binding_bytes,
                advice: format!(
                    "one buffer of this context is larger than the device can bind; a --ctx of {} would fit",
                    (sizes.cells as u64 * gpu.caps.max_binding_bytes / largest) as usize / BLOCK
                        * BLOCK
                ),
            });
        }
        let memory = Memory { weights: weights.bytes(), ..bytes.memory() };
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let storage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
        let uniform = if weights.caps.uniform_inputs { Usage::UNIFORM } else { Usage::empty() };
        let with = |label: &str, sizes: &[u64], usage| -> Vec<wgpu::Buffer> {
            sizes.iter().map(|&bytes| gpu.buffer(label, bytes, usage)).collect()
        };
        let many = |label: &str, sizes: &[u64]| with(label, sizes, storage);
        let executor = Self {
            values: with("value", &bytes.values, storage | uniform),
            keys: many("keys", &bytes.keys),
            kv_values: many("values", &bytes.kv_values),
            tokens: gpu.buffer("tokens", bytes.tokens, storage),
            outputs: gpu.buffer("outputs", bytes.outputs, storage),
            tables: gpu.buffer("tables", bytes.tables, storage),
            angles: many("angles", &bytes.angles),
            selected: gpu.buffer("selected", bytes.selected, storage),
            step: gpu.buffer("step", bytes.step, Usage::UNIFORM | Usage::COPY_DST),
            readback: gpu.buffer(
                "readback",
                bytes.logits_readback,
                Usage::MAP_READ | Usage::COPY_DST,
            ),
            block_readback: gpu.buffer(
                "block readback",
                bytes.block_readback,
                Usage::MAP_READ | Usage::COPY_DST,
            ),
            block_copy: gpu.buffer("block copy", bytes.block_copy, storage),
            recordings: HashMap::new(),
            selections: HashMap::new(),
            candidates: [0, 1].map(|_| gpu.buffer("candidates", bytes.candidates, storage)),
            part_sums: gpu.buffer("part sums", bytes.part_sums, storage),
            part_maxima: gpu.buffer("part maxima", bytes.part_maxima, storage),
            states: many("state", &bytes.states),
            expert_tiles: gpu.buffer("expert tiles", bytes.expert_tiles, storage),
            rounded: gpu.buffer("rounded inputs", bytes.rounded, storage),
            rounded_scales: gpu.buffer("scales of rounded inputs", bytes.rounded_scales, storage),
            selection: gpu.buffer("selection", SELECTION_BYTES, Usage::UNIFORM | Usage::COPY_DST),
            recent: gpu.buffer("recent", RECENT_BYTES, storage),
            flags: gpu.buffer("flags", 4, storage),
            id_readbacks: (0..SELECTIONS_IN_FLIGHT)
                .map(|_| (gpu.buffer("id", 8, Usage::MAP_READ | Usage::COPY_DST), None))
                .collect(),
            tables_written: vec![u32::MAX; bytes.tables as usize / 4],
            output_rows: 0,
            dispatches: 0,
            memory,
            gpu: gpu.clone(),
            weights,
            plan,
            sizes,
            groups,
            placement,
        };
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::DoesNotFit {
                device: gpu.name.clone(),
                needed: memory.total(),
                available: 0,
                advice: format!("the driver says: {error}; use a smaller --ctx or --device cpu"),
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
        let recording = Arc::new(self.record(&dispatches)?);
        self.recordings.insert(class, recording.clone());
        Ok(recording)
    }

    /// The dispatches of a class of steps.
    pub fn lower(&self, class: StepClass) -> Result<Vec<Dispatch>> {
        let (layout, caps) = (&self.weights.layout, &self.weights.caps);
        lower(&self.plan, layout, caps, &self.sizes, &self.groups, class)
    }

    fn record(&self, dispatches: &[Dispatch]) -> Result<Vec<Recorded>> {
        let alignment =
            self.gpu.device.limits().min_uniform_buffer_offset_alignment.max(16) as usize;
        let mut starts = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        let mut pipelines = Vec::new();
        self.gpu.pipelines.warm(&self.gpu, &variants(dispatches))?;
        for dispatch in dispatches {
            let pipeline = self.gpu.pipelines.get(&self.gpu, &dispatch.variant)?;
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
                    self.resource(resource, binding.bytes)
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
            let work = match dispatch.variant.kernel {
                "matvec" | "lanewise" | "matmul" | "matmul_cooperative" | "expert_matvec" => {
                    param("rows") * param("groups") * 32
                }
                _ => 0,
            };
            recorded.push(Recorded { pipeline, bind_group, grid: dispatch.grid, work });
        }
        self.gpu.check()?;
        Ok(recorded)
    }

    /// What stands behind a resource; of a value or a vector `bytes` from its start on, or all of it if that is 0.
    fn resource(&self, resource: Resource, bytes: u32) -> wgpu::BindingResource<'_> {
        let part = |buffer, start: usize, bytes: u64| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: start as u64,
                size: std::num::NonZeroU64::new(bytes),
            })
        };
        match resource {
            Resource::Matrix(index) => self.weights.matrices[index].binding(),
            Resource::Vector(id) => {
                let vector = &self.weights.layout.vectors[id.0];
                let all = (vector.length * 4) as u64;
                let bytes = if bytes > 0 { u64::from(bytes) } else { all };
                part(&self.weights.vectors, vector.start, bytes)
            }
            Resource::Value(id) => part(self.value_buffer(id), 0, u64::from(bytes)),
            Resource::Keys(layer) => self.keys[layer.0].as_entire_binding(),
            Resource::Values(layer) => self.kv_values[layer.0].as_entire_binding(),
            Resource::Tokens => self.tokens.as_entire_binding(),
            Resource::Outputs => self.outputs.as_entire_binding(),
            Resource::Tables => self.tables.as_entire_binding(),
            Resource::Angles(rope) => self.angles[rope.0].as_entire_binding(),
            Resource::Selected => self.selected.as_entire_binding(),
            Resource::Step => self.step.as_entire_binding(),
            Resource::Selection => self.selection.as_entire_binding(),
            Resource::Recent => self.recent.as_entire_binding(),
            Resource::Flags => self.flags.as_entire_binding(),
            Resource::PartSums => self.part_sums.as_entire_binding(),
            Resource::PartMaxima => self.part_maxima.as_entire_binding(),
            Resource::Candidates(index) => self.candidates[index].as_entire_binding(),
            Resource::State(id) => self.states[id.0].as_entire_binding(),
            Resource::ExpertTiles => self.expert_tiles.as_entire_binding(),
            Resource::Rounded => self.rounded.as_entire_binding(),
            Resource::RoundedScales => self.rounded_scales.as_entire_binding(),
        }
    }

    fn value_buffer(&self, id: ValueId) -> &wgpu::Buffer {
        &self.values[self.placement.buffer_of[id.0]]
    }

    /// Copies what a step must have copied, writes its numbers. Answers its class and its dispatches.
    fn begin(
        &mut self,
        table: &KvTable,
        step: &Prepared,
    ) -> Result<(StepClass, Arc<Vec<Recorded>>)> {
        if !step.copies.is_empty() {
            let mut encoder =
                self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for copy in &step.copies {
                for (buffer, bytes) in self.group_buffers(copy.group) {
                    let (from, to) = (u64::from(copy.from) * bytes, u64::from(copy.to) * bytes);
                    // A buffer can't be copied within itself.
                    encoder.copy_buffer_to_buffer(buffer, from, &self.block_copy, 0, bytes);
                    encoder.copy_buffer_to_buffer(&self.block_copy, 0, buffer, to, bytes);
                }
            }
            self.gpu.queue.submit([encoder.finish()]);
        }
        self.write_step(table, step);
        let class = StepClass::of_step(step, self.weights.caps.split_from);
        Ok((class, self.recording(class)?))
    }

    /// Writes the step's numbers: tokens, outputs, tables where they changed, angles.
    fn write_step(&mut self, table: &KvTable, step: &Prepared) {
        let queue = &self.gpu.queue;
        let table_starts = self.group_table_starts();
        let mut words = vec![0; self.tables_written.len()];
        for (group, &start) in table_starts.iter().enumerate() {
            let length = self.groups[group].table_blocks;
            table.write_table(group, |slot, blocks| {
                let out = &mut words[start + slot as usize * length..][..length];
                for (out, block) in out.iter_mut().zip(blocks) {
                    *out = block.unwrap_or(0);
                }
            });
        }
        if words != self.tables_written {
            queue.write_buffer(&self.tables, 0, bytemuck::cast_slice(&words));
            self.tables_written = words;
        }
        let mut tokens = Vec::with_capacity(step.tokens.len() * TOKEN_WORDS);
        let mut outputs = Vec::new();
        for (index, token) in step.tokens.iter().enumerate() {
            let (id_or_slot, from_slot) = match token.input {
                Input::Id(id) => (id, 0),
                Input::GpuSlot(slot) => (slot, 1),
            };
            let table_of = |group: usize| {
                table_starts.get(group).map_or(0, |start| {
                    (start + token.slot as usize * self.groups[group].table_blocks) as u32
                })
            };
            tokens.extend_from_slice(&[
                id_or_slot,
                from_slot,
                token.position,
                table_of(0),
                table_of(1),
                token.cells[0],
                token.cells[1],
                token.slot,
            ]);
            if token.want_logits {
                outputs.push(index as u32);
            }
        }
        queue.write_buffer(&self.tokens, 0, bytemuck::cast_slice(&tokens));
        if !outputs.is_empty() {
            queue.write_buffer(&self.outputs, 0, bytemuck::cast_slice(&outputs));
        }
        self.output_rows = outputs.len();
        let counts = [step.tokens.len() as u32, outputs.len() as u32, 0, 0];
        queue.write_buffer(&self.step, 0, bytemuck::cast_slice(&counts));
        for (rope, buffer) in self.plan.ropes.iter().zip(&self.angles) {
            let angles = angles_of(rope, step);
            queue.write_buffer(buffer, 0, bytemuck::cast_slice(&angles));
        }
    }

    /// Where each group's tables start in the buffer of tables, in words.
    fn group_table_starts(&self) -> Vec<usize> {
        let mut start = 0;
        self.groups
            .iter()
            .map(|group| {
                let here = start;
                start += group.table_blocks * self.sizes.sequences;
                here
            })
            .collect()
    }

    /// Dispatches of the last step, for reports.
    pub fn dispatches(&self) -> usize {
        self.dispatches
    }

    /// Writes rows of an activation, for tests of single ops.
    pub fn write_value(&self, id: ValueId, rows: &[f32]) {
        self.gpu.queue.write_buffer(self.value_buffer(id), 0, bytemuck::cast_slice(rows));
    }

    /// Reads `floats` floats of an activation, for tests of single ops.
    pub fn read_value(&self, id: ValueId, floats: usize) -> Result<Vec<f32>> {
        let bytes = (floats * 4) as u64;
        let usage = Usage::MAP_READ | Usage::COPY_DST;
        let readback = self.gpu.buffer("readback", bytes, usage);
        self.copy_out(self.value_buffer(id), 0, &readback, 0, bytes);
        self.gpu.read_mapped(&readback, bytes)
    }

    fn copy_out(&self, from: &wgpu::Buffer, at: u64, to: &wgpu::Buffer, to_at: u64, bytes: u64) {
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(from, at, to, to_at, bytes);
        self.gpu.queue.submit([encoder.finish()]);
    }

    /// Each layer's key and value buffers with their bytes per block, for a group.
    fn group_buffers(&self, group: usize) -> impl Iterator<Item = (&wgpu::Buffer, u64)> {
        let bytes = block_bytes(&self.plan, &self.sizes, group);
        self.keys
            .iter()
            .zip(&self.kv_values)
            .zip(bytes)
            .flat_map(|((keys, values), (k, v))| [(keys, k), (values, v)])
            .filter(|(_, bytes)| *bytes > 0)
    }
}

/// The dispatches of a class of steps of a plan.
fn lower(
    plan: &Plan,
    layout: &Layout,
    caps: &Caps,
    sizes: &Sizes,
    groups: &[Group],
    class: StepClass,
) -> Result<Vec<Dispatch>> {
    let of = |group: usize, number: &dyn Fn(&Group) -> usize| groups.get(group).map_or(1, number);
    Lowering {
        plan,
        layout,
        caps,
        key_type: sizes.key_type,
        value_type: sizes.value_type,
        table_blocks: [0, 1].map(|group| of(group, &|group| group.table_blocks)),
        blocks: [0, 1].map(|group| of(group, &|group| group.blocks)),
        chunk: sizes.chunk,
        sequences: sizes.sequences,
        class,
    }
    .lower()
}

/// The distinct variants of some dispatches.
fn variants(dispatches: &[Dispatch]) -> Vec<Variant> {
    let variants: BTreeSet<_> = dispatches.iter().map(|dispatch| &dispatch.variant).collect();
    variants.into_iter().cloned().collect()
}

/// Compiles the kernels of a prompt's steps and of single tokens, so that they are ready when the weights are.
pub fn compile_ahead(
    gpu: &Gpu,
    plan: &Plan,
    caps: &Caps,
    sizes: &Sizes,
    groups: &[Group],
) -> Result<()> {
    let layout = Layout::new(plan, caps)?;
    // The largest logit, and the default top-k.
    let top_ks = [1, Sampling::default().top_k];
    let mut dispatches: Vec<_> =
        top_ks.iter().flat_map(|&k| lower_selection(plan, kept_candidates(k))).collect();
    for class in [StepClass::of(1, 1), StepClass::of(sizes.chunk, 1)] {
        dispatches.extend(lower(plan, &layout, caps, sizes, groups, class)?);
    }
    gpu.pipelines.warm(gpu, &variants(&dispatches))
}

/// Cosine and sine of each pair for each token.
fn angles_of(rope: &Rope, step: &Prepared) -> Vec<[f32; 2]> {
    let mut angles = Vec::with_capacity(step.tokens.len() * rope.pairs());
    for token in &step.tokens {
        angles.extend(rope.angles(token.position).map(|(cos, sin)| [cos as f32, sin as f32]));
    }
    angles
}

impl Executor for GpuExecutor {
    fn step(&mut self, table: &KvTable, step: &Prepared) -> Result<()> {
        let (_, recording) = self.begin(table, step)?;
        let (tokens, outputs) = (step.tokens.len() as u32, self.output_rows as u32);
        self.dispatches = 0;
        let mut rest = recording.as_slice();
        while !rest.is_empty() {
            let mut encoder =
                self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            let mut work = 0;
            let mut count = 0;
            for recorded in rest {
                let [x, y, z] = recorded.grid.map(|extent| extent.count(tokens, outputs));
                count += 1;
                if x * y * z > 0 {
                    pass.set_pipeline(&recorded.pipeline.pipeline);
                    pass.set_bind_group(0, &recorded.bind_group, &[]);
                    pass.dispatch_workgroups(x, y, z);
                    self.dispatches += 1;
                }
                work += recorded.work * u64::from(tokens);
                if work > SUBMIT_WORK {
                    break;
                }
            }
            rest = &rest[count..];
            drop(pass);
            self.gpu.queue.submit([encoder.finish()]);
        }
        self.gpu.check()
    }

    fn profile(&mut self, table: &KvTable, step: &Prepared) -> Result<StepProfile> {
        self.profile_dispatches(table, step)
    }

    fn can_select(&self, sampling: &Sampling) -> bool {
        let few = sampling.is_greedy() || (1..=MOST_CANDIDATES).contains(&sampling.top_k);
        self.weights.caps.selection && few && sampling.repeat_last == 64
    }

    fn set_recent(&mut self, ids: &[u32]) {
        let mut words = vec![ids.len() as u32];
        words.resize(65, 0);
        // The ring's place of an id is its number modulo the ring's length.
        for (index, &id) in ids.iter().enumerate().skip(ids.len().saturating_sub(64)) {
            words[1 + index % 64] = id;
        }
        self.gpu.queue.write_buffer(&self.recent, 0, bytemuck::cast_slice(&words));
    }

    fn select(&mut self, selection: &Selection) -> Result<()> {
        let sampling = &selection.sampling;
        let top_k = if sampling.is_greedy() { 1 } else { sampling.top_k };
        let keep = kept_candidates(top_k);
        let recording = if let Some(recording) = self.selections.get(&keep) {
            recording.clone()
        } else {
            let recording = Arc::new(self.record(&lower_selection(&self.plan, keep))?);
            self.selections.insert(keep, recording.clone());
            recording
        };
        let slot = selection.slot % SELECTED_SLOTS as u32;
        let words = [
            slot,
            selection.sequence.0,
            selection.position,
            sampling.seed as u32,
            (sampling.seed >> 32) as u32,
            top_k as u32,
            sampling.temperature.to_bits(),
            sampling.top_p.to_bits(),
            sampling.min_p.to_bits(),
            sampling.repeat_penalty.to_bits(),
            u32::from(sampling.is_greedy()),
            0,
        ];
        self.gpu.queue.write_buffer(&self.selection, 0, bytemuck::cast_slice(&words));
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for recorded in recording.iter() {
            let [x, y, z] = recorded.grid.map(|extent| extent.count(1, 1));
            pass.set_pipeline(&recorded.pipeline.pipeline);
            pass.set_bind_group(0, &recorded.bind_group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
        drop(pass);
        let place = selection.slot as usize % SELECTIONS_IN_FLIGHT;
        let readback = &self.id_readbacks[place].0;
        encoder.copy_buffer_to_buffer(&self.selected, u64::from(slot) * 4, readback, 0, 4);
        encoder.copy_buffer_to_buffer(&self.flags, 0, readback, 4, 4);
        let submission = self.gpu.queue.submit([encoder.finish()]);
        self.id_readbacks[place].1 = Some(submission);
        self.gpu.check()
    }

    fn selected(&mut self, slot: u32) -> Result<Option<u32>> {
        let (buffer, submission) = &mut self.id_readbacks[slot as usize % SELECTIONS_IN_FLIGHT];
        let words: Vec<u32> = self.gpu.read_mapped_after(buffer, 8, submission.take())?;
        Ok((words[1] == 0).then_some(words[0]))
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let bytes = (self.output_rows * self.plan.vocabulary() * 4) as u64;
        if bytes == 0 {
            self.gpu.wait()?;
            return Ok(Vec::new());
        }
        self.copy_out(self.value_buffer(self.plan.logits), 0, &self.readback, 0, bytes);
        self.gpu.read_mapped(&self.readback, bytes)
    }

    fn read_block(&mut self, group: usize, block: u32) -> Result<Vec<u8>> {
        let mut at = 0;
        for (buffer, bytes) in self.group_buffers(group) {
            self.copy_out(buffer, u64::from(block) * bytes, &self.block_readback, at, bytes);
            at += bytes;
        }
        if at == 0 {
            return Ok(Vec::new());
        }
        self.gpu.read_mapped(&self.block_readback, at)
    }

    fn write_block(&mut self, group: usize, block: u32, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (buffer, length) in self.group_buffers(group) {
            let Some((part, after)) = rest.split_at_checked(length as usize) else {
                return Err(Error::Option("the snapshot is of another model or context".into()));
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

    fn read_state(&mut self, slot: u32) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        for (buffer, &floats) in self.states.iter().zip(&self.plan.states) {
            let bytes = floats as u64 * 4;
            let usage = Usage::MAP_READ | Usage::COPY_DST;
            let readback = self.gpu.buffer("state readback", bytes, usage);
            self.copy_out(buffer, u64::from(slot) * bytes, &readback, 0, bytes);
            all.extend(self.gpu.read_mapped::<u8>(&readback, bytes)?);
        }
        Ok(all)
    }

    fn write_state(&mut self, slot: u32, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (buffer, &floats) in self.states.iter().zip(&self.plan.states) {
            let Some((part, after)) = rest.split_at_checked(floats * 4) else {
                return Err(Error::Option("the snapshot is of another model or context".into()));
            };
            self.gpu.queue.write_buffer(buffer, u64::from(slot) * floats as u64 * 4, part);
            rest = after;
        }
        self.gpu.check()
    }

    fn device_name(&self) -> String {
        self.gpu.name.clone()
    }

    fn memory(&self) -> Memory {
        self.memory
    }
}
