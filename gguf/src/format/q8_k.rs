//! Q8_K: 256 weights `d * code` with signed 8-bit codes, and sums of sixteens (`block_q8_K` in ggml-common.h). ggml rounds
//! activations to it; files seldom have it.

use super::{Block, Codes, Instructions, Plane};

/// 256 weights in 292 bytes.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "ggml's name, as users know it")]
pub struct Q8_K {
    /// The scale, a float.
    pub d: [u8; 4],
    /// The codes.
    pub codes: [i8; 256],
    /// Sums of 16 codes: not needed here.
    pub sums: [u8; 32],
}

const _: () = assert!(size_of::<Q8_K>() == 292);

impl Block for Q8_K {
    const WEIGHTS: usize = 256;
    const HALVES: &'static [usize] = &[];
    const PLANES: &'static [Plane] = &[
        Plane { name: "codes", block_bytes: 256 },
        Plane { name: "scales", block_bytes: 4 },
    ];

    #[inline(always)]
    fn codes<I: Instructions>(&self, group: usize) -> Codes {
        Codes::uniform(self.codes.as_chunks().0[group], f32::from_le_bytes(self.d), 0.0)
    }

    fn repack(&self, planes: &mut [&mut [u8]]) {
        planes[0].copy_from_slice(bytemuck::cast_slice(&self.codes));
        planes[1].copy_from_slice(&self.d);
    }

    fn set_scales(&mut self, scale: &mut dyn FnMut() -> f32) {
        let scale = scale();
        // A subnormal float too.
        let d = if scale.abs() < 3e-7 { scale * 1e-33 } else { scale };
        self.d = d.to_le_bytes();
    }
}
