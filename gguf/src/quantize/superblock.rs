//! K formats: a scale (and minimum) for each group by search, those rounded to steps of the superblock's own scale, then the
//! codes again with what the rounding left (`quantize_row_*_K_ref` in ggml-quants.c).

use super::search::{ALL_ZERO, Steps, scale_and_minimum, scale_by_turns, scale_of_nineteen};
use super::{extreme, half, nearest, pack_nibbles, pack_runs, through_half};

/// What the superblock's groups became: codes, and the steps of scales and minima.
struct Groups {
    codes: [u8; 256],
    scales: [u8; 16],
    minima: [u8; 16],
    /// The scale of the scales, a half.
    d: [u8; 2],
    /// The scale of the minima, a half.
    dmin: [u8; 2],
}

/// Groups of `group` weights with scales and minima of 0 to `top` steps.
fn with_minima(
    weights: &[f32],
    group: usize,
    top: u8,
    steps: Steps,
    importance: impl Fn(&[f32], &mut [f32]),
) -> Groups {
    let count = 256 / group;
    let mut codes = [0; 256];
    let (mut scales, mut minima) = ([0.0f32; 16], [0.0f32; 16]);
    let mut weight = [0.0; 32];
    for (j, (weights, codes)) in
        weights.chunks_exact(group).zip(codes.chunks_exact_mut(group)).enumerate()
    {
        importance(weights, &mut weight[..group]);
        (scales[j], minima[j]) = scale_and_minimum(weights, &weight[..group], steps, codes);
    }
    let top = f32::from(top);
    let stepped = |values: &[f32]| {
        let largest =
            values.iter().fold(0.0f32, |largest, &x| if x > largest { x } else { largest });
        let factor = if largest > 0.0 { top / largest } else { 0.0 };
        let mut out = [0; 16];
        for (out, value) in out.iter_mut().zip(values) {
            *out = nearest(factor * value).min(top as i32) as u8;
        }
        (largest / top, out)
    };
    let ((d, scales), (dmin, minima)) = (stepped(&scales[..count]), stepped(&minima[..count]));
    for (j, (weights, codes)) in
        weights.chunks_exact(group).zip(codes.chunks_exact_mut(group)).enumerate()
    {
        let scale = through_half(d) * f32::from(scales[j]);
        let minimum = through_half(dmin) * f32::from(minima[j]);
        if scale == 0.0 {
            continue;
        }
        for (code, x) in codes.iter_mut().zip(weights) {
            *code = nearest((x + minimum) / scale).clamp(0, steps.top) as u8;
        }
    }
    Groups { codes, scales, minima, d: half(d), dmin: half(dmin) }
}

pub(super) fn q2_k(weights: &[f32], block: &mut [u8]) {
    let steps = Steps { top: 3, first: -0.5, increment: 0.1, last: 15, magnitudes: true };
    let groups = with_minima(weights, 16, 15, steps, |weights, out| {
        for (out, x) in out.iter_mut().zip(weights) {
            *out = x.abs();
        }
    });
    for ((out, scale), minimum) in block.iter_mut().zip(groups.scales).zip(groups.minima) {
        *out = scale | minimum << 4;
    }
    pack_runs(&groups.codes, &mut block[16..80]);
    block[80..82].copy_from_slice(&groups.d);
    block[82..].copy_from_slice(&groups.dmin);
}

/// What a weight counts in Q4_K and Q5_K: its magnitude and the group's root mean square.
fn magnitude_and_mean(weights: &[f32], out: &mut [f32]) {
    let squares = weights.iter().fold(0.0, |sum, x| sum + x * x);
    let mean = (squares / weights.len() as f32).sqrt();
    for (out, x) in out.iter_mut().zip(weights) {
        *out = mean + x.abs();
    }
}

/// The two halves and the twelve bytes of scales and minima: what [`crate::format::q4_k`] reads.
fn pack_scales(groups: &Groups, out: &mut [u8]) {
    out[..2].copy_from_slice(&groups.d);
    out[2..4].copy_from_slice(&groups.dmin);
    let packed = &mut out[4..16];
    for j in 0..4 {
        let (low, high) = (j, j + 4);
        packed[low] = groups.scales[low] | groups.scales[high] >> 4 << 6;
        packed[j + 4] = groups.minima[low] | groups.minima[high] >> 4 << 6;
        packed[j + 8] = groups.scales[high] & 15 | (groups.minima[high] & 15) << 4;
    }
}

