//! IQ2_XXS: superblocks of 256 weights in eight groups of 32, each `d * (0.5 + scale) / 4 * ±magnitude`: eights of
//! magnitudes out of a grid, their signs (the eighth makes their number even), a 4-bit scale (`block_iq2_xxs` in
//! ggml-common.h).

use super::bits::{eights, sevens, with_parity};
use super::{Block, Codes, Instructions, Plane, grids};

static GRID: [[i8; 8]; 256] = grids::expand(&grids::IQ2_XXS, &grids::IQ2_MAGNITUDES, 2);

/// 256 weights in 66 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct IQ2_XXS {
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// Eight bytes a group: four indices into the grid; four times seven signs; the scale in the highest four bits.
    pub groups: [[u8; 8]; 8],
}

const _: () = assert!(size_of::<IQ2_XXS>() == 66);

impl Block for IQ2_XXS {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "indices, signs and scales", block_bytes: 64 },
        Plane { name: "superblock scales", block_bytes: 2 },
    ];
    const TABLE: &'static [u32] = &grids::words::<256, 8, 512>(&GRID);

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let bytes = &self.groups[group];
        let rest = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let magnitudes = eights(|k| GRID[usize::from(bytes[k])]);
        let codes = I::signed(magnitudes, with_parity(sevens(rest)));
        Codes::uniform(codes, I::half(self.d) * (0.5 + (rest >> 28) as f32) * 0.25, 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(self.groups.as_flattened());
        planes[1].copy_from_slice(&self.d);
    }
}
