//! What a device can do at most, by kernels that do nothing else: read and copy memory, multiply in registers, begin.
//!
//! Times are the host's, of submits long enough that their own cost does not count.

use std::sync::Arc;
use std::time::Instant;

use shaders::Variant;
use wgpu::BufferUsages as Usage;

use super::choice::Family;
use super::device::Gpu;
use super::pipelines::Pipeline;
use crate::error::Advice;
use crate::profile::{Roof, median};
use crate::{Error, Result};

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Roofline {
    /// Bytes of the buffer that was read, more than most caches hold.
    pub buffer_bytes: u64,
    /// Bytes read a second by a kernel that reads.
    pub read: f64,
    /// Bytes read and written a second by a kernel that copies.
    pub copy: f64,
    /// Multiply-adds a second in f32.
    pub multiply_adds: f64,
    /// Multiply-adds a second in f16, where the device computes in it.
    pub half_multiply_adds: Option<f64>,
    /// Multiply-adds a second of f16 by cooperative matrices, with sums in f32, where it has them.
    pub matrix_multiply_adds: Option<f64>,
    /// Multiply-adds a second of signed bytes, four to a word.
    pub byte_multiply_adds: f64,
    /// Seconds of an empty dispatch that waits for the one before.
    pub dependent_dispatch: f64,
    /// Seconds of an empty dispatch that need not wait.
    pub independent_dispatch: f64,
}

impl Roofline {
    /// The roof that shares of kernels are of, each in what it computes in.
    pub fn roof(&self) -> Roof {
        Roof {
            bandwidth: self.read,
            multiply_adds: self.multiply_adds,
            matrix_multiply_adds: self.matrix_multiply_adds.unwrap_or(f64::INFINITY),
            byte_multiply_adds: self.byte_multiply_adds,
        }
    }
}

/// Lanes of a workgroup.
const LANES: u32 = 256;
/// Bytes that a workgroup of `roofline_memory` reads: eight turns of four vec4s a lane.
const WORKGROUP_BYTES: u64 = LANES as u64 * 8 * 4 * 16;
/// Workgroups that multiply: several waves even of a large card.
const MULTIPLYING: u32 = 4096;
/// Multiply-adds of a lane of `roofline_multiply` in a turn.
const TURN: f64 = 128.0;
/// Turns of a workgroup of `roofline_matrices`: a multiple of how many subgroups there may be.
const MATRIX_TURNS: u32 = 512;
/// Empty dispatches of a submit.
const EMPTY: u32 = 300;
/// Seconds that a submit should last at least, for its own cost not to count.
const LONG: f64 = 0.02;
/// Submits of which the fastest is taken, being the least disturbed.
const TRIES: usize = 5;

/// Measures a device: a second or two.
pub fn measure(gpu: &Arc<Gpu>) -> Result<Roofline> {
    let software = gpu.kernels.adapter.family == Family::Software;
    let wanted = if software { 64 << 20 } else { 512 << 20 };
    let mut bytes = gpu.kernels.adapter.max_binding_bytes.min(wanted);
    if let Some(free) = gpu.free_bytes() {
        // Two of them, and something left.
        bytes = bytes.min(free / 3);
    }
    let bytes = bytes / WORKGROUP_BYTES * WORKGROUP_BYTES;
    if bytes == 0 {
        return Err(Error::OutOfMemory {
            device: gpu.name.clone(),
            needed: WORKGROUP_BYTES,
            what: "a measurement",
            why: "none is free".into(),
            advice: Advice::SmallerModel,
        });
    }
    let input = gpu.buffer("roofline", bytes, Usage::STORAGE | Usage::COPY_DST);
    let out = gpu.buffer("roofline", bytes, Usage::STORAGE);
    fill(gpu, &input, bytes);
    let memory = Variant::new("roofline_memory").constant("LANES", LANES);
    let moves = |variant: Variant, times: u64| -> Result<f64> {
        let kernel = Bound::new(gpu, &variant, &[&input, &out], (bytes / 16) as u32)?;
        let seconds = kernel.best((bytes / WORKGROUP_BYTES) as u32)?;
        Ok((bytes * times) as f64 / seconds)
    };
    let multiply = Variant::new("roofline_multiply").constant("LANES", LANES);
    let workgroups = if software { MULTIPLYING / 64 } else { MULTIPLYING };
    let turns = 256;
    let multiplies = |variant: Variant, times: f64| -> Result<f64> {
        let kernel = Bound::new(gpu, &variant, &[&out], turns)?;
        let lanes = f64::from(workgroups * LANES);
        Ok(lanes * TURN * times * f64::from(turns) / kernel.best(workgroups)?)
    };
    let has_halves = gpu.device.features().contains(wgpu::Features::SHADER_F16);
    let half_multiply_adds =
        has_halves.then(|| multiplies(multiply.clone().define("HALVES"), 1.0)).transpose()?;
    let multiplies_matrices = || -> Result<f64> {
        let kernel = Bound::new(gpu, &Variant::new("roofline_matrices"), &[&out], MATRIX_TURNS)?;
        let products = f64::from(workgroups) * 8.0 * 16f64.powi(3) * f64::from(MATRIX_TURNS);
        Ok(products / kernel.best(workgroups)?)
    };
    let matrix_multiply_adds = gpu.kernels.cooperative.then(multiplies_matrices).transpose()?;
    let empty = Variant::new("roofline_empty");
    let begins = |variant: Variant| -> Result<f64> {
        let kernel = Bound::new(gpu, &variant, &[&out], 0)?;
        let seconds = |count| -> Result<f64> {
            let samples: Result<Vec<f64>> = (0..20).map(|_| kernel.seconds(1, count)).collect();
            Ok(median(samples?.into_iter()))
        };
        // A submit's own cost is in both.
        Ok((seconds(EMPTY + 1)? - seconds(1)?).max(0.0) / f64::from(EMPTY))
    };
    Ok(Roofline {
        buffer_bytes: bytes,
        read: moves(memory.clone(), 1)?,
        copy: moves(memory.define("COPY"), 2)?,
        multiply_adds: multiplies(multiply.clone(), 1.0)?,
        half_multiply_adds,
        matrix_multiply_adds,
        byte_multiply_adds: multiplies(multiply.define("INT8"), 4.0)?,
        dependent_dispatch: begins(empty.clone().define("WRITES"))?,
        independent_dispatch: begins(empty)?,
    })
}

