//! Q2_K: superblocks of 256 weights in sixteen groups of 16, each `d * scale * code - dmin * minimum`, with 2-bit codes
//! and 4-bit scales and minima (`block_q2_K` in ggml-common.h).

use super::bits::{pack_two_bits, two, two_bits};
use super::{Block, Codes, Instructions, Plane};

/// 256 weights in 84 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q2_K {
    /// Of 16 groups of 16 weights: the scale in the low half, the minimum in the high half.
    pub scales: [u8; 16],
    /// Two runs of 32 bytes: weights j, j + 32, j + 64, j + 96 of the run in byte j.
    pub codes: [u8; 64],
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// The scale of the minima, a half.
    pub dmin: [u8; 2],
}

const _: () = assert!(size_of::<Q2_K>() == 84);

impl Block for Q2_K {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[80, 82];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 64 },
        Plane { name: "scales and minima", block_bytes: 16 },
        Plane { name: "superblock scales", block_bytes: 4 },
    ];
    const OFFSETS: bool = true;

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let (d, dmin) = (I::half(self.d), I::half(self.dmin));
        let of = two(|part| self.scales[group * 2 + part]);
        Codes {
            codes: two_bits(&self.codes, group),
            scale: two(|part| d * f32::from(of[part] & 15)),
            offset: two(|part| -(dmin * f32::from(of[part] >> 4))),
        }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for group in 0..8 {
            let packed = pack_two_bits(&two_bits(&self.codes, group));
            planes[0][group * 8..][..8].copy_from_slice(&packed);
        }
        planes[1].copy_from_slice(&self.scales);
        planes[2][..2].copy_from_slice(&self.d);
        planes[2][2..].copy_from_slice(&self.dmin);
    }
}
