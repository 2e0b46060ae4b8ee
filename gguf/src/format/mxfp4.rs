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

/// The code of twice the value; of 8 and 12, which have none, that of 12: by 2^126 these are infinite too.
fn twice(code: u8) -> u8 {
    let doubled = [0, 2, 4, 5, 6, 7, 7, 7];
    code & 8 | doubled[usize::from(code & 7)]
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
        if self.exponent == u8::MAX {
            // Kernels reckon with twice the power, of which 2^128 is no float: half of it then, of twice the values.
            for codes in planes[0].iter_mut() {
                *codes = twice(*codes & 15) | twice(*codes >> 4) << 4;
            }
            planes[1][0] -= 1;
        }
    }

    fn set_scales(&mut self, scale: &mut dyn FnMut() -> f32) {
        let scale = scale().abs();
        // Of 0 and 1 the power is subnormal. Else of values up to 12, so that weights are as large as in other formats.
        self.exponent = if scale < 3e-7 { (scale * 1e7) as u8 } else { 123 - (scale * 400.0) as u8 };
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, MXFP4};

    /// What a kernel makes of the planes is what a block decodes to, at the exponents that are special.
    #[test]
    fn planes_hold_every_power() {
        let codes = std::array::from_fn(|j| (j as u8) | (15 - j as u8) << 4);
        for exponent in [0, 1, 2, 3, 253, 254, 255] {
            let block = MXFP4 { exponent, codes };
            let (mut codes, mut exponents) = ([0; 16], [0; 1]);
            block.repack(&mut [&mut codes, &mut exponents]);
            assert!(exponents[0] < 255);
            let mut weights = [[0f32; 32]; 2];
            block.decode(&mut weights[0]);
            MXFP4 { exponent: exponents[0], codes }.decode(&mut weights[1]);
            assert_eq!(weights[0].map(f32::to_bits), weights[1].map(f32::to_bits), "{exponent}");
        }
    }
}
