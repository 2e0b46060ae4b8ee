//! One op on one executor against the reference: what the self-test and the tests of kernels share.
//!
//! A probe is a plan of one or two ops over random weights and inputs, what the reference makes of them,
//! and how far an executor may be from it, per element.

mod cases;
mod linear;
mod op;

use std::sync::Arc;

pub use cases::{AttentionCase, ExpertsCase};
use gguf::{BytesSource, Format, Gguf, TensorType, Writer};
pub use linear::LinearCase;
pub use op::OpCase;

use crate::Result;
use crate::blueprint::{Blueprint, Sizes};
use crate::cpu::{CpuExecutor, CpuLoops, CpuWeights, InstructionSet};
use crate::executor::{Executor, Precision, Selection};
use crate::gpu::choice::Kernels;
use crate::gpu::{Gpu, GpuExecutor, GpuWeights};
use crate::kv::{BLOCK, KvTable, KvType};
use crate::plan::{KvLayer, Plan, Rows, Value, ValueId};
use crate::reference::Reference;
use crate::select::{Sampling, uniform};
use crate::spec::weights::{Weight, WeightId, read_f32};
use crate::step::{SequenceId, StepToken};

/// A plan of an op, its inputs, and what comes out of it.
pub struct Probe {
    blueprint: Blueprint,
    file: Gguf,
    tokens: usize,
    /// Positions before the step, whose keys and values are random.
    history: usize,
    /// Steps one after the other, each with the same inputs: the second finds what states hold after the first.
    steps: usize,
    /// What values hold before.
    inputs: Vec<(ValueId, Vec<f32>)>,
    out: ValueId,
    /// What the reference computes.
    pub expected: Vec<f64>,
    /// How far an executor may be from it.
    pub bound: Vec<f64>,
    /// How exactly it is to be computed.
    pub precision: Precision,
}

crate::opaque::opaque_debug!(Probe { tokens, history, steps, precision });

/// The sequence that probes compute.
const SEQUENCE: SequenceId = SequenceId(0);

/// The first position that the token after `history` positions sees.
fn first_visible(layer: &KvLayer, history: usize) -> usize {
    layer.window.map_or(0, |window| (history + 1).saturating_sub(window))
}

/// A row of keys or values of the history.
fn cell(seed: u64, position: usize, width: usize) -> Vec<f32> {
    (0..width).map(|index| 2.0 * uniform(seed, position as u32, index as u32) - 1.0).collect()
}

/// Reproducible floats between -1 and 1.
fn floats(seed: u64, count: usize) -> Vec<f32> {
    (0..count).map(|index| 2.0 * uniform(seed, 0, index as u32) - 1.0).collect()
}

fn value(name: &'static str, width: usize) -> Value {
    Value { name, width, rows: Rows::Tokens }
}

/// Collects weights into a file in memory.
struct Weights {
    writer: Writer,
    list: Vec<Weight>,
}

impl Weights {
    fn new() -> Self {
        Self { writer: Writer::new(), list: Vec::new() }
    }

    fn add(&mut self, format: Format, columns: usize, rows: usize) -> Result<WeightId> {
        let data = format.sample(self.list.len() as u64 + 1, columns * rows);
        self.add_data(format, columns, rows, data)
    }

    fn add_data(
        &mut self,
        format: Format,
        columns: usize,
        rows: usize,
        data: Vec<u8>,
    ) -> Result<WeightId> {
        let name = format!("w{}", self.list.len());
        let shape = [columns as u64, rows as u64];
        self.writer.tensor(&name, &shape, TensorType(format.id()), data)?;
        self.list.push(Weight { name, format, columns, rows, scale: 1.0 });
        Ok(WeightId(self.list.len() - 1))
    }

    fn finish(self) -> Result<(Gguf, Vec<Weight>)> {
        let source = BytesSource::new("probe", self.writer.to_bytes());
        Ok((Gguf::from_sources(vec![Arc::new(source)])?, self.list))
    }
}

fn sizes(tokens: usize, key_type: KvType, value_type: KvType) -> Sizes {
    Sizes {
        positions: tokens,
        pool: tokens,
        sequences: 1,
        chunk: tokens,
        outputs: 1,
        key_type,
        value_type,
    }
}

impl Probe {
    fn new(
        plan: Plan,
        file: Gguf,
        tokens: usize,
        sizes: Sizes,
        inputs: Vec<(ValueId, Vec<f32>)>,
        bound: Vec<f64>,
    ) -> Result<Self> {
        Self::with_steps(plan, file, (0, tokens, 1), sizes, inputs, bound)
    }

