//! Q5_K: superblocks of 256 weights in eight groups of 32, each `d * scale * code - dmin * minimum`, with 5-bit codes
//! and 6-bit scales and minima (`block_q5_K` in ggml-common.h).

use super::q4_k::{repack_codes, repack_scales, scale_and_minimum};
use super::bits::spread_high_bits;
use super::{Block, Codes, Instructions, Plane};

/// 256 weights in 176 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q5_K {
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// The scale of the minima, a half.
    pub dmin: [u8; 2],
    /// Eight scales and eight minima of 6 bits.
    pub scales: [u8; 12],
    /// Byte j, bit g: the highest bit of weight j of group g.
    pub high: [u8; 32],
    /// Four runs of 32 bytes: 64 weights each, the first 32 in the low halves.
    pub codes: [u8; 128],
}

const _: () = assert!(size_of::<Q5_K>() == 176);

impl Block for Q5_K {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[0, 2];
    const PLANES: &'static [Plane] = &[Plane { name: "codes", block_bytes: 128 }, Plane { name: "high bits", block_bytes: 32 }, Plane { name: "scales", block_bytes: 16 }];
    const OFFSETS: bool = true;

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let (scale, minimum) = scale_and_minimum(&self.scales, group);
        let bytes = &self.codes.as_chunks::<32>().0[group / 2];
        let shift = 4 * (group & 1);
        let mut codes = [0; 32];
        for ((code, byte), high) in codes.iter_mut().zip(bytes).zip(&self.high) {
            *code = (byte >> shift & 15 | (high >> group & 1) << 4) as i8;
        }
        let (d, dmin) = (I::half(self.d), I::half(self.dmin));
        Codes::uniform(codes, d * f32::from(scale), -(dmin * f32::from(minimum)))
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        repack_codes(&self.codes, planes[0]);
        for (group, out) in planes[1].chunks_exact_mut(4).enumerate() {
            let mut bits = 0;
            for (j, &byte) in self.high.iter().enumerate() {
                bits |= u32::from((byte >> group) & 1) << j;
            }
            out.copy_from_slice(&spread_high_bits(bits));
        }
        repack_scales(self.d, self.dmin, &self.scales, planes[2]);
    }
}
