//! THE table of a context's single buffers: what is not a weight, an activation, a layer's cache or a state. A new one is a row
//! here and its name in `Scratch`, and `Resource::Scratch` with that where a kernel binds it.

use wgpu::BufferUsages as Usage;

use super::choice::{Count, FEW, Kernels, MOST_TILE_TOKENS};
use super::dispatch::Scratch;
use super::lower::{attention_parts, candidate_room, tile_words};
use super::numbers::Numbers;
use crate::blueprint::Blueprint;
use crate::executor::Precision;
use crate::kv::BLOCK;
use crate::plan::{KvLayer, Op, op};

/// Words of a sequence's recent ids: how many there have been, then a ring of the last.
pub(super) const RECENT_WORDS: usize = 65;
/// How many steps' selected ids may be on their way to the host.
pub(super) const SELECTIONS_IN_FLIGHT: usize = 2;

/// One of the table's rows.
pub(super) struct Row {
    pub scratch: Scratch,
    /// For wgpu's messages.
    pub label: &'static str,
    pub usage: Usage,
    /// Its size in a context, with kernels chosen for some device.
    pub bytes: fn(&Blueprint, &Kernels) -> u64,
}

const STORAGE: Usage = Usage::STORAGE.union(Usage::COPY_DST).union(Usage::COPY_SRC);
const UNIFORM: Usage = Usage::UNIFORM.union(Usage::COPY_DST);
const READBACK: Usage = Usage::MAP_READ.union(Usage::COPY_DST);

const fn row(
    scratch: Scratch,
    label: &'static str,
    usage: Usage,
    bytes: fn(&Blueprint, &Kernels) -> u64,
) -> Row {
    Row { scratch, label, usage, bytes }
}

pub(super) const TABLE: [Row; 18] = [
    row(Scratch::Numbers, "numbers", STORAGE, |blueprint, _| Numbers::room(blueprint)),
    row(Scratch::Tables, "tables", STORAGE, table_bytes),
    row(Scratch::Selected, "selected", STORAGE, selected_bytes),
    row(Scratch::Step, "step", UNIFORM, |_, _| 16),
    row(Scratch::LogitsReadback, "logits readback", READBACK, |blueprint, _| {
        (blueprint.plan.vocabulary() * blueprint.sizes.outputs * 4) as u64
    }),
    row(Scratch::BlockReadback, "block readback", READBACK, |blueprint, _| {
        let of_layer = |(keys, values)| keys + values;
        let of_group = |group| block_bytes(blueprint, group).into_iter().map(of_layer).sum();
        (0..blueprint.groups.len()).map(of_group).max().unwrap_or(0)
    }),
    row(Scratch::BlockCopy, "block copy", STORAGE, |blueprint, _| {
        let all = (0..blueprint.groups.len()).flat_map(|group| block_bytes(blueprint, group));
        let block = all.map(|(keys, values)| keys.max(values)).max().unwrap_or(0);
        // Only where there are two seats is a state copied.
        let states = blueprint.plan.states.iter().filter(|_| blueprint.sizes.sequences > 1);
        states.map(|&floats| floats as u64 * 4).fold(block, u64::max)
    }),
    row(Scratch::Candidates, "candidates", STORAGE, candidate_bytes),
    row(Scratch::OtherCandidates, "candidates", STORAGE, candidate_bytes),
    row(Scratch::PartSums, "part sums", STORAGE, |blueprint, kernels| {
        part_heads(blueprint, kernels, |layer| layer.heads * layer.value_length) * 4
    }),
    row(Scratch::PartMaxima, "part maxima", STORAGE, |blueprint, kernels| {
        part_heads(blueprint, kernels, |layer| layer.heads) * 8
    }),
    row(Scratch::ExpertTiles, "expert tiles", STORAGE, expert_tile_bytes),
    row(Scratch::Rounded, "rounded inputs", STORAGE, |b, kernels| rounded_bytes(b, kernels).0),
    row(Scratch::RoundedScales, "scales of rounded inputs", STORAGE, |b, kernels| {
        rounded_bytes(b, kernels).1
    }),
    row(Scratch::Recent, "recent", STORAGE, |blueprint, _| {
        (blueprint.sizes.sequences * RECENT_WORDS * 4) as u64
    }),
    row(Scratch::Flags, "flags", STORAGE, |blueprint, _| blueprint.sizes.selections() as u64 * 4),
    row(Scratch::IdReadback, "id readback", READBACK, selected_bytes),
    row(Scratch::OtherIdReadback, "id readback", READBACK, selected_bytes),
];

