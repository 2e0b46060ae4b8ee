//! IQ2_XS: superblocks of 256 weights in sixteen groups of 16, each `d * (0.5 + scale) / 4 * ±magnitude`: eights of
//! magnitudes out of a grid, their signs (the eighth makes their number even), 4-bit scales (`block_iq2_xs` in
//! ggml-common.h).

use super::bits::{eights, four, two, with_parity};
use super::{Block, Codes, Instructions, Plane, grids};

static GRID: [[i8; 8]; 512] = grids::expand(&grids::IQ2_XS, &grids::IQ2_MAGNITUDES, 2);

/// 256 weights in 74 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct IQ2_XS {
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// Of each eight: nine bits of index, seven of signs.
    pub eights: [[u8; 2]; 32],
    /// Of each 32: the scale of the first 16 in the low half, of the others in the high half.
    pub scales: [u8; 8],
}

const _: () = assert!(size_of::<IQ2_XS>() == 74);

impl Block for IQ2_XS {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "indices and signs", block_bytes: 64 },
        Plane { name: "scales", block_bytes: 8 },
        Plane { name: "superblock scales", block_bytes: 2 },
    ];
    const TABLE: &'static [u32] = &grids::words::<512, 8, 1024>(&GRID);

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let eight = |k: usize| u16::from_le_bytes(self.eights[group * 4 + k]);
        let magnitudes = eights(|k| GRID[usize::from(eight(k) & 511)]);
        let signs = with_parity(u32::from_le_bytes(four(|k| (eight(k) >> 9) as u8)));
        let codes = I::signed(magnitudes, signs);
        let d = I::half(self.d);
        let scale = two(|half| {
            d * (0.5 + f32::from(self.scales[group] >> (4 * half) & 15)) * 0.25
        });
        Codes { codes, scale, offset: [0.0; 2] }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(self.eights.as_flattened());
        planes[1].copy_from_slice(&self.scales);
        planes[2].copy_from_slice(&self.d);
    }
}
