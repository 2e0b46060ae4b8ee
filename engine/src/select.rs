//! From logits to an id: penalties, the chain of filters, the draw.
//!
//! The order is llama.cpp's: repeat penalty, top-k, top-p, min-p, temperature, draw.

mod philox;

pub use philox::uniform;

use crate::{Error, Result};

/// How an id is chosen from logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0: the largest logit wins.
    pub temperature: f32,
    /// Keep this many of the largest logits; 0: all.
    pub top_k: usize,
    /// Keep the most likely until their probabilities reach this sum; 1: all.
    pub top_p: f32,
    /// Keep those at least this share of the most likely one's probability; 0: all.
    pub min_p: f32,
    /// Divides positive logits (multiplies negative ones) of ids among the last ones; 1: nothing.
    pub repeat_penalty: f32,
    /// How many last ids the penalty looks at.
    pub repeat_last: usize,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    /// llama.cpp's defaults, with seed 0.
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Whether recent ids are made less likely.
    pub fn has_penalty(&self) -> bool {
        self.repeat_penalty != 1.0
    }

    /// The largest logit always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Whether the largest logit (after penalties) always wins.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }

    /// Checks that every number is in range.
    pub fn check(&self) -> Result<()> {
        let out = |name, value, range| Err(Error::Sampling { name, value, range });
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return out("temperature", self.temperature, "0 (greedy) or more");
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return out("top_p", self.top_p, "0 to 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return out("min_p", self.min_p, "0 to 1");
        }
        if !(self.repeat_penalty > 0.0 && self.repeat_penalty.is_finite()) {
            return out("repeat_penalty", self.repeat_penalty, "more than 0 (1: none)");
        }
        Ok(())
    }

    /// Chooses an id. `recent` are the ids so far; `sequence` and `position` pick the random number, so
    /// that the same seed gives the same text whatever else runs beside it.
    pub fn choose(&self, logits: &[f32], recent: &[u32], sequence: u32, position: u32) -> u32 {
        if self.is_greedy() && !self.has_penalty() {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // The first, as of equal ones the smaller id wins.
            return logits.iter().position(|&logit| logit == largest).unwrap_or(0) as u32;
        }
        let mut candidates: Vec<(u32, f32)> =
            logits.iter().enumerate().map(|(id, &logit)| (id as u32, logit)).collect();
        if self.repeat_penalty != 1.0 {
            let recent = &recent[recent.len().saturating_sub(self.repeat_last)..];
            for (index, &id) in recent.iter().enumerate() {
                let Some(candidate) = candidates.get_mut(id as usize) else { continue };
                if recent[..index].contains(&id) {
                    continue;
                }
                let logit = &mut candidate.1;
                *logit = if *logit <= 0.0 {
                    *logit * self.repeat_penalty
                } else {
                    *logit / self.repeat_penalty
                };
            }
        }
        // The larger logit first; of equal ones the smaller id.
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.is_greedy() {
            return candidates.iter().copied().min_by(order).map_or(0, |(id, _)| id);
        }
        if self.top_k > 0 && self.top_k < candidates.len() {
            candidates.select_nth_unstable_by(self.top_k - 1, order);
            candidates.truncate(self.top_k);
        }
        candidates.sort_unstable_by(order);
        draw(&candidates, self, uniform(self.seed, sequence, position))
    }
}

/// Top-p, min-p, temperature and the draw over candidates sorted by falling logit.
fn draw(sorted: &[(u32, f32)], sampling: &Sampling, random: f32) -> u32 {
    let Some(&(first, max)) = sorted.first() else { return 0 };
    let total: f32 = sorted.iter().map(|(_, logit)| (logit - max).exp()).sum();
    let mut kept = sorted.len();
    if sampling.top_p < 1.0 {
        let mut sum = 0.0;
        for (index, (_, logit)) in sorted.iter().enumerate() {
            sum += (logit - max).exp() / total;
            if sum >= sampling.top_p {
                kept = index + 1;
                break;
            }
        }
    }
    if sampling.min_p > 0.0 {
        let least = max + sampling.min_p.ln();
        kept = kept.min(sorted.iter().take_while(|(_, logit)| *logit >= least).count().max(1));
    }
    let weights: Vec<f32> = sorted[..kept]
        .iter()
        .map(|(_, logit)| ((logit - max) / sampling.temperature).exp())
        .collect();
    let goal = random * weights.iter().sum::<f32>();
    let mut sum = 0.0;
    for ((id, _), weight) in sorted.iter().zip(&weights) {
        sum += weight;
        if sum > goal {
            return *id;
        }
    }
    // Rounding left the goal beyond the sum.
    sorted.get(kept.saturating_sub(1)).map_or(first, |(id, _)| *id)
}

