//! Q4_1: 32 weights `d * code + m` with 4-bit codes (`block_q4_1` in ggml-common.h).

use super::bits::nibbles;
use super::{Block, Codes, Instructions, Plane};

/// 32 weights in 20 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q4_1 {
    /// The scale, a half.
    pub d: [u8; 2],
    /// The minimum, a half.
    pub m: [u8; 2],
    /// Byte j: the codes of weight j (low half) and weight j + 16 (high half).
    pub codes: [u8; 16],
}

const _: () = assert!(size_of::<Q4_1>() == 20);

impl Block for Q4_1 {
    const WEIGHTS: usize = 32;
    const HALVES: &'static [usize] = &[0, 2];
    const PLANES: &'static [Plane] = &[Plane { name: "codes", block_bytes: 16 }, Plane { name: "scales and minima", block_bytes: 4 }];
    const OFFSETS: bool = true;

    #[inline(always)]
    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        Codes::uniform(nibbles(&self.codes, 0), I::half(self.d), I::half(self.m))
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.codes);
        planes[1][..2].copy_from_slice(&self.d);
        planes[1][2..].copy_from_slice(&self.m);
    }
}
