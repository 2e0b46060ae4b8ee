//! Weights into blocks: the other way than [`Format::decode`], for the formats that need no importance matrix.
//!
//! Blocks are those that ggml's quantiser makes without such a matrix, bit for bit: the same searches, the same order of
//! operations, no fused multiplication. A test compares whole models with files that ggml made.

mod floats;
mod mix;
mod rewrite;
mod search;
mod small;
mod superblock;

pub use mix::{Mix, fitting};
pub use rewrite::Rewrite;

use crate::Format;

/// Writes whole blocks: weights in, bytes of blocks out.
type Quantizer = fn(&[f32], &mut [u8]);

impl Format {
    /// Makes blocks of weights, whose number is a multiple of [`Format::block_size`] and which are finite; none where the
    /// format needs an importance matrix, or is one of activations.
    pub fn quantize(self, weights: &[f32]) -> Option<Vec<u8>> {
        let mut blocks = vec![0; self.bytes(weights.len())];
        self.quantize_into(weights, &mut blocks)?;
        Some(blocks)
    }

    /// The same into blocks that there are already.
    pub fn quantize_into(self, weights: &[f32], blocks: &mut [u8]) -> Option<()> {
        let quantizer = self.quantizer()?;
        let (size, bytes) = (self.block_size(), self.block_bytes());
        for (weights, block) in weights.chunks_exact(size).zip(blocks.chunks_exact_mut(bytes)) {
            quantizer(weights, block);
        }
        Some(())
    }

    /// Whether [`Format::quantize`] knows the format.
    pub fn can_quantize(self) -> bool {
        self.quantizer().is_some()
    }

    fn quantizer(self) -> Option<Quantizer> {
        Some(match self {
            Format::F32 => |weights, block| block.copy_from_slice(&weights[0].to_le_bytes()),
            Format::F16 => |weights, block| block.copy_from_slice(&half(weights[0])),
            Format::BF16 => |weights, block| {
                block.copy_from_slice(&half::bf16::from_f32(weights[0]).to_le_bytes());
            },
            Format::Q4_0 => small::q4_0,
            Format::Q4_1 => small::q4_1,
            Format::Q5_0 => small::q5_0,
            Format::Q5_1 => small::q5_1,
            Format::Q8_0 => small::q8_0,
            Format::Q1_0 => small::q1_0,
            Format::Q2_0 => small::q2_0,
            Format::TQ1_0 => small::tq1_0,
            Format::TQ2_0 => small::tq2_0,
            Format::MXFP4 => floats::mxfp4,
            Format::NVFP4 => floats::nvfp4,
            Format::IQ4_NL => floats::iq4_nl,
            Format::IQ4_XS => floats::iq4_xs,
            Format::Q2_K => superblock::q2_k,
            Format::Q3_K => superblock::q3_k,
            Format::Q4_K => superblock::q4_k,
            Format::Q5_K => superblock::q5_k,
            Format::Q6_K => superblock::q6_k,
            _ => return None,
        })
    }
}

/// A half's bytes, the nearest one.
fn half(x: f32) -> [u8; 2] {
    half::f16::from_f32(x).to_le_bytes()
}

/// What a float becomes by way of a half.
fn through_half(x: f32) -> f32 {
    half::f16::from_f32(x).to_f32()
}

/// The nearest whole number, of two equally near ones the even one, for numbers of up to 22 bits: adding 1.5 * 2^23 rounds.
/// Of greater ones, which only subnormal weights lead to, what ggml's `nearest_int` makes.
fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x7f_ffff) as i32 - 0x40_0000
}

/// A number without its fraction; 0 for infinite ones. Those come from scales whose inverse is too large for f32, and
/// such a scale is 0 as a half, whatever the codes.
fn truncated(x: f32) -> i32 {
    if x.is_finite() { x as i32 } else { 0 }
}

/// `1 / x`, or 0 for 0.
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The number furthest from 0, with its sign; of several the first.
fn extreme(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0f32, |extreme, &x| if x.abs() > extreme.abs() { x } else { extreme })
}

/// Codes of four bits, weight j in the low half of byte j and weight j + half the number in its high half.
fn pack_nibbles(codes: &[u8], out: &mut [u8]) {
    let (low, high) = codes.split_at(codes.len() / 2);
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = low & 15 | (high & 15) << 4;
    }
}

/// Codes of two bits of 128 weights a run of 32 bytes: weights j, j + 32, j + 64, j + 96 in byte j.
fn pack_runs(codes: &[u8], out: &mut [u8]) {
    for (codes, out) in codes.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
        for (j, out) in out.iter_mut().enumerate() {
            *out = (0..4).map(|n| (codes[j + 32 * n] & 3) << (2 * n)).sum();
        }
    }
}
