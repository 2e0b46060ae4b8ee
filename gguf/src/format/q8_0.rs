//! Q8_0: 32 weights `d * code` with signed 8-bit codes (`block_q8_0` in ggml-common.h).

use super::{Block, Plane, half};

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
    fn decode(&self, out: &mut [f32]) {
        // A fixed length lets the loops below become vector code.
        let Some(out) = out.first_chunk_mut::<{ Self::WEIGHTS }>() else { return };
        let d = half(self.d);
        for (out, codes) in out.chunks_exact_mut(8).zip(self.codes.chunks_exact(8)) {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = f32::from(code) * d;
            }
        }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(bytemuck::cast_slice(&self.codes));
        planes[1].copy_from_slice(&self.d);
    }
}
