//! Whether a device converts halves exactly: `unpack2x16float` may flush subnormal ones to zero, and the scales of
//! K-quants often are subnormal.

use shaders::Variant;
use wgpu::BufferUsages as Usage;

use super::device::Gpu;
use crate::Result;

/// Halves in all, two a word.
const WORDS: u32 = 1 << 15;
/// Lanes of a workgroup.
const LANES: u32 = 64;

/// Whether every half comes out exactly, converted by itself and within a multiplication (any NaN for a NaN). A
/// device that cannot be asked does not.
pub(super) fn are_native(gpu: &Gpu) -> bool {
    let exact = |bits: u32, half: u16| {
        let (found, wanted) = (f32::from_bits(bits), half::f16::from_bits(half).to_f32());
        bits == wanted.to_bits() || (found.is_nan() && wanted.is_nan())
    };
    convert(gpu).is_ok_and(|all| {
        all.len() == WORDS as usize
            && all.iter().zip((0..=u16::MAX).step_by(2)).all(|(found, first)| {
                found.iter().zip([first, first + 1].iter().cycle()).all(|(&f, &h)| exact(f, h))
            })
    })
}

/// What the device makes of all halves (`halves.wgsl`).
fn convert(gpu: &Gpu) -> Result<Vec<[u32; 4]>> {
    let pipeline = gpu.pipelines.get(&Variant::new("halves").constant("LANES", LANES))?;
    let bytes = u64::from(WORDS) * 16;
    let out = gpu.buffer("halves", bytes, Usage::STORAGE | Usage::COPY_SRC);
    let read = gpu.buffer("halves read", bytes, Usage::MAP_READ | Usage::COPY_DST);
    let params = gpu.buffer("params", 16, Usage::UNIFORM | Usage::COPY_DST);
    gpu.queue.write_buffer(&params, 0, &1.0f32.to_le_bytes());
    let buffers = [&out, &params].map(|buffer| buffer.as_entire_binding());
    let entries: Vec<_> = (0..)
        .zip(buffers)
        .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
        .collect();
    let bind_group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("halves"),
        layout: &pipeline.layout,
        entries: &entries,
    });
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(&pipeline.pipeline);
    pass.set_bind_group(0, &bind_group, &[]);
    pass.dispatch_workgroups(WORDS / LANES, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&out, 0, &read, 0, bytes);
    gpu.queue.submit([encoder.finish()]);
    gpu.read_mapped(&read, bytes)
}
