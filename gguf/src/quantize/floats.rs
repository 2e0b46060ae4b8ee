//! Formats whose codes choose among uneven values.

use super::{half, inverse, nearest, pack_nibbles};
use crate::format::{iq4_nl, mxfp4, nvfp4};

/// The code whose value times `scale` is nearest to `x`; of two equally near ones the first.
fn nearest_value(values: &[i8; 16], scale: f32, x: f32) -> u8 {
    let error = |code: u8| (f32::from(values[usize::from(code)]) * scale - x).abs();
    (1..16).fold(0, |best, code| if error(code) < error(best) { code } else { best })
}

fn largest(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |largest, x| f32::max(largest, x.abs()))
}

/// The power of two that leaves the largest magnitude between 4 and 8: at most 6 can be said (`quantize_row_mxfp4_ref`).
pub(super) fn mxfp4(weights: &[f32], block: &mut [u8]) {
    let largest = largest(weights);
    // Of numbers below 2^-125 the exponent wraps, as it does in ggml, and every code is 0.
    let exponent = if largest > 0.0 { (largest.log2().floor() as i32 + 125) as u8 } else { 0 };
    block[0] = exponent;
    let scale = mxfp4::power(exponent);
    let codes: Vec<u8> = weights.iter().map(|&x| nearest_value(&mxfp4::VALUES, scale, x)).collect();
    pack_nibbles(&codes, &mut block[1..]);
}

/// A positive number as UE4M3, the nearest one up to 240, else 448; ties go up (`ggml_fp32_to_ue4m3`).
fn to_eight_bits(x: f32) -> u8 {
    if x <= 0.0 {
        return 0;
    }
    let x = x.min(448.0);
    if x < 1.0 / 64.0 {
        // Subnormal: steps of 2^-9.
        return ((x * 512.0 + 0.5) as u8).min(7);
    }
    // Exponent and three bits of mantissa side by side: rounding carries from one to the other.
    let rounded = (x.to_bits() + (1 << 19)) >> 20;
    let code = rounded - (120 << 3);
    // As ggml has it, the greatest exponent goes with the greatest mantissa only.
    if code < 0x78 { code as u8 } else { 0x7e }
}

/// Each 16 weights so that the largest magnitude becomes 6 (`quantize_row_nvfp4_ref`).
pub(super) fn nvfp4(weights: &[f32], block: &mut [u8]) {
    let (scales, codes) = block.split_at_mut(4);
    for ((weights, scale), out) in
        weights.chunks_exact(16).zip(scales).zip(codes.chunks_exact_mut(8))
    {
        *scale = to_eight_bits(largest(weights) / 6.0);
        let scale = nvfp4::eight_bit_float(*scale);
        let codes: Vec<u8> =
            weights.iter().map(|&x| nearest_value(&mxfp4::VALUES, scale, x)).collect();
        pack_nibbles(&codes, out);
    }
}

/// The code of IQ4_NL's value nearest to `x`; of two equally near ones the greater.
fn nearest_of_sixteen(x: f32) -> u8 {
    let values = &iq4_nl::VALUES;
    let above = values.iter().position(|&value| x < f32::from(value)).unwrap_or(15);
    if above == 0 || x >= f32::from(values[15]) {
        return above as u8;
    }
    let (low, high) = (f32::from(values[above - 1]), f32::from(values[above]));
    if x - low < high - x { above as u8 - 1 } else { above as u8 }
}

/// The scale of 32 weights: of 16 guesses that put the extreme near the lowest value, the one whose codes, refitted by
/// least squares weighted by the weights' squares, explain most (`quantize_row_iq4_nl_impl`).
fn fitted_scale(weights: &[f32]) -> f32 {
    let extreme = super::extreme(weights);
    if extreme.abs() < super::search::ALL_ZERO {
        return 0.0;
    }
    let lowest = f32::from(iq4_nl::VALUES[0]);
    let fit = |factor: f32| {
        weights.iter().fold((0.0, 0.0), |(product, square), &x| {
            let value = f32::from(iq4_nl::VALUES[usize::from(nearest_of_sixteen(factor * x))]);
            let importance = x * x;
            (product + importance * value * x, square + importance * value * value)
        })
    };
    let (product, square) = fit(1.0 / (-extreme / lowest));
    let mut scale = if square > 0.0 { product / square } else { 0.0 };
    let mut best = scale * product;
    for guess in -7i8..=7 {
        let (product, square) = fit((f32::from(guess) + lowest) / extreme);
        if square > 0.0 && product * product > best * square {
            scale = product / square;
            best = scale * product;
        }
    }
    scale
}

fn codes_by(weights: &[f32], scale: f32, out: &mut [u8]) {
    let factor = inverse(scale);
    let codes: Vec<u8> = weights.iter().map(|&x| nearest_of_sixteen(factor * x)).collect();
    pack_nibbles(&codes, out);
}

pub(super) fn iq4_nl(weights: &[f32], block: &mut [u8]) {
    let scale = fitted_scale(weights);
    block[..2].copy_from_slice(&half(scale));
    codes_by(weights, scale, &mut block[2..]);
}

pub(super) fn iq4_xs(weights: &[f32], block: &mut [u8]) {
    let groups: Vec<&[f32]> = weights.chunks_exact(32).collect();
    let scales: Vec<f32> = groups.iter().map(|group| fitted_scale(group)).collect();
    let d = -super::extreme(&scales) / 32.0;
    let factor = inverse(d);
    block[..8].fill(0);
    block[..2].copy_from_slice(&half(d));
    let mut high = 0u16;
    for (g, (group, scale)) in groups.iter().zip(scales).enumerate() {
        let steps = nearest(factor * scale).clamp(-32, 31);
        codes_by(group, d * steps as f32, &mut block[8 + 16 * g..][..16]);
        let stored = (steps + 32) as u16;
        block[4 + g / 2] |= ((stored & 15) as u8) << (4 * (g % 2));
        high |= stored >> 4 << (2 * g);
    }
    block[2..4].copy_from_slice(&high.to_le_bytes());
}
