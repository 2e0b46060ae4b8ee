//! Q1_0: 128 weights `d` or `-d` (`block_q1_0` in ggml-common.h).

use super::bits::spread_high_bits;
use super::{Block, Codes, Instructions, Plane};

/// 128 weights in 18 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q1_0 {
    /// The scale, a half.
    pub d: [u8; 2],
    /// Bit i of all: whether weight i is positive.
    pub bits: [u8; 16],
}

const _: () = assert!(size_of::<Q1_0>() == 18);

impl Block for Q1_0 {
    const WEIGHTS: usize = 128;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "signs", block_bytes: 16 },
        Plane { name: "scales", block_bytes: 2 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let mut codes = I::masks(u32::from_le_bytes(self.bits.as_chunks().0[group]));
        for code in &mut codes {
            *code = (*code & 2) - 1;
        }
        Codes::uniform(codes, I::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for (bits, out) in self.bits.as_chunks().0.iter().zip(planes[0].as_chunks_mut().0) {
            *out = spread_high_bits(u32::from_le_bytes(*bits));
        }
        planes[1].copy_from_slice(&self.d);
    }
}
