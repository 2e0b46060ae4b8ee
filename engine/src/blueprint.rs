//! What a context will be, settled before anything is allocated: [`ContextOptions`] -> [`Sizes`] -> [`Blueprint`].

use std::sync::Arc;

use crate::kv::{Group, KvTable, KvType};
use crate::plan::{Buffers, KvLayerId, Op, Plan, Segment, ValueId, place};
use crate::spec::MOST_IN_A_STEP;
use crate::spec::weights::Weight;
use crate::spec::{ModelFile, Spec};
use crate::{Error, Result};

/// The sizes and types of a context.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextOptions {
    /// The most positions that one sequence may have; none: the smaller of the model's own and 4096.
    pub positions: Option<usize>,
    /// Positions of all sequences together; none: as many as one may have.
    pub pool: Option<usize>,
    /// Sequences at once.
    pub sequences: usize,
    /// The most tokens computed in one go.
    pub chunk: usize,
    /// The most rows of logits computed in one go, at least one for each sequence; none: as many as take 64 MiB.
    pub outputs: Option<usize>,
    /// The type of keys.
    pub key_type: KvType,
    /// The type of values.
    pub value_type: KvType,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self {
            positions: None,
            pool: None,
            sequences: 1,
            chunk: 512,
            outputs: None,
            key_type: KvType::F16,
            value_type: KvType::F16,
        }
    }
}

/// Positions of a context where nothing else is asked for.
pub const DEFAULT_POSITIONS: usize = 4096;
/// The most bytes of logits that are computed in one go.
const LOGITS_BYTES: usize = 64 << 20;

impl ContextOptions {
    /// The sizes for a model, checked.
    pub fn sizes(&self, spec: &Spec) -> Result<Sizes> {
        let positions = self.positions.unwrap_or(spec.context_length.min(DEFAULT_POSITIONS));
        let pool = self.pool.unwrap_or(positions);
        for count in [positions, pool] {
            if count == 0 || count > 1 << 24 {
                return Err(Error::Option(format!(
                    "a context of {count} positions is out of range (1 to 2^24)"
                )));
            }
        }
        if self.sequences == 0 || self.sequences > 4096 {
            return Err(Error::Option(format!(
                "{} sequences are out of range (1 to 4096)",
                self.sequences
            )));
        }
        // Where tokens see later ones a text is one step.
        let chunk = if spec.sees_ahead() { positions } else { self.chunk };
        let chunk = chunk.clamp(1, MOST_IN_A_STEP).min(positions.max(self.sequences));
        Ok(Sizes {
            positions,
            pool,
            sequences: self.sequences,
            chunk,
            // Embedding models give a state a token.
            outputs: if spec.pooling.is_some() {
                chunk
            } else {
                let outputs = self.outputs.unwrap_or(LOGITS_BYTES / (spec.vocabulary * 4));
                outputs.clamp(self.sequences.min(chunk), chunk)
            },
            key_type: self.key_type,
            value_type: self.value_type,
        })
    }
}

/// The sizes of a context, fixed before anything is allocated.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    /// The most positions that one sequence may have.
    pub positions: usize,
    /// Positions of all sequences together. (Each sequence but one has up to a block more, so that none finds the pool's
    /// last block half used by another.)
    pub pool: usize,
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

impl Sizes {
    /// The most rows of a step from which ids are chosen on the device: one for each sequence.
    pub fn selections(&self) -> usize {
        self.sequences.min(self.outputs)
    }
}

/// A plan with the sizes of its context and what follows from the two. Made once for a context, and taken by all that
/// predict, compile, test or allocate for it.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// What is computed. Its weights' ids are those that the model was loaded by.
    pub plan: Arc<Plan>,
    /// The context's sizes.
    pub sizes: Sizes,
    /// The groups of layers: all positions are kept in the first's, those of a window in the second's, if there is one.
    pub groups: Vec<Group>,
    /// Where the plan's values live.
    pub buffers: Buffers,
    /// What each device computes, in order.
    pub segments: Vec<Segment>,
}

impl Blueprint {
    /// For a model that is not loaded.
    ///
    /// # Errors
    /// If the options are out of range, the cache's types cannot hold the model's heads, or the file lacks what the plan
    /// needs.
    pub fn new(model: &ModelFile, options: &ContextOptions) -> Result<Self> {
        Self::with_weights(model, options, Vec::new())
    }

    /// For a model whose plans number their weights as `weights` does, and no others.
    ///
    /// # Errors
    /// As [`Blueprint::new`]; and if another context of the model would need a weight that is not among those loaded.
    pub fn with_weights(
        model: &ModelFile,
        options: &ContextOptions,
        weights: Vec<Weight>,
    ) -> Result<Self> {
        let sizes = options.sizes(&model.spec)?;
        check_cache(&model.spec, model.gguf.file(), &sizes)?;
        let loaded = weights.len();
        let plan = Plan::with_weights(model, sizes.positions, weights)?;
        if loaded > 0 && plan.weights.len() > loaded {
            let name = &plan.weights[loaded].name;
            return Err(Error::Internal(format!("tensor {name} was not loaded with the model")));
        }
        Ok(Self::of(plan, sizes))
    }

    /// Of a plan.
    pub fn of(plan: impl Into<Arc<Plan>>, sizes: Sizes) -> Self {
        let plan = plan.into();
        let groups = groups(&plan, &sizes);
        let buffers = place(&plan, sizes.chunk, sizes.outputs);
        let segments = plan.segments(&vec![0; plan.layers.len()]);
        Self { plan, sizes, groups, buffers, segments }
    }

