//! Q5_1: 32 weights `d * code + m` with 5-bit codes (`block_q5_1` in ggml-common.h).

use super::q5_0::spread_high_bits;
use super::{Block, Plane, half};

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

    #[inline(always)]
    fn decode(&self, out: &mut [f32]) {
        // A fixed length lets the loops below become vector code.
        let Some(out) = out.first_chunk_mut::<{ Self::WEIGHTS }>() else { return };
        let (d, m) = (half(self.d), half(self.m));
        let high = u32::from_le_bytes(self.high);
        for (j, &byte) in self.codes.iter().enumerate() {
            let low_code = u32::from(byte & 15) | ((high >> j) & 1) << 4;
            let high_code = u32::from(byte >> 4) | ((high >> (j + 16)) & 1) << 4;
            out[j] = low_code as f32 * d + m;
            out[j + 16] = high_code as f32 * d + m;
        }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.codes);
        planes[1].copy_from_slice(&spread_high_bits(u32::from_le_bytes(self.high)));
        planes[2][..2].copy_from_slice(&self.d);
        planes[2][2..].copy_from_slice(&self.m);
    }
}
