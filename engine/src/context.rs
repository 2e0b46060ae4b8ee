//! A context: sequences of tokens on a device, with their keys and values.

use crate::blueprint::{Blueprint, Sizes};
use crate::executor::{Executor, Memory, Selection};
use crate::kv::KvTable;
use crate::model::Spec;
use crate::profile::StepProfile;
use crate::select::Sampling;
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
    sizes: Sizes,
    vocabulary: usize,
    /// Numbers of a row that a token gives: logits over the vocabulary, or a state.
    row: usize,
    /// Whether sequences have states, which cannot be taken back.
    stateful: bool,
}

impl Context {
    /// A context of a model with this spec, over an executor made by this blueprint.
    pub fn new(spec: &Spec, blueprint: &Blueprint, executor: Box<dyn Executor>) -> Self {
        let sizes = blueprint.sizes.clone();
        let table = blueprint.table(spec.context_length);
        let stateful = !blueprint.plan.states.is_empty();
        let vocabulary = spec.vocabulary;
        let row = if spec.pooling.is_some() { spec.embedding } else { vocabulary };
        Self { executor, table, sizes, vocabulary, row, stateful }
    }

    /// Computes a step and answers a row of logits for each token that wants them. Tokens continue their
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
        self.check_ids(tokens)?;
        let mut done = 0;
        while done < tokens.len() {
            if cancelled() {
                break;
            }
            let piece = &tokens[done..done + self.piece(&tokens[done..])];
            let prepared = self.table.prepare(piece)?;
            self.executor.step(&self.table, &prepared)?;
            if piece.iter().any(|token| token.want_logits) {
                let logits = self.executor.logits()?;
                let wanted = piece.iter().filter(|token| token.want_logits);
                for (row, token) in logits.chunks_exact(self.row).zip(wanted) {
                    // Without an early end, so that it becomes vector code.
                    if !row.iter().fold(true, |finite, logit| finite & logit.is_finite()) {
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
    pub fn profile_step(&mut self, tokens: &[StepToken]) -> Result<StepProfile> {
        self.check_ids(tokens)?;
        let most = self.piece(tokens);
        if tokens.is_empty() || most < tokens.len() {
            let length = tokens.len();
            return Err(Error::Option(format!(
                "a step of 1 to {most} tokens can be timed, not of {length}"
            )));
        }
        let prepared = self.table.prepare(tokens)?;
        self.executor.profile(&self.table, &prepared)
    }

    /// Whether ids can be chosen on the device in this way, so that the next step need not wait for them.
    pub fn can_select(&self, sampling: &Sampling) -> bool {
        // A step too many could not be undone.
        !self.stateful && self.executor.can_select(sampling)
    }

    /// Tells the device the ids so far, for penalties.
    pub fn set_recent(&mut self, ids: &[u32]) {
        self.executor.set_recent(ids);
    }

    /// Computes a step whose last token wants logits, and has the device choose an id from them, all
    /// without waiting. Answers how many tokens were computed; if `cancelled` cut them short no id is chosen.
    pub fn step_and_select(
        &mut self,
        tokens: &[StepToken],
        selection: &Selection,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<usize> {
        let mut done = 0;
        if tokens.is_empty() {
            self.executor.select(selection)?;
        }
        while done < tokens.len() {
            if cancelled() {
                return Ok(done);
            }
            let piece = &tokens[done..done + self.piece(&tokens[done..])];
            let prepared = self.table.prepare(piece)?;
            done += piece.len();
            if done < tokens.len() {
                self.executor.step(&self.table, &prepared)?;
            } else {
                self.executor.step_and_select(&self.table, &prepared, selection)?;
            }
        }
        Ok(done)
    }

    /// Waits for the id at a place of the ring, one of the last two that were chosen.
    pub fn selected(&mut self, ring: u32, position: u32) -> Result<u32> {
        let id = self.executor.selected(ring)?;
        id.ok_or_else(|| Error::NotFinite { device: self.executor.device_name(), position })
    }

    /// Refuses ids that the vocabulary has not.
    fn check_ids(&self, tokens: &[StepToken]) -> Result<()> {
        for (index, token) in tokens.iter().enumerate() {
            if let Input::Id(id) = token.input
                && id as usize >= self.vocabulary
            {
                let why = format!("id {id} is not in the vocabulary of {} tokens", self.vocabulary);
                return Err(Error::Step { index, why });
            }
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
