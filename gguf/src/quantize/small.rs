//! Formats with one scale a block, found from the block's extremes alone (`quantize_row_*_ref` in ggml-quants.c).

use super::{extreme, half, inverse, pack_nibbles, pack_runs, truncated};

/// Scale from the extreme so that it gets code `-center`, which two's complement has one more of.
fn centered(weights: &[f32], center: f32) -> (f32, impl Fn(f32) -> u8) {
    let scale = extreme(weights) / -center;
    let factor = inverse(scale);
    // Truncated: adding the half rounds what the center has made positive.
    (scale, move |x| truncated(x * factor + (center + 0.5)).min(2 * center as i32 - 1) as u8)
}

/// Scale and minimum that spread `top` + 1 codes over the block's range.
fn spread(weights: &[f32], top: f32) -> (f32, f32, impl Fn(f32) -> u8) {
    let minimum =
        weights.iter().fold(f32::MAX, |minimum, &x| if x < minimum { x } else { minimum });
    let maximum =
        weights.iter().fold(-f32::MAX, |maximum, &x| if x > maximum { x } else { maximum });
    let scale = (maximum - minimum) / top;
    let factor = inverse(scale);
    (scale, minimum, move |x| truncated((x - minimum) * factor + 0.5).min(top as i32) as u8)
}

/// Four low bits of each code to `low`, the fifth bits to `high`.
fn pack_five(codes: &[u8], high: &mut [u8], low: &mut [u8]) {
    let bits: u32 = codes.iter().enumerate().map(|(j, code)| u32::from(code >> 4) << j).sum();
    high.copy_from_slice(&bits.to_le_bytes());
    pack_nibbles(codes, low);
}

fn coded(weights: &[f32], code: impl Fn(f32) -> u8) -> [u8; 32] {
    let mut codes = [0; 32];
    for (out, &x) in codes.iter_mut().zip(weights) {
        *out = code(x);
    }
    codes
}

pub(super) fn q4_0(weights: &[f32], block: &mut [u8]) {
    let (scale, code) = centered(weights, 8.0);
    block[..2].copy_from_slice(&half(scale));
    pack_nibbles(&coded(weights, code), &mut block[2..]);
}

pub(super) fn q4_1(weights: &[f32], block: &mut [u8]) {
    let (scale, minimum, code) = spread(weights, 15.0);
    block[..2].copy_from_slice(&half(scale));
    block[2..4].copy_from_slice(&half(minimum));
    pack_nibbles(&coded(weights, code), &mut block[4..]);
}

pub(super) fn q5_0(weights: &[f32], block: &mut [u8]) {
    let (scale, code) = centered(weights, 16.0);
    let (scales, codes) = block.split_at_mut(2);
    scales.copy_from_slice(&half(scale));
    let (high, low) = codes.split_at_mut(4);
    pack_five(&coded(weights, code), high, low);
}

pub(super) fn q5_1(weights: &[f32], block: &mut [u8]) {
    let (scale, minimum, code) = spread(weights, 31.0);
    let (scales, codes) = block.split_at_mut(4);
    scales[..2].copy_from_slice(&half(scale));
    scales[2..].copy_from_slice(&half(minimum));
    let (high, low) = codes.split_at_mut(4);
    pack_five(&coded(weights, code), high, low);
}

pub(super) fn q8_0(weights: &[f32], block: &mut [u8]) {
    let scale = extreme(weights).abs() / 127.0;
    let factor = inverse(scale);
    block[..2].copy_from_slice(&half(scale));
    for (out, x) in block[2..].iter_mut().zip(weights) {
        *out = truncated((x * factor).round()) as u8;
    }
}

/// The sign of each weight, and the mean magnitude.
pub(super) fn q1_0(weights: &[f32], block: &mut [u8]) {
    let sum = weights.iter().fold(0.0, |sum, x| sum + x.abs());
    block[..2].copy_from_slice(&half(sum / weights.len() as f32));
    for (out, weights) in block[2..].iter_mut().zip(weights.chunks_exact(8)) {
        *out = weights.iter().enumerate().map(|(bit, &x)| u8::from(x >= 0.0) << bit).sum();
    }
}

/// -1, 0, 1 or 2 as 0 to 3, in units of the largest magnitude.
fn ternary(weights: &[f32]) -> (f32, impl Fn(f32) -> u8) {
    let scale = extreme(weights).abs();
    let factor = inverse(scale);
    (scale, move |x| (truncated((x * factor).round()) + 1).clamp(0, 3) as u8)
}

pub(super) fn q2_0(weights: &[f32], block: &mut [u8]) {
    let (scale, code) = ternary(weights);
    let infinite = inverse(scale).is_infinite();
    block[..2].copy_from_slice(&half(scale));
    for (out, weights) in block[2..].iter_mut().zip(weights.chunks_exact(4)) {
        // ggml's codes are 0 where the scale is too small for an inverse.
        let codes = weights.iter().map(|&x| if infinite { 0 } else { code(x) });
        *out = codes.enumerate().map(|(n, code)| code << (2 * n)).sum();
    }
}

pub(super) fn tq2_0(weights: &[f32], block: &mut [u8]) {
    let (scale, code) = ternary(weights);
    let codes: Vec<u8> = weights.iter().map(|&x| code(x)).collect();
    pack_runs(&codes, &mut block[..64]);
    block[64..].copy_from_slice(&half(scale));
}

pub(super) fn tq1_0(weights: &[f32], block: &mut [u8]) {
    let (scale, code) = ternary(weights);
    // Runs of bytes with so many digits each; a byte is the fraction of 243 that its digits make, of 256, rounded up.
    let (mut weights, mut out) = (weights, &mut block[..]);
    for (bytes, digits) in [(32, 5), (16, 5), (4, 4)] {
        for (j, out) in out[..bytes].iter_mut().enumerate() {
            let digit = |n| if n < digits { u16::from(code(weights[j + n * bytes])) } else { 0 };
            let value = (0..5).fold(0, |value, n| value * 3 + digit(n));
            *out = (value * 256).div_ceil(243) as u8;
        }
        weights = &weights[bytes * digits..];
        out = &mut out[bytes..];
    }
    out.copy_from_slice(&half(scale));
}
