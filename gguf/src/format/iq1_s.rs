//! IQ1_S: superblocks of 256 weights in eight groups of 32, each `d * (2 scale + 1) * (g ± 1/8)`: eights of -1, 0 and 1
//! out of a grid, moved up or down together, a 3-bit scale (`block_iq1_s` in ggml-common.h).

use super::bits::eights;
use super::{Block, Codes, Instructions, Plane, grids};

/// -1, 0 and 1 by two bits.
/// In eighths.
static GRID: [[i8; 8]; 2048] = grids::expand(&grids::IQ1, &[-8, 0, 8, 0], 2);
/// The grid as kernels get it.
pub(super) const TABLE: [u32; 1024] = grids::pairs(&grids::IQ1);

/// Entries of the grid in eighths, each moved by one eighth, down or up: whole numbers.
#[inline(always)]
pub(super) fn moved<I: Instructions>(entry: impl Fn(usize) -> (usize, bool)) -> [i8; 32] {
    let moves = eights(|k| [if entry(k).1 { -1 } else { 1 }; 8]);
    I::sums(eights(|k| GRID[entry(k).0]), moves)
}

/// 256 weights in 50 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct IQ1_S {
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// Of each eight: the low eight bits of its index.
    pub indices: [[u8; 4]; 8],
    /// Of each 32: the high three bits of its four indices, the scale, and in the highest bit whether to move down.
    pub rest: [[u8; 2]; 8],
}

const _: () = assert!(size_of::<IQ1_S>() == 50);

impl Block for IQ1_S {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "indices", block_bytes: 32 },
        Plane { name: "high bits and scales", block_bytes: 16 },
        Plane { name: "superblock scales", block_bytes: 2 },
    ];
    const TABLE: &'static [u32] = &TABLE;

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let rest = u16::from_le_bytes(self.rest[group]);
        let codes = moved::<I>(|k| {
            let high = usize::from(rest >> (3 * k) & 7);
            (usize::from(self.indices[group][k]) | high << 8, rest >> 15 != 0)
        });
        let scale = I::half(self.d) * f32::from(2 * (rest >> 12 & 7) + 1);
        Codes::uniform(codes, scale * 0.125, 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(self.indices.as_flattened());
        planes[1].copy_from_slice(self.rest.as_flattened());
        planes[2].copy_from_slice(&self.d);
    }
}
