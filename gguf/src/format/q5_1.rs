//! Q5_1: 32 weights `d * code + m` with 5-bit codes (`block_q5_1` in ggml-common.h).

use super::bits::{nibbles, spread_high_bits};
use super::{Block, Codes, Instructions, Plane};

/// 32 weights in 24 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q5_1 {
    /// The scale, a half.
    pub d: [u8; 2],
    /// The minimum, a half.
    pub m: [u8; 2],
    /// Bit i: the highest bit of weight i's code.
    pub high: [u8; 4],
    /// Byte j: the low four bits of weight j (low half) and weight j + 16 (high half).
    pub codes: [u8; 16],
}

const _: () = assert!(size_of::<Q5_1>() == 24);

impl Block for Q5_1 {
    const WEIGHTS: usize = 32;
    const HALVES: &'static [usize] = &[0, 2];
    const PLANES: &'static [Plane] = &[Plane { name: "codes", block_bytes: 16 }, Plane { name: "high bits", block_bytes: 4 }, Plane { name: "scales and minima", block_bytes: 4 }];
    const OFFSETS: bool = true;

    #[inline(always)]
    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        let mut codes = nibbles(&self.codes, 0);
        for (code, mask) in codes.iter_mut().zip(I::masks(u32::from_le_bytes(self.high))) {
            *code += mask & 16;
        }
        Codes::uniform(codes, I::half(self.d), I::half(self.m))
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.codes);
        planes[1].copy_from_slice(&spread_high_bits(u32::from_le_bytes(self.high)));
        planes[2][..2].copy_from_slice(&self.d);
        planes[2][2..].copy_from_slice(&self.m);
    }
}
