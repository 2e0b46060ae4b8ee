//! Which cell holds a sequence's position: (sequence, position / 64) -> block.
//!
//! Layers with the same window share a table, a *group*. A full group's table grows with the sequence; a
//! windowed group's is a ring that holds the window and one chunk. Blocks are counted, so that forked
//! sequences share a prefix and copy a block only when one of them writes to it.

use std::collections::HashMap;

use super::BLOCK;
use crate::step::{Input, SequenceId, StepToken};
use crate::{Error, Result};

/// Layers with the same window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The window; none: all positions are kept.
    pub window: Option<usize>,
    /// Entries per sequence.
    pub table_blocks: usize,
    /// Blocks in all.
    pub blocks: usize,
}

impl Group {
    /// A group for `sequences` sequences of at most `positions` positions each and `pool` in all, in steps of up to `chunk`
    /// tokens.
    pub fn new(
        window: Option<usize>,
        (positions, pool): (usize, usize),
        sequences: usize,
        chunk: usize,
    ) -> Self {
        let full_blocks = positions.div_ceil(BLOCK);
        // The oldest position a chunk's first token sees and its last token's lie this far apart, and the
        // first may start anywhere in a block.
        let ring_blocks = window.map(|window| (window - 1 + chunk).div_ceil(BLOCK) + 1);
        if let Some(ring) = ring_blocks.filter(|&ring| ring < full_blocks) {
            return Self { window, table_blocks: ring, blocks: ring * sequences };
        }
        // Each further sequence may leave a block half used.
        let blocks = pool.div_ceil(BLOCK) + sequences - 1;
        Self { window, table_blocks: full_blocks, blocks }
    }

    /// Cells in all.
    pub fn cells(&self) -> usize {
        self.blocks * BLOCK
    }

    /// That no block is free for a position.
    fn is_full(&self, position: usize) -> Error {
        Error::PoolFull { position, pool: self.cells(), block: BLOCK }
    }
}

/// One token with its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Where the id comes from.
    pub input: Input,
    /// The position in the sequence.
    pub position: u32,
    /// Which of the context's places for sequences is the token's.
    pub seat: u32,
    /// The cell of each group that keys and values go to.
    pub cells: [u32; 2],
    /// Whether its logits are wanted.
    pub want_logits: bool,
}

/// A block to be copied, in all layers of a group, before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// The group.
    pub group: usize,
    /// The block read.
    pub from: u32,
    /// The block written.
    pub to: u32,
}

/// A step that has its cells.
#[derive(Debug, Clone, Default)]
pub struct PlacedStep {
    /// The tokens.
    pub tokens: Vec<Placed>,
    /// What must be copied first.
    pub copies: Vec<BlockCopy>,
    /// The embeddings of the tokens that are given as rows, in their order.
    pub rows: Vec<f32>,
}

/// One sequence's entries in a group.
#[derive(Debug, Clone)]
struct Entries {
    blocks: Vec<Option<u32>>,
    /// The first position that has not been overwritten.
    oldest: usize,
}

#[derive(Debug, Clone)]
struct Sequence {
    seat: u32,
    length: usize,
    entries: Vec<Entries>,
}

/// How often each block of a group is used; free ones last in, first out.
#[derive(Debug, Clone)]
struct Pool {
    uses: Vec<u32>,
    free: Vec<u32>,
}

impl Pool {
    fn take(&mut self) -> Option<u32> {
        let block = self.free.pop()?;
        self.uses[block as usize] = 1;
        Some(block)
    }

    fn release(&mut self, block: u32) {
        let uses = &mut self.uses[block as usize];
        *uses -= 1;
        if *uses == 0 {
            self.free.push(block);
        }
    }
}

/// The table of a context: all groups, all sequences.
#[derive(Debug, Clone)]
pub struct KvTable {
    groups: Vec<Group>,
    pools: Vec<Pool>,
    sequences: HashMap<SequenceId, Sequence>,
    free_seats: Vec<u32>,
    /// The most positions that one sequence may have.
    positions: usize,
    /// The model's own context length, for messages.
    trained: usize,
    /// Whether sequences have states, which cannot be taken back.
    stateful: bool,
}

