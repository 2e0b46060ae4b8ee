//! Recordings: a plan's dispatches of a class of steps, lowered, compiled and bound once, so that a step makes none of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use shaders::Variant;
use wgpu::BufferUsages as Usage;

use super::GpuExecutor;
use crate::blueprint::Blueprint;
use crate::executor::Selection;
use crate::gpu::choice::{Count, Family, Kernels};
use crate::gpu::device::Gpu;
use crate::gpu::dispatch::Scratch;
use crate::gpu::layout::Layout;
use crate::gpu::lower::{
    Dispatch, Extent, Lowering, Resource, StepClass, kept_candidates, lower_selection,
};
use crate::gpu::numbers::{Numbers, Range};
use crate::gpu::pipelines::Pipeline;
use crate::select::Sampling;
use crate::{Error, Result};

/// A dispatch made ready.
pub(super) struct Recorded {
    pub pipeline: Arc<Pipeline>,
    pub bind_group: wgpu::BindGroup,
    pub grid: [Extent; 3],
    /// Multiply-adds per row, about.
    pub work: u64,
}

impl Recorded {
    /// Encodes it for a step of so many tokens and outputs; answers whether there is anything to do.
    pub fn encode(&self, pass: &mut wgpu::ComputePass, tokens: u32, outputs: u32) -> bool {
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

impl GpuExecutor {
    /// The dispatches of a segment of a class of steps, lowered and bound on first use.
    pub(super) fn recording(
        &mut self,
        class: StepClass,
        segment: usize,
    ) -> Result<Arc<Vec<Recorded>>> {
        if let Some(recording) = self.recordings.get(&(class, segment)) {
            return Ok(recording.clone());
        }
        let mut dispatches = self.lower(class)?;
        let ops = &self.blueprint.segments[segment].ops;
        dispatches.retain(|dispatch| ops.contains(&dispatch.op));
        let recording = Arc::new(self.record(&dispatches, class.tokens)?);
        self.recordings.insert((class, segment), recording.clone());
        Ok(recording)
    }

    /// The dispatches of a class of steps.
    pub fn lower(&self, class: StepClass) -> Result<Vec<Dispatch>> {
        let (layout, kernels) = (&self.weights.layout, &self.weights.kernels);
        Lowering { blueprint: &self.blueprint, layout, kernels, class }.lower()
    }

    /// The dispatches that choose ids, lowered and bound on first use: as many candidates are kept as any of the selections
    /// needs.
    pub(super) fn selection_recording(
        &mut self,
        selections: &[Selection],
    ) -> Result<Arc<Vec<Recorded>>> {
        let samplings = || selections.iter().map(|selection| &selection.sampling);
        let most = samplings().map(candidates).max().unwrap_or(1);
        let key = (kept_candidates(most), samplings().any(Sampling::has_penalty));
        if let Some(recording) = self.selections.get(&key) {
            return Ok(recording.clone());
        }
        let dispatches = lower_selection(&self.blueprint, key.0, key.1);
        let recording = Arc::new(self.record(&dispatches, Count::One)?);
        self.selections.insert(key, recording.clone());
        Ok(recording)
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
            let Dispatch { grid, work, .. } = *dispatch;
            recorded.push(Recorded { pipeline, bind_group, grid, work });
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
            Resource::Selections => number(numbers.selections),
            Resource::Scratch(scratch) => self.scratch(scratch).as_entire_binding(),
            Resource::State(id) => self.states[id.0].as_entire_binding(),
        }
    }
}

/// Compiles the kernels of a prompt's steps and of single tokens, so that they are ready when the weights are.
pub fn compile_ahead(gpu: &Gpu, blueprint: &Blueprint, kernels: &Kernels) -> Result<()> {
    let Blueprint { plan, sizes, .. } = blueprint;
    let layout = Layout::new(plan, kernels)?;
    // The largest logit, and the default top-k.
    let top_ks = [1, Sampling::default().top_k];
    let mut dispatches: Vec<_> = top_ks
        .iter()
        .flat_map(|&k| lower_selection(blueprint, kept_candidates(k), false))
        .collect();
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

/// The distinct variants of some dispatches.
fn variants(dispatches: &[Dispatch]) -> Vec<Variant> {
    let variants: BTreeSet<_> = dispatches.iter().map(|dispatch| &dispatch.variant).collect();
    variants.into_iter().cloned().collect()
}

/// How many of the likeliest ids are to be kept.
pub(super) fn candidates(sampling: &Sampling) -> usize {
    if sampling.is_greedy() { 1 } else { sampling.top_k }
}
