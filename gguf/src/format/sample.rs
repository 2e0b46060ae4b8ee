//! Plausible blocks, for tests and measurements.

use super::{Block, Format};

impl Format {
    /// Makes plausible blocks of `weights` weights for tests and measurements: random codes, weights of about 0.1 and at
    /// most a few. Of scales that are halves one in eight is subnormal, as K-quants' often are; of those that are floats or
    /// powers of two (Q8_K, MXFP4) one in some 800, since processors take long over subnormal floats.
    pub fn sample(self, seed: u64, weights: usize) -> Vec<u8> {
        let mut random = Random(seed);
        let mut bytes = vec![0; self.bytes(weights)];
        match self {
            Format::F32 => {
                for chunk in bytes.chunks_exact_mut(4) {
                    chunk.copy_from_slice(&random.weight().to_le_bytes());
                }
            }
            Format::F16 => {
                for chunk in bytes.chunks_exact_mut(2) {
                    chunk.copy_from_slice(&half::f16::from_f32(random.weight()).to_le_bytes());
                }
            }
            Format::BF16 => {
                for chunk in bytes.chunks_exact_mut(2) {
                    chunk.copy_from_slice(&half::bf16::from_f32(random.weight()).to_le_bytes());
                }
            }
            _ => {
                bytes.fill_with(|| (random.next() >> 32) as u8);
                let mut scale = || {
                    let size = if random.next().is_multiple_of(8) { 3e-5 } else { 0.01 };
                    random.weight() * size
                };
                with_block!(self, B => {
                    for block in bytemuck::cast_slice_mut::<u8, B>(&mut bytes) {
                        block.set_scales(&mut scale);
                    }
                });
            }
        }
        bytes
    }
}

/// A small generator of reproducible numbers (SplitMix64; Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number between -1 and 1.
    fn weight(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }
}
