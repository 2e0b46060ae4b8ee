//! The buffers of a context by size: what is allocated, and what is predicted before.

use super::choice::{FEW, Kernels};
use super::device::buffer_bytes;
use super::layout::Layout;
use super::limits::check_limits;
use super::scratch;
use crate::Result;
use crate::blueprint::Blueprint;
use crate::executor::Memory;
use crate::plan::{KvLayer, KvLayerId, Op, Plan, ValueId, op};

/// The buffers of a context, by size in bytes.
pub(super) struct BufferSizes {
    pub values: Vec<u64>,
    /// Of [`values_apart`], for steps of few tokens.
    pub apart: Vec<u64>,
    pub keys: Vec<u64>,
    pub kv_values: Vec<u64>,
    pub states: Vec<u64>,
    /// Of the rows of [`scratch::TABLE`].
    pub scratch: Vec<u64>,
}

impl BufferSizes {
    /// The sizes for a context, with these kernels.
    pub fn new(blueprint: &Blueprint, kernels: &Kernels) -> Self {
        let Blueprint { plan, sizes, groups, buffers, .. } = blueprint;
        let of_layers = |bytes: &dyn Fn(&KvLayer) -> usize| -> Vec<u64> {
            let cells = |layer| groups[blueprint.group_of(KvLayerId(layer))].cells();
            let of_layer = |(number, layer)| (cells(number) * bytes(layer)) as u64;
            plan.kv_layers.iter().enumerate().map(of_layer).collect()
        };
        Self {
            values: buffers.floats.iter().map(|&floats| floats as u64 * 4).collect(),
            apart: values_apart(plan)
                .map(|v| (plan.value(v[0]).width * sizes.chunk.min(FEW) * 4) as u64)
                .collect(),
            keys: of_layers(&|layer| layer.key_bytes(sizes.key_type)),
            kv_values: of_layers(&|layer| layer.value_bytes(sizes.value_type)),
            states: plan.states.iter().map(|&n| (n * sizes.sequences * 4) as u64).collect(),
            scratch: scratch::TABLE.iter().map(|row| (row.bytes)(blueprint, kernels)).collect(),
        }
    }

    /// The bytes by purpose, as allocated; weights are not among them.
    pub fn memory(&self) -> Memory {
        let sum = |sizes: &[u64]| sizes.iter().map(|&bytes| buffer_bytes(bytes)).sum::<u64>();
        let scratch = |is_staging: bool| -> u64 {
            let rows = scratch::TABLE.iter().zip(&self.scratch);
            let rows = rows.filter(|(row, _)| row.is_staging() == is_staging);
            rows.map(|(_, &bytes)| buffer_bytes(bytes)).sum()
        };
        Memory {
            weights: 0,
            kv: sum(&self.keys) + sum(&self.kv_values) + sum(&self.states),
            compute: sum(&self.values) + sum(&self.apart) + scratch(false),
            staging: scratch(true),
        }
    }
}

/// Values that steps of few tokens keep in buffers of their own, which nothing else is ever in: each v whose product stands
/// beside that of q and k, with what it was before it was normed. A buffer that was read before is, to wgpu, one to wait for
/// before it is written, whatever was waited for in between; the first use of a step is none.
pub(super) fn values_apart(plan: &Plan) -> impl Iterator<Item = Vec<ValueId>> {
    plan.ops.iter().filter_map(|op| match *op {
        Op::QkRopeStore(op::QkRopeStore { v, .. }) => v.map(|v| plan.versions(v)),
        _ => None,
    })
}

/// What a model and a context will take on a device, before anything is allocated.
///
/// # Errors
/// The kernels do not hold the model, or no binding its matrices.
pub fn predict(blueprint: &Blueprint, kernels: &Kernels) -> Result<Memory> {
    check_limits(&blueprint.plan)?;
    let layout = Layout::new(&blueprint.plan, kernels)?;
    let weights =
        layout.matrices.iter().map(|matrix| buffer_bytes(matrix.bytes as u64)).sum::<u64>();
    let context = BufferSizes::new(blueprint, kernels).memory();
    Ok(Memory { weights: weights + buffer_bytes(layout.vector_bytes as u64), ..context })
}
