//! BF16: the upper 16 bits of a 32-bit float.

use super::{Block, Codes, Instructions, Plane};

/// One weight.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct BF16 {
    /// The upper half of the float, little-endian.
    pub weight: [u8; 2],
}

const _: () = assert!(size_of::<BF16>() == 2);

impl Block for BF16 {
    const WEIGHTS: usize = 1;
    const HALVES: &'static [usize] = &[];
    const PLANES: &'static [Plane] = &[Plane { name: "weights", block_bytes: 2 }];

    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        Codes::uniform([0; 32], 0.0, 0.0)
    }

    #[inline(always)]
    fn floats<I: Instructions>(blocks: &[Self; 8]) -> [f32; 8] {
        let mut floats = [0.0; 8];
        for (out, block) in floats.iter_mut().zip(blocks) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(block.weight)) << 16);
        }
        floats
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.weight);
    }
}
