//! F32: 32-bit floats, stored as they are.

use super::{Block, Codes, Halves, Plane};

/// One weight.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct F32 {
    /// The float, little-endian.
    pub weight: [u8; 4],
}

const _: () = assert!(size_of::<F32>() == 4);

impl Block for F32 {
    const WEIGHTS: usize = 1;
    const HALVES: &'static [usize] = &[];
    const PLANES: &'static [Plane] = &[Plane { name: "weights", block_bytes: 4 }];

    fn codes<H: Halves>(&self, _group: usize) -> Codes {
        Codes::uniform([0; 32], 0.0, 0.0)
    }

    #[inline(always)]
    fn float<H: Halves>(&self) -> f32 {
        f32::from_le_bytes(self.weight)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.weight);
    }
}
