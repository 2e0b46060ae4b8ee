//! Where weights lie on a device: buffers or textures, and how bytes get there.

use crate::gpu::adapter::Gpu;
use crate::gpu::layout::TEXTURE_ROW;

/// Where weights lie on a device.
#[derive(Clone)]
pub(in crate::gpu) enum Storage {
    /// A buffer.
    Buffer(wgpu::Buffer),
    /// A texture of four words a texel, and its view: byte b is in row b / [`TEXTURE_ROW`].
    Texture(wgpu::Texture, wgpu::TextureView),
}

impl Storage {
    pub(super) fn texture(gpu: &Gpu, label: &str, bytes: usize) -> Self {
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
    pub(in crate::gpu) fn binding(&self) -> wgpu::BindingResource<'_> {
        match self {
            Self::Buffer(buffer) => buffer.as_entire_binding(),
            Self::Texture(_, view) => wgpu::BindingResource::TextureView(view),
        }
    }

    /// Copies a run of a buffer here.
    pub(super) fn copy(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        staging: &wgpu::Buffer,
        run: &Run,
    ) {
        match self {
            Self::Buffer(buffer) => {
                let (from, to) = (run.from as u64, run.to as u64);
                encoder.copy_buffer_to_buffer(staging, from, buffer, to, run.length as u64);
            }
            Self::Texture(texture, _) => {
                for part in rectangles(run) {
                    copy_rectangle(encoder, staging, texture, &part);
                }
            }
        }
    }
}

/// A run of bytes: where it starts in a buffer, where it goes, how long it is; of a matrix multiples of 16 (a texel).
pub(super) struct Run {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) length: usize,
}

/// A run cut where rows of a texture begin: what is left of a row, whole rows, what is begun of a row.
fn rectangles(run: &Run) -> Vec<Run> {
    let mut parts = Vec::new();
    let (mut done, end) = (0, run.length);
    while done < end {
        let in_row = (run.to + done) % TEXTURE_ROW;
        let length = if in_row == 0 && end - done >= TEXTURE_ROW {
            (end - done) / TEXTURE_ROW * TEXTURE_ROW
        } else {
            (TEXTURE_ROW - in_row).min(end - done)
        };
        parts.push(Run { from: run.from + done, to: run.to + done, length });
        done += length;
    }
    parts
}

/// Copies a part of a row, or whole rows.
fn copy_rectangle(
    encoder: &mut wgpu::CommandEncoder,
    staging: &wgpu::Buffer,
    texture: &wgpu::Texture,
    part: &Run,
) {
    let source = wgpu::TexelCopyBufferInfo {
        buffer: staging,
        layout: wgpu::TexelCopyBufferLayout {
            offset: part.from as u64,
            bytes_per_row: Some(TEXTURE_ROW as u32),
            rows_per_image: None,
        },
    };
    let destination = wgpu::TexelCopyTextureInfo {
        texture,
        mip_level: 0,
        origin: wgpu::Origin3d {
            x: (part.to % TEXTURE_ROW / 16) as u32,
            y: (part.to / TEXTURE_ROW) as u32,
            z: 0,
        },
        aspect: wgpu::TextureAspect::All,
    };
    let size = wgpu::Extent3d {
        width: part.length.min(TEXTURE_ROW) as u32 / 16,
        height: part.length.div_ceil(TEXTURE_ROW) as u32,
        depth_or_array_layers: 1,
    };
    encoder.copy_buffer_to_texture(source, destination, size);
}
