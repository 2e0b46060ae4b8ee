//! IQ3_XXS: superblocks of 256 weights in eight groups of 32, each `d * (0.5 + scale) / 2 * ±magnitude`: fours of
//! magnitudes out of a grid, signs of eights (the eighth makes their number even), a 4-bit scale (`block_iq3_xxs` in
//! ggml-common.h).

use super::bits::{eights, joined, sevens, with_parity};
use super::{Block, Codes, Instructions, Plane, grids};

static GRID: [[i8; 4]; 256] = grids::expand(&grids::IQ3_XXS, &grids::IQ3_XXS_MAGNITUDES, 3);

/// 256 weights in 98 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct IQ3_XXS {
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// Of each four: its index.
    pub indices: [[u8; 8]; 8],
    /// Of each 32: four times seven signs; the scale in the highest four bits.
    pub signs_and_scales: [[u8; 4]; 8],
}

const _: () = assert!(size_of::<IQ3_XXS>() == 98);

impl Block for IQ3_XXS {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "indices", block_bytes: 64 },
        Plane { name: "signs and scales", block_bytes: 32 },
        Plane { name: "superblock scales", block_bytes: 2 },
    ];
    const TABLE: &'static [u32] = &grids::words::<256, 4, 256>(&GRID);

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let rest = u32::from_le_bytes(self.signs_and_scales[group]);
        let indices = &self.indices[group];
        let magnitudes =
            eights(|k| joined(&GRID, indices[2 * k].into(), indices[2 * k + 1].into()));
        let codes = I::signed(magnitudes, with_parity(sevens(rest)));
        Codes::uniform(codes, I::half(self.d) * (0.5 + (rest >> 28) as f32) * 0.5, 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(self.indices.as_flattened());
        planes[1].copy_from_slice(self.signs_and_scales.as_flattened());
        planes[2].copy_from_slice(&self.d);
    }
}
