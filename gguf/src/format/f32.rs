//! F32: 32-bit floats, stored as they are.

use super::{Block, Codes, Instructions, Plane};

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

    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        Codes::uniform([0; 32], 0.0, 0.0)
    }

    #[inline(always)]
    fn floats<I: Instructions>(blocks: &[Self; 8]) -> [f32; 8] {
        let mut floats = [0.0; 8];
        for (out, block) in floats.iter_mut().zip(blocks) {
            *out = f32::from_le_bytes(block.weight);
        }
        floats
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.weight);
    }
}
