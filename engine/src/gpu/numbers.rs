//! Where the numbers of a step lie: one buffer, so that one write brings all of a small step.

use super::choice::{Count, FEW};
use crate::blueprint::Blueprint;

/// Words of a token in the kernels' `Token`.
pub const TOKEN_WORDS: usize = 8;
/// Bytes of the kernels' `Selection`.
const SELECTION_BYTES: usize = 48;
/// Bindings start at multiples of this: the most any adapter asks for.
const ALIGNMENT: u64 = 256;

/// Some bytes of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u64,
    /// How many there are.
    pub bytes: u64,
}

/// The parts of the buffer, for steps of one, of a few and of many tokens: as tight as the most tokens of each allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// How the next ids are chosen: at the same place for all steps.
    pub selections: Range,
    /// Which tokens' logits are wanted.
    pub outputs: Range,
    /// The tokens.
    pub tokens: Range,
    /// Cosines and sines for the tokens, of each rotation.
    pub angles: Vec<Range>,
    /// The end of the last.
    pub end: u64,
}

impl Numbers {
    /// The parts for steps of `count` tokens.
    pub fn new(blueprint: &Blueprint, count: Count) -> Self {
        let Blueprint { plan, sizes, .. } = blueprint;
        let tokens = match count {
            Count::One => 1,
            Count::Few => FEW.min(sizes.chunk),
            Count::Many => sizes.chunk,
        };
        let mut end = 0;
        let mut range = |bytes: usize| {
            let bytes = bytes as u64;
            let start = end;
            end += bytes.next_multiple_of(ALIGNMENT);
            Range { start, bytes }
        };
        Self {
            selections: range(sizes.selections() * SELECTION_BYTES),
            outputs: range(sizes.outputs.clamp(1, tokens) * 4),
            tokens: range(tokens * TOKEN_WORDS * 4),
            angles: plan.ropes.iter().map(|rope| range(rope.pairs() * tokens * 8)).collect(),
            end,
        }
    }

    /// The bytes of the buffer that holds any of them.
    pub fn room(blueprint: &Blueprint) -> u64 {
        let ends = [Count::One, Count::Few, Count::Many].map(|c| Self::new(blueprint, c).end);
        ends.into_iter().fold(0, u64::max)
    }
}
