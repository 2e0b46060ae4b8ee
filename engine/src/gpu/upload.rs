//! A plan's weights on a device: the buffers or textures, filled by [`stream`].

mod stream;

use std::sync::Arc;

use gguf::Gguf;

use super::adapter::{Gpu, buffer_bytes};
use super::choice::Caps;
use super::layout::{Layout, TEXTURE_ROW};
use crate::plan::Plan;
use crate::{Error, Result};

/// A plan's weights on a device. Contexts of the model share it.
pub struct GpuWeights {
    pub(super) gpu: Arc<Gpu>,
    pub(super) layout: Layout,
    pub(super) matrices: Vec<Storage>,
    pub(super) vectors: wgpu::Buffer,
    /// What kernels may use: what the adapter offers, less what failed the self-test.
    pub(super) caps: Caps,
}

/// Where weights lie on a device.
#[derive(Clone)]
pub(super) enum Storage {
    /// A buffer.
    Buffer(wgpu::Buffer),
    /// A texture of four words a texel, and its view: byte b is in row b / [`TEXTURE_ROW`].
    Texture(wgpu::Texture, wgpu::TextureView),
}

impl Storage {
    fn texture(gpu: &Gpu, label: &str, bytes: usize) -> Self {
        let texture = gpu.device.create_texture(&wgpu::TextureDescriptor {
            label: Some(label),
            size: wgpu::Extent3d {
                width: TEXTURE_ROW as u32 / 16,
                height: bytes.div_ceil(TEXTURE_ROW) as u32,
                depth_or_array_layers: 1,
            },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba32Uint,
            usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        });
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        Self::Texture(texture, view)
    }

    /// All of it, to be bound.
    pub(super) fn binding(&self) -> wgpu::BindingResource<'_> {
        match self {
            Self::Buffer(buffer) => buffer.as_entire_binding(),
            Self::Texture(_, view) => wgpu::BindingResource::TextureView(view),
        }
    }
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
        let layout = Layout::new(plan, &caps)?;
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let mut usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        if caps.uniform_inputs {
            usage |= wgpu::BufferUsages::UNIFORM;
        }
        // Filled in place where host and device share their memory.
        let in_place = stream::in_place(&gpu, file, &layout);
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
            .map(|matrix| {
                let name = &plan.weight(matrix.sources[0].0).name;
                if layout.textures {
                    Storage::texture(&gpu, name, matrix.bytes)
                } else {
                    Storage::Buffer(buffer(name, matrix.bytes))
                }
            })
            .collect();
        let vectors = buffer("vectors", layout.vector_bytes);
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
        stream::upload(&gpu, file, plan, &layout, (&matrices, &vectors), progress)?;
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
