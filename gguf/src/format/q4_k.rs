//! Q4_K: superblocks of 256 weights in eight groups of 32, each `d * scale * code - dmin * minimum`, with 4-bit codes
//! and 6-bit scales and minima (`block_q4_K` in ggml-common.h).

use super::{Block, Codes, Instructions, Plane};

/// 256 weights in 144 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q4_K {
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// The scale of the minima, a half.
    pub dmin: [u8; 2],
    /// Eight scales and eight minima of 6 bits.
    pub scales: [u8; 12],
    /// Four runs of 32 bytes: 64 weights each, the first 32 in the low halves.
    pub codes: [u8; 128],
}

const _: () = assert!(size_of::<Q4_K>() == 144);

impl Block for Q4_K {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[0, 2];
    const PLANES: &'static [Plane] = &[Plane { name: "codes", block_bytes: 128 }, Plane { name: "scales", block_bytes: 16 }];
    const OFFSETS: bool = true;

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let (scale, minimum) = scale_and_minimum(&self.scales, group);
        let bytes = &self.codes.as_chunks::<32>().0[group / 2];
        let shift = 4 * (group & 1);
        let mut codes = [0; 32];
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code = (byte >> shift & 15) as i8;
        }
        let (d, dmin) = (I::half(self.d), I::half(self.dmin));
        Codes::uniform(codes, d * f32::from(scale), -(dmin * f32::from(minimum)))
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        repack_codes(&self.codes, planes[0]);
        repack_scales(self.d, self.dmin, &self.scales, planes[1]);
    }
}

/// Scale and minimum of group `j` (0..8) out of the 12 packed bytes (`get_scale_min_k4` in ggml-quants.c).
#[inline(always)]
pub(super) fn scale_and_minimum(packed: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let scale = packed[j + 4] & 15 | packed[j - 4] >> 6 << 4;
        let minimum = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
        (scale, minimum)
    }
}

/// A superblock's scales as kernels want them, 16 bytes: the two halves; the low four bits of the eight scales, those
/// of groups b and b + 4 in byte b; of the eight minima; then the high two bits: in byte b those of scale b, of scale
/// b + 4, of minimum b, of minimum b + 4.
pub(super) fn repack_scales(d: [u8; 2], dmin: [u8; 2], packed: &[u8; 12], out: &mut [u8]) {
    let (mut scales, mut minima, mut high) = (0u32, 0u32, 0u32);
    for j in 0..8 {
        let (scale, minimum) = scale_and_minimum(packed, j);
        let (byte, half) = (8 * (j % 4), j / 4);
        scales |= u32::from(scale & 15) << (byte + 4 * half);
        minima |= u32::from(minimum & 15) << (byte + 4 * half);
        high |= u32::from(scale >> 4) << (byte + 2 * half);
        high |= u32::from(minimum >> 4) << (byte + 2 * half + 4);
    }
    out[..2].copy_from_slice(&d);
    out[2..4].copy_from_slice(&dmin);
    out[4..8].copy_from_slice(&scales.to_le_bytes());
    out[8..12].copy_from_slice(&minima.to_le_bytes());
    out[12..].copy_from_slice(&high.to_le_bytes());
}

/// The 4-bit codes of a superblock, which ggml keeps as four runs of 32 bytes (low halves: 32 weights,
/// high halves: the next 32), in the order of all planes: 16 bytes per 32 weights.
pub(super) fn repack_codes(codes: &[u8; 128], out: &mut [u8]) {
    for (run, out) in codes.chunks_exact(32).zip(out.chunks_exact_mut(32)) {
        for j in 0..16 {
            out[j] = run[j] & 15 | run[j + 16] << 4;
            out[j + 16] = run[j] >> 4 | run[j + 16] & 0xf0;
        }
    }
}
