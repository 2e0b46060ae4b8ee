//! Q8_1: 32 weights `d * code` with signed 8-bit codes, and their sum (`block_q8_1` in ggml-common.h). ggml rounds activations
//! to it; files seldom have it.

use super::{Block, Codes, Instructions, Plane};

/// 32 weights in 36 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q8_1 {
    /// The scale, a half.
    pub d: [u8; 2],
    /// `d` times the sum of the codes, a half: not needed here.
    pub sum: [u8; 2],
    /// The codes.
    pub codes: [i8; 32],
}

const _: () = assert!(size_of::<Q8_1>() == 36);

impl Block for Q8_1 {
    const WEIGHTS: usize = 32;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 32 },
        Plane { name: "scales", block_bytes: 2 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        Codes::uniform(self.codes, I::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(bytemuck::cast_slice(&self.codes));
        planes[1].copy_from_slice(&self.d);
    }
}
