//! IQ4_XS: superblocks of 256 weights in eight groups of 32, each `d * scale * value`, codes as in IQ4_NL, 6-bit scales from
//! -32 to 31 (`block_iq4_xs` in ggml-common.h).

use super::bits::chosen;
use super::{Block, Codes, Instructions, Plane, iq4_nl::VALUES};

/// 256 weights in 136 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct IQ4_XS {
    /// The scale of the scales, a half.
    pub d: [u8; 2],
    /// Bits 2g and 2g + 1: the high bits of scale g.
    pub scales_high: [u8; 2],
    /// The low four bits of scales 2j and 2j + 1 in byte j.
    pub scales_low: [u8; 4],
    /// 16 bytes a group, as in IQ4_NL.
    pub codes: [u8; 128],
}

const _: () = assert!(size_of::<IQ4_XS>() == 136);

impl IQ4_XS {
    /// The scale of a group.
    #[inline(always)]
    fn scale(&self, group: usize) -> i8 {
        let low = self.scales_low[group / 2] >> (4 * (group % 2)) & 15;
        let high = u16::from_le_bytes(self.scales_high) >> (2 * group) & 3;
        (low | (high as u8) << 4) as i8 - 32
    }
}

impl Block for IQ4_XS {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[0];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 128 },
        Plane { name: "scales", block_bytes: 8 },
        Plane { name: "superblock scales", block_bytes: 2 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        let codes = chosen::<I>(&self.codes.as_chunks().0[group], &VALUES);
        Codes::uniform(codes, I::half(self.d) * f32::from(self.scale(group)), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(&self.codes);
        for (group, byte) in planes[1].iter_mut().enumerate() {
            *byte = self.scale(group) as u8;
        }
        planes[2].copy_from_slice(&self.d);
    }
}
