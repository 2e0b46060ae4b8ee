//! Q4_0: 32 weights `d * (code - 8)` with 4-bit codes (`block_q4_0` in ggml-common.h).

use super::bits::nibbles;
use super::{Block, Codes, Instructions, Plane};

/// 32 weights in 18 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q4_0 {
    /// The scale, a half.
    pub d: [u8; 2],
    /// Byte j: the codes of weight j (low half) and weight j + 16 (high half).
    pub codes: [u8; 16],
}

const _: () = assert!(size_of::<Q4_0>() == 18);

impl Block for Q4_0 {
    const WEIGHTS: usize = 32;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[Plane { name: "codes", block_bytes: 16 }, Plane { name: "scales", block_bytes: 2 }];

    #[inline(always)]
    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        Codes::uniform(nibbles(&self.codes, 8), I::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.codes);
        planes[1].copy_from_slice(&self.d);
    }
}
