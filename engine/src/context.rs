//! A context: sequences of tokens on a device, with their keys and values.

use crate::blueprint::{Blueprint, Sizes};
use crate::executor::{Executor, Memory, Selection};
use crate::kv::KvTable;
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
            let mut placed = self.table.prepare(piece)?;
            for token in piece {
                if let Input::Row(row) = token.input {
                    let end = placed.rows.len() + self.embedding.1;
                    placed.rows.extend_from_slice(&rows[row as usize]);
                    placed.rows.resize(end, 0.0);
                }
            }
            self.executor.step(&self.table, &placed)?;
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
        let placed = self.table.prepare(tokens)?;
        self.executor.profile(&self.table, &placed)
    }

    /// Whether ids can be chosen on the device in this way, so that the next step need not wait for them ([`RunAhead`]).
    pub fn can_select(&self, sampling: &Sampling) -> bool {
        // A step too many could not be undone.
        !self.stateful && self.executor.can_select(sampling)
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
                Input::Pending(_) => {
                    "an id that the device has chosen is continued by RunAhead::next".into()
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

/// An id that the device has chosen, or will have, and that has perhaps not come here yet.
#[derive(Debug)]
pub struct Pending {
    ring: u32,
    position: u32,
    id: Option<u32>,
}

/// A sequence continued by ids that the device chooses, each step begun before the id of the last has come here.
///
/// An id is waited for after the step behind it was begun, or instead of one: two are on their way at most.
pub struct RunAhead<'a> {
    context: &'a mut Context,
    sequence: SequenceId,
    sampling: Sampling,
    /// Where the next id is kept on the device.
    ring: u32,
}

crate::opaque::opaque_debug!(RunAhead<'_> { sequence, sampling, ring });

impl<'a> RunAhead<'a> {
    /// For a sampling that the device [can choose by](Context::can_select), behind the ids `recent`.
    pub fn new(
        context: &'a mut Context,
        sequence: SequenceId,
        sampling: &Sampling,
        recent: &[u32],
    ) -> Self {
        context.free_dropped();
        context.executor.set_recent(recent);
        Self { context, sequence, sampling: sampling.clone(), ring: 0 }
    }

    /// Computes tokens of the sequence, the last of which alone wants logits, and has the device choose an id from them, without
    /// waiting. Answers how many tokens were computed; if `cancelled` cut them short no id is chosen.
    ///
    /// # Errors
    /// If a step is refused or the device fails.
    pub fn start(
        &mut self,
        tokens: &[StepToken],
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<(usize, Option<Pending>)> {
        self.context.check_inputs(tokens, &[])?;
        let position = tokens.last().map_or(0, |token| token.position + 1);
        let mut done = 0;
        while done < tokens.len() {
            if cancelled() {
                return Ok((done, None));
            }
            let piece = &tokens[done..done + self.context.piece(&tokens[done..])];
            done += piece.len();
            if done == tokens.len() {
                return Ok((done, Some(self.choose(piece, position)?)));
            }
            let placed = self.context.table.prepare(piece)?;
            self.context.executor.step(&self.context.table, &placed)?;
        }
        Ok((done, None))
    }

    /// Computes the token whose id is pending, and has the one after it chosen, without waiting.
    ///
    /// # Errors
    /// If there is no room for one more, or the device fails.
    pub fn next(&mut self, pending: &Pending) -> Result<Pending> {
        let token = StepToken {
            input: Input::Pending(pending.ring),
            sequence: self.sequence,
            position: pending.position,
            want_logits: true,
        };
        self.choose(&[token], pending.position + 1)
    }

    /// The id, once it is here.
    ///
    /// # Errors
    /// If a logit was no finite number, or the device fails.
    pub fn wait(&mut self, pending: &mut Pending) -> Result<u32> {
        if let Some(id) = pending.id {
            return Ok(id);
        }
        let executor = &mut self.context.executor;
        let id = executor.selected(pending.ring)?.ok_or_else(|| Error::NotFinite {
            device: executor.device_name(),
            position: pending.position,
        })?;
        pending.id = Some(id);
        Ok(id)
    }

    /// Computes a piece of a step and has the id at `position` chosen.
    fn choose(&mut self, piece: &[StepToken], position: u32) -> Result<Pending> {
        let (sequence, ring) = (self.sequence, self.ring);
        let selection = Selection { sampling: self.sampling.clone(), sequence, position, ring };
        let placed = self.context.table.prepare(piece)?;
        self.context.executor.step_and_select(&self.context.table, &placed, &selection)?;
        self.ring = self.ring.wrapping_add(1);
        Ok(Pending { ring, position, id: None })
    }
}
