//! BF16: the upper 16 bits of a 32-bit float.

use super::{Block, Codes, Halves, Plane};

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

    fn codes<H: Halves>(&self, _group: usize) -> Codes {
        Codes::uniform([0; 32], 0.0, 0.0)
    }

    #[inline(always)]
    fn float<H: Halves>(&self) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(self.weight)) << 16)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.weight);
    }
}
