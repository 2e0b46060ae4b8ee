//! What each dispatch of a step took, by the device's own clock, and sums of it by kernel variant.
//!
//! Timed dispatches have a pass each. Neighbours that a device would overlap do not, and the clock is read some
//! thousands of times: a step takes longer than it does otherwise, the more the smaller its dispatches are. Compare
//! [`StepProfile::whole`] with the sum before that is believed. What a kernel costs in a step that is not taken apart is
//! what the step takes less without it: [`VariantTime::saved`].

use std::collections::BTreeMap;

use shaders::{Multiplies, Variant};

/// The work of a dispatch, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes read and written: each weight, activation, key and value once, however often the kernel comes back to
    /// it. The step's own numbers (ids, tables, counts) are left out, being few.
    pub bytes: u64,
    /// Multiplications with an addition in products, in attention and in recurrences.
    pub multiply_adds: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.multiply_adds += other.multiply_adds;
    }
}

/// What a dispatch took.
#[derive(Debug, Clone)]
pub struct DispatchTime {
    /// Its kernel.
    pub variant: Variant,
    /// The op that it belongs to.
    pub op: &'static str,
    /// From the begin of its pass to the end.
    pub nanoseconds: f64,
    /// What it had to do at the least.
    pub cost: Cost,
}

/// A step's dispatches in order.
#[derive(Debug, Clone, Default)]
pub struct StepProfile {
    /// Each with its time.
    pub dispatches: Vec<DispatchTime>,
    /// Nanoseconds from the begin of the first to the end of the last.
    pub span: f64,
    /// Nanoseconds of all of them in one pass, with the clock read at its begin and its end only.
    pub whole: f64,
    /// The same without the dispatches of a variant.
    pub without: BTreeMap<Variant, f64>,
}

/// What the dispatches of one variant took together, in one step.
#[derive(Debug, Clone)]
pub struct VariantTime {
    /// The kernel.
    pub variant: Variant,
    /// The ops that it was dispatched for, each once.
    pub ops: Vec<&'static str>,
    /// How many dispatches.
    pub count: usize,
    /// Their nanoseconds.
    pub nanoseconds: f64,
    /// The nanoseconds that a step in one pass takes less without them: what they cost beside their neighbours, with
    /// the wait for what was before.
    pub saved: f64,
    /// Their work.
    pub cost: Cost,
}

/// What a device does at most, for shares of it.
#[derive(Debug, Clone, Copy)]
pub struct Roof {
    /// Bytes a second.
    pub bandwidth: f64,
    /// Multiply-adds a second in f32; infinite where they are not known.
    pub multiply_adds: f64,
    /// The same of halves by cooperative matrices.
    pub matrix_multiply_adds: f64,
    /// The same of bytes.
    pub byte_multiply_adds: f64,
}

impl Roof {
    /// Multiply-adds a second in what a kernel computes in.
    pub fn multiply_adds_of(&self, multiplies: Multiplies) -> f64 {
        match multiplies {
            Multiplies::Matrices => self.matrix_multiply_adds,
            Multiplies::Bytes => self.byte_multiply_adds,
            Multiplies::Floats | Multiplies::Nothing => self.multiply_adds,
        }
    }
}

impl VariantTime {
    /// Bytes a second.
    pub fn bandwidth(&self) -> f64 {
        self.cost.bytes as f64 / (self.nanoseconds / 1e9)
    }

    /// Multiply-adds a second.
    pub fn multiply_adds(&self) -> f64 {
        self.cost.multiply_adds as f64 / (self.nanoseconds / 1e9)
    }

    /// The part of its time that the device would need at its roof: 1 is as fast as it goes.
    pub fn share(&self, roof: &Roof) -> f64 {
        let seconds = (self.cost.bytes as f64 / roof.bandwidth)
            .max(self.cost.multiply_adds as f64 / roof.multiply_adds_of(self.variant.multiplies()));
        seconds / (self.nanoseconds / 1e9)
    }
}