impl KvTable {
    /// An empty table: at most `positions` positions a sequence, at most `sequences` sequences.
    pub fn new(groups: Vec<Group>, positions: usize, sequences: usize, trained: usize) -> Self {
        let pools = groups
            .iter()
            .map(|group| Pool {
                uses: vec![0; group.blocks],
                free: (0..group.blocks as u32).rev().collect(),
            })
            .collect();
        let free_seats = (0..sequences as u32).rev().collect();
        Self {
            groups,
            pools,
            sequences: HashMap::new(),
            free_seats,
            positions,
            trained,
            stateful: false,
        }
    }

    /// The same for a model with states, which cannot be taken back: a sequence is shortened to nothing or not at all.
    #[must_use]
    pub fn with_states(self) -> Self {
        Self { stateful: true, ..self }
    }

    /// The place of a sequence among those of the context.
    pub fn seat(&self, sequence: SequenceId) -> Option<u32> {
        self.sequences.get(&sequence).map(|sequence| sequence.seat)
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// How many positions a sequence holds.
    pub fn length(&self, sequence: SequenceId) -> usize {
        self.sequences.get(&sequence).map_or(0, |sequence| sequence.length)
    }

    /// Writes a sequence's blocks of a group to `out`, `table_blocks` of them; missing ones are 0.
    pub fn write_table(&self, group: usize, mut out: impl FnMut(u32, &[Option<u32>])) {
        for sequence in self.sequences.values() {
            out(sequence.seat, &sequence.entries[group].blocks);
        }
    }

    /// Finds cells for a step. Each token must continue its sequence. On an error nothing has changed.
    pub fn prepare(&mut self, tokens: &[StepToken]) -> Result<PlacedStep> {
        // The common case, one token into a block of its own, cannot fail and is not worth a copy.
        let backup = (!self.fits_at_once(tokens)).then(|| self.clone());
        let result = self.try_prepare(tokens);
        if let (Err(_), Some(backup)) = (&result, backup) {
            *self = backup;
        }
        result
    }

    fn fits_at_once(&self, tokens: &[StepToken]) -> bool {
        let [token] = tokens else { return false };
        let position = token.position as usize;
        self.sequences.get(&token.sequence).is_some_and(|sequence| {
            sequence.length == position
                && position < self.positions
                && sequence.entries.iter().zip(&self.groups).zip(&self.pools).all(
                    |((entries, group), pool)| {
                        let block = entries.blocks[position / BLOCK % group.table_blocks];
                        block.is_some_and(|block| pool.uses[block as usize] == 1)
                    },
                )
        })
    }

    fn try_prepare(&mut self, tokens: &[StepToken]) -> Result<PlacedStep> {
        let mut placed = PlacedStep::default();
        for (index, token) in tokens.iter().enumerate() {
            let position = token.position as usize;
            let error = |why: String| Error::Step { index, why };
            if !self.sequences.contains_key(&token.sequence) {
                let seat = self.free_seats.pop().ok_or(Error::NoSeat)?;
                let entries = self
                    .groups
                    .iter()
                    .map(|group| Entries { blocks: vec![None; group.table_blocks], oldest: 0 })
                    .collect();
                self.sequences.insert(token.sequence, Sequence { seat, length: 0, entries });
            }
            let Some(sequence) = self.sequences.get_mut(&token.sequence) else {
                return Err(error("the sequence is gone".into()));
            };
            if position != sequence.length {
                return Err(error(format!(
                    "position {position} does not continue a sequence of {} tokens",
                    sequence.length
                )));
            }
            if position >= self.positions {
                return Err(Error::ContextFull {
                    wanted: position + 1,
                    positions: self.positions,
                    trained: self.trained,
                });
            }
            let mut cells = [0; 2];
            for (number, (group, pool)) in self.groups.iter().zip(&mut self.pools).enumerate() {
                let logical = position / BLOCK;
                let entries = &mut sequence.entries[number];
                let entry = &mut entries.blocks[logical % group.table_blocks];
                let offset = position % BLOCK;
                let block = match *entry {
                    Some(block) if pool.uses[block as usize] == 1 => block,
                    shared => {
                        let Some(block) = pool.take() else {
                            return Err(group.is_full(position));
                        };
                        if let Some(shared) = shared {
                            if offset > 0 {
                                placed.copies.push(BlockCopy {
                                    group: number,
                                    from: shared,
                                    to: block,
                                });
                            }
                            pool.release(shared);
                        }
                        block
                    }
                };
                *entry = Some(block);
                if offset == 0 {
                    let first = (logical + 1).saturating_sub(group.table_blocks) * BLOCK;
                    entries.oldest = entries.oldest.max(first);
                }
                cells[number] = block * BLOCK as u32 + offset as u32;
            }
            sequence.length += 1;
            placed.tokens.push(Placed {
                input: token.input,
                position: token.position,
                seat: sequence.seat,
                cells,
                want_logits: token.want_logits,
            });
        }
        Ok(placed)
    }

    /// Shortens a sequence to `position` tokens and answers how many it really has now: where a ring has
    /// already lost what the next token would see, the sequence must be computed anew from that answer on.
    pub fn truncate(&mut self, id: SequenceId, position: usize) -> usize {
        let Some(sequence) = self.sequences.get_mut(&id) else { return 0 };
        if position >= sequence.length {
            return sequence.length;
        }
        let lost = sequence.entries.iter().zip(&self.groups).any(|(entries, group)| {
            let sees = group.window.map_or(0, |window| (position + 1).saturating_sub(window));
            entries.oldest > sees
        });
        let position = if lost || self.stateful { 0 } else { position };
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
        self.free_seats.push(sequence.seat);
        for (entries, pool) in sequence.entries.into_iter().zip(&mut self.pools) {
            entries.blocks.into_iter().flatten().for_each(|block| pool.release(block));
        }
    }

    /// Makes `to` a sequence with the tokens of `from`; blocks are shared until one of them writes.
    pub fn fork(&mut self, from: SequenceId, to: SequenceId) -> Result<()> {
        let error = |why: &str| Error::Step { index: 0, why: why.into() };
        let source = self.sequences.get(&from).cloned();
        let source = source.ok_or_else(|| error("the sequence to fork holds no tokens"))?;
        if from == to {
            return Ok(());
        }
        self.free(to);
        let seat = self
            .free_seats
            .pop()
            .ok_or_else(|| error("the context has no place for another sequence; free one"))?;
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
        let seat = self.free_seats.pop().ok_or(Error::NoSeat)?;
        let entries = self
            .groups
            .iter()
            .zip(oldest)
            .map(|(group, &oldest)| Entries { blocks: vec![None; group.table_blocks], oldest })
            .collect();
        let mut sequence = Sequence { seat, length, entries };
        let mut blocks = Vec::new();
        for &(group, entry) in wanted {
            let Some(block) = self.pools[group].take() else {
                self.sequences.insert(id, sequence);
                self.free(id);
                return Err(self.groups[group].is_full(entry * BLOCK));
            };
            sequence.entries[group].blocks[entry] = Some(block);
            blocks.push(block);
        }
        self.sequences.insert(id, sequence);
        Ok(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SequenceId = SequenceId(0);
    const B: SequenceId = SequenceId(1);

    fn table(cells: usize, window: usize, chunk: usize) -> KvTable {
        let groups = vec![
            Group::new(None, (cells, cells), 2, chunk),
            Group::new(Some(window), (cells, cells), 2, chunk),
        ];
        KvTable::new(groups, cells, 2, 4096)
    }

    fn push(table: &mut KvTable, id: SequenceId, n: usize) -> Result<PlacedStep> {
        let from = table.length(id);
        table.prepare(&StepToken::run(id, from, &vec![7; n], false))
    }

    /// Every position that a token at the sequence's end can see lies in a cell of its own.
    fn check_visible(table: &KvTable, id: SequenceId) {
        let sequence = &table.sequences[&id];
        for (group, entries) in table.groups.iter().zip(&sequence.entries) {
            let first =
                group.window.map_or(0, |window| (sequence.length + 1).saturating_sub(window));
            assert!(entries.oldest <= first, "window {:?}", group.window);
            let mut seen = std::collections::HashSet::new();
            for position in first..sequence.length {
                let block = entries.blocks[position / BLOCK % group.table_blocks].unwrap();
                assert!(seen.insert((block, position % BLOCK)));
            }
        }
    }

    #[test]
    fn rings_keep_the_window_and_full_groups_everything() {
        let mut table = table(2048, 100, 32);
        assert_eq!(table.groups[1].table_blocks, 4);
        for _ in 0..60 {
            push(&mut table, A, 32).unwrap();
            check_visible(&table, A);
        }
        assert_eq!(table.length(A), 1920);
        let error = push(&mut table, A, 200).unwrap_err();
        assert!(matches!(error, Error::ContextFull { positions: 2048, .. }), "{error}");
        assert_eq!(table.length(A), 1920, "a failed step changes nothing");
        push(&mut table, A, 128).unwrap();
    }

    /// Sequences that are each short enough may be too long together: that is another fault than a context that is full.
    #[test]
    fn a_full_pool_is_no_full_context() {
        let mut table = KvTable::new(vec![Group::new(None, (256, 256), 2, 64)], 256, 2, 4096);
        push(&mut table, A, 192).unwrap();
        push(&mut table, B, 128).unwrap();
        let error = push(&mut table, B, 1).unwrap_err();
        let full = matches!(error, Error::PoolFull { position: 128, pool: 320, block: 64 });
        assert!(full, "{error:?}");
        assert_eq!(table.length(B), 128, "a failed step changes nothing");
        let error = push(&mut table, SequenceId(3), 1).unwrap_err();
        assert!(matches!(error, Error::NoSeat), "{error:?}");
        table.free(A);
        push(&mut table, B, 128).unwrap();
        let error = push(&mut table, B, 1).unwrap_err();
        assert!(
            matches!(error, Error::ContextFull { wanted: 257, positions: 256, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn truncate_answers_how_far_back_it_could_go() {
        let mut table = table(2048, 100, 32);
        push(&mut table, A, 30).unwrap();
        push(&mut table, A, 30).unwrap();
        assert_eq!(table.truncate(A, 40), 40);
        check_visible(&table, A);
        for _ in 0..20 {
            push(&mut table, A, 32).unwrap();
        }
        assert_eq!(table.length(A), 680);
        assert_eq!(table.truncate(A, 670), 670, "the ring still holds the window before 670");
        check_visible(&table, A);
        assert_eq!(table.truncate(A, 300), 0, "the ring has lost it");
        assert_eq!(table.length(A), 0);
        push(&mut table, A, 10).unwrap();
        assert_eq!(table.truncate(A, 99), 10);
    }

    #[test]
    fn forks_share_blocks_until_one_writes() {
        let mut table = table(512, 1000, 32);
        push(&mut table, A, 100).unwrap();
        let free = table.pools[0].free.len();
        table.fork(A, B).unwrap();
        assert_eq!(table.pools[0].free.len(), free, "nothing is copied yet");
        let prepared = push(&mut table, B, 1).unwrap();
        assert_eq!(prepared.copies.len(), 2, "the half-filled block of each group");
        let a = table.blocks(A);
        let b = table.blocks(B);
        assert_eq!(a[0], b[0]);
        assert_ne!(a[1], b[1]);
        assert_eq!(push(&mut table, A, 1).unwrap().copies, []);
        table.free(A);
        table.free(B);
        assert!(table.pools.iter().zip(&table.groups).all(|(p, g)| p.free.len() == g.blocks));
    }

    #[test]
    fn steps_must_continue_their_sequence() {
        let mut table = table(512, 100, 32);
        let error = table.prepare(&StepToken::run(A, 3, &[1], true)).unwrap_err();
        assert!(error.to_string().contains("position 3 does not continue"), "{error}");
        assert_eq!(table.free_seats.len(), 2);
        push(&mut table, A, 1).unwrap();
        push(&mut table, B, 1).unwrap();
        assert!(push(&mut table, SequenceId(9), 1).unwrap_err().to_string().contains("free one"));
    }

    #[test]
    fn a_pool_may_hold_every_sequence_whole() {
        let table = |pool| KvTable::new(vec![Group::new(None, (256, pool), 2, 64)], 256, 2, 4096);
        let mut large = table(512);
        assert_eq!(push(&mut large, A, 256).unwrap().tokens.len(), 256);
        assert_eq!(push(&mut large, B, 256).unwrap().tokens.len(), 256);
        // The pool is what is full, and the sequence has its most: two different things to say.
        assert!(matches!(push(&mut large, B, 1), Err(Error::ContextFull { positions: 256, .. })));
        let mut small = table(256);
        push(&mut small, A, 256).unwrap();
        push(&mut small, B, 64).unwrap();
        assert!(matches!(push(&mut small, B, 1), Err(Error::PoolFull { position: 64, .. })));
    }
}
