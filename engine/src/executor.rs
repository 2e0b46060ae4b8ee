//! What a context asks of a device, whichever it is.

use crate::Result;
use crate::kv::{KvTable, KvType, Prepared};

/// The sizes of a context, fixed before anything is allocated.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    /// Positions a sequence.
    pub cells: usize,
    /// Sequences at once.
    pub sequences: usize,
    /// The most tokens of a step on the device.
    pub chunk: usize,
    /// The most rows of logits of a step on the device.
    pub outputs: usize,
    /// The type of keys.
    pub key_type: KvType,
    /// The type of values.
    pub value_type: KvType,
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

/// Computes steps: a context's device side.
pub trait Executor: Send {
    /// Computes a step whose tokens have cells. Its logits can be read until the next step.
    fn step(&mut self, table: &KvTable, step: &Prepared) -> Result<()>;

    /// The logits of the last step: a row of the vocabulary's length for each wanted token.
    fn logits(&mut self) -> Result<Vec<f32>>;

    /// The keys and values of a block, in all layers of its group.
    fn read_block(&mut self, group: usize, block: u32) -> Result<Vec<u8>>;

    /// Writes what [`Executor::read_block`] gave.
    fn write_block(&mut self, group: usize, block: u32, bytes: &[u8]) -> Result<()>;

    /// The device's name, for messages.
    fn device_name(&self) -> String;

    /// Bytes really allocated.
    fn memory(&self) -> Memory;
}
