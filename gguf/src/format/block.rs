//! A block's layout and decoding: what each format's file gives.

use bytemuck::Pod;

use super::{Instructions, PlainInstructions};

/// One plane of a repacked tensor: the same part of every block, contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    /// What it holds, for readers.
    pub name: &'static str,
    /// Bytes per block.
    pub block_bytes: usize,
}

/// 32 weights as codes: each is `scale * code + offset`, with a scale and an offset for each half of them.
#[derive(Debug, Clone, Copy)]
pub struct Codes {
    /// Signed codes.
    pub codes: [i8; 32],
    /// Scales of weights 0 to 15 and 16 to 31.
    pub scale: [f32; 2],
    /// Offsets of the same; 0 where [`Block::OFFSETS`] is false.
    pub offset: [f32; 2],
}

impl Codes {
    /// Codes that share a scale and an offset.
    #[inline(always)]
    pub(crate) fn uniform(codes: [i8; 32], scale: f32, offset: f32) -> Self {
        Self { codes, scale: [scale; 2], offset: [offset; 2] }
    }
}

/// A block as it lies in a file: bytes only, so any alignment will do.
pub trait Block: Pod + Send + Sync {
    /// Weights per block: 1 for formats of floats, else a multiple of 32.
    const WEIGHTS: usize;
    /// Where in the block halves lie (scales, minima), in bytes.
    const HALVES: &'static [usize];
    /// The planes that [`Block::repack`] fills, at most four.
    const PLANES: &'static [Plane];
    /// What kernels look codes up in, behind the planes.
    const TABLE: &'static [u32] = &[];
    /// Whether [`Codes::offset`] is ever other than 0.
    const OFFSETS: bool = false;

    /// Weights 32 `group` to 32 `group` + 31 as codes. Formats of floats have none.
    fn codes<I: Instructions>(&self, group: usize) -> Codes;

    /// Eight weights of a format of floats. Other formats have none.
    #[inline(always)]
    fn floats<I: Instructions>(_blocks: &[Self; 8]) -> [f32; 8] {
        [0.0; 8]
    }

    /// Writes the block's weights to `out`, which holds [`Block::WEIGHTS`] of them.
    #[inline(always)]
    fn decode(&self, out: &mut [f32]) {
        if Self::WEIGHTS == 1 {
            out[0] = Self::floats::<PlainInstructions>(&[*self; 8])[0];
            return;
        }
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let Codes { codes, scale, offset } = self.codes::<PlainInstructions>(group);
            for (half, (out, codes)) in
                out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0).enumerate()
            {
                for (out, &code) in out.iter_mut().zip(codes) {
                    let weight = f32::from(code) * scale[half];
                    // Adding 0 would turn -0 into 0.
                    *out = if Self::OFFSETS { weight + offset[half] } else { weight };
                }
            }
        }
    }

    /// Sets scales and minima, for making plausible blocks: `scale` gives numbers between -0.01 and 0.01.
    fn set_scales(&mut self, scale: &mut dyn FnMut() -> f32) {
        let bytes = bytemuck::bytes_of_mut(self);
        for &at in Self::HALVES {
            bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(scale()).to_le_bytes());
        }
    }

    /// Writes the block's part of each plane: `planes[i]` holds `PLANES[i].block_bytes`.
    ///
    /// In planes, 4-bit codes of 32 weights take 16 bytes, byte j holding weight j in its low half and
    /// weight j + 16 in its high half, whatever the order in the block: one kernel fits all. So do two bits
    /// (`pack_two_bits`) and one (`spread_high_bits`).
    fn repack(&self, planes: &mut [&mut [u8]]);
}
