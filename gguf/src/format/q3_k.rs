//! Q3_K: superblocks of 256 weights in sixteen groups of 16, each `d * scale * code`, with 3-bit codes from -4 to 3 and
//! 6-bit scales from -32 to 31 (`block_q3_K` in ggml-common.h).

use super::bits::{pack_two_bits, spread_high_bits, two, two_bits};
use super::{Block, Codes, Instructions, Plane};

/// 256 weights in 110 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q3_K {
    /// Bit g of byte j: the highest bit of weight 32 g + j.
    pub high: [u8; 32],
    /// Two runs of 32 bytes: the low bits of weights j, j + 32, j + 64, j + 96 of the run in byte j.
    pub low: [u8; 64],
    /// 16 scales of 6 bits: the low four bits of scales j and j + 8 in byte j, the high two bits of scales j, j + 4, j + 8, j +
    /// 12 in byte 8 + j.
    pub scales: [u8; 12],
    /// The scale of the scales, a half.
    pub d: [u8; 2],
}

const _: () = assert!(size_of::<Q3_K>() == 110);

impl Q3_K {
    /// The scale of weights 16 j to 16 j + 15.
    #[inline(always)]
    fn scale(&self, j: usize) -> i8 {
        let low = self.scales[j % 8] >> (4 * (j / 8)) & 15;
        let high = self.scales[8 + j % 4] >> (2 * (j / 4)) & 3;
        (low | high << 4) as i8 - 32
    }
}

impl Block for Q3_K {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[108];
    const PLANES: &'static [Plane] = &[
        Plane { name: "low bits", block_bytes: 64 },
        Plane { name: "high bits", block_bytes: 32 },
        Plane { name: "scales", block_bytes: 16 },
        Plane { name: "superblock scales", block_bytes: 2 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let mut codes = two_bits(&self.low, group);
        for (code, high) in codes.iter_mut().zip(&self.high) {
            *code += ((high >> group & 1) << 2) as i8 - 4;
        }
        let d = I::half(self.d);
        let scale = two(|part| d * f32::from(self.scale(group * 2 + part)));
        Codes { codes, scale, offset: [0.0; 2] }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for group in 0..8 {
            let packed = pack_two_bits(&two_bits(&self.low, group));
            planes[0][group * 8..][..8].copy_from_slice(&packed);
            let bits = (0..32).map(|j| u32::from(self.high[j] >> group & 1) << j).sum();
            planes[1][group * 4..][..4].copy_from_slice(&spread_high_bits(bits));
        }
        for (j, byte) in planes[2].iter_mut().enumerate() {
            *byte = self.scale(j) as u8;
        }
        planes[3].copy_from_slice(&self.d);
    }
}
