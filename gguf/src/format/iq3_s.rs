//! IQ3_S: superblocks of 256 weights in eight groups of 32, each `d * (1 + 2 scale) * ±magnitude`: fours of magnitudes
//! out of a grid, their signs, a 4-bit scale (`block_iq3_s` in ggml-common.h).

use super::bits::{eights, joined};
use super::{Block, Codes, Instructions, Plane, grids};

static GRID: [[i8; 4]; 512] = grids::expand(&grids::IQ3_S, &grids::IQ3_S_MAGNITUDES, 3);

/// 256 weights in 110 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct IQ3_S {
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// Of each four: the low eight bits of its index.
    pub indices: [[u8; 8]; 8],
    /// Of each 32: the highest bits of its eight indices.
    pub indices_high: [u8; 8],
    /// Of each eight: its signs.
    pub signs: [[u8; 4]; 8],
    /// Scales 2j and 2j + 1 in byte j.
    pub scales: [u8; 4],
}

const _: () = assert!(size_of::<IQ3_S>() == 110);

impl IQ3_S {
    /// The scale of a group.
    #[inline(always)]
    fn scale(&self, group: usize) -> u8 {
        self.scales[group / 2] >> (4 * (group % 2)) & 15
    }
}

impl Block for IQ3_S {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "indices", block_bytes: 64 },
        Plane { name: "signs", block_bytes: 32 },
        Plane { name: "high bits and scales", block_bytes: 16 },
        Plane { name: "superblock scales", block_bytes: 2 },
    ];
    const TABLE: &'static [u32] = &grids::words::<512, 4, 512>(&GRID);

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let index = |four: usize| {
            let high = usize::from(self.indices_high[group] >> four & 1);
            usize::from(self.indices[group][four]) | high << 8
        };
        let magnitudes = eights(|k| joined(&GRID, index(2 * k), index(2 * k + 1)));
        let codes = I::signed(magnitudes, u32::from_le_bytes(self.signs[group]));
        Codes::uniform(codes, I::half(self.d) * (1.0 + 2.0 * f32::from(self.scale(group))), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(self.indices.as_flattened());
        planes[1].copy_from_slice(self.signs.as_flattened());
        for group in 0..8 {
            planes[2][group * 2] = self.indices_high[group];
            planes[2][group * 2 + 1] = self.scale(group);
        }
        planes[3].copy_from_slice(&self.d);
    }
}
