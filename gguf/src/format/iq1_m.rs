//! IQ1_M: superblocks of 256 weights in sixteen groups of 16, each `d * (2 scale + 1) * (g ± 1/8)`: eights of -1, 0 and
//! 1 out of a grid, each moved up or down, 3-bit scales (`block_iq1_m` in ggml-common.h).

use super::bits::two;
use super::{Block, Codes, Instructions, Plane, iq1_s::{TABLE, moved}};

/// 256 weights in 56 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct IQ1_M {
    /// Of each eight: the low eight bits of its index.
    pub indices: [[u8; 4]; 8],
    /// Of each eight, four bits: the high three bits of its index, and whether to move down.
    pub rest: [[u8; 2]; 8],
    /// Four words of four 3-bit scales; in their highest four bits the scale of the scales, a half.
    pub scales: [[u8; 2]; 4],
}

const _: () = assert!(size_of::<IQ1_M>() == 56);

impl IQ1_M {
    /// The scale of the scales.
    #[inline(always)]
    fn d(&self) -> [u8; 2] {
        let four = |word: usize| self.scales[word][1] >> 4;
        [four(0) | four(1) << 4, four(2) | four(3) << 4]
    }

    /// Six bits: the scales of a group's halves.
    #[inline(always)]
    fn scale_bits(&self, group: usize) -> u8 {
        (u16::from_le_bytes(self.scales[group / 2]) >> (6 * (group % 2)) & 63) as u8
    }
}

impl Block for IQ1_M {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[];
    const PLANES: &'static [Plane] = &[
        Plane { name: "indices", block_bytes: 32 },
        Plane { name: "high bits", block_bytes: 16 },
        Plane { name: "scales", block_bytes: 8 },
        Plane { name: "superblock scales", block_bytes: 2 },
    ];
    const TABLE: &'static [u32] = &TABLE;

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let rest = u16::from_le_bytes(self.rest[group]);
        let codes = moved::<I>(|k| {
            let bits = usize::from(rest >> (4 * k) & 15);
            (usize::from(self.indices[group][k]) | (bits & 7) << 8, bits & 8 != 0)
        });
        let d = I::half(self.d());
        let scales = self.scale_bits(group);
        let scale = two(|half| d * f32::from(2 * (scales >> (3 * half) & 7) + 1) * 0.125);
        Codes { codes, scale, offset: [0.0; 2] }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(self.indices.as_flattened());
        planes[1].copy_from_slice(self.rest.as_flattened());
        for (group, byte) in planes[2].iter_mut().enumerate() {
            *byte = self.scale_bits(group);
        }
        planes[3].copy_from_slice(&self.d());
    }

    fn set_scales(&mut self, scale: &mut dyn FnMut() -> f32) {
        let [low, high] = half::f16::from_f32(scale()).to_le_bytes();
        for (word, bits) in self.scales.iter_mut().zip([low & 15, low >> 4, high & 15, high >> 4]) {
            word[1] = word[1] & 15 | bits << 4;
        }
    }
}
