//! Q4_0: 32 weights `d * (code - 8)` with 4-bit codes (`block_q4_0` in ggml-common.h).

use super::{Block, Plane, half};

/// 32 weights in 18 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q4_0 {
    /// The scale, a half.
    pub d: [u8; 2],
    /// Byte j: the codes of weight j (low half) and weight j + 16 (high half).
    pub codes: [u8; 16],
}

const _: () = assert!(size_of::<Q4_0>() == 18);

impl Block for Q4_0 {
    const WEIGHTS: usize = 32;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[Plane { name: "codes", block_bytes: 16 }, Plane { name: "scales", block_bytes: 2 }];

    #[inline(always)]
    fn decode(&self, out: &mut [f32]) {
        // A fixed length lets the loops below become vector code.
        let Some(out) = out.first_chunk_mut::<{ Self::WEIGHTS }>() else { return };
        let d = half(self.d);
        for (j, &byte) in self.codes.iter().enumerate() {
            out[j] = (i32::from(byte & 15) - 8) as f32 * d;
            out[j + 16] = (i32::from(byte >> 4) - 8) as f32 * d;
        }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.codes);
        planes[1].copy_from_slice(&self.d);
    }
}