/// The logarithms of the probabilities of logits.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    let log_total = total.ln() + f64::from(max);
    logits.iter().map(|&logit| f64::from(logit) - log_total).collect()
}

/// The `k` largest, the largest first; of equal ones the smaller index.
pub fn top(values: &[f64], k: usize) -> Vec<(u32, f64)> {
    let mut all: Vec<(u32, f64)> = values.iter().enumerate().map(|(i, &v)| (i as u32, v)).collect();
    let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k < all.len() && k > 0 {
        all.select_nth_unstable_by(k - 1, order);
    }
    all.truncate(k);
    all.sort_by(order);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, -1.0, 3.0, 0.5];

    fn frequencies(sampling: &Sampling) -> [usize; 6] {
        let mut counts = [0; 6];
        for position in 0..20_000 {
            counts[sampling.choose(&LOGITS, &[], 0, position) as usize] += 1;
        }
        counts
    }

    fn plain() -> Sampling {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Sampling::default() }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let probabilities = log_softmax(&LOGITS);
        for (count, log) in frequencies(&plain()).into_iter().zip(probabilities) {
            let expected = log.exp() * 20_000.0;
            assert!(
                (count as f64 - expected).abs() < 5.0 * expected.sqrt() + 5.0,
                "{count} {expected}"
            );
        }
    }

    #[test]
    fn filters_keep_what_they_should() {
        let kept = |sampling: Sampling| -> Vec<usize> {
            let counts = frequencies(&sampling);
            (0..6).filter(|&id| counts[id] > 0).collect()
        };
        assert_eq!(kept(Sampling { top_k: 3, ..plain() }), [1, 2, 4]);
        assert_eq!(kept(Sampling { top_k: 1, ..plain() }), [1], "of equal ones the smaller id");
        assert_eq!(kept(Sampling { top_p: 0.38, ..plain() }), [1]);
        assert_eq!(kept(Sampling { top_p: 0.5, ..plain() }), [1, 4]);
        assert_eq!(kept(Sampling { min_p: 0.3, ..plain() }), [1, 2, 4]);
        assert_eq!(kept(Sampling { temperature: 0.0, ..plain() }), [1]);
        assert_eq!(kept(Sampling { top_p: 0.0, ..plain() }), [1]);
    }

    #[test]
    fn penalties_count_an_id_once_and_only_recent_ones() {
        let sampling = Sampling { repeat_penalty: 1.7, repeat_last: 4, ..Sampling::greedy() };
        assert_eq!(sampling.choose(&LOGITS, &[1, 1, 1, 1], 0, 0), 4);
        assert_eq!(sampling.choose(&LOGITS, &[1, 4, 4, 1], 0, 0), 2, "3 / 1.7 is less than 2");
        assert_eq!(sampling.choose(&LOGITS, &[1, 5, 5, 5, 5], 0, 0), 1, "forgotten");
        let negative = Sampling { repeat_penalty: 2.0, ..Sampling::greedy() };
        assert_eq!(negative.choose(&[-1.0, -1.5], &[0], 0, 0), 1);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for bad in [
            Sampling { temperature: -1.0, ..plain() },
            Sampling { temperature: f32::NAN, ..plain() },
            Sampling { top_p: 1.5, ..plain() },
            Sampling { min_p: -0.1, ..plain() },
            Sampling { repeat_penalty: 0.0, ..plain() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        plain().check().unwrap();
    }
}
