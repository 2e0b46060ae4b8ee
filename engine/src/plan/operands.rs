//! What ops read and write.

use super::op::{self, Epilogue, Op, ValueId};
use crate::spec::weights::WeightId;

impl Op {
    /// The values that the op reads, and those that it writes (in-place ones are in both).
    pub fn uses(&self) -> (Vec<ValueId>, Vec<ValueId>) {
        match *self {
            Op::Embed(op::Embed { out, .. }) => (vec![], vec![out]),
            Op::Norm(op::Norm { input, add, out, .. }) => {
                (if add { vec![input, out] } else { vec![input] }, vec![out])
            }
            Op::Linear(op::Linear { input, epilogue, out, .. }) => match epilogue {
                Epilogue::Store | Epilogue::Activated(_) => (vec![input], vec![out]),
                Epilogue::AddTo => (vec![input, out], vec![out]),
                Epilogue::Gated { both, .. } => (vec![input], vec![both, out]),
            },
            Op::QkRopeStore(op::QkRopeStore { qkv, v, .. }) => {
                (std::iter::once(qkv).chain(v).collect(), vec![qkv])
            }
            Op::Attention(op::Attention { qkv, out, .. }) => (vec![qkv], vec![out]),
            Op::NormParts(op::NormParts { value, .. })
            | Op::Softcap(op::Softcap { value, .. })
            | Op::Scale(op::Scale { value, .. }) => (vec![value], vec![value]),
            Op::AddRow(op::AddRow { out, .. }) => (vec![out], vec![out]),
            Op::HeadLinear(op::HeadLinear { input, out, .. }) => (vec![input], vec![out]),
            Op::Route(op::Route { logits, out, .. }) => (vec![logits], vec![out]),
            Op::ExpertsGated(op::ExpertsGated { input, routes, both, out, .. }) => {
                (vec![input, routes], vec![both, out])
            }
            Op::ExpertsDown(op::ExpertsDown { input, routes, parts, out, .. }) => {
                (vec![input, routes, out], vec![parts, out])
            }
            Op::AddGated(op::AddGated { gate, input, out, .. }) => {
                (vec![gate, input, out], vec![out])
            }
            // Parts of `out` that are not written stay: it is read too.
            Op::Gate(op::Gate { gate, input, out, .. }) => (
                [Some(gate), input, Some(out)].into_iter().flatten().map(|p| p.value).collect(),
                vec![out.value],
            ),
            Op::Conv(op::Conv { value, .. }) => (vec![value], vec![value]),
            Op::Mamba2(op::Mamba2 { value, out, .. }) => (vec![value], vec![out]),
            Op::DeltaNet(op::DeltaNet { qkv, gates, out, .. }) => (vec![qkv, gates], vec![out]),
        }
    }

    /// The matrices that rows are multiplied with, and how many experts' rows they are (else 1); those of a list
    /// should lie side by side.
    pub fn matrices(&self) -> Vec<(&[WeightId], usize)> {
        match self {
            Op::Embed(op::Embed { table, .. }) | Op::AddRow(op::AddRow { table, .. }) => {
                vec![(std::slice::from_ref(table), 1)]
            }
            Op::HeadLinear(op::HeadLinear { weight, heads, .. }) => {
                vec![(std::slice::from_ref(weight), *heads)]
            }
            Op::Linear(op::Linear { weights, .. }) => vec![(weights, 1)],
            Op::ExpertsGated(op::ExpertsGated { weights, routing, .. }) => {
                vec![(weights, routing.count)]
            }
            Op::ExpertsDown(op::ExpertsDown { weight, routing, .. }) => {
                vec![(std::slice::from_ref(weight), routing.count)]
            }
            _ => vec![],
        }
    }

    /// The weights used as vectors of floats, but for biases.
    pub fn vectors(&self) -> Vec<WeightId> {
        match *self {
            Op::Norm(op::Norm { weight, bias, .. }) | Op::Conv(op::Conv { weight, bias, .. }) => {
                std::iter::once(weight).chain(bias).collect()
            }
            Op::NormParts(op::NormParts { weight, .. }) => weight.into_iter().collect(),
            Op::QkRopeStore(op::QkRopeStore { q_norm, k_norm, .. }) => {
                q_norm.into_iter().chain(k_norm).collect()
            }
            Op::Attention(op::Attention { sinks, .. }) => sinks.into_iter().collect(),
            Op::Route(op::Route { bias, scales, .. }) => bias.into_iter().chain(scales).collect(),
            Op::Mamba2(op::Mamba2 { a, d, dt_bias, .. }) => vec![a, d, dt_bias],
            Op::DeltaNet(op::DeltaNet { a, dt_bias, .. }) => vec![a, dt_bias],
            _ => vec![],
        }
    }

    /// The matrices that have biases, and these, one for each matrix.
    pub fn biases(&self) -> (&[WeightId], &[Option<WeightId>]) {
        match self {
            Op::Linear(op::Linear { weights, biases, .. })
            | Op::ExpertsGated(op::ExpertsGated { weights, biases, .. }) => (weights, biases),
            Op::ExpertsDown(op::ExpertsDown { weight, bias, .. }) => {
                (std::slice::from_ref(weight), std::slice::from_ref(bias))
            }
            _ => (&[], &[]),
        }
    }
}
