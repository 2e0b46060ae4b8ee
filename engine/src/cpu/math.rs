//! Functions of floats in forms that become vector code.

use super::vector::{InstructionSet, with_set};
use crate::spec::{Activation, CLAMPED_FACTOR, CLAMPED_LIMIT, GELU_CUBE, GELU_FACTOR, NormKind};

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

/// Lanes of sums and maxima, which the compiler makes vector code of.
const LANES: usize = 16;

/// The largest of some numbers and `max`.
#[inline(always)]
pub(super) fn largest(numbers: &[f32], max: f32) -> f32 {
    // Unlike `max`, a comparison is one instruction for all lanes.
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let (lanes, rest) = numbers.as_chunks::<LANES>();
    let mut most = [max; LANES];
    for numbers in lanes {
        most = std::array::from_fn(|lane| larger(numbers[lane], most[lane]));
    }
    most.into_iter().chain(rest.iter().copied()).fold(max, larger)
}

/// e^(x - max) in place of each x; answers their sum.
#[inline(always)]
pub(super) fn exp_each(numbers: &mut [f32], max: f32) -> f32 {
    let mut sums = [0.0; LANES];
    let mut add = |(x, sum): (&mut f32, &mut f32)| {
        *x = exp(*x - max);
        *sum += *x;
    };
    let (lanes, rest) = numbers.as_chunks_mut::<LANES>();
    for numbers in lanes {
        numbers.iter_mut().zip(&mut sums).for_each(&mut add);
    }
    rest.iter_mut().zip(&mut sums).for_each(&mut add);
    sums.into_iter().sum()
}

/// tanh x to a few units in the last place.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    // 1 - 2 / (e^2x + 1) loses small x to rounding: there a polynomial (the coefficients of tanhf in the Cephes library,
    // Moshier 1992).
    let square = x * x;
    let mut y = -5.704_988_7e-3;
    for coefficient in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        y = y * square + coefficient;
    }
    if x.abs() < 0.625 { y * square * x + x } else { 1.0 - 2.0 / (exp(2.0 * x) + 1.0) }
}

/// The activation of one number.
#[inline(always)]
pub(super) fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + exp(-x)),
        Activation::Sigmoid => 1.0 / (1.0 + exp(-x)),
        Activation::Gelu => {
            let inner = GELU_FACTOR as f32 * (x + GELU_CUBE as f32 * x * x * x);
            // 0.5 (1 + tanh y) = 1 / (1 + e^-2y)
            x / (1.0 + exp(-2.0 * inner))
        }
        Activation::ClampedSwiglu => {
            let x = x.min(CLAMPED_LIMIT as f32);
            x / (1.0 + exp(-CLAMPED_FACTOR as f32 * x))
        }
    }
}

/// activation(gate) * up.
#[inline(always)]
fn gate_times_up(gate: f32, up: f32, activation: Activation) -> f32 {
    let limit = CLAMPED_LIMIT as f32;
    let up =
        if activation == Activation::ClampedSwiglu { up.clamp(-limit, limit) + 1.0 } else { up };
    activate(gate, activation) * up
}

/// activation(gate) * up, element by element.
pub(super) fn gate_row(
    set: InstructionSet,
    (gate, up): (&[f32], &[f32]),
    activation: Activation,
    out: &mut [f32],
) {
    with_set!(set, |_V, gate: &[f32], up: &[f32], activation: Activation, out: &mut [f32]| {
        // The compiler makes vector code of it by itself.
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate_times_up(gate, up, activation);
        }
    });
}

/// What x less its mean (0 where `kind` takes none) is multiplied by, and that mean. `count` of x are numbers, the others
/// zeros (behind them, where a mean is taken).
#[inline(always)]
pub(super) fn norm_scale(x: &[f32], kind: NormKind, epsilon: f32, count: usize) -> (f32, f32) {
    let x = if kind == NormKind::Layer { &x[..count] } else { x };
    let sum = |f: &dyn Fn(f32) -> f32| -> f32 {
        x.chunks(16).map(|chunk| chunk.iter().map(|&x| f(x)).sum::<f32>()).sum()
    };
    let count = count as f32;
    match kind {
        NormKind::Rms => {
            let squares: f32 =
                x.chunks(16).map(|chunk| chunk.iter().map(|x| x * x).sum::<f32>()).sum();
            (1.0 / (squares / count + epsilon).sqrt(), 0.0)
        }
        NormKind::L2 => (1.0 / (sum(&|x| x * x) + epsilon).sqrt(), 0.0),
        NormKind::Layer => {
            let mean = sum(&|x| x) / count;
            (1.0 / (sum(&|x| (x - mean) * (x - mean)) / count + epsilon).sqrt(), mean)
        }
    }
}

/// A norm of x times factors, plus a bias, stored in `out` or added to it.
pub(super) fn norm(
    x: &[f32],
    kind: NormKind,
    (factors, bias): (&[f32], Option<&[f32]>),
    (epsilon, count): (f32, usize),
    add: bool,
    out: &mut [f32],
) {
    let (scale, mean) = norm_scale(x, kind, epsilon, count);
    for ((out, &x), &factor) in out.iter_mut().zip(x).zip(factors) {
        let y = (x - mean) * scale * factor;
        *out = if add { *out + y } else { y };
    }
    if let Some(bias) = bias {
        for (out, bias) in out.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

/// A norm of x times factors, where there are some, in place.
pub(super) fn norm_in_place(
    x: &mut [f32],
    kind: NormKind,
    factors: Option<&[f32]>,
    (epsilon, count): (f32, usize),
) {
    let (scale, mean) = norm_scale(x, kind, epsilon, count);
    for (index, x) in x.iter_mut().enumerate() {
        *x = (*x - mean) * scale * factors.map_or(1.0, |factors| factors[index]);
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
    fn tanh_is_exact_to_a_few_units() {
        for index in -30_000..30_000 {
            let x = index as f32 / 3000.0;
            let error = (f64::from(tanh(x)) - f64::from(x).tanh()).abs();
            assert!(error < 3e-7 * f64::from(x.abs()).min(1.0) + 1e-9, "{x}: {error:e}");
        }
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
