//! IQ4_NL: 32 weights `d * value`, 4-bit codes choosing among 16 values that lie closer near 0 (`block_iq4_nl` in
//! ggml-common.h).

use super::bits::chosen;
use super::{Block, Codes, Instructions, Plane};

/// What codes stand for (`kvalues_iq4nl` in ggml-common.h).
pub(crate) const VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 weights in 18 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct IQ4_NL {
    /// The scale, a half.
    pub d: [u8; 2],
    /// Byte j: the codes of weight j (low half) and weight j + 16 (high half).
    pub codes: [u8; 16],
}

const _: () = assert!(size_of::<IQ4_NL>() == 18);

impl Block for IQ4_NL {
    const WEIGHTS: usize = 32;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 16 },
        Plane { name: "scales", block_bytes: 2 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, _group: usize) -> Codes {
        Codes::uniform(chosen::<I>(&self.codes, &VALUES), I::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.codes);
        planes[1].copy_from_slice(&self.d);
    }
}
