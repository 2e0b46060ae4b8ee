//! Q6_K: superblocks of 256 weights in sixteen groups of 16, each `d * scale * (code - 32)`, with 6-bit codes and signed
//! 8-bit scales (`block_q6_K` in ggml-common.h).

use super::bits::{pack_two_bits, two};
use super::{Block, Codes, Instructions, Plane};

/// 256 weights in 210 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q6_K {
    /// Two runs of 64 bytes, 128 weights each: the low four bits of weights j and j + 64 of the run in byte j.
    pub low: [u8; 128],
    /// Two runs of 32 bytes: the high two bits of weights j, j + 32, j + 64, j + 96 of the run in byte j.
    pub high: [u8; 64],
    /// The scales of 16 groups of 16 weights.
    pub scales: [i8; 16],
    /// The scale of the scales, a half.
    pub d: [u8; 2],
}

const _: () = assert!(size_of::<Q6_K>() == 210);

impl Block for Q6_K {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[208];
    const PLANES: &'static [Plane] = &[Plane { name: "low bits", block_bytes: 128 }, Plane { name: "high bits", block_bytes: 64 }, Plane { name: "scales", block_bytes: 16 }, Plane { name: "superblock scales", block_bytes: 2 }];

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let (run, quarter) = (group / 4, group % 4);
        let low = &self.low.as_chunks::<32>().0[run * 2 + quarter % 2];
        let high = &self.high.as_chunks::<32>().0[run];
        let (low_shift, high_shift) = (4 * (quarter / 2), 2 * quarter);
        let mut codes = [0; 32];
        for ((code, low), high) in codes.iter_mut().zip(low).zip(high) {
            *code = (low >> low_shift & 15 | (high >> high_shift & 3) << 4) as i8 - 32;
        }
        let d = I::half(self.d);
        let scale = two(|part| d * f32::from(self.scales[group * 2 + part]));
        Codes { codes, scale, offset: [0.0; 2] }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        let code = |weight: usize| {
            let (run, quarter, j) = (weight / 128, weight / 32 % 4, weight % 32);
            let low = self.low[run * 64 + (quarter & 1) * 32 + j] >> ((quarter >> 1) * 4) & 15;
            let high = self.high[run * 32 + j] >> (quarter * 2) & 3;
            (low, high)
        };
        for group in 0..8 {
            let mut high = [0; 32];
            for j in 0..16 {
                let (first, second) = (code(group * 32 + j), code(group * 32 + j + 16));
                planes[0][group * 16 + j] = first.0 | second.0 << 4;
                (high[j], high[j + 16]) = (first.1 as i8, second.1 as i8);
            }
            planes[1][group * 8..][..8].copy_from_slice(&pack_two_bits(&high));
        }
        planes[2].copy_from_slice(bytemuck::cast_slice(&self.scales));
        planes[3].copy_from_slice(&self.d);
    }
}
