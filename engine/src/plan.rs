//! What is to be computed: a list of [`Op`]s over named values, in the order of the mathematics.
//!
//! An op is a step at the coarsest grain that all executors share. The reference computes it naively in
//! f64, the CPU executor by loops, the GPU executor lowers it to dispatches. A value is written once: an op that changes
//! one reads it and writes another, and [`place`] lets both share a buffer where nothing needs the first any more.

mod decoder;
mod liveness;
pub mod op;
mod operands;
mod segments;

pub use liveness::{Buffers, place};
pub use op::{Epilogue, KvLayerId, Op, Parts, RopeId, RowOf, StateId, ValueId};
pub use operands::{Id, Operand, Role};
pub use segments::Segment;

use std::ops::Range;

use crate::Result;
use crate::kv::KvType;
use crate::spec::ModelFile;
use crate::spec::rope::Rope;
use crate::spec::weights::{Weight, WeightId};

/// How many rows a value has in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// One a token of the step.
    Tokens,
    /// One a token whose logits are wanted.
    Outputs,
}

/// An activation: `rows` rows of `width` floats.
#[derive(Debug, Clone, Copy)]
pub struct Value {
    /// What it is, for readers and traces.
    pub name: &'static str,
    /// Floats per row.
    pub width: usize,
    /// Rows per step.
    pub rows: Rows,
}

/// The keys and values of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayer {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a key head.
    pub key_length: usize,
    /// Elements of a value head.
    pub value_length: usize,
    /// A key is visible if it is fewer than this many positions back.
    pub window: Option<usize>,
}

impl KvLayer {
    /// The number of the group of layers that it is of: 0 where all positions are kept, 1 where those of a window.
    pub fn group(&self) -> usize {
        usize::from(self.window.is_some())
    }

    /// Elements of all key heads of a cell.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.key_length
    }

    /// Elements of all value heads of a cell.
    pub fn value_width(&self) -> usize {
        self.kv_heads * self.value_length
    }

    /// Elements of all query heads of a token.
    pub fn query_width(&self) -> usize {
        self.heads * self.key_length
    }

    /// Bytes of all key heads of a cell.
    pub fn key_bytes(&self, kind: KvType) -> usize {
        self.kv_heads * kind.head_words(self.key_length) * 4
    }

    /// Bytes of all value heads of a cell.
    pub fn value_bytes(&self, kind: KvType) -> usize {
        self.kv_heads * kind.head_words(self.value_length) * 4
    }

    /// Width of the value `[q | k | v]`.
    pub fn qkv_width(&self) -> usize {
        self.query_width() + self.key_width() + self.value_width()
    }
}

/// All of a model's mathematics from token ids to logits.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The steps in order.
    pub ops: Vec<Op>,
    /// The ops of each layer. Before the first lie those of the embedding, behind the last those of the head.
    pub layers: Vec<Range<usize>>,
    /// The activations.
    pub values: Vec<Value>,
    /// The tensors.
    pub weights: Vec<Weight>,
    /// The rotations.
    pub ropes: Vec<Rope>,
    /// The layers that have keys and values.
    pub kv_layers: Vec<KvLayer>,
    /// Floats of each state that a sequence has, zero at its start.
    pub states: Vec<usize>,
    /// The last op's result, one row an output: logits over the vocabulary.
    pub logits: ValueId,
}

impl Plan {
    /// Plans a model for a context of so many positions a sequence.
    pub fn new(model: &ModelFile, positions: usize) -> Result<Self> {
        Self::with_weights(model, positions, Vec::new())
    }

    /// The same, with the weights numbered as in `weights`; those that are not among them come after.
    pub fn with_weights(model: &ModelFile, positions: usize, weights: Vec<Weight>) -> Result<Self> {
        decoder::plan(model, positions, weights)
    }

    /// A weight by its id.
    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.0]
    }

    /// A value by its id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// What becomes of ids: the first value of the stream.
    pub fn embedding(&self) -> Option<ValueId> {
        self.ops.iter().find_map(|op| match op {
            Op::Embed(op) => Some(op.out),
            _ => None,
        })
    }

    /// A value and what it was before ops changed it, the newest first.
    pub fn versions(&self, id: ValueId) -> Vec<ValueId> {
        let written = |id: &ValueId| self.ops.iter().find(|op| op.result() == *id);
        std::iter::successors(Some(id), |id| written(id)?.before()).collect()
    }

    /// A layer's cache by its id.
    pub fn kv_layer(&self, id: KvLayerId) -> &KvLayer {
        &self.kv_layers[id.0]
    }

    /// Tokens in the vocabulary: the width of the logits.
    pub fn vocabulary(&self) -> usize {
        self.value(self.logits).width
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::{Blueprint, ContextOptions};

    #[test]
    fn versions_go_back_to_what_was_changed_first() {
        let model = crate::synthetic::open("llama-1b/2:q4_0").unwrap();
        let plan = Blueprint::new(&model, &ContextOptions::default()).unwrap().plan;
        // The stream into the last norm: the embedding, to which two layers have added twice.
        let last = plan.ops.iter().rev().find_map(|op| match op {
            Op::Norm(op) => Some(op.input),
            _ => None,
        });
        let versions = plan.versions(last.unwrap());
        assert_eq!(versions.len(), 5);
        assert!(versions.iter().all(|&id| plan.value(id).name == "x"));
        let Op::Embed(embed) = &plan.ops[0] else { panic!("{:?}", plan.ops[0]) };
        assert_eq!(versions.last(), Some(&embed.out));
        assert_eq!(plan.versions(embed.out), [embed.out]);
    }
}
