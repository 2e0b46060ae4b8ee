//! The prefix cache: sequences that nobody continues any more, kept for those that begin alike.

use super::{BLOCK, Demand, KvTable};
use crate::step::SequenceId;

/// The most sequences kept.
const MOST: usize = 256;
/// A block that is shared in part is copied when it is written to: worth it from so many positions on.
const LEAST_OF_A_BLOCK: usize = 8;

/// A sequence that is kept.
#[derive(Debug)]
struct Kept {
    sequence: SequenceId,
    /// Its tokens.
    ids: Vec<u32>,
    /// When it was kept, or used last.
    used: u64,
}

/// A sequence that begins as another is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The sequence.
    pub sequence: SequenceId,
    /// How many of its first tokens are of use.
    pub length: usize,
    /// Whether that is all of it, and nobody continues it: it can be taken over.
    pub is_whole: bool,
}

/// Sequences that are kept. Those used least recently give way to what needs their blocks.
#[derive(Debug, Default)]
pub struct PrefixCache {
    kept: Vec<Kept>,
    clock: u64,
}

impl PrefixCache {
    /// Keeps a sequence of the table, whose tokens are `ids`.
    pub fn keep(&mut self, table: &mut KvTable, sequence: SequenceId, ids: &[u32]) {
        if ids.is_empty() {
            table.free(sequence);
            return;
        }
        if self.kept.len() == MOST {
            self.drop_oldest(table, |_| true);
        }
        table.rest(sequence);
        self.clock += 1;
        self.kept.push(Kept { sequence, ids: ids.to_vec(), used: self.clock });
    }

    /// How many sequences are kept.
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    /// The sequence with the most tokens at its start that are of use to one of `ids`, of which the last is computed in any
    /// case: one that is kept, or one of those that `running` names with their tokens.
    pub fn find(
        &mut self,
        table: &KvTable,
        ids: &[u32],
        running: &[(SequenceId, &[u32])],
    ) -> Option<Prefix> {
        let most = ids.len().saturating_sub(1);
        let common = |of: &[u32]| ids[..most].iter().zip(of).take_while(|(a, b)| a == b).count();
        let mut best: Option<(Prefix, Option<usize>)> = None;
        let mut offer = |sequence, common: usize, whole: usize, kept: Option<usize>| {
            let rest = common % BLOCK;
            let takes_rest = common == whole || rest >= LEAST_OF_A_BLOCK;
            // One who goes on would have to copy the block.
            let length = if kept.is_some() && takes_rest { common } else { common - rest };
            let length = table.usable(sequence, length);
            if length > 0 && length <= most && best.is_none_or(|(best, _)| length > best.length) {
                let is_whole = kept.is_some() && length == whole;
                best = Some((Prefix { sequence, length, is_whole }, kept));
            }
        };
        for (index, kept) in self.kept.iter().enumerate().rev() {
            offer(kept.sequence, common(&kept.ids), kept.ids.len(), Some(index));
        }
        for &(sequence, of) in running {
            offer(sequence, common(of), of.len(), None);
        }
        let (prefix, kept) = best?;
        if let Some(index) = kept {
            let mut kept = self.kept.remove(index);
            if !prefix.is_whole {
                self.clock += 1;
                kept.used = self.clock;
                self.kept.push(kept);
            }
        }
        Some(prefix)
    }

    /// Blocks of the layers that see all positions that would be free if all that is kept were given up.
    pub fn obtainable(&self, table: &KvTable) -> usize {
        table.held_alone(self.kept.iter().map(|kept| kept.sequence))
    }

    /// Gives up what was used least recently and holds any of what is missing for a step. Answers whether there was such.
    pub fn give_way(&mut self, table: &mut KvTable, demand: &Demand) -> bool {
        let free = table.free_blocks();
        let short = demand.blocks.iter().zip(&free).position(|(wanted, free)| wanted > free);
        let Some(group) = short else {
            // A seat.
            let seated: Vec<_> =
                self.kept.iter().map(|kept| table.seat(kept.sequence).is_some()).collect();
            return self.drop_oldest(table, |index| seated[index]);
        };
        let missing = demand.blocks[group] - free[group];
        let held: Vec<_> = self.kept.iter().map(|kept| table.held(kept.sequence, group)).collect();
        let oldest =
            (0..self.kept.len()).filter(|&i| held[i] > 0).min_by_key(|&i| self.kept[i].used);
        let Some(index) = oldest else { return false };
        // Its end only, where its start can be had without: that gives at least a block up.
        let kept = &mut self.kept[index];
        let left = if table.forgets() { 0 } else { held[index].saturating_sub(missing) * BLOCK };
        let left = table.truncate(kept.sequence, left);
        kept.ids.truncate(left);
        if left == 0 {
            table.free(kept.sequence);
            self.kept.remove(index);
        }
        true
    }

    /// Gives all up.
    pub fn clear(&mut self, table: &mut KvTable) {
        self.kept.drain(..).for_each(|kept| table.free(kept.sequence));
    }

    /// Gives up the one used least recently of those that `may` names by their index.
    fn drop_oldest(&mut self, table: &mut KvTable, may: impl Fn(usize) -> bool) -> bool {
        let oldest = (0..self.kept.len()).filter(|&i| may(i)).min_by_key(|&i| self.kept[i].used);
        let Some(index) = oldest else { return false };
        table.free(self.kept.remove(index).sequence);
        true
    }
}
