//! Q8_0: 32 weights `d * code` with signed 8-bit codes (`block_q8_0` in ggml-common.h).

use super::{Block, Codes, Instructions, Plane};

/// 32 weights in 34 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q8_0 {
    /// The scale, a half.
    pub d: [u8; 2],
    /// Byte j: weight j's code, signed.
    pub codes: [i8; 32],
}

const _: () = assert!(size_of::<Q8_0>() == 34);

impl Block for Q8_0 {
    const WEIGHTS: usize = 32;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[Plane { name: "codes", block_bytes: 32 }, Plane { name: "scales", block_bytes: 2 }];

    #[inline(always)]
    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        Codes::uniform(self.codes, I::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(bytemuck::cast_slice(&self.codes));
        planes[1].copy_from_slice(&self.d);
    }
}
