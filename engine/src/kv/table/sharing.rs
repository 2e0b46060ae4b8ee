//! What sequences of a table share, give back and take over.

use super::{BLOCK, Demand, Entries, KvTable, Sequence};
use crate::step::SequenceId;
use crate::{Error, Result};

impl KvTable {
    /// How many of a sequence's first `position` tokens can be had without the others: all or none, but never more than it has.
    pub fn usable(&self, id: SequenceId, position: usize) -> usize {
        let Some(sequence) = self.sequences.get(&id) else { return 0 };
        if position >= sequence.length {
            return sequence.length;
        }
        let lost = sequence.entries.iter().zip(&self.groups).any(|(entries, group)| {
            let sees = group.window.map_or(0, |window| (position + 1).saturating_sub(window));
            entries.oldest > sees
        });
        if lost || self.stateful { 0 } else { position }
    }

    /// Shortens a sequence to `position` tokens and answers how many it really has now: where a ring has
    /// already lost what the next token would see, the sequence must be computed anew from that answer on.
    pub fn truncate(&mut self, id: SequenceId, position: usize) -> usize {
        let position = self.usable(id, position);
        let Some(sequence) = self.sequences.get_mut(&id) else { return 0 };
        if position == sequence.length {
            return position;
        }
        if position == 0 {
            self.free(id);
            return 0;
        }
        sequence.length = position;
        for ((entries, group), pool) in
            sequence.entries.iter_mut().zip(&self.groups).zip(&mut self.pools)
        {
            if group.table_blocks < self.positions.div_ceil(BLOCK) {
                continue;
            }
            for entry in entries.blocks.iter_mut().skip(position.div_ceil(BLOCK)) {
                if let Some(block) = entry.take() {
                    pool.release(block);
                }
            }
        }
        position
    }

    /// Forgets a sequence.
    pub fn free(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.remove(&id) else { return };
        self.free_seats.extend(sequence.seat);
        for (entries, pool) in sequence.entries.into_iter().zip(&mut self.pools) {
            entries.blocks.into_iter().flatten().for_each(|block| pool.release(block));
        }
    }

    /// Gives a sequence's seat back; its blocks stay, and its next token takes a seat again. With states, which lie in the
    /// seat, nothing happens.
    pub fn rest(&mut self, id: SequenceId) {
        if !self.stateful
            && let Some(sequence) = self.sequences.get_mut(&id)
        {
            self.free_seats.extend(sequence.seat.take());
        }
    }

    /// Makes `to` a sequence with the tokens of `from`; blocks are shared until one of them writes. It takes a seat with its
    /// first token, or here where there are states to be copied to it.
    pub fn fork(&mut self, from: SequenceId, to: SequenceId) -> Result<()> {
        let error = |why: &str| Error::Step { index: 0, why: why.into() };
        let source = self.sequences.get(&from).cloned();
        let source = source.ok_or_else(|| error("the sequence to fork holds no tokens"))?;
        if from == to {
            return Ok(());
        }
        self.free(to);
        let seat =
            if self.stateful { Some(self.free_seats.pop().ok_or(Error::NoSeat)?) } else { None };
        for (entries, pool) in source.entries.iter().zip(&mut self.pools) {
            entries.blocks.iter().flatten().for_each(|&block| pool.uses[block as usize] += 1);
        }
        self.sequences.insert(to, Sequence { seat, ..source });
        Ok(())
    }

    /// A sequence's blocks as (group, entry, block), for snapshots; in an order that depends on nothing
    /// but the sequence.
    pub fn blocks(&self, id: SequenceId) -> Vec<(usize, usize, u32)> {
        let Some(sequence) = self.sequences.get(&id) else { return Vec::new() };
        let mut blocks = Vec::new();
        for (group, entries) in sequence.entries.iter().enumerate() {
            for (entry, block) in entries.blocks.iter().enumerate() {
                blocks.extend(block.map(|block| (group, entry, block)));
            }
        }
        blocks
    }

    /// The first position that each group still holds of a sequence.
    pub fn oldest(&self, id: SequenceId) -> Vec<usize> {
        self.sequences
            .get(&id)
            .map(|sequence| sequence.entries.iter().map(|entries| entries.oldest).collect())
            .unwrap_or_default()
    }

    /// Makes `id` a sequence of `length` tokens with fresh blocks for the given (group, entry) pairs;
    /// answers the blocks in that order. On an error nothing has changed but that `id` is free.
    pub fn restore(
        &mut self,
        id: SequenceId,
        length: usize,
        oldest: &[usize],
        wanted: &[(usize, usize)],
    ) -> Result<Vec<u32>> {
        self.free(id);
        if length > self.positions {
            let (positions, trained) = (self.positions, self.trained);
            return Err(Error::ContextFull { wanted: length, positions, trained });
        }
        let mut blocks = vec![0; self.groups.len()];
        for &(group, _) in wanted {
            blocks[group] += 1;
        }
        self.has_room(&Demand { seats: 1, blocks })?;
        let seat = self.free_seats.pop().ok_or(Error::NoSeat)?;
        let entries = self
            .groups
            .iter()
            .zip(oldest)
            .map(|(group, &oldest)| Entries { oldest, ..Entries::empty(group) })
            .collect();
        let mut sequence = Sequence { seat: Some(seat), length, entries };
        let mut blocks = Vec::new();
        for &(group, entry) in wanted {
            let Some(block) = self.pools[group].take() else {
                self.sequences.insert(id, sequence);
                self.free(id);
                return Err(Error::Internal("a snapshot found no room that was there".into()));
            };
            sequence.entries[group].blocks[entry] = Some(block);
            blocks.push(block);
        }
        self.sequences.insert(id, sequence);
        Ok(blocks)
    }
}
