//! MXFP4: 32 weights `2^(e - 128) * value`, 4-bit floats (E2M1) with a power of two as their scale (`block_mxfp4` in
//! ggml-common.h; OCP Microscaling Formats 1.0).

use super::bits::chosen;
use super::{Block, Codes, Instructions, Plane};

/// What codes stand for, doubled so that they are whole numbers (`kvalues_mxfp4` in ggml).
pub(crate) const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 2^(exponent - 128): half the scale, since the values are doubled.
#[inline(always)]
pub(crate) fn power(exponent: u8) -> f32 {
    // The two smallest are subnormal.
    let bits = if exponent < 2 { 0x0020_0000 << exponent } else { u32::from(exponent - 1) << 23 };
    f32::from_bits(bits)
}

/// 32 weights in 17 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct MXFP4 {
    /// The exponent of the scale, biased by 127.
    pub exponent: u8,
    /// Byte j: the codes of weight j (low half) and weight j + 16 (high half).
    pub codes: [u8; 16],
}

const _: () = assert!(size_of::<MXFP4>() == 17);

impl Block for MXFP4 {
    const WEIGHTS: usize = 32;
    const HALVES: &'static [usize] = &[];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 16 },
        Plane { name: "exponents", block_bytes: 1 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        Codes::uniform(chosen::<I>(&self.codes, &VALUES), power(self.exponent), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.codes);
        planes[1][0] = self.exponent;
    }

    fn set_scales(&mut self, scale: &mut dyn FnMut() -> f32) {
        // Of the values at most 12, so that weights are as large as in other formats.
        self.exponent = 123 - (scale().abs() * 400.0) as u8;
    }
}