// The table is in the order of the names, by which buffers are found.
const _: () = {
    let mut index = 0;
    while index < TABLE.len() {
        assert!(TABLE[index].scratch as usize == index);
        index += 1;
    }
};

impl Row {
    /// Whether it is only on the way to the host.
    pub fn is_staging(&self) -> bool {
        self.usage.contains(Usage::MAP_READ)
    }
}

/// Bytes of keys and values of one block, for each layer of a group (0 and 0 for the others).
pub(super) fn block_bytes(blueprint: &Blueprint, group: usize) -> Vec<(u64, u64)> {
    let Blueprint { plan, sizes, .. } = blueprint;
    plan.kv_layers
        .iter()
        .map(|layer| {
            if layer.group() != group {
                return (0, 0);
            }
            let keys = BLOCK * layer.key_bytes(sizes.key_type);
            let values = BLOCK * layer.value_bytes(sizes.value_type);
            (keys as u64, values as u64)
        })
        .collect()
}

fn table_bytes(blueprint: &Blueprint, _: &Kernels) -> u64 {
    let entries: usize = blueprint.groups.iter().map(|group| group.table_blocks).sum();
    (entries * blueprint.sizes.sequences * 4) as u64
}

/// An id and a flag a seat.
fn selected_bytes(blueprint: &Blueprint, _: &Kernels) -> u64 {
    blueprint.sizes.sequences as u64 * 8
}

fn candidate_bytes(blueprint: &Blueprint, _: &Kernels) -> u64 {
    (candidate_room(blueprint.plan.vocabulary()) * blueprint.sizes.selections()) as u64 * 8
}

/// Of the layer that has the most: so many numbers a token, of each part. Only steps of few tokens split their cells.
fn part_heads(blueprint: &Blueprint, kernels: &Kernels, numbers: fn(&KvLayer) -> usize) -> u64 {
    let of = |layer: &KvLayer, count, tokens| {
        numbers(layer) * tokens * attention_parts(layer, kernels, count) as usize
    };
    let few = blueprint.sizes.chunk.min(FEW);
    let most = |layer: &KvLayer| of(layer, Count::One, 1).max(of(layer, Count::Few, few));
    blueprint.plan.kv_layers.iter().map(most).max().unwrap_or(0) as u64
}

fn expert_tile_bytes(blueprint: &Blueprint, kernels: &Kernels) -> u64 {
    let words = |op: &Op| match op {
        Op::Route(op::Route { routing, .. }) => tile_words(blueprint.sizes.chunk, routing, kernels),
        _ => 0,
    };
    blueprint.plan.ops.iter().map(words).max().unwrap_or(0) as u64 * 4
}

/// Bytes of rounded inputs, and of what they were divided by. Only products of few rows find their inputs rounded to bytes;
/// cooperative ones of many find halves, in whole tiles of tokens, but with experts a row for each token or pair.
fn rounded_bytes(blueprint: &Blueprint, kernels: &Kernels) -> (u64, u64) {
    let Blueprint { plan, sizes, .. } = blueprint;
    let widest = |op: &Op| match op {
        Op::Linear(op::Linear { input, .. }) => Some(plan.value(*input).width),
        _ => None,
    };
    let widest = plan.ops.iter().filter_map(widest).max().unwrap_or(0);
    let tiled_rows = sizes.chunk.max(sizes.outputs).next_multiple_of(MOST_TILE_TOKENS);
    let of_experts = |op: &Op| match op {
        Op::ExpertsGated(op::ExpertsGated { input, .. }) => Some((plan.value(*input).width, 1)),
        Op::ExpertsDown(op::ExpertsDown { input, routing, .. }) => {
            Some((plan.value(*input).width, routing.used))
        }
        _ => None,
    };
    let of_experts = plan.ops.iter().filter_map(of_experts);
    let (expert_width, expert_rows) =
        of_experts.fold((0, 0), |most, (width, rows)| (width.max(most.0), rows.max(most.1)));
    let (rounded, scales) = match kernels.precision {
        Precision::Int8 => (widest * FEW, widest * FEW / 16 * 4),
        Precision::F16Tiles if kernels.cooperative && sizes.chunk > FEW => {
            let halves = (widest * tiled_rows).max(expert_width * sizes.chunk);
            (halves * 2, tiled_rows.max(expert_rows * sizes.chunk) * 4)
        }
        _ => (0, 0),
    };
    (rounded as u64, scales as u64)
}