    /// With a history of so many positions and so many tokens in each of so many steps.
    fn with_steps(
        plan: Plan,
        file: Gguf,
        (history, tokens, steps): (usize, usize, usize),
        sizes: Sizes,
        inputs: Vec<(ValueId, Vec<f32>)>,
        bound: Vec<f64>,
    ) -> Result<Self> {
        let out = plan.logits;
        let mut probe = Self {
            blueprint: Blueprint::of(plan, sizes),
            file,
            tokens,
            history,
            steps,
            inputs,
            out,
            expected: Vec::new(),
            bound,
            precision: Precision::F32,
        };
        probe.expected = probe.reference()?;
        Ok(probe)
    }

    fn step(&self, number: usize) -> Vec<StepToken> {
        let rows = self.blueprint.plan.weights.first().map_or(1, |weight| weight.rows as u32);
        let ids: Vec<u32> = (0..self.tokens as u32).map(|i| (i * 7 + 3) % rows.max(1)).collect();
        let first = self.history + number * self.tokens;
        let tokens = StepToken::run(SEQUENCE, first, &ids, false);
        tokens.into_iter().map(|token| StepToken { want_logits: false, ..token }).collect()
    }

    fn reference(&self) -> Result<Vec<f64>> {
        let (keys, values) = (self.blueprint.sizes.key_type, self.blueprint.sizes.value_type);
        let mut reference =
            Reference::with_plan((*self.blueprint.plan).clone(), &self.file, keys, values)?;
        for (number, layer) in
            self.blueprint.plan.kv_layers.iter().enumerate().filter(|_| self.history > 0)
        {
            let first = first_visible(layer, self.history);
            let rows = |seed, width, length, kind: KvType| -> Vec<Vec<f64>> {
                (0..self.history)
                    .map(|position| {
                        let row =
                            if position < first { vec![] } else { cell(seed, position, width) };
                        let mut row: Vec<f64> = row.into_iter().map(f64::from).collect();
                        row.chunks_exact_mut(length).for_each(|head| kind.round(head));
                        row
                    })
                    .collect()
            };
            let keys_rows = rows(21, layer.key_width(), layer.key_length, keys);
            let values_rows = rows(22, layer.value_width(), layer.value_length, values);
            reference.set_cells(SEQUENCE, number, keys_rows, values_rows);
        }
        let mut values: Vec<Vec<Vec<f64>>> = vec![Vec::new(); self.blueprint.plan.values.len()];
        for step in 0..self.steps {
            for (id, floats) in &self.inputs {
                let rows = floats.chunks_exact(self.blueprint.plan.value(*id).width);
                values[id.0] =
                    rows.map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
            }
            reference.run(&self.step(step), &mut values);
        }
        Ok(values[self.out.0].iter().flatten().copied().collect())
    }

    /// What a GPU makes of it, with these kernels.
    pub fn on_gpu(&self, gpu: &Arc<Gpu>, kernels: &Kernels) -> Result<Vec<f32>> {
        let weights = GpuWeights::load(
            gpu.clone(),
            &self.file,
            &self.blueprint.plan,
            kernels.clone(),
            &mut |_, _| (),
        )?;
        let mut executor = GpuExecutor::new(Arc::new(weights), self.blueprint.clone())?;
        self.run(&mut executor)
    }

    /// What the CPU makes of it, with the instructions of `set`, on two threads.
    pub fn on_cpu(&self, set: InstructionSet, precision: Precision) -> Result<Vec<f32>> {
        let weights = CpuWeights::load(&self.file, &self.blueprint.plan)?;
        let loops = CpuLoops { threads: 2, set, precision };
        let mut executor = CpuExecutor::new(weights, self.blueprint.clone(), loops);
        self.run(&mut executor)
    }

    /// Runs the steps on an executor, and answers what comes out.
    fn run(&self, executor: &mut dyn Executor) -> Result<Vec<f32>> {
        let mut table = self.table(executor)?;
        for step in 0..self.steps {
            for (id, floats) in &self.inputs {
                executor.write_value(*id, floats)?;
            }
            let prepared = table.prepare(&self.step(step))?;
            executor.step(&table, &prepared)?;
        }
        executor.read_value(self.out, self.expected.len())
    }

