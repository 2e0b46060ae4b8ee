//! The buffers of a context by size: what is allocated, and what is predicted before.

use super::adapter::buffer_bytes;
use super::choice::{Caps, Count, FEW, MOST_TILE_TOKENS};
use super::executor::numbers::Numbers;
use super::layout::Layout;
use super::lower::{attention_parts, candidate_room, tile_words};
use crate::Result;
use crate::blueprint::Blueprint;
use crate::executor::{Memory, Precision};
use crate::kv::BLOCK;
use crate::plan::{KvLayer, KvLayerId, Op, Plan, ValueId};

/// Words of a token in the kernels' `Token`.
pub(super) const TOKEN_WORDS: usize = 8;
/// Slots for ids selected on the GPU.
pub const RING_LENGTH: usize = 64;

/// The buffers of a context, by size in bytes.
pub(super) struct BufferSizes {
    pub values: Vec<u64>,
    /// Of [`values_apart`], for steps of few tokens.
    pub apart: Vec<u64>,
    pub keys: Vec<u64>,
    pub kv_values: Vec<u64>,
    pub numbers: u64,
    pub tables: u64,
    pub selected: u64,
    pub step: u64,
    pub logits_readback: u64,
    pub block_readback: u64,
    pub block_copy: u64,
    pub candidates: u64,
    pub part_sums: u64,
    pub part_maxima: u64,
    pub expert_tiles: u64,
    pub rounded: u64,
    pub rounded_scales: u64,
    pub states: Vec<u64>,
}

/// Bytes of the ring of recent ids and its count.
pub(super) const RECENT_BYTES: u64 = 65 * 4;
/// How many selected ids may be on their way to the host.
pub(super) const SELECTIONS_IN_FLIGHT: usize = 2;

impl BufferSizes {
    /// The sizes for a context, with kernels chosen for `caps`.
    pub fn new(blueprint: &Blueprint, caps: &Caps) -> Self {
        let Blueprint { plan, sizes, groups, buffers } = blueprint;
        let cells = |layer: usize| groups[blueprint.group_of(KvLayerId(layer))].cells() as u64;
        let layers = 0..plan.kv_layers.len();
        let keys: Vec<u64> = layers
            .clone()
            .map(|l| cells(l) * plan.kv_layers[l].key_bytes(sizes.key_type) as u64)
            .collect();
        let kv_values: Vec<u64> = layers
            .clone()
            .map(|l| cells(l) * plan.kv_layers[l].value_bytes(sizes.value_type) as u64)
            .collect();
        let block_readback = (0..groups.len())
            .map(|group| block_bytes(blueprint, group).iter().map(|(k, v)| k + v).sum())
            .max()
            .unwrap_or(0);
        let block_copy = (0..groups.len())
            .flat_map(|group| block_bytes(blueprint, group))
            .map(|(keys, values)| keys.max(values))
            .max()
            .unwrap_or(0);
        // Only steps of few tokens split their cells.
        let part_heads = |width: &dyn Fn(&KvLayer) -> usize| {
            let of = |layer: &KvLayer, count, tokens| {
                width(layer) * tokens * attention_parts(layer, caps, count) as usize
            };
            let most = |layer: &KvLayer| {
                of(layer, Count::One, 1).max(of(layer, Count::Few, sizes.chunk.min(FEW)))
            };
            plan.kv_layers.iter().map(most).max().unwrap_or(0) as u64
        };
        // Only products of few rows find their inputs rounded to bytes; cooperative ones of many find halves, in whole
        // tiles of tokens, but with experts a row for each token or pair.
        let widest = |op: &Op| match op {
            Op::Linear { input, .. } => Some(plan.value(*input).width),
            _ => None,
        };
        let widest = plan.ops.iter().filter_map(widest).max().unwrap_or(0);
        let tiled_rows = sizes.chunk.max(sizes.outputs).next_multiple_of(MOST_TILE_TOKENS);
        let of_experts = |op: &Op| match op {
            Op::ExpertsGated { input, .. } => Some((plan.value(*input).width, 1)),
            Op::ExpertsDown { input, routing, .. } => {
                Some((plan.value(*input).width, routing.used))
            }
            _ => None,
        };
        let of_experts = plan.ops.iter().filter_map(of_experts);
        let (expert_width, expert_rows) =
            of_experts.fold((0, 0), |most, (width, rows)| (width.max(most.0), rows.max(most.1)));
        let (rounded, rounded_scales) = match caps.precision {
            Precision::Int8 => (widest * FEW, widest * FEW / 16 * 4),
            Precision::F16Tiles if caps.cooperative && sizes.chunk > FEW => {
                let halves = (widest * tiled_rows).max(expert_width * sizes.chunk);
                (halves * 2, tiled_rows.max(expert_rows * sizes.chunk) * 4)
            }
            _ => (0, 0),
        };
        let table_words: usize = groups.iter().map(|g| g.table_blocks * sizes.sequences).sum();
        Self {
            values: buffers.floats.iter().map(|&floats| floats as u64 * 4).collect(),
            apart: values_apart(plan)
                .map(|id| (plan.value(id).width * sizes.chunk.min(FEW) * 4) as u64)
                .collect(),
            keys,
            kv_values,
            numbers: Numbers::room(blueprint),
            tables: table_words as u64 * 4,
            selected: RING_LENGTH as u64 * 4,
            step: 16,
            logits_readback: (plan.vocabulary() * sizes.outputs * 4) as u64,
            block_readback,
            block_copy,
            candidates: candidate_room(plan.vocabulary()) as u64 * 8,
            part_sums: part_heads(&|layer| layer.heads * layer.value_length) * 4,
            part_maxima: part_heads(&|layer| layer.heads) * 8,
            states: plan.states.iter().map(|&n| (n * sizes.sequences * 4) as u64).collect(),
            rounded: rounded as u64,
            rounded_scales: rounded_scales as u64,
            expert_tiles: plan
                .ops
                .iter()
                .filter_map(|op| match op {
                    Op::Route { routing, .. } => {
                        Some(tile_words(sizes.chunk, routing, caps) as u64 * 4)
                    }
                    _ => None,
                })
                .max()
                .unwrap_or(0),
        }
    }

