//! NVFP4: 64 weights in four groups of 16, each `scale * value`, 4-bit floats (E2M1) with scales of 8-bit floats (UE4M3;
//! `block_nvfp4` in ggml-common.h).

use super::bits::{chosen, two};
use super::{Block, Codes, Instructions, Plane, mxfp4::VALUES};

/// Half of a float of four bits of exponent (biased by 7) and three of mantissa, half since the values are doubled. 0x7f,
/// which is no number, counts as 0 (`ggml_ue4m3_to_fp32` in ggml).
#[inline(always)]
pub(crate) fn eight_bit_float(bits: u8) -> f32 {
    FLOATS[usize::from(bits)]
}

/// All of them: a look-up is faster than their arithmetic, which passes through subnormal numbers.
static FLOATS: [f32; 256] = {
    let mut floats = [0.0; 256];
    let mut bits = 0;
    while bits < 256 {
        let (exponent, mantissa) = (bits as u32 >> 3 & 15, (bits & 7) as f32);
        floats[bits] = if bits == 0x7f {
            0.0
        } else if exponent == 0 {
            mantissa / 1024.0
        } else {
            // 2^(exponent - 8)
            (1.0 + mantissa / 8.0) * f32::from_bits((exponent + 119) << 23)
        };
        bits += 1;
    }
    floats
};

/// 64 weights in 36 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct NVFP4 {
    /// The scale of each 16 weights.
    pub scales: [u8; 4],
    /// Eight bytes a group of 16: weight j in the low half of byte j, weight j + 8 in the high half.
    pub codes: [u8; 32],
}

const _: () = assert!(size_of::<NVFP4>() == 36);

impl Block for NVFP4 {
    const WEIGHTS: usize = 64;
    const HALVES: &'static [usize] = &[];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 32 },
        Plane { name: "scales", block_bytes: 4 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        // As [`chosen`] has them the low halves come first; here each eight's own high halves follow.
        let [a, b, c, d] = bytemuck::cast::<_, [[i8; 8]; 4]>(chosen::<I>(
            &self.codes.as_chunks().0[group],
            &VALUES,
        ));
        let codes = bytemuck::cast([a, c, b, d]);
        let scale = two(|part| eight_bit_float(self.scales[group * 2 + part]));
        Codes { codes, scale, offset: [0.0; 2] }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for group in 0..2 {
            let bytes = &self.codes[group * 16..][..16];
            for j in 0..8 {
                let (first, second) = (bytes[j], bytes[j + 8]);
                planes[0][group * 16 + j] = first & 15 | second << 4;
                planes[0][group * 16 + j + 8] = first >> 4 | second & 0xf0;
            }
        }
        planes[1].copy_from_slice(&self.scales);
    }

    fn set_scales(&mut self, scale: &mut dyn FnMut() -> f32) {
        // At most 2^-4.
        self.scales.fill_with(|| (scale().abs() * 3000.0) as u8 + 1);
    }
}
