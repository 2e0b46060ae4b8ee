//! IQ2_S: superblocks of 256 weights in sixteen groups of 16, each `d * (0.5 + scale) / 4 * ±magnitude`: eights of
//! magnitudes out of a grid, their signs, 4-bit scales (`block_iq2_s` in ggml-common.h).

use super::bits::{eights, two};
use super::{Block, Codes, Instructions, Plane, grids};

static GRID: [[i8; 8]; 1024] = grids::expand(&grids::IQ2_S, &grids::IQ2_MAGNITUDES, 2);

/// 256 weights in 82 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct IQ2_S {
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// Of each eight: the low eight bits of its index.
    pub indices: [[u8; 4]; 8],
    /// Of each eight: its signs.
    pub signs: [[u8; 4]; 8],
    /// Of each 32: the high two bits of its four indices.
    pub indices_high: [u8; 8],
    /// Of each 32: the scale of the first 16 in the low half, of the others in the high half.
    pub scales: [u8; 8],
}

const _: () = assert!(size_of::<IQ2_S>() == 82);

impl Block for IQ2_S {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "indices and signs", block_bytes: 64 },
        Plane { name: "high bits and scales", block_bytes: 16 },
        Plane { name: "superblock scales", block_bytes: 2 },
    ];
    const TABLE: &'static [u32] = &grids::words::<1024, 8, 2048>(&GRID);

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let codes = eights(|k| {
            let high = usize::from(self.indices_high[group] >> (2 * k) & 3);
            let index = usize::from(self.indices[group][k]) | high << 8;
            GRID[index]
        });
        let codes = I::signed(codes, u32::from_le_bytes(self.signs[group]));
        let d = I::half(self.d);
        let scale = two(|half| {
            d * (0.5 + f32::from(self.scales[group] >> (4 * half) & 15)) * 0.25
        });
        Codes { codes, scale, offset: [0.0; 2] }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for group in 0..8 {
            planes[0][group * 8..][..4].copy_from_slice(&self.indices[group]);
            planes[0][group * 8 + 4..][..4].copy_from_slice(&self.signs[group]);
            planes[1][group * 2] = self.indices_high[group];
            planes[1][group * 2 + 1] = self.scales[group];
        }
        planes[2].copy_from_slice(&self.d);
    }
}
