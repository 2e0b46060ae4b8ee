//! Merging neighbours into longer symbols, the best pair first: what SentencePiece's BPE and GPT-2's have in common.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No symbol, and the id of a symbol that is no token.
pub const NONE: u32 = u32::MAX;

/// A stretch of a text, in a doubly linked list.
#[derive(Debug, Clone, Copy)]
pub struct Symbol {
    /// Where it begins, in bytes.
    pub start: usize,
    /// Its bytes; 0 once it was merged into the one before.
    pub length: usize,
    /// Its id; [`NONE`]: it has none.
    pub id: u32,
    previous: u32,
    next: u32,
}

/// Two neighbours that may be merged. The best first, then the leftmost.
struct Pair<P> {
    priority: P,
    left: Reverse<u32>,
    right: u32,
    length: usize,
    id: u32,
}

impl<P: Ord> PartialEq for Pair<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P: Ord> Eq for Pair<P> {}

impl<P: Ord> Ord for Pair<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.priority.cmp(&other.priority).then(self.left.cmp(&other.left))
    }
}

impl<P: Ord> PartialOrd for Pair<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Symbols of these lengths (in bytes) and ids, one after another.
pub fn symbols(parts: impl Iterator<Item = (usize, u32)>) -> Vec<Symbol> {
    let mut start = 0;
    let mut symbols: Vec<Symbol> = parts
        .zip(0u32..)
        .map(|((length, id), index)| {
            let symbol =
                Symbol { start, length, id, previous: index.wrapping_sub(1), next: index + 1 };
            start += length;
            symbol
        })
        .collect();
    if let Some(last) = symbols.last_mut() {
        last.next = NONE;
    }
    symbols
}

/// Merges neighbours as long as `join` has a priority and an id for two of them, the highest priority first
/// and among equals the leftmost. Symbols that went into another have a length of 0 afterwards.
pub fn merge<P: Ord>(symbols: &mut [Symbol], join: impl Fn(&Symbol, &Symbol) -> Option<(P, u32)>) {
    let mut queue = BinaryHeap::new();
    let consider = |symbols: &[Symbol], left: u32, right: u32, queue: &mut BinaryHeap<_>| {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (&symbols[left as usize], &symbols[right as usize]);
        if let Some((priority, id)) = join(a, b) {
            let length = a.length + b.length;
            queue.push(Pair { priority, left: Reverse(left), right, length, id });
        }
    };
    for right in 1..symbols.len() as u32 {
        consider(symbols, right - 1, right, &mut queue);
    }
    while let Some(pair) = queue.pop() {
        let (left, right) = (pair.left.0, pair.right);
        let (a, b) = (symbols[left as usize], symbols[right as usize]);
        // One of them may have been merged with another since.
        if a.length == 0 || b.length == 0 || a.length + b.length != pair.length {
            continue;
        }
        symbols[left as usize] = Symbol { length: pair.length, id: pair.id, next: b.next, ..a };
        symbols[right as usize].length = 0;
        if b.next != NONE {
            symbols[b.next as usize].previous = left;
        }
        consider(symbols, a.previous, left, &mut queue);
        consider(symbols, left, b.next, &mut queue);
    }
}
