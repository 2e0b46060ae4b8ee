//! NVFP4: 64 weights in four groups of 16, each `scale * value`, 4-bit floats (E2M1) with scales of 8-bit floats (UE4M3;
//! `block_nvfp4` in ggml-common.h).

use super::{Block, Codes, Halves, Plane, chosen, mxfp4::VALUES};

/// Half of a float of four bits of exponent (biased by 7) and three of mantissa, half since the values are doubled. 0x7f,
/// which is no number, counts as 0 (`ggml_ue4m3_to_fp32` in ggml).
#[inline(always)]
pub(crate) fn eight_bit_float(bits: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(bits >> 3 & 15), f32::from(bits & 7));
    if bits == 0x7f {
        0.0
    } else if exponent == 0 {
        mantissa / 1024.0
    } else {
        // 2^(exponent - 8)
        (1.0 + mantissa / 8.0) * f32::from_bits((exponent + 119) << 23)
    }
}

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

impl NVFP4 {
    /// The codes of 32 weights in the order of planes.
    #[inline(always)]
    fn ordered(&self, group: usize) -> [u8; 16] {
        let bytes = &self.codes.as_chunks::<16>().0[group];
        let mut out = [0; 16];
        for j in 0..8 {
            let (first, second) = (bytes[j], bytes[j + 8]);
            out[j] = first & 15 | second << 4;
            out[j + 8] = first >> 4 | second & 0xf0;
        }
        out
    }
}

impl Block for NVFP4 {
    const WEIGHTS: usize = 64;
    const HALVES: &'static [usize] = &[];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 32 },
        Plane { name: "scales", block_bytes: 4 },
    ];

    #[inline(always)]
    fn codes<H: Halves>(&self, group: usize) -> Codes {
        let codes = chosen(&self.ordered(group), &VALUES);
        let scale = [0, 1].map(|part| eight_bit_float(self.scales[group * 2 + part]));
        Codes { codes, scale, offset: [0.0; 2] }
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        for group in 0..2 {
            planes[0][group * 16..][..16].copy_from_slice(&self.ordered(group));
        }
        planes[1].copy_from_slice(&self.scales);
    }

    fn set_scales(&mut self, scale: &mut dyn FnMut() -> f32) {
        // At most 2^-4.
        self.scales.fill_with(|| (scale().abs() * 3000.0) as u8 + 1);
    }
}