    /// The bytes by purpose, as allocated; weights are not among them.
    pub fn memory(&self) -> Memory {
        let sum = |sizes: &[u64]| sizes.iter().map(|&bytes| buffer_bytes(bytes)).sum::<u64>();
        let small = [
            self.numbers,
            self.tables,
            self.selected,
            self.step,
            self.block_copy,
            self.part_sums,
            self.part_maxima,
            self.expert_tiles,
            self.rounded,
            self.rounded_scales,
        ];
        let selection = [self.candidates, self.candidates, RECENT_BYTES, 4];
        Memory {
            weights: 0,
            kv: sum(&self.keys) + sum(&self.kv_values) + sum(&self.states),
            compute: sum(&self.values) + sum(&self.apart) + sum(&small) + sum(&selection),
            staging: buffer_bytes(self.logits_readback)
                + buffer_bytes(self.block_readback)
                + SELECTIONS_IN_FLIGHT as u64 * buffer_bytes(8),
        }
    }
}

/// Values that steps of few tokens keep in buffers of their own, which nothing else is ever in: each v whose product
/// stands beside that of q and k. A buffer that was read before is, to wgpu, one to wait for before it is written,
/// whatever was waited for in between; the first use of a step is none.
pub(super) fn values_apart(plan: &Plan) -> impl Iterator<Item = ValueId> {
    plan.ops.iter().filter_map(|op| match *op {
        Op::QkRopeStore { v, .. } => v,
        _ => None,
    })
}

/// Bytes of keys and values of one block, for each layer of a group (0 and 0 for the others).
pub(super) fn block_bytes(blueprint: &Blueprint, group: usize) -> Vec<(u64, u64)> {
    let Blueprint { plan, sizes, .. } = blueprint;
    plan.kv_layers
        .iter()
        .map(|layer| {
            if usize::from(layer.window.is_some()) != group {
                return (0, 0);
            }
            let keys = BLOCK * layer.key_bytes(sizes.key_type);
            let values = BLOCK * layer.value_bytes(sizes.value_type);
            (keys as u64, values as u64)
        })
        .collect()
}

/// What a model and a context will take on a device, before anything is allocated.
pub fn predict(blueprint: &Blueprint, caps: &Caps) -> Result<Memory> {
    let layout = Layout::new(&blueprint.plan, caps)?;
    let weights =
        layout.matrices.iter().map(|matrix| buffer_bytes(matrix.bytes as u64)).sum::<u64>();
    let context = BufferSizes::new(blueprint, caps).memory();
    Ok(Memory { weights: weights + buffer_bytes(layout.vector_bytes as u64), ..context })
}
