//! TQ1_0: 256 weights -d, 0 or d, five a byte as digits to base three (`block_tq1_0` in ggml-common.h).
//!
//! In planes they take two bits each, as TQ2_0 does: 2.06 bits a weight for 1.69, and no arithmetic to base three in
//! kernels.

use super::{Block, Codes, Halves, Plane, pack_two_bits};

/// 256 weights in 54 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct TQ1_0 {
    /// Byte j of the first 32: digit n is weight 32 n + j; byte j of the next 16: weight 160 + 16 n + j.
    pub five: [u8; 48],
    /// Byte j: digit n is weight 240 + 4 n + j.
    pub four: [u8; 4],
    /// The scale, a half.
    pub d: [u8; 2],
}

const _: () = assert!(size_of::<TQ1_0>() == 54);

/// Powers of three, modulo 256.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

impl TQ1_0 {
    /// The digits of 32 weights, 0 to 2.
    #[inline(always)]
    fn unsigned(&self, group: usize) -> [i8; 32] {
        // A byte is a fraction of 256: multiplied by 3^n, modulo 256, its first digit is digit n.
        let digit = |byte: u8, n: usize| ((u16::from(byte.wrapping_mul(POWERS[n])) * 3) >> 8) as i8;
        let mut codes = [0; 32];
        for (j, code) in codes.iter_mut().enumerate() {
            *code = match group * 32 + j {
                at @ 0..160 => digit(self.five[at % 32], at / 32),
                at @ 160..240 => digit(self.five[32 + at % 16], (at - 160) / 16),
                at => digit(self.four[at % 4], (at - 240) / 4),
            };
        }
        codes
    }
}

impl Block for TQ1_0 {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[52];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 64 },
        Plane { name: "scales", block_bytes: 2 },
    ];

    #[inline(always)]
    fn codes<H: Halves>(&self, group: usize) -> Codes {
        Codes::uniform(self.unsigned(group).map(|code| code - 1), H::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for group in 0..8 {
            planes[0][group * 8..][..8].copy_from_slice(&pack_two_bits(&self.unsigned(group)));
        }
        planes[1].copy_from_slice(&self.d);
    }
}
