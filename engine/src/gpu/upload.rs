//! Streams a plan's weights from the file to the device: read, repacked into a ring of staging buffers,
//! copied. Host memory stays at the ring, whatever the model's size.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use gguf::Gguf;

use super::adapter::{Gpu, buffer_bytes};
use super::choice::Caps;
use super::layout::{Layout, MatrixBuffer};
use crate::model::weights::read_f32;
use crate::plan::Plan;
use crate::{Error, Result};

/// Staging buffers in the ring.
const RING: usize = 4;
/// Bytes of a staging buffer: four of them are 32 MiB in flight.
pub const STAGING_BYTES: u64 = 8 << 20;

/// A plan's weights on a device. Contexts of the model share it.
pub struct GpuWeights {
    pub(super) gpu: Arc<Gpu>,
    pub(super) layout: Layout,
    pub(super) matrices: Vec<wgpu::Buffer>,
    pub(super) vectors: wgpu::Buffer,
    /// What kernels may use: what the adapter offers, less what failed the self-test.
    pub(super) caps: Caps,
}

impl GpuWeights {
    /// Allocates and fills the buffers; `caps` are what kernels may use. `progress` is called with bytes done and bytes in all.
    pub fn load(
        gpu: Arc<Gpu>,
        file: &Gguf,
        plan: &Plan,
        caps: Caps,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let layout = Layout::new(plan, gpu.caps.max_binding_bytes)?;
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let matrices: Vec<_> = layout
            .matrices
            .iter()
            .map(|matrix| {
                let label = &plan.weight(matrix.sources[0].0).name;
                gpu.buffer(label, matrix.bytes as u64, usage)
            })
            .collect();
        let vectors = gpu.buffer("vectors", layout.vector_bytes as u64, usage);
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::DoesNotFit {
                device: gpu.name.clone(),
                needed: layout.bytes(),
                available: 0,
                advice: format!(
                    "the driver says: {error}; use a smaller quantization or --device cpu"
                ),
            });
        }
        let total = layout.bytes();
        let mut done = 0;
        {
            let mut ring = Ring::new(gpu.clone());
            for (matrix, buffer) in layout.matrices.iter().zip(&matrices) {
                upload_matrix(file, plan, matrix, buffer, &mut ring)?;
                done += matrix.bytes as u64;
                progress(done, total);
            }
            for vector in &layout.vectors {
                let mut values = Vec::with_capacity(vector.length);
                for (weight, length) in &vector.sources {
                    match weight {
                        Some(id) => values.extend(read_f32(file, &plan.weight(*id).name)?),
                        None => values.resize(values.len() + length, 0.0),
                    }
                }
                let bytes: &[u8] = bytemuck::cast_slice(&values);
                for (index, chunk) in bytes.chunks(STAGING_BYTES as usize).enumerate() {
                    let mut staging = ring.next(chunk.len())?;
                    staging.bytes().copy_from_slice(chunk);
                    let to = (vector.start + index * STAGING_BYTES as usize) as u64;
                    staging.submit(&vectors, &[(0, to, chunk.len() as u64)]);
                }
            }
            ring.finish()?;
        }
        progress(total, total);
        Ok(Self { gpu, layout, matrices, vectors, caps })
    }

    /// The same buffers for kernels chosen by other `caps`.
    #[must_use]
    pub fn with_caps(&self, caps: Caps) -> Self {
        Self {
            gpu: self.gpu.clone(),
            layout: self.layout.clone(),
            matrices: self.matrices.clone(),
            vectors: self.vectors.clone(),
            caps,
        }
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Bytes of the buffers.
    pub fn bytes(&self) -> u64 {
        let matrices: u64 = self.layout.matrices.iter().map(|m| buffer_bytes(m.bytes as u64)).sum();
        matrices + buffer_bytes(self.layout.vector_bytes as u64)
    }
}

