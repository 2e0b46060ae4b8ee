//! Q2_0: 64 weights `d * (code - 1)` with 2-bit codes (`block_q2_0` in ggml-common.h).

use super::bits::{less_one, pack_two_bits};
use super::{Block, Codes, Instructions, Plane};

/// 64 weights in 18 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q2_0 {
    /// The scale, a half.
    pub d: [u8; 2],
    /// Four neighbouring weights a byte, the first in the lowest bits.
    pub codes: [u8; 16],
}

const _: () = assert!(size_of::<Q2_0>() == 18);

impl Q2_0 {
    /// The codes of 32 weights, 0 to 3.
    #[inline(always)]
    fn unsigned(&self, group: usize) -> [i8; 32] {
        let mut codes = [0; 32];
        for (index, code) in codes.iter_mut().enumerate() {
            *code = (self.codes[group * 8 + index / 4] >> (2 * (index % 4)) & 3) as i8;
        }
        codes
    }
}

impl Block for Q2_0 {
    const WEIGHTS: usize = 64;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 16 },
        Plane { name: "scales", block_bytes: 2 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        Codes::uniform(less_one(self.unsigned(group)), I::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for group in 0..2 {
            planes[0][group * 8..][..8].copy_from_slice(&pack_two_bits(&self.unsigned(group)));
        }
        planes[1].copy_from_slice(&self.d);
    }
}
