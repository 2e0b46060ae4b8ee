//! Searches for the scale, or scale and minimum, with which a group's codes come nearest to its weights.
//!
//! The sums are in the order of ggml's, one after another in f32: otherwise nearly equal candidates would win elsewhere.

use super::{extreme, nearest};

/// Groups whose weights are smaller count as 0 (`GROUP_MAX_EPS` in ggml-quants.c).
pub(super) const ALL_ZERO: f32 = 1e-15;

/// How [`scale_and_minimum`] searches.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    /// The largest code.
    pub top: i32,
    /// By how much more than `top` codes the range is divided at first, and each step's increment.
    pub first: f32,
    pub increment: f32,
    pub last: i32,
    /// Whether errors count by magnitude rather than by square.
    pub magnitudes: bool,
}

/// Codes 0 to `top` with `weight = scale * code - minimum`, `minimum` at least 0: each division of the range, whose lower end moves with what
/// was found, is refitted by least squares weighted by `importance`, and the one of the least weighted error taken (`make_qkx2_quants` in
/// ggml-quants.c). Returns scale and minimum.
pub(super) fn scale_and_minimum(
    weights: &[f32],
    importance: &[f32],
    steps: Steps,
    codes: &mut [u8],
) -> (f32, f32) {
    let least = weights.iter().fold(weights[0], |least, &x| if x < least { x } else { least });
    let greatest =
        weights.iter().fold(weights[0], |greatest, &x| if x > greatest { x } else { greatest });
    let mut sum = importance[0];
    let mut sum_weights = sum * weights[0];
    for (x, w) in weights.iter().zip(importance).skip(1) {
        sum += w;
        sum_weights += w * x;
    }
    let mut minimum = if least > 0.0 { 0.0 } else { least };
    if greatest == minimum {
        codes.fill(0);
        return (0.0, -minimum);
    }
    let top = steps.top;
    let code = |factor: f32, minimum: f32, x: f32| nearest(factor * (x - minimum)).clamp(0, top);
    let error = |scale: f32, minimum: f32, codes: &[u8]| {
        let mut error = 0.0;
        for ((x, w), &code) in weights.iter().zip(importance).zip(codes) {
            let difference = scale * f32::from(code) + minimum - x;
            error += w * if steps.magnitudes { difference.abs() } else { difference * difference };
        }
        error
    };
    let factor = top as f32 / (greatest - minimum);
    let mut scale = 1.0 / factor;
    for (out, &x) in codes.iter_mut().zip(weights) {
        *out = code(factor, minimum, x) as u8;
    }
    let mut best = error(scale, minimum, codes);
    let mut candidate = [0; 32];
    let candidate = &mut candidate[..weights.len()];
    for step in 0..=steps.last {
        let factor =
            (steps.first + steps.increment * step as f32 + top as f32) / (greatest - minimum);
        let (mut sum_codes, mut sum_squares, mut sum_products) = (0.0, 0.0, 0.0);
        for ((out, &x), w) in candidate.iter_mut().zip(weights).zip(importance) {
            let code = code(factor, minimum, x);
            *out = code as u8;
            let code = code as f32;
            sum_codes += w * code;
            sum_squares += w * code * code;
            sum_products += w * code * x;
        }
        let determinant = sum * sum_squares - sum_codes * sum_codes;
        if determinant <= 0.0 {
            continue;
        }
        let mut new_scale = (sum * sum_products - sum_weights * sum_codes) / determinant;
        let mut new_minimum = (sum_squares * sum_weights - sum_codes * sum_products) / determinant;
        if new_minimum > 0.0 {
            new_minimum = 0.0;
            new_scale = sum_products / sum_squares;
        }
        let error = error(new_scale, new_minimum, candidate);
        if error < best {
            codes.copy_from_slice(candidate);
            (best, scale, minimum) = (error, new_scale, new_minimum);
        }
    }
    (scale, -minimum)
}

/// Sums of `square of the weight * weight * code` and `square of the weight * code * code`.
fn sums(weights: &[f32], codes: impl Fn(f32) -> i32) -> (f32, f32) {
    weights.iter().fold((0.0, 0.0), |(product, square), &x| {
        let (importance, code) = (x * x, codes(x) as f32);
        (product + importance * x * code, square + importance * code * code)
    })
}

/// Codes `-half` to `half - 1`, stored with `half` added, with `weight = scale * code`: of 19 scales about the one that
/// gives the extreme code `-half`, refitted, the one that explains most (`make_qx_quants` in ggml-quants.c with squares as
/// weights). Returns the scale.
pub(super) fn scale_of_nineteen(weights: &[f32], half: i32, codes: &mut [u8]) -> f32 {
    let extreme = extreme(weights);
    if extreme.abs() < ALL_ZERO {
        codes.fill(0);
        return 0.0;
    }
    let code = |factor: f32, x: f32| nearest(factor * x).clamp(-half, half - 1);
    let mut chosen = -half as f32 / extreme;
    let (product, square) = sums(weights, |x| code(chosen, x));
    let mut scale = if square == 0.0 { 0.0 } else { product / square };
    let mut best = scale * product;
    for step in (-9i8..=9).filter(|&step| step != 0) {
        let factor = -(half as f32 + 0.1 * f32::from(step)) / extreme;
        let (product, square) = sums(weights, |x| code(factor, x));
        if square > 0.0 && product * product > best * square {
            chosen = factor;
            scale = product / square;
            best = scale * product;
        }
    }
    for (out, &x) in codes.iter_mut().zip(weights) {
        *out = (code(chosen, x) + half) as u8;
    }
    scale
}

/// As [`scale_of_nineteen`], but from one scale: each code in turn moves to where the other codes' fit wants it, as long
/// as that explains more, at most five times round (`make_q3_quants` in ggml-quants.c).
pub(super) fn scale_by_turns(weights: &[f32], half: i32, codes: &mut [u8]) -> f32 {
    let extreme = extreme(weights);
    if extreme.abs() < ALL_ZERO {
        codes.fill(0);
        return 0.0;
    }
    let factor = -half as f32 / extreme;
    let code = |x: f32| nearest(x).clamp(-half, half - 1);
    let (mut product, mut square) = sums(weights, |x| code(factor * x));
    let mut signed: Vec<i32> = weights.iter().map(|&x| code(factor * x)).collect();
    for _ in 0..5 {
        let mut changed = false;
        for (current, &x) in signed.iter_mut().zip(weights) {
            let importance = x * x;
            let old = *current as f32;
            let mut other_product = product - importance * x * old;
            if other_product <= 0.0 {
                continue;
            }
            let mut other_square = square - importance * old * old;
            let moved = code(x * other_square / other_product);
            if moved == *current {
                continue;
            }
            let new = moved as f32;
            other_product += importance * x * new;
            other_square += importance * new * new;
            if other_square > 0.0
                && other_product * other_product * square > product * product * other_square
            {
                *current = moved;
                (product, square) = (other_product, other_square);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    for (out, code) in codes.iter_mut().zip(signed) {
        *out = (code + half) as u8;
    }
    if square > 0.0 { product / square } else { 0.0 }
}