    /// A table with the history's cells, whose keys and values go into the executor.
    fn table(&self, executor: &mut dyn Executor) -> Result<KvTable> {
        let groups = &self.blueprint.groups;
        let mut table = self.blueprint.table(self.blueprint.sizes.positions);
        if let Some(layer) = self.blueprint.plan.kv_layers.first().filter(|_| self.history > 0) {
            let group = layer.group();
            let entries = groups[group].table_blocks;
            // The blocks that hold what can be seen, by the entry that each has in its table.
            let logical: Vec<usize> = (first_visible(layer, self.history) / BLOCK
                ..self.history.div_ceil(BLOCK))
                .collect();
            let wanted: Vec<_> = logical.iter().map(|block| (group, block % entries)).collect();
            let oldest = vec![first_visible(layer, self.history); groups.len()];
            let blocks = table.restore(SEQUENCE, self.history, &oldest, &wanted)?;
            for (&logical, block) in logical.iter().zip(blocks) {
                let mut bytes = Vec::new();
                let parts = [
                    (21, layer.key_width(), layer.key_length, self.blueprint.sizes.key_type),
                    (22, layer.value_width(), layer.value_length, self.blueprint.sizes.value_type),
                ];
                for (seed, width, length, kind) in parts {
                    let mut words = vec![0u32; kind.head_words(length)];
                    for position in logical * BLOCK..(logical + 1) * BLOCK {
                        for head in cell(seed, position, width).chunks_exact(length) {
                            kind.store(head, &mut words);
                            bytes.extend_from_slice(bytemuck::cast_slice(&words));
                        }
                    }
                }
                executor.write_block(group, block, &bytes)?;
            }
        }
        Ok(table)
    }

    /// The largest error in units of the bound: at most 1 is right.
    pub fn worst(&self, actual: &[f32]) -> f64 {
        let ratios =
            self.expected.iter().zip(actual).zip(&self.bound).map(|((expected, &ours), bound)| {
                let ratio = (f64::from(ours) - expected).abs() / bound;
                if ratio.is_nan() { f64::INFINITY } else { ratio }
            });
        if actual.len() == self.expected.len() { ratios.fold(0.0, f64::max) } else { f64::INFINITY }
    }

    /// The same with the first weight's values changed: what a wrong kernel would compute, for checks that it
    /// would be noticed.
    pub fn with_changed_weight(&self, change: impl FnOnce(&mut [f32])) -> Result<Self> {
        let mut values = self
            .blueprint
            .plan
            .weights
            .iter()
            .map(|weight| read_f32(&self.file, &weight.name))
            .collect::<Result<Vec<_>>>()?;
        if let Some(first) = values.first_mut() {
            change(first);
        }
        let mut weights = Weights::new();
        for (weight, values) in self.blueprint.plan.weights.iter().zip(values) {
            let shape = [weight.columns as u64, weight.rows as u64];
            let data = bytemuck::cast_slice(&values).to_vec();
            weights.writer.tensor(&weight.name, &shape, TensorType(Format::F32.id()), data)?;
            weights.list.push(Weight { format: Format::F32, ..weight.clone() });
        }
        let (file, list) = weights.finish()?;
        let plan = Plan { weights: list, ..(*self.blueprint.plan).clone() };
        let (inputs, bound) = (self.inputs.clone(), self.bound.clone());
        Self::new(plan, file, self.tokens, self.blueprint.sizes.clone(), inputs, bound)
    }
}

/// Chooses an id from random logits on a GPU and on the host.
pub fn choose_both(
    gpu: &Arc<Gpu>,
    vocabulary: usize,
    kernels: &Kernels,
    sampling: &Sampling,
) -> Result<(Option<u32>, u32)> {
    let logits: Vec<f32> =
        floats(sampling.seed + 11, vocabulary).iter().map(|x| x * 12.0).collect();
    let recent: Vec<u32> = (0..80).map(|index| index * 37 % vocabulary as u32).collect();
    let (file, list) = Weights::new().finish()?;
    let plan = Plan {
        ops: vec![],
        values: vec![Value { rows: Rows::Outputs, ..value("logits", vocabulary) }],
        weights: list,
        logits: ValueId(0),
        ..Plan::default()
    };
    let weights = GpuWeights::load(gpu.clone(), &file, &plan, kernels.clone(), &mut |_, _| ())?;
    let blueprint = Blueprint::of(plan, sizes(1, KvType::F32, KvType::F32));
    let mut executor = GpuExecutor::new(Arc::new(weights), blueprint)?;
    executor.write_value(ValueId(0), &logits)?;
    let (seat, stream, position) = (0, 5, 1234);
    executor.set_recent(seat, &recent);
    let selection = Selection { sampling: sampling.clone(), row: 0, seat, stream, position };
    executor.select(&[selection])?;
    let ours = executor.selected()?.pop().flatten();
    Ok((ours, sampling.choose(&logits, &recent, stream, position)))
}
