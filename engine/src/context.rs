//! A context: sequences of tokens on a device, with their keys and values.

mod flight;

pub use flight::{Choice, Flight, Pair};

use crate::blueprint::{Blueprint, Sizes};
use crate::executor::{Executor, Memory, all_finite};
use crate::kv::{KvTable, PrefixCache};
use crate::profile::StepProfile;
use crate::select::Sampling;
use crate::sequence::{Dropped, Sequence};
use crate::spec::Spec;
use crate::step::{Input, SequenceId, StepToken};
use crate::{Error, Result};

/// The keys and values of a sequence, in host memory.
#[derive(Debug, Clone)]
pub struct Snapshot {
    length: usize,
    oldest: Vec<usize>,
    /// Group and entry of each block.
    blocks: Vec<(usize, usize)>,
    bytes: Vec<Vec<u8>>,
    state: Vec<u8>,
}

impl Snapshot {
    /// How many tokens the sequence had.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// Sequences of tokens on a device.
pub struct Context {
    executor: Box<dyn Executor>,
    table: KvTable,
    /// Sequences that were handed back for others that begin alike.
    cache: PrefixCache,
    sizes: Sizes,
    vocabulary: usize,
    /// Numbers of an embedding, and with the zeros behind them.
    embedding: (usize, usize),
    /// Numbers of a row that a token gives: logits over the vocabulary, or a state.
    row: usize,
    /// Whether sequences have states, which cannot be taken back.
    stateful: bool,
    /// The number of the next sequence, and how many handles there are.
    next_sequence: u32,
    handles: usize,
    dropped: Dropped,
}

crate::opaque::opaque_debug!(Context { sizes, vocabulary, handles });

impl Context {
    /// A context of a model with this spec, over an executor made by this blueprint. Others ask [`crate::Model::context`].
    #[doc(hidden)]
    pub fn new(spec: &Spec, blueprint: &Blueprint, executor: Box<dyn Executor>) -> Self {
        let sizes = blueprint.sizes.clone();
        let table = blueprint.table(spec.context_length);
        let stateful = !blueprint.plan.states.is_empty();
        let vocabulary = spec.vocabulary;
        let row = if spec.pooling.is_some() { spec.embedding } else { vocabulary };
        Self {
            executor,
            table,
            cache: PrefixCache::default(),
            sizes,
            vocabulary,
            embedding: (spec.embedding_numbers, spec.embedding),
            row,
            stateful,
            next_sequence: 0,
            handles: 0,
            dropped: Dropped::default(),
        }
    }

    /// Computes a step and answers a row of logits for each token that wants them. Numbers of sequences are those of
    /// [`Context::sequence`]'s handles; one who numbers sequences without it frees them by [`Context::free`]. Tokens continue their
    /// sequences; several sequences may take part. A step larger than the device takes is cut into pieces.
    pub fn step(&mut self, tokens: &[StepToken]) -> Result<Vec<Vec<f32>>> {
        let mut rows = Vec::new();
        self.step_with(tokens, &mut |logits| rows.push(logits.to_vec()), &mut || false)?;
        Ok(rows)
    }