/// Four bits of each code: runs of 64 weights, the first 32 in the low halves.
fn pack_runs_of_nibbles(codes: &[u8], out: &mut [u8]) {
    for (codes, out) in codes.chunks_exact(64).zip(out.chunks_exact_mut(32)) {
        pack_nibbles(codes, out);
    }
}

pub(super) fn q4_k(weights: &[f32], block: &mut [u8]) {
    let steps = Steps { top: 15, first: -1.0, increment: 0.1, last: 20, magnitudes: false };
    let groups = with_minima(weights, 32, 63, steps, magnitude_and_mean);
    pack_scales(&groups, &mut block[..16]);
    pack_runs_of_nibbles(&groups.codes, &mut block[16..]);
}

pub(super) fn q5_k(weights: &[f32], block: &mut [u8]) {
    let steps = Steps { top: 31, first: -0.5, increment: 0.1, last: 15, magnitudes: false };
    let groups = with_minima(weights, 32, 63, steps, magnitude_and_mean);
    pack_scales(&groups, &mut block[..16]);
    let (high, low) = block[16..].split_at_mut(32);
    for (j, out) in high.iter_mut().enumerate() {
        *out = (0..8).map(|group| (groups.codes[32 * group + j] >> 4) << group).sum();
    }
    pack_runs_of_nibbles(&groups.codes, low);
}

/// The codes again, `offset` added, with each group's rounded scale.
fn recode(weights: &[f32], scales: &[f32; 16], offset: i32, codes: &mut [u8; 256]) {
    for ((weights, codes), &scale) in
        weights.chunks_exact(16).zip(codes.chunks_exact_mut(16)).zip(scales)
    {
        if scale == 0.0 {
            continue;
        }
        for (code, x) in codes.iter_mut().zip(weights) {
            *code = (nearest(x / scale).clamp(-offset, offset - 1) + offset) as u8;
        }
    }
}

pub(super) fn q3_k(weights: &[f32], block: &mut [u8]) {
    let mut codes = [0; 256];
    let mut scales = [0.0; 16];
    for (j, (weights, codes)) in
        weights.chunks_exact(16).zip(codes.chunks_exact_mut(16)).enumerate()
    {
        scales[j] = scale_by_turns(weights, 4, codes);
    }
    let extreme = extreme(&scales);
    let (mut d, mut steps) = (0.0, [-32; 16]);
    if extreme != 0.0 {
        let factor = -32.0 / extreme;
        d = 1.0 / factor;
        steps = scales.map(|scale| nearest(factor * scale).clamp(-32, 31));
    }
    recode(weights, &steps.map(|steps| through_half(d) * steps as f32), 4, &mut codes);
    let (high, rest) = block.split_at_mut(32);
    for (j, out) in high.iter_mut().enumerate() {
        *out = (0..8).map(|group| (codes[32 * group + j] >> 2) << group).sum();
    }
    pack_runs(&codes, &mut rest[..64]);
    // With all scales 0, ggml's bytes are 0 too, which say -32.
    let stored = steps.map(|steps| (steps + 32) as u8);
    let packed = &mut rest[64..76];
    for j in 0..8 {
        packed[j] = stored[j] & 15 | (stored[j + 8] & 15) << 4;
    }
    for j in 0..4 {
        packed[8 + j] = (0..4).map(|n| (stored[j + 4 * n] >> 4) << (2 * n)).sum();
    }
    rest[76..].copy_from_slice(&half(d));
}

pub(super) fn q6_k(weights: &[f32], block: &mut [u8]) {
    let mut codes = [0; 256];
    let mut scales = [0.0; 16];
    for (j, (weights, codes)) in
        weights.chunks_exact(16).zip(codes.chunks_exact_mut(16)).enumerate()
    {
        scales[j] = scale_of_nineteen(weights, 32, codes);
    }
    let extreme = extreme(&scales);
    block.fill(0);
    if extreme.abs() < ALL_ZERO {
        return;
    }
    let factor = -128.0 / extreme;
    let d = 1.0 / factor;
    let steps = scales.map(|scale| nearest(factor * scale).min(127));
    recode(weights, &steps.map(|steps| through_half(d) * steps as f32), 32, &mut codes);
    let (low, rest) = block.split_at_mut(128);
    for (run, codes) in codes.chunks_exact(128).enumerate() {
        pack_nibbles(codes, &mut low[64 * run..][..64]);
        let high: Vec<u8> = codes.iter().map(|code| code >> 4).collect();
        pack_runs(&high, &mut rest[32 * run..][..32]);
    }
    for (out, steps) in rest[64..80].iter_mut().zip(steps) {
        *out = steps as i8 as u8;
    }
    rest[80..].copy_from_slice(&half(d));
}
