//! What a context asks of a device, whichever it is.

use crate::error::Advice;
use crate::kv::{KvTable, PlacedStep};
use crate::plan::ValueId;
use crate::profile::StepProfile;
use crate::select::Sampling;
use crate::spec::Spec;
use crate::{Error, Result};

/// How exactly products are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// Activations and sums in f32: the library's default, and what programs call exact.
    #[default]
    F32,
    /// Prompts only, and only on GPUs that multiply matrices of halves (elsewhere f32 is faster, and taken): operands
    /// rounded to f16 in tiles, inputs divided by the largest of their token so that none overflows; sums in f32.
    F16Tiles,
    /// Activations rounded to signed bytes, 16 with one scale (llama.cpp does so by default, 32 or 256 with one).
    Int8,
}

impl Precision {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16Tiles, Self::Int8];

    /// The class of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16Tiles => "f16-tiles",
            Self::Int8 => "int8",
        }
    }

    /// The class that a model computes in where this one is asked for: `F32` where layers carry a state from token to token,
    /// and with it every rounding. The tiny falcon-h1 in f16-tiles came 3.1e-2 away from exact logits, where 2.3e-2 is
    /// allowed; qwen35 in int8 diverged by 1.18e-2, llama.cpp by 6.7e-3.
    #[must_use]
    pub fn in_model(self, spec: &Spec) -> Self {
        if spec.is_recurrent() { Self::F32 } else { self }
    }

    /// Whether products with a format's codes round their inputs to bytes. Not with Q2_0's, for which llama.cpp itself
    /// comes nearer than bytes: relative RMS 2.6e-2 on its tiny model, ours would be 2.9e-2.
    pub fn rounds_inputs(self, format: gguf::Format) -> bool {
        self == Self::Int8 && format.has_codes() && format != gguf::Format::Q2_0
    }
}

/// Bytes by purpose: what a model and a context take on a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights.
    pub weights: u64,
    /// Keys and values.
    pub kv: u64,
    /// Activations, logits included.
    pub compute: u64,
    /// Staging and readback.
    pub staging: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.kv + self.compute + self.staging
    }
}

/// How and from which logits the device chooses an id.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// How.
    pub sampling: Sampling,
    /// Which of the step's rows of logits it is chosen from.
    pub row: u32,
    /// The seat of the sequence that it continues.
    pub seat: u32,
    /// Which of a seed's streams of random numbers is drawn from.
    pub stream: u32,
    /// The position that it will have.
    pub position: u32,
}

/// Whether all of some logits are finite numbers.
pub(crate) fn all_finite(logits: &[f32]) -> bool {
    // Without an early end, so that it becomes vector code.
    logits.iter().fold(true, |finite, logit| finite & logit.is_finite())
}

/// That ids are asked for which nobody has chosen.
pub(crate) fn nothing_selected() -> Error {
    Error::Internal("ids are asked for that were not chosen".into())
}

/// Computes steps: a context's device side.
pub trait Executor: Send {
    /// Computes one of the blueprint's segments of a step whose tokens have cells. What it reads of other segments is what
    /// those, or [`Executor::write_value`], have written.
    fn run(&mut self, table: &KvTable, step: &PlacedStep, segment: usize) -> Result<()>;

    /// How many segments there are.
    fn segments(&self) -> usize;

    /// Computes all of a step. Its logits can be read until the next step.
    fn step(&mut self, table: &KvTable, step: &PlacedStep) -> Result<()> {
        (0..self.segments()).try_for_each(|segment| self.run(table, step, segment))
    }

    /// Computes a step dispatch by dispatch and answers what each took. Its logits can be read until the next step.
    fn profile(&mut self, _table: &KvTable, _step: &PlacedStep) -> Result<StepProfile> {
        Err(Error::unsupported("only a GPU's dispatches can be timed", Advice::UseGpu))
    }

    /// The logits of the last step: a row of the vocabulary's length for each wanted token, but for those that ids were chosen
    /// from.
    fn logits(&mut self) -> Result<Vec<f32>>;

    /// Waits, after a step of which nothing is read, until no more than that one is on its way.
    fn keep_pace(&mut self) -> Result<()> {
        Ok(())
    }

    /// Whether ids can be chosen on the device in this way; if not, the caller reads logits.
    fn can_select(&self, _sampling: &Sampling) -> bool {
        false
    }

    /// Whether a step goes on after the call that began it, so that it pays to begin the next before its ids are here.
    fn is_asynchronous(&self) -> bool {
        false
    }

    /// Tells the device the ids so far of a seat's sequence, for penalties.
    fn set_recent(&mut self, _seat: u32, _ids: &[u32]) {}

    /// Chooses ids from the last step's rows of logits, no two for a seat, without waiting for them.
    fn select(&mut self, _selections: &[Selection]) -> Result<()> {
        Err(Error::unsupported("this device does not choose ids", None))
    }

    /// Computes a step and chooses ids from its rows of logits, without waiting.
    fn step_and_select(
        &mut self,
        table: &KvTable,
        step: &PlacedStep,
        selections: &[Selection],
    ) -> Result<()> {
        self.step(table, step)?;
        self.select(selections)
    }

    /// Forgets ids that were chosen and not asked for, as a step was that failed.
    fn forget_selected(&mut self) {}

    /// Waits for the ids of the oldest selections that were not asked for yet, of which there may be two; none for a row of
    /// which a logit was no finite number.
    fn selected(&mut self) -> Result<Vec<Option<u32>>> {
        Err(Error::unsupported("this device does not choose ids", None))
    }

    /// The keys and values of a block, in all layers of its group.
    fn read_block(&mut self, group: usize, block: u32) -> Result<Vec<u8>>;

    /// Writes what [`Executor::read_block`] gave.
    fn write_block(&mut self, group: usize, block: u32, bytes: &[u8]) -> Result<()>;

    /// Copies the states of one place for sequences to another.
    fn copy_state(&mut self, from: u32, to: u32) -> Result<()>;

    /// The states of a place for sequences.
    fn read_state(&mut self, seat: u32) -> Result<Vec<u8>>;

    /// Writes what [`Executor::read_state`] gave.
    fn write_state(&mut self, seat: u32, bytes: &[u8]) -> Result<()>;

    /// Writes an activation's first rows: before a step, or before a segment that reads it.
    fn write_value(&mut self, id: ValueId, rows: &[f32]) -> Result<()>;

    /// The first `floats` floats of an activation, after the step, or the segment, that wrote it.
    fn read_value(&mut self, id: ValueId, floats: usize) -> Result<Vec<f32>>;

    /// The device's name, for messages.
    fn device_name(&self) -> String;

    /// Bytes really allocated.
    fn memory(&self) -> Memory;
}