/// The medians of several profiles of like steps, summed by variant, the dearest first. Steps that had other
/// dispatches than the first are left out.
pub fn by_variant(steps: &[StepProfile]) -> Vec<VariantTime> {
    let Some(first) = steps.first() else { return Vec::new() };
    let same = |step: &&StepProfile| {
        step.dispatches.len() == first.dispatches.len()
            && step.dispatches.iter().zip(&first.dispatches).all(|(a, b)| a.variant == b.variant)
    };
    let like: Vec<&StepProfile> = steps.iter().filter(same).collect();
    let mut sums: BTreeMap<&Variant, VariantTime> = BTreeMap::new();
    for (index, dispatch) in first.dispatches.iter().enumerate() {
        let times = like.iter().map(|step| step.dispatches[index].nanoseconds);
        let sum = sums.entry(&dispatch.variant).or_insert_with(|| VariantTime {
            variant: dispatch.variant.clone(),
            ops: Vec::new(),
            count: 0,
            nanoseconds: 0.0,
            saved: 0.0,
            cost: Cost::default(),
        });
        sum.count += 1;
        sum.nanoseconds += median(times);
        sum.cost += dispatch.cost;
        if !sum.ops.contains(&dispatch.op) {
            sum.ops.push(dispatch.op);
        }
    }
    for (variant, sum) in &mut sums {
        let saved = |step: &&StepProfile| Some(step.whole - step.without.get(variant)?);
        sum.saved = median(like.iter().filter_map(saved));
    }
    let mut sums: Vec<_> = sums.into_values().collect();
    sums.sort_by(|a, b| b.nanoseconds.total_cmp(&a.nanoseconds));
    sums
}

/// The middle of some numbers; 0 of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(times: &[(&'static str, f64)]) -> StepProfile {
        let dispatch = |&(kernel, nanoseconds)| DispatchTime {
            variant: Variant::new(kernel),
            op: "linear",
            nanoseconds,
            cost: Cost { bytes: 1000, multiply_adds: 4000 },
        };
        let whole = times.iter().map(|(_, nanoseconds)| nanoseconds).sum();
        let without = |&(kernel, _): &(&'static str, f64)| {
            let others = times.iter().filter(|(other, _)| *other != kernel);
            (Variant::new(kernel), others.map(|(_, nanoseconds)| nanoseconds).sum())
        };
        StepProfile {
            dispatches: times.iter().map(dispatch).collect(),
            span: 0.0,
            whole,
            without: times.iter().map(without).collect(),
        }
    }

    #[test]
    fn variants_are_summed_by_medians() {
        let steps = [
            step(&[("a", 10.0), ("b", 5.0), ("a", 1.0)]),
            step(&[("a", 12.0), ("b", 900.0), ("a", 3.0)]),
            step(&[("a", 800.0), ("b", 6.0), ("a", 2.0)]),
            step(&[("b", 1.0)]),
        ];
        let sums = by_variant(&steps);
        let seen: Vec<_> =
            sums.iter().map(|s| (s.variant.kernel, s.count, s.nanoseconds)).collect();
        assert_eq!(seen, [("a", 2, 14.0), ("b", 1, 6.0)]);
        assert_eq!((sums[0].saved, sums[1].saved), (15.0, 6.0));
        assert_eq!(sums[0].cost, Cost { bytes: 2000, multiply_adds: 8000 });
        assert_eq!(sums[0].ops, ["linear"]);
        assert!(by_variant(&[]).is_empty());
    }

    #[test]
    fn a_share_is_of_the_nearer_roof() {
        let sum = &by_variant(&[step(&[("a", 1000.0)])])[0];
        // 1,000 bytes and 4,000 multiply-adds in a microsecond.
        assert_eq!((sum.bandwidth(), sum.multiply_adds()), (1e9, 4e9));
        let infinite = f64::INFINITY;
        let share = |bandwidth, multiply_adds| {
            let (matrix_multiply_adds, byte_multiply_adds) = (infinite, infinite);
            sum.share(&Roof { bandwidth, multiply_adds, matrix_multiply_adds, byte_multiply_adds })
        };
        assert_eq!(share(2e9, f64::INFINITY), 0.5);
        assert_eq!(share(2e9, 5e9), 0.8);
        assert_eq!(share(1e9, 16e9), 1.0);
    }
}
