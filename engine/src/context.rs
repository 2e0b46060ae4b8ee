//! A context: sequences of tokens on a device, with their keys and values.

use std::sync::Arc;

use crate::cpu::{CpuExecutor, CpuLoops, CpuWeights};
use crate::executor::{Executor, Memory, Selection, Sizes};
use crate::gpu::{GpuExecutor, GpuWeights};
use crate::kv::{Group, KvTable, KvType};
use crate::model::spec::MOST_IN_A_STEP;
use crate::model::{ModelFile, Spec};
use crate::plan::Plan;
use crate::profile::StepProfile;
use crate::select::Sampling;
use crate::step::{Input, SequenceId, StepToken};
use crate::{Error, Result};

/// The sizes and types of a context.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextOptions {
    /// Positions a sequence; none: the smaller of the model's own and 4096.
    pub cells: Option<usize>,
    /// Sequences at once.
    pub sequences: usize,
    /// The most tokens computed in one go.
    pub chunk: usize,
    /// The most rows of logits computed in one go; none: as many as take 64 MiB.
    pub outputs: Option<usize>,
    /// The type of keys.
    pub key_type: KvType,
    /// The type of values.
    pub value_type: KvType,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self {
            cells: None,
            sequences: 1,
            chunk: 512,
            outputs: None,
            key_type: KvType::F16,
            value_type: KvType::F16,
        }
    }
}

/// Positions of a context where nothing else is asked for.
pub const DEFAULT_CELLS: usize = 4096;
/// The most bytes of logits that are computed in one go.
const LOGITS_BYTES: usize = 64 << 20;

impl ContextOptions {
    /// The sizes for a model, checked.
    pub fn sizes(&self, spec: &Spec) -> Result<Sizes> {
        let cells = self.cells.unwrap_or(spec.context_length.min(DEFAULT_CELLS));
        if cells == 0 || cells > 1 << 24 {
            return Err(Error::Option(format!(
                "a context of {cells} positions is out of range (1 to 2^24)"
            )));
        }
        if self.sequences == 0 || self.sequences > 4096 {
            return Err(Error::Option(format!(
                "{} sequences are out of range (1 to 4096)",
                self.sequences
            )));
        }
        // Where tokens see later ones a text is one step.
        let chunk = if spec.sees_ahead() { cells } else { self.chunk };
        let chunk = chunk.clamp(1, MOST_IN_A_STEP).min(cells.max(self.sequences));
        Ok(Sizes {
            cells,
            sequences: self.sequences,
            chunk,
            // Embedding models give a state a token.
            outputs: match spec.pooling {
                Some(_) => chunk,
                None => {
                    self.outputs.unwrap_or(LOGITS_BYTES / (spec.vocabulary * 4)).clamp(1, chunk)
                }
            },
            key_type: self.key_type,
            value_type: self.value_type,
        })
    }
}

/// The groups of layers of a model: full ones, and windowed ones where there are any. Refuses heads that the types of
/// keys and values cannot hold.
pub fn kv_groups(spec: &Spec, file: &str, sizes: &Sizes) -> Result<Vec<Group>> {
    for layer in &spec.layers {
        let parts = [
            (true, sizes.key_type, layer.key_length, layer.key_numbers),
            (false, sizes.value_type, layer.value_length, layer.value_numbers),
        ];
        for (keys, kind, length, numbers) in parts {
            if kind.has_scales() && !length.is_multiple_of(32) {
                return Err(Error::CacheType { keys, kind: kind.name(), numbers });
            }
        }
    }
    let mut windows: Vec<_> = spec.layers.iter().filter_map(|layer| layer.window).collect();
    windows.sort_unstable();
    windows.dedup();
    if windows.len() > 1 {
        return Err(Error::Model {
            file: file.into(),
            why: format!("layers with different windows ({windows:?}) are not supported"),
        });
    }
    let group = |window| Group::new(window, sizes.cells, sizes.sequences, sizes.chunk);
    Ok(std::iter::once(group(None))
        .chain(windows.into_iter().map(|window| group(Some(window))))
        .collect())
}

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
    /// A context on a GPU that holds the model's weights.
    pub fn on_gpu(
        model: &ModelFile,
        weights: &Arc<GpuWeights>,
        options: &ContextOptions,
    ) -> Result<Self> {
        let sizes = options.sizes(&model.spec)?;
        let plan = Arc::new(Plan::new(model, sizes.cells)?);
        let groups = kv_groups(&model.spec, model.gguf.file(), &sizes)?;
        let executor = GpuExecutor::new(weights.clone(), plan, groups.clone(), sizes.clone())?;
        Ok(Self::with_executor(model, Box::new(executor), groups, sizes))
    }

    /// A context on the CPU: `threads` threads, the best instructions that the processor has.
    pub fn on_cpu(
        model: &ModelFile,
        weights: &Arc<CpuWeights>,
        options: &ContextOptions,
        loops: CpuLoops,
    ) -> Result<Self> {
        let sizes = options.sizes(&model.spec)?;
        let plan = Arc::new(Plan::new(model, sizes.cells)?);
        let groups = kv_groups(&model.spec, model.gguf.file(), &sizes)?;
        let executor = CpuExecutor::new(weights.clone(), plan, groups.clone(), &sizes, loops);
        Ok(Self::with_executor(model, Box::new(executor), groups, sizes))
    }

    /// A context over an executor made for these groups and sizes.
    pub fn with_executor(
        model: &ModelFile,
        executor: Box<dyn Executor>,
        groups: Vec<Group>,
        sizes: Sizes,
    ) -> Self {
        let table = KvTable::new(groups, sizes.cells, sizes.sequences, model.spec.context_length);
        let stateful = model.spec.is_recurrent();
        let table = if stateful { table.with_states() } else { table };
        let vocabulary = model.spec.vocabulary;
        let row = if model.spec.pooling.is_some() { model.spec.embedding } else { vocabulary };
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
    pub fn cells(&self) -> usize {
        self.sizes.cells
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
