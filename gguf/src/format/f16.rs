//! F16: 16-bit IEEE halves.

use super::{Block, Codes, Instructions, Plane};

/// One weight.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct F16 {
    /// The half, little-endian.
    pub weight: [u8; 2],
}

const _: () = assert!(size_of::<F16>() == 2);

impl Block for F16 {
    const WEIGHTS: usize = 1;
    const HALVES: &'static [usize] = &[];
    const PLANES: &'static [Plane] = &[Plane { name: "weights", block_bytes: 2 }];

    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        Codes::uniform([0; 32], 0.0, 0.0)
    }

    #[inline(always)]
    fn floats<I: Instructions>(blocks: &[Self; 8]) -> [f32; 8] {
        I::halves(bytemuck::cast_ref(blocks))
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.weight);
    }
}