/// Reads, repacks and copies one buffer's rows.
fn upload_matrix(
    file: &Gguf,
    plan: &Plan,
    matrix: &MatrixBuffer,
    buffer: &wgpu::Buffer,
    ring: &mut Ring,
) -> Result<()> {
    let planes = matrix.format.planes();
    let block_bytes = matrix.format.block_bytes();
    let plane_bytes: usize = planes.iter().map(|plane| plane.block_bytes).sum();
    // A multiple of 8 blocks keeps every plane's part of a chunk aligned to 16 bytes.
    let chunk_blocks = (STAGING_BYTES as usize - 64) / plane_bytes.max(block_bytes) / 8 * 8;
    let mut blocks = Vec::new();
    let mut first_block = 0;
    for &(weight, first_row, rows) in &matrix.sources {
        let weight = plan.weight(weight);
        let tensor = file.require(&weight.name)?;
        let count = weight.columns * rows / matrix.format.block_size();
        let start = (weight.row_bytes() * first_row) as u64;
        for done in (0..count).step_by(chunk_blocks) {
            let n = chunk_blocks.min(count - done);
            blocks.resize(n * block_bytes, 0);
            file.read(tensor, start + (done * block_bytes) as u64, &mut blocks)?;
            let sizes: Vec<_> =
                planes.iter().map(|p| (n * p.block_bytes).next_multiple_of(4)).collect();
            let mut staging = ring.next(sizes.iter().sum())?;
            let mut copies = Vec::new();
            {
                let mut rest = staging.bytes();
                let mut at = 0;
                let mut parts: Vec<&mut [u8]> = Vec::new();
                for ((size, plane), plane_start) in
                    sizes.iter().zip(planes).zip(&matrix.plane_starts)
                {
                    let (part, after) = rest.split_at_mut(*size);
                    let (filled, padding) = part.split_at_mut(n * plane.block_bytes);
                    padding.fill(0);
                    parts.push(filled);
                    rest = after;
                    let to = plane_start + (first_block + done) * plane.block_bytes;
                    copies.push((at, to as u64, *size as u64));
                    at += *size as u64;
                }
                matrix.format.repack(&blocks, &mut parts);
            }
            staging.submit(buffer, &copies);
        }
        first_block += count;
    }
    Ok(())
}

/// A ring of mapped staging buffers: the oldest is waited for when all are in flight.
struct Ring {
    gpu: Arc<Gpu>,
    buffers: Vec<wgpu::Buffer>,
    /// The maps under way, oldest first.
    pending: std::collections::VecDeque<(wgpu::Buffer, Receiver<bool>)>,
}

/// A staging buffer whose bytes can be written.
struct Staging<'a> {
    ring: &'a mut Ring,
    buffer: wgpu::Buffer,
    host: Vec<u8>,
}

impl Ring {
    fn new(gpu: Arc<Gpu>) -> Self {
        let buffers = (0..RING)
            .map(|_| {
                gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("staging"),
                    size: STAGING_BYTES,
                    usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: true,
                })
            })
            .collect();
        Self { gpu, buffers, pending: std::collections::VecDeque::new() }
    }

    /// A mapped buffer, of which `bytes` bytes will be written.
    fn next(&mut self, bytes: usize) -> Result<Staging<'_>> {
        debug_assert!(bytes as u64 <= STAGING_BYTES);
        let buffer = match self.buffers.pop() {
            Some(buffer) => buffer,
            None => self.oldest()?,
        };
        Ok(Staging { ring: self, buffer, host: vec![0; bytes] })
    }

    /// Waits for the oldest buffer in flight to be mapped again.
    fn oldest(&mut self) -> Result<wgpu::Buffer> {
        let lost = |why: &str| Error::DeviceLost { device: self.gpu.name.clone(), why: why.into() };
        let Some((buffer, mapped)) = self.pending.pop_front() else {
            return Err(lost("no staging buffer is in flight"));
        };
        loop {
            match mapped.try_recv() {
                Ok(true) => return Ok(buffer),
                Ok(false) => return Err(lost("a staging buffer could not be mapped")),
                Err(_) => self.gpu.wait()?,
            }
        }
    }

    fn finish(mut self) -> Result<()> {
        while !self.pending.is_empty() {
            self.oldest()?;
        }
        self.gpu.check()
    }
}

impl Staging<'_> {
    /// The bytes to be filled.
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.host
    }

    /// Copies (start in the staging buffer, start in `to`, length) runs to the device.
    fn submit(self, to: &wgpu::Buffer, copies: &[(u64, u64, u64)]) {
        if let Ok(mut view) = self.buffer.get_mapped_range_mut(0..self.host.len() as u64) {
            view.copy_from_slice(&self.host);
        }
        self.buffer.unmap();
        let gpu = &self.ring.gpu;
        let mut encoder =
            gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for &(from, start, length) in copies {
            encoder.copy_buffer_to_buffer(&self.buffer, from, to, start, length);
        }
        gpu.queue.submit([encoder.finish()]);
        let (send, receive) = channel();
        self.buffer.map_async(wgpu::MapMode::Write, .., move |result| {
            let _ = send.send(result.is_ok());
        });
        self.ring.pending.push_back((self.buffer, receive));
    }
}
