//! A plan's weights on a device: the buffers, filled by [`stream`].

mod stream;

use std::sync::Arc;

use gguf::Gguf;

use super::choice::Kernels;
use super::device::{Gpu, buffer_bytes};
use super::layout::Layout;
use crate::error::Advice;
use crate::plan::Plan;
use crate::{Error, Result};

/// A plan's weights on a device. Contexts of the model share it.
pub struct GpuWeights {
    pub(super) gpu: Arc<Gpu>,
    pub(crate) layout: Layout,
    pub(super) matrices: Vec<wgpu::Buffer>,
    pub(super) vectors: wgpu::Buffer,
    /// What kernels may use: what the adapter offers, less what failed the self-test.
    pub(super) kernels: Kernels,
}

crate::opaque::opaque_debug!(GpuWeights { gpu, kernels });

impl GpuWeights {
    /// Allocates and fills the buffers; for these kernels. `progress` is called with bytes done and bytes in all.
    pub fn load(
        gpu: Arc<Gpu>,
        file: &Gguf,
        plan: &Plan,
        kernels: Kernels,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let layout = Layout::new(plan, &kernels)?;
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let mut usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        // Filled in place where host and device share their memory.
        let in_place = stream::in_place(&gpu, file);
        if in_place {
            usage |= wgpu::BufferUsages::MAP_WRITE;
        }
        let buffer = |label: &str, bytes: usize| {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: buffer_bytes(bytes as u64),
                usage,
                mapped_at_creation: in_place,
            })
        };
        let matrices: Vec<_> = layout
            .matrices
            .iter()
            .map(|matrix| buffer(&plan.weight(matrix.sources[0].0).name, matrix.bytes))
            .collect();
        let vectors = buffer("vectors", layout.vector_bytes);
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::OutOfMemory {
                device: gpu.name.clone(),
                needed: layout.bytes(),
                what: "the model's weights",
                why: error.to_string(),
                advice: Advice::SmallerModelOrOtherDevice,
            });
        }
        stream::upload(&gpu, file, plan, &layout, (&matrices, &vectors), progress)?;
        Ok(Self { gpu, layout, matrices, vectors, kernels })
    }

    /// The same buffers for other kernels.
    #[must_use]
    pub fn with_kernels(&self, kernels: Kernels) -> Self {
        Self {
            gpu: self.gpu.clone(),
            layout: self.layout.clone(),
            matrices: self.matrices.clone(),
            vectors: self.vectors.clone(),
            kernels,
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
