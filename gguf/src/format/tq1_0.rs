//! TQ1_0: 256 weights -d, 0 or d, five a byte as digits to base three (`block_tq1_0` in ggml-common.h).
//!
//! In planes they take two bits each, as TQ2_0 does: 2.06 bits a weight for 1.69, and no arithmetic to base three in
//! kernels.

use super::bits::{less_one, pack_two_bits};
use super::{Block, Codes, Instructions, Plane};

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

/// Digit `n` of each byte.
#[inline(always)]
fn digits(bytes: &[u8], n: usize, codes: &mut [i8]) {
    for (code, byte) in codes.iter_mut().zip(bytes) {
        // A byte is a fraction of 256: multiplied by 3^n, modulo 256, its first digit is digit n.
        let fraction = byte.wrapping_mul(POWERS[n]);
        *code = i8::from(fraction > 85) + i8::from(fraction > 170);
    }
}

impl TQ1_0 {
    /// The digits of 32 weights, 0 to 2.
    #[inline(always)]
    fn unsigned(&self, group: usize) -> [i8; 32] {
        let (long, short) = self.five.split_at(32);
        let mut codes = [0; 32];
        if group < 5 {
            digits(long, group, &mut codes);
            return codes;
        }
        for (half, codes) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let n = (group - 5) * 2 + half;
            if n < 5 {
                digits(short, n, codes);
                continue;
            }
            for (n, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                digits(&self.four, n, codes);
            }
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
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        Codes::uniform(less_one(self.unsigned(group)), I::half(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for group in 0..8 {
            planes[0][group * 8..][..8].copy_from_slice(&pack_two_bits(&self.unsigned(group)));
        }
        planes[1].copy_from_slice(&self.d);
    }
}
