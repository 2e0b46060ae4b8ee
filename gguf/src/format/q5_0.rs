//! Q5_0: 32 weights `d * (code - 16)` with 5-bit codes (`block_q5_0` in ggml-common.h).

use super::bits::{nibbles, spread_high_bits};
use super::{Block, Codes, Instructions, Plane};

/// 32 weights in 22 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q5_0 {
    /// The scale, a half.
    pub d: [u8; 2],
    /// Bit i: the highest bit of weight i's code.
    pub high: [u8; 4],
    /// Byte j: the low four bits of weight j (low half) and weight j + 16 (high half).
    pub codes: [u8; 16],
}

const _: () = assert!(size_of::<Q5_0>() == 22);

impl Block for Q5_0 {
    const WEIGHTS: usize = 32;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[Plane { name: "codes", block_bytes: 16 }, Plane { name: "high bits", block_bytes: 4 }, Plane { name: "scales", block_bytes: 2 }];

    #[inline(always)]
    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        // Five bits less 16.
        let mut codes = nibbles(&self.codes, 16);
        for (code, mask) in codes.iter_mut().zip(I::masks(u32::from_le_bytes(self.high))) {
            *code += mask & 16;
        }
        Codes::uniform(codes, I::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.codes);
        planes[1].copy_from_slice(&spread_high_bits(u32::from_le_bytes(self.high)));
        planes[2].copy_from_slice(&self.d);
    }
}