    /// The same with layer i on device `device_of[i]`.
    ///
    /// # Errors
    /// If there is not a device for each layer, or a layer reads keys and values that another device keeps.
    pub fn split(self, device_of: &[usize]) -> Result<Self> {
        let plan = &*self.plan;
        if device_of.len() != plan.layers.len() {
            let (layers, given) = (plan.layers.len(), device_of.len());
            return Err(Error::Option(format!("{given} devices are given for {layers} layers")));
        }
        let segments = plan.segments(device_of);
        let keeper = |layer: KvLayerId| {
            segments.iter().find(|s| s.kv_layers.contains(&layer)).map(|segment| segment.device)
        };
        for (layer, (ops, device)) in plan.layers.iter().zip(device_of).enumerate() {
            for op in &plan.ops[ops.clone()] {
                if let Op::Attention(op) = op
                    && keeper(op.layer) != Some(*device)
                {
                    return Err(Error::Option(format!(
                        "layer {layer} reads keys and values of an earlier one: both must be on one device"
                    )));
                }
            }
        }
        Ok(Self { segments, ..self })
    }

    /// What must be copied before an op, and to what: the value that it changes, where that lives on, so that the result has a
    /// buffer of its own.
    pub fn copied_before(&self, op: &Op) -> Option<(ValueId, ValueId)> {
        let (before, result) = (op.before()?, op.result());
        let buffer_of = &self.buffers.buffer_of;
        (buffer_of[before.0] != buffer_of[result.0]).then_some((before, result))
    }

    /// Whether one segment has both ops: what one gives another elsewhere must be the value itself.
    pub fn are_together(&self, one: usize, other: usize) -> bool {
        self.segments.iter().any(|segment| [one, other].iter().all(|op| segment.ops.contains(op)))
    }

    /// The same plan in a context of other sizes: for what it takes. (Rotations may depend on the length of a context: to
    /// compute in it, it is planned anew.)
    #[must_use]
    pub fn resized(&self, sizes: Sizes) -> Self {
        Self::of(self.plan.clone(), sizes)
    }

    /// The table of a context without sequences, of a model for texts of so many positions.
    pub fn table(&self, context_length: usize) -> KvTable {
        let Sizes { positions, sequences, .. } = self.sizes;
        let table = KvTable::new(self.groups.clone(), positions, sequences, context_length);
        if self.plan.states.is_empty() { table } else { table.with_states() }
    }

    /// The number of a layer's group.
    pub fn group_of(&self, layer: KvLayerId) -> usize {
        self.plan.kv_layer(layer).group()
    }
}

/// The group of layers that see all positions, and that of windowed ones where there are any.
fn groups(plan: &Plan, sizes: &Sizes) -> Vec<Group> {
    let room = (sizes.positions, sizes.pool);
    let group = |window| Group::new(window, room, sizes.sequences, sizes.chunk);
    let window = plan.kv_layers.iter().find_map(|layer| layer.window);
    std::iter::once(group(None)).chain(window.map(|window| group(Some(window)))).collect()
}

/// Refuses heads that the types of keys and values cannot hold, and windows that differ.
fn check_cache(spec: &Spec, file: &str, sizes: &Sizes) -> Result<()> {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the weights that a plan's ops use, op by op.
    fn names(plan: &Plan) -> Vec<Vec<String>> {
        let name = |id: &_| plan.weight(*id).name.clone();
        let of_op = |op: &crate::plan::Op| {
            op.matrices().0.into_iter().chain(op.vectors()).map(|id| name(&id)).collect()
        };
        plan.ops.iter().map(of_op).collect()
    }

    #[test]
    fn another_context_numbers_its_weights_as_the_model_was_loaded() {
        let model = crate::synthetic::open("llama-1b/2:q4_0").unwrap();
        let options = ContextOptions { positions: Some(256), ..ContextOptions::default() };
        let first = Blueprint::new(&model, &options).unwrap().plan;
        // As if the model had found them in another order.
        let mut loaded = first.weights.clone();
        loaded.reverse();
        let longer = ContextOptions { positions: Some(1024), ..options.clone() };
        let second = Blueprint::with_weights(&model, &longer, loaded.clone()).unwrap();
        let of = |weights: &[Weight]| weights.iter().map(|w| w.name.clone()).collect::<Vec<_>>();
        assert_eq!(of(&second.plan.weights), of(&loaded));
        assert_eq!(names(&second.plan), names(&first));
        assert_ne!(second.plan.ops, first.ops);
        // What was not loaded cannot be planned.
        loaded.truncate(3);
        let error = Blueprint::with_weights(&model, &options, loaded).unwrap_err();
        assert!(error.to_string().contains("was not loaded"), "{error}");
    }

    #[test]
    fn what_a_longer_context_takes_needs_no_other_plan() {
        let model = crate::synthetic::open("gemma3-4b/6:q4_0").unwrap();
        let of = |positions| {
            let options =
                ContextOptions { positions: Some(positions), ..ContextOptions::default() };
            Blueprint::new(&model, &options).unwrap()
        };
        let (short, long) = (of(256), of(8192));
        let resized = short.resized(long.sizes.clone());
        assert_eq!((&resized.groups, &resized.buffers), (&long.groups, &long.buffers));
        assert_eq!(resized.groups.len(), 2);
        assert_ne!(short.groups, long.groups);
    }
}