    /// The same, handing each row of logits over as it comes. `cancelled` is asked between pieces; if it
    /// says so the rest is left out. Answers how many tokens were computed.
    pub fn step_with(
        &mut self,
        tokens: &[StepToken],
        on_logits: &mut dyn FnMut(&[f32]),
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<usize> {
        self.step_with_rows(tokens, &[], on_logits, cancelled)
    }

    /// The same with tokens among them that are no ids but rows of the stream, `rows` by their numbers ([`Input::Row`]), as
    /// wide as an embedding.
    pub fn step_with_rows(
        &mut self,
        tokens: &[StepToken],
        rows: &[Vec<f32>],
        on_logits: &mut dyn FnMut(&[f32]),
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<usize> {
        self.free_dropped();
        self.check_inputs(tokens, rows)?;
        let mut done = 0;
        while done < tokens.len() {
            if cancelled() {
                break;
            }
            let piece = &tokens[done..done + self.piece(&tokens[done..])];
            self.make_room(piece)?;
            let mut placed = self.table.prepare(piece)?;
            for token in piece {
                if let Input::Row(row) = token.input {
                    let end = placed.rows.len() + self.embedding.1;
                    placed.rows.extend_from_slice(&rows[row as usize]);
                    placed.rows.resize(end, 0.0);
                }
            }
            self.executor.step(&self.table, &placed)?;
            if piece.iter().all(|token| !token.want_logits) {
                self.executor.keep_pace()?;
            } else {
                let logits = self.executor.logits()?;
                let wanted = piece.iter().filter(|token| token.want_logits);
                for (row, token) in logits.chunks_exact(self.row).zip(wanted) {
                    if !all_finite(row) {
                        return Err(Error::NotFinite {
                            device: self.executor.device_name(),
                            position: token.position,
                        });
                    }
                    on_logits(row);
                }
            }
            done += piece.len();
        }
        Ok(done)
    }

    /// Computes a step that the device takes at once, dispatch by dispatch, and answers what each took.
    #[doc(hidden)]
    pub fn profile_step(&mut self, tokens: &[StepToken]) -> Result<StepProfile> {
        self.free_dropped();
        self.check_inputs(tokens, &[])?;
        let most = self.piece(tokens);
        if tokens.is_empty() || most < tokens.len() {
            let length = tokens.len();
            return Err(Error::Option(format!(
                "a step of 1 to {most} tokens can be timed, not of {length}"
            )));
        }
        self.make_room(tokens)?;
        let placed = self.table.prepare(tokens)?;
        self.executor.profile(&self.table, &placed)
    }

    /// Whether ids can be chosen on the device in this way ([`Choice`]).
    pub fn can_select(&self, sampling: &Sampling) -> bool {
        self.executor.can_select(sampling)
    }

    /// Whether it pays to begin a step before the ids of the last are here ([`Flight::follow`]): where a step goes on by itself.
    pub fn runs_ahead(&self) -> bool {
        self.executor.is_asynchronous()
    }

    /// A new sequence, whose handle frees it when it is dropped.
    ///
    /// # Errors
    /// If as many are alive as the context was made for.
    pub fn sequence(&mut self) -> Result<Sequence> {
        self.free_dropped();
        if self.handles == self.sizes.sequences {
            return Err(Error::NoSeat);
        }
        let id = SequenceId(self.next_sequence);
        self.next_sequence += 1;
        self.handles += 1;
        Ok(Sequence::new(id, self.dropped.clone()))
    }

    /// A new sequence that holds as much of the start of `ids` as the context has keys and values of, and how many of them that
    /// is: the last one never. It is taken from sequences that were handed back ([`Context::keep`]), or shared with them and
    /// with those of `running`, whose tokens are given.
    ///
    /// # Errors
    /// If as many are alive as the context was made for, or the device fails.
    pub fn sequence_like(
        &mut self,
        ids: &[u32],
        running: &[(SequenceId, &[u32])],
    ) -> Result<(Sequence, usize)> {
        let sequence = self.sequence()?;
        let Some(prefix) = self.cache.find(&self.table, ids, running) else {
            return Ok((sequence, 0));
        };
        if prefix.is_whole {
            sequence.into_id();
            return Ok((Sequence::new(prefix.sequence, self.dropped.clone()), prefix.length));
        }
        match self.fork(prefix.sequence, sequence.id()) {
            Ok(()) => {
                let length = self.table.truncate(sequence.id(), prefix.length);
                Ok((sequence, length))
            }
            // Its states have no second seat.
            Err(Error::NoSeat) => Ok((sequence, 0)),
            Err(error) => Err(error),
        }
    }

    /// Hands a sequence back whose first tokens are `ids`, for others that begin alike. What was used least recently of such is
    /// given up where a step needs its place.
    pub fn keep(&mut self, sequence: Sequence, ids: &[u32]) {
        if !sequence.is_of(&self.dropped) {
            // Another context's, which frees it.
            return;
        }
        self.handles -= 1;
        let id = sequence.into_id();
        // What it has beyond them nobody knows.
        let length = self.table.truncate(id, ids.len());
        self.cache.keep(&mut self.table, id, &ids[..length]);
    }

    /// Keeps a copy of what a sequence holds now, for others that begin alike, if that takes nothing from anybody. Of a model
    /// whose sequences can be shortened none is needed.
    pub fn keep_copy(&mut self, sequence: SequenceId, ids: &[u32]) -> Result<()> {
        let length = self.table.length(sequence);
        if length == 0 || length > ids.len() || !self.table.forgets() {
            return Ok(());
        }
        if self.stateful && self.table.free_seats() == 0 {
            return Ok(());
        }
        let copy = SequenceId(self.next_sequence);
        self.next_sequence += 1;
        self.fork(sequence, copy)?;
        self.cache.keep(&mut self.table, copy, &ids[..length]);
        Ok(())
    }

    /// Sequences that were handed back and are still held.
    pub fn kept(&self) -> usize {
        self.cache.count()
    }

    /// Gives up all that was handed back.
    pub fn forget_kept(&mut self) {
        self.cache.clear(&mut self.table);
    }

    /// Blocks of keys and values that are free, of the layers that see all positions.
    pub fn free_blocks(&self) -> usize {
        self.table.free_blocks().first().copied().unwrap_or(0)
    }

    /// Whether a sequence cannot be shortened to any length: it has a window, or states.
    pub fn forgets(&self) -> bool {
        self.table.forgets()
    }

    /// Makes so many blocks free, of the layers that see all positions, where what was handed back holds them. Answers whether
    /// they are.
    /// If all of it together does not do, none of it is given up.
    pub(crate) fn make_blocks(&mut self, blocks: usize) -> bool {
        let demand = self.table.demand_of_blocks(blocks);
        if self.table.is_free(&demand) {
            return true;
        }
        if self.free_blocks() + self.cache.obtainable(&self.table) < blocks {
            return false;
        }
        while !self.table.is_free(&demand) {
            if !self.cache.give_way(&mut self.table, &demand) {
                return false;
            }
        }
        true
    }

    /// Whether a copy of a sequence can be kept that has yet to be computed ([`Context::keep_copy`]).
    pub(crate) fn can_keep_copy(&self) -> bool {
        self.table.forgets() && self.table.has_room_for_two()
    }

    /// Makes room for a step, where what was handed back holds it.
    ///
    /// # Errors
    /// If a token does not continue its sequence, or there is no room.
    pub(crate) fn make_room(&mut self, tokens: &[StepToken]) -> Result<()> {
        loop {
            let demand = self.table.demand(tokens)?;
            if self.table.is_free(&demand) {
                return Ok(());
            }
            if !self.cache.give_way(&mut self.table, &demand) {
                return self.table.has_room(&demand);
            }
        }
    }

    /// Frees the sequences whose handles are gone.
    fn free_dropped(&mut self) {
        for id in self.dropped.take() {
            self.table.free(id);
            self.handles -= 1;
        }
    }

    /// Refuses ids that the vocabulary has not, and rows that are not given or not as wide as an embedding.
    fn check_inputs(&self, tokens: &[StepToken], rows: &[Vec<f32>]) -> Result<()> {
        for (index, token) in tokens.iter().enumerate() {
            let why = match token.input {
                Input::Id(id) if id as usize >= self.vocabulary => {
                    format!("id {id} is not in the vocabulary of {} tokens", self.vocabulary)
                }
                Input::Row(row) => match rows.get(row as usize).map(Vec::len) {
                    None => format!("row {row} is not among the {} given", rows.len()),
                    Some(width) if width != self.embedding.0 => {
                        format!("row {row} has {width} numbers, an embedding {}", self.embedding.0)
                    }
                    Some(_) => continue,
                },
                Input::Id(_) => continue,
                Input::Pending => {
                    "an id that the device has chosen is continued by Flight::follow".into()
                }
            };
            return Err(Error::Step { index, why });
        }
        Ok(())
    }

    /// How many of the tokens the device takes at once.
    fn piece(&self, tokens: &[StepToken]) -> usize {
        let mut outputs = 0;
        for (index, token) in tokens.iter().enumerate().take(self.sizes.chunk) {
            outputs += usize::from(token.want_logits);
            if outputs > self.sizes.outputs {
                return index;
            }
        }
        tokens.len().min(self.sizes.chunk)
    }

    /// How many tokens a sequence holds.
    pub fn length(&self, sequence: SequenceId) -> usize {
        self.table.length(sequence)
    }

    /// Shortens a sequence to `position` tokens, or further where a window has already moved on; answers
    /// how many it has now, from where the caller computes again.
    pub fn truncate(&mut self, sequence: SequenceId, position: usize) -> usize {
        self.table.truncate(sequence, position)
    }

    /// Makes `to` a copy of `from`; what they have in common is stored once.
    pub fn fork(&mut self, from: SequenceId, to: SequenceId) -> Result<()> {
        self.free_dropped();
        self.table.fork(from, to)?;
        match (self.table.seat(from), self.table.seat(to)) {
            (Some(from), Some(to)) if self.stateful && from != to => {
                self.executor.copy_state(from, to)
            }
            _ => Ok(()),
        }
    }

    /// Forgets a sequence.
    pub fn free(&mut self, sequence: SequenceId) {
        self.table.free(sequence);
    }

    /// Copies a sequence's keys and values to host memory.
    pub fn snapshot(&mut self, sequence: SequenceId) -> Result<Snapshot> {
        let blocks = self.table.blocks(sequence);
        let bytes = blocks
            .iter()
            .map(|&(group, _, block)| self.executor.read_block(group, block))
            .collect::<Result<Vec<_>>>()?;
        Ok(Snapshot {
            length: self.table.length(sequence),
            oldest: self.table.oldest(sequence),
            blocks: blocks.into_iter().map(|(group, entry, _)| (group, entry)).collect(),
            bytes,
            state: match self.table.seat(sequence).filter(|_| self.stateful) {
                Some(seat) => self.executor.read_state(seat)?,
                None => Vec::new(),
            },
        })
    }

    /// Makes `sequence` what a snapshot of this context (or one like it) holds.
    pub fn restore(&mut self, sequence: SequenceId, snapshot: &Snapshot) -> Result<()> {
        self.free_dropped();
        let blocks =
            self.table.restore(sequence, snapshot.length, &snapshot.oldest, &snapshot.blocks)?;
        for ((&(group, _), block), bytes) in snapshot.blocks.iter().zip(blocks).zip(&snapshot.bytes)
        {
            self.executor.write_block(group, block, bytes)?;
        }
        if let Some(seat) = self.table.seat(sequence).filter(|_| self.stateful) {
            self.executor.write_state(seat, &snapshot.state)?;
        }
        Ok(())
    }

    /// Positions a sequence may have.
    pub fn positions(&self) -> usize {
        self.sizes.positions
    }

    /// The sizes.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Bytes allocated for model and context.
    pub fn memory(&self) -> Memory {
        self.executor.memory()
    }

    /// The device's name.
    pub fn device_name(&self) -> String {
        self.executor.device_name()
    }
}