/// Fills a buffer with numbers of no pattern, which no memory controller packs.
fn fill(gpu: &Gpu, buffer: &wgpu::Buffer, bytes: u64) {
    let mut state = 1u64;
    let words: Vec<u64> = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    })
    .take((WORKGROUP_BYTES / 8) as usize)
    .collect();
    for at in (0..bytes).step_by(WORKGROUP_BYTES as usize) {
        gpu.queue.write_buffer(buffer, at, bytemuck::cast_slice(&words));
    }
}

/// A kernel with what it binds.
struct Bound<'a> {
    gpu: &'a Gpu,
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
}

impl<'a> Bound<'a> {
    /// Binds `buffers` in the order of the kernel's bindings, and `param`, the only one.
    fn new(gpu: &'a Gpu, variant: &Variant, buffers: &[&wgpu::Buffer], param: u32) -> Result<Self> {
        let pipeline = gpu.pipelines.get(variant)?;
        let params = gpu.buffer("params", 16, Usage::UNIFORM | Usage::COPY_DST);
        gpu.queue.write_buffer(&params, 0, &param.to_le_bytes());
        let mut buffers = buffers.iter();
        let mut entries = Vec::new();
        for binding in &pipeline.bindings {
            let buffer = if binding.name == "params" { Some(&&params) } else { buffers.next() };
            let fault = || shaders::Error::Source {
                kernel: variant.to_string(),
                why: format!("the binding {} is not given", binding.name),
            };
            let resource = buffer.ok_or_else(fault)?.as_entire_binding();
            entries.push(wgpu::BindGroupEntry { binding: binding.index, resource });
        }
        let bind_group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(variant.kernel),
            layout: &pipeline.layout,
            entries: &entries,
        });
        gpu.check()?;
        Ok(Self { gpu, pipeline, bind_group })
    }

    /// Seconds of a submit of `count` dispatches, waited for.
    fn seconds(&self, workgroups: u32, count: u32) -> Result<f64> {
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        for _ in 0..count {
            pass.dispatch_workgroups(workgroups, 1, 1);
        }
        drop(pass);
        let commands = encoder.finish();
        self.gpu.wait()?;
        let start = Instant::now();
        self.gpu.queue.submit([commands]);
        self.gpu.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of a dispatch at the best, in submits of as many as last long enough.
    fn best(&self, workgroups: u32) -> Result<f64> {
        // The first also compiles and clears.
        self.seconds(workgroups, 1)?;
        let mut count = 1;
        while count < 1 << 12 && self.seconds(workgroups, count)? < LONG {
            count *= 2;
        }
        let mut best = f64::INFINITY;
        for _ in 0..TRIES {
            best = best.min(self.seconds(workgroups, count)?);
        }
        Ok(best / f64::from(count))
    }
}
