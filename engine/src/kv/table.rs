//! Which cell holds a sequence's position: (sequence, position / 64) -> block.
//!
//! Layers with the same window share a table, a *group*. A full group's table grows with the sequence; a
//! windowed group's is a ring that holds the window and one chunk. Blocks are counted, so that forked
//! sequences share a prefix and copy a block only when one of them writes to it.

mod sharing;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
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
    /// None while it rests.
    seat: Option<u32>,
    length: usize,
    entries: Vec<Entries>,
}

impl Entries {
    fn empty(group: &Group) -> Self {
        Self { blocks: vec![None; group.table_blocks], oldest: 0 }
    }
}

impl Sequence {
    /// Blocks of a group that it has, shared ones included.
    fn held(&self, group: usize) -> usize {
        self.entries[group].blocks.iter().flatten().count()
    }
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

/// What a step takes that must be free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// Seats.
    pub seats: usize,
    /// Blocks of each group.
    pub blocks: Vec<usize>,
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

    /// The place of a sequence among those of the context; none while it rests, or has no tokens.
    pub fn seat(&self, sequence: SequenceId) -> Option<u32> {
        self.sequences.get(&sequence)?.seat
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
            if let Some(seat) = sequence.seat {
                out(seat, &sequence.entries[group].blocks);
            }
        }
    }

    /// What a step takes of what must be free.
    ///
    /// # Errors
    /// If a token does not continue its sequence, or a sequence would be longer than it may be.
    pub fn demand(&self, tokens: &[StepToken]) -> Result<Demand> {
        let mut demand = Demand { seats: 0, blocks: vec![0; self.groups.len()] };
        // Of the step's sequences: how long each is behind the tokens so far.
        let mut lengths: HashMap<SequenceId, usize> = HashMap::new();
        // Of shared blocks: how many of the step's sequences have left each.
        let mut left: HashMap<(usize, u32), u32> = HashMap::new();
        for (index, token) in tokens.iter().enumerate() {
            let position = token.position as usize;
            let sequence = self.sequences.get(&token.sequence);
            let is_first = !lengths.contains_key(&token.sequence);
            let length = lengths
                .entry(token.sequence)
                .or_insert_with(|| sequence.map_or(0, |sequence| sequence.length));
            if position != *length {
                let why =
                    format!("position {position} does not continue a sequence of {length} tokens");
                return Err(Error::Step { index, why });
            }
            if position >= self.positions {
                return Err(Error::ContextFull {
                    wanted: position + 1,
                    positions: self.positions,
                    trained: self.trained,
                });
            }
            *length += 1;
            if is_first && sequence.is_none_or(|sequence| sequence.seat.is_none()) {
                demand.seats += 1;
            }
            if !is_first && !position.is_multiple_of(BLOCK) {
                continue;
            }
            for (number, (group, pool)) in self.groups.iter().zip(&self.pools).enumerate() {
                let entry = position / BLOCK % group.table_blocks;
                let block = sequence.and_then(|s| s.entries[number].blocks[entry]);
                if let Some(block) = block {
                    let left = left.entry((number, block)).or_default();
                    if pool.uses[block as usize] - *left == 1 {
                        continue;
                    }
                    *left += 1;
                }
                demand.blocks[number] += 1;
            }
        }
        Ok(demand)
    }

    /// So many blocks of the first group.
    pub fn demand_of_blocks(&self, blocks: usize) -> Demand {
        let mut demand = Demand { seats: 0, blocks: vec![0; self.groups.len()] };
        if let Some(first) = demand.blocks.first_mut() {
            *first = blocks;
        }
        demand
    }

    /// Whether what a step takes is free.
    pub fn is_free(&self, demand: &Demand) -> bool {
        let mut wanted = demand.blocks.iter().zip(&self.pools);
        demand.seats <= self.free_seats.len()
            && wanted.all(|(&blocks, pool)| blocks <= pool.free.len())
    }

    /// Whether there is room for a sequence that has yet to be computed and for a copy of it, but for blocks of layers that see
    /// all positions.
    pub fn has_room_for_two(&self) -> bool {
        let mut rings = self.groups.iter().zip(&self.pools).skip(1);
        (!self.stateful || self.free_seats.len() >= 2)
            && rings.all(|(group, pool)| pool.free.len() >= 2 * group.table_blocks)
    }

    /// Whether what a step takes is free: if not, an error that says what is not.
    ///
    /// # Errors
    /// If there is no free seat, or no free block.
    pub fn has_room(&self, demand: &Demand) -> Result<()> {
        if demand.seats > self.free_seats.len() {
            return Err(Error::NoSeat);
        }
        let wanted = demand.blocks.iter().zip(&self.pools);
        let Some(number) = wanted.clone().position(|(&wanted, pool)| wanted > pool.free.len())
        else {
            return Ok(());
        };
        let group = &self.groups[number];
        let mut holders: Vec<_> =
            self.sequences.iter().map(|(&id, sequence)| (id, sequence.held(number))).collect();
        holders.retain(|(_, blocks)| *blocks > 0);
        holders.sort_unstable_by_key(|&(id, blocks)| (Reverse(blocks), id));
        Err(Error::PoolFull {
            wanted: demand.blocks[number],
            free: self.pools[number].free.len(),
            pool: group.cells(),
            block: BLOCK,
            holders,
        })
    }

    /// Finds cells for a step. Each token must continue its sequence. On an error nothing has changed.
    ///
    /// # Errors
    /// As [`KvTable::demand`] and [`KvTable::has_room`].
    pub fn prepare(&mut self, tokens: &[StepToken]) -> Result<PlacedStep> {
        let demand = self.demand(tokens)?;
        self.has_room(&demand)?;
        let mut placed = PlacedStep::default();
        for token in tokens {
            let missing = || Error::Internal("a step found no room that was there".into());
            let position = token.position as usize;
            let sequence = self.sequences.entry(token.sequence).or_insert_with(|| Sequence {
                seat: None,
                length: 0,
                entries: self.groups.iter().map(Entries::empty).collect(),
            });
            let seat = match sequence.seat {
                Some(seat) => seat,
                None => *sequence.seat.insert(self.free_seats.pop().ok_or_else(missing)?),
            };
            let mut cells = [0; 2];
            for (number, (group, pool)) in self.groups.iter().zip(&mut self.pools).enumerate() {
                let logical = position / BLOCK;
                let entries = &mut sequence.entries[number];
                let entry = &mut entries.blocks[logical % group.table_blocks];
                let offset = position % BLOCK;
                let block = match *entry {
                    Some(block) if pool.uses[block as usize] == 1 => block,
                    shared => {
                        let block = pool.take().ok_or_else(missing)?;
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
                seat,
                cells,
                want_logits: token.want_logits,
            });
        }
        Ok(placed)
    }

    /// Whether a sequence cannot be shortened to any length: it has a window, or states.
    pub fn forgets(&self) -> bool {
        self.stateful || self.groups.iter().any(|group| group.window.is_some())
    }

    /// How many seats are free.
    pub fn free_seats(&self) -> usize {
        self.free_seats.len()
    }

    /// How many blocks of each group are free.
    pub fn free_blocks(&self) -> Vec<usize> {
        self.pools.iter().map(|pool| pool.free.len()).collect()
    }

    /// Blocks of the first group that these sequences hold and no others do.
    pub fn held_alone(&self, ids: impl Iterator<Item = SequenceId>) -> usize {
        let Some(pool) = self.pools.first() else { return 0 };
        let mut uses = vec![0; pool.uses.len()];
        for sequence in ids.filter_map(|id| self.sequences.get(&id)) {
            for &block in sequence.entries[0].blocks.iter().flatten() {
                uses[block as usize] += 1;
            }
        }
        uses.iter().zip(&pool.uses).filter(|(here, all)| **here > 0 && here == all).count()
    }

    /// Blocks of a group that a sequence has, shared ones included.
    pub fn held(&self, id: SequenceId, group: usize) -> usize {
        self.sequences.get(&id).map_or(0, |sequence| sequence.held(group))
    }
}
