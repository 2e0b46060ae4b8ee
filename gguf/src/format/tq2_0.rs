//! TQ2_0: 256 weights `d * (code - 1)` with 2-bit codes, for models of -1, 0 and 1 (`block_tq2_0` in ggml-common.h).

use super::bits::{less_one, pack_two_bits, two_bits};
use super::{Block, Codes, Instructions, Plane};

/// 256 weights in 66 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct TQ2_0 {
    /// Two runs of 32 bytes: weights j, j + 32, j + 64, j + 96 of the run in byte j.
    pub codes: [u8; 64],
    /// The scale, a half.
    pub d: [u8; 2],
}

const _: () = assert!(size_of::<TQ2_0>() == 66);

impl Block for TQ2_0 {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[64];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 64 },
        Plane { name: "scales", block_bytes: 2 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let codes = less_one(two_bits(&self.codes, group));
        Codes::uniform(codes, I::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for group in 0..8 {
            let packed = pack_two_bits(&two_bits(&self.codes, group));
            planes[0][group * 8..][..8].copy_from_slice(&packed);
        }
        planes[1].copy_from_slice(&self.d);
    }
}
