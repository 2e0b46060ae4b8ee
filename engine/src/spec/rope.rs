//! Rotary position embedding: pairs of a head's elements turned by an angle that grows with the position.
//!
//! Angles are computed in f64 on the host, for every executor: at position 131,071 an f32 angle is off by
//! 0.008. Formulas: Su et al. 2021 (arXiv 2104.09864), YaRN: Peng et al. 2023 (arXiv 2309.00071), with
//! the details of llama.cpp's `ggml_rope_ext`.

use std::f64::consts::PI;

/// Which elements of a head form pair j.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// Elements 2j and 2j + 1 (llama.cpp's NORM).
    Interleaved,
    /// Elements j and j + n/2 (llama.cpp's NEOX).
    Halves,
}

/// One kind of rotation.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Which elements form a pair.
    pub style: RopeStyle,
    /// Elements of a head that turn, from its start; the rest pass.
    pub dimensions: usize,
    /// The base of the geometric series of frequencies.
    pub base: f64,
    /// How positions are stretched beyond the trained context.
    pub scaling: RopeScaling,
    /// Which tensors of the file divide the frequencies.
    pub factors: RopeFactors,
    /// Pairs that turn by time, height, width and something else, interleaved (llama.cpp's IMROPE): in a text the first
    /// three are the position, and the last is 0.
    pub sections: Option<[usize; 4]>,
}

/// Stretching of positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Positions divided by `factor` (1: as they are); cosine and sine times `magnitude`.
    Linear {
        /// The divisor.
        factor: f64,
        /// `attn_factor`, usually 1.
        magnitude: f64,
    },
    /// YaRN: low frequencies divided by `factor`, high ones kept, a ramp between.
    Yarn {
        /// The divisor.
        factor: f64,
        /// What cosine and sine are multiplied by, YaRN's own magnitude included.
        magnitude: f64,
        /// The context the model was first trained for.
        original_context: f64,
        /// Rotations over the original context above which a pair is kept.
        beta_fast: f64,
        /// Rotations below which a pair is divided fully.
        beta_slow: f64,
    },
}

/// Tensors that divide the frequencies, one element a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeFactors {
    /// None.
    None,
    /// `rope_freqs.weight` if the file has it (llama3), or `rope_factors_long.weight` and
    /// `rope_factors_short.weight` (longrope): long if the context exceeds `original_context`.
    File {
        /// The context the model was first trained for.
        original_context: usize,
    },
}

/// The angles of one kind of rotation, ready for positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which elements form a pair.
    pub style: RopeStyle,
    /// Radians per position of each pair.
    pub frequencies: Vec<f64>,
    /// What cosine and sine are multiplied by.
    pub magnitude: f64,
}

impl Rope {
    /// Computes the frequencies; `factors` divides them, one element a pair.
    pub fn new(spec: &RopeSpec, factors: Option<&[f32]>) -> Self {
        let mut rope = Self::without_sections(spec, factors);
        if let Some([time, height, width, rest]) = spec.sections {
            let all = (time + height + width + rest).max(1);
            for (pair, frequency) in rope.frequencies.iter_mut().enumerate() {
                let k = pair % all;
                let of_position = k < 3 * [time, height, width][k % 3];
                if !of_position {
                    *frequency = 0.0;
                }
            }
        }
        rope
    }

    fn without_sections(spec: &RopeSpec, factors: Option<&[f32]>) -> Self {
        let n = spec.dimensions as f64;
        let pairs = spec.dimensions / 2;
        let plain = |pair: usize| {
            let divisor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
            spec.base.powf(-2.0 * pair as f64 / n) / divisor
        };
        match spec.scaling {
            RopeScaling::Linear { factor, magnitude } => Self {
                style: spec.style,
                frequencies: (0..pairs).map(|pair| plain(pair) / factor).collect(),
                magnitude,
            },
            RopeScaling::Yarn { factor, magnitude, original_context, beta_fast, beta_slow } => {
                let pair_turning = |turns: f64| {
                    n * (original_context / (2.0 * PI * turns)).ln() / (2.0 * spec.base.ln())
                };
                let low = pair_turning(beta_fast).floor().max(0.0);
                let high = pair_turning(beta_slow).ceil().min(n - 1.0);
                let frequencies = (0..pairs)
                    .map(|pair| {
                        let keep =
                            1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                        let kept = plain(pair);
                        kept / factor * (1.0 - keep) + kept * keep
                    })
                    .collect();
                Self { style: spec.style, frequencies, magnitude }
            }
        }
    }

    /// Cosine and sine of each pair at a position, times the magnitude.
    pub fn angles(&self, position: u32) -> impl Iterator<Item = (f64, f64)> {
        self.frequencies.iter().map(move |frequency| {
            let (sin, cos) = (f64::from(position) * frequency).sin_cos();
            (cos * self.magnitude, sin * self.magnitude)
        })
    }

    /// The number of pairs.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(scaling: RopeScaling, sections: Option<[usize; 4]>) -> RopeSpec {
        RopeSpec {
            style: RopeStyle::Halves,
            dimensions: 64,
            base: 10000.0,
            scaling,
            factors: RopeFactors::None,
            sections,
        }
    }

    const PLAIN: RopeScaling = RopeScaling::Linear { factor: 1.0, magnitude: 1.0 };

    /// The ramp by the formula: its upper end is capped at the number of elements less 1, though it counts pairs.
    #[test]
    fn yarn_is_the_formula_up_to_far_positions() {
        let (factor, original, magnitude) = (40.0, 4096.0, 1.25);
        let rope = Rope::new(
            &spec(
                RopeScaling::Yarn {
                    factor,
                    magnitude,
                    original_context: original,
                    beta_fast: 32.0,
                    // So slow that the end lies beyond the pairs.
                    beta_slow: 1e-6,
                },
                None,
            ),
            None,
        );
        let turning =
            |turns: f64| 64.0 * (original / (2.0 * PI * turns)).ln() / (2.0 * 10000f64.ln());
        let (low, high) = (turning(32.0).floor(), turning(1e-6).ceil().min(63.0));
        assert!(high > 32.0, "{high}");
        for position in [1, 4097, 131_071] {
            for (pair, (cos, sin)) in rope.angles(position).enumerate() {
                let plain = f64::from(position) * 10000f64.powf(-2.0 * pair as f64 / 64.0);
                let keep = 1.0 - ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                let angle = plain / factor * (1.0 - keep) + plain * keep;
                assert!((cos - angle.cos() * magnitude).abs() < 1e-9, "{position} {pair}");
                assert!((sin - angle.sin() * magnitude).abs() < 1e-9, "{position} {pair}");
            }
        }
    }

    /// Of interleaved sections the first three turn by the position, the last does not.
    #[test]
    fn the_last_section_does_not_turn() {
        let all = Rope::new(&spec(PLAIN, None), None);
        let covered = Rope::new(&spec(PLAIN, Some([11, 11, 10, 0])), None);
        assert_eq!(all.frequencies, covered.frequencies);
        // Sections of 2, 2, 2 and 6: of each 12 pairs the first six turn, by threes.
        let some = Rope::new(&spec(PLAIN, Some([2, 2, 2, 6])), None);
        for (pair, (ours, whole)) in some.frequencies.iter().zip(&all.frequencies).enumerate() {
            assert_eq!(*ours, if pair % 12 < 6 { *whole } else { 0.0 }, "{pair}");
        }
    }
}
