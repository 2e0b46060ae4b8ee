//! Functions of floats in forms that become vector code.

use crate::model::spec::{Activation, GELU_CUBE, GELU_FACTOR};

/// e^x to about two units in the last place; 0 below -87, where results would be subnormal.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a polynomial (the coefficients of expf in the Cephes library,
/// Moshier 1992), 2^n by the exponent's bits.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let bounded = x.clamp(-87.0, 88.0);
    // Adding 1.5 * 2^23 rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (bounded - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut y = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        y = y * r + coefficient;
    }
    let power =
        f32::from_bits(((shifted.to_bits() as i32 - ROUND.to_bits() as i32 + 127) << 23) as u32);
    let y = (y * r * r + r + 1.0) * power;
    if x < -87.0 { 0.0 } else { y }
}

/// The activation of a gate.
#[inline(always)]
pub(super) fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + exp(-x)),
        Activation::Gelu => {
            let inner = GELU_FACTOR as f32 * (x + GELU_CUBE as f32 * x * x * x);
            // 0.5 (1 + tanh y) = 1 / (1 + e^-2y)
            x / (1.0 + exp(-2.0 * inner))
        }
    }
}

/// y = x w / sqrt(mean(x^2) + epsilon), stored in `out` or added to it.
pub(super) fn rms_norm(x: &[f32], factors: &[f32], epsilon: f32, add: bool, out: &mut [f32]) {
    let squares: f32 = x.chunks(16).map(|chunk| chunk.iter().map(|x| x * x).sum::<f32>()).sum();
    let scale = 1.0 / (squares / x.len() as f32 + epsilon).sqrt();
    for ((out, &x), &factor) in out.iter_mut().zip(x).zip(factors) {
        let y = x * scale * factor;
        *out = if add { *out + y } else { y };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_a_few_units() {
        let mut worst = 0f64;
        for index in -870_000..880_000 {
            let x = index as f32 / 10_000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert_eq!((exp(-88.0), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
    }

    #[test]
    fn activations_are_the_formulas() {
        for index in -2000..2000 {
            let x = f64::from(index) / 100.0;
            let silu = x / (1.0 + (-x).exp());
            let inner = GELU_FACTOR * (x + GELU_CUBE * x * x * x);
            let gelu = 0.5 * x * (1.0 + inner.tanh());
            for (activation, exact) in [(Activation::Silu, silu), (Activation::Gelu, gelu)] {
                let ours = f64::from(activate(x as f32, activation));
                assert!((ours - exact).abs() < 1e-6 * (1.0 + x.abs()), "{x}: {ours} {exact}");
            }
        }
    }
}
