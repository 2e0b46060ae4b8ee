//! What a dispatch reads, writes and multiplies at the least, which a roofline holds its time against.
//!
//! Counted from the op that it belongs to, from what it binds and from its params, not from its kernel's name: a
//! new kernel for a known op needs nothing here.

use std::collections::HashMap;

use super::{Dispatch, Extent, Resource, Scratch};
use crate::blueprint::Sizes;
use crate::gpu::layout::Layout;
use crate::kv::{BLOCK, PlacedStep};
use crate::plan::{KvLayer, Op, Plan, Rows, ValueId, op};
use crate::profile::Cost;

/// Counts what the dispatches of a step cost.
#[derive(Debug)]
pub struct Costs<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Where its weights lie.
    pub layout: &'a Layout,
    /// The types of keys and values.
    pub sizes: &'a Sizes,
    /// The step.
    pub step: &'a PlacedStep,
}

/// A dispatch's share of a matrix product.
#[derive(Debug, Clone, Copy)]
struct Product {
    /// Rows of weights that one row of input meets in one expert.
    rows: u64,
    /// Weights of a row.
    columns: u64,
    /// Rows of input, counted once for each expert that they meet.
    pairs: u64,
    /// How often `rows` rows are read: once, or once for each expert that is met.
    reads: u64,
    /// Rows of the result that lie in one row of the value written.
    parts: u64,
}

impl Costs<'_> {
    /// The cost of a dispatch.
    pub fn of(&self, dispatch: &Dispatch) -> Cost {
        // The choice of an id belongs to no op of the plan.
        let Some(op) = self.plan.ops.get(dispatch.op) else { return Cost::default() };
        let product = self.product(op, dispatch);
        // A matrix that is bound by words too is read once.
        let read = dispatch.bindings.iter().filter(|(name, _)| *name != "weight_words");
        let bytes = read.map(|(_, resource)| match *resource {
            Resource::Matrix(buffer) => self.weight_bytes(op, buffer, dispatch, product),
            Resource::Vector(id) => self.layout.vectors[id.0].length as u64 * 4,
            Resource::Value(id) => self.value_bytes(op, id, product),
            Resource::Angles(rope) => self.tokens() * self.plan.ropes[rope.0].pairs() as u64 * 8,
            Resource::State(id) => self.sequences() * self.plan.states[id.0] as u64 * 4 * 2,
            Resource::Keys(layer) => {
                let kv = self.plan.kv_layer(layer);
                self.cells(op, kv) * kv.key_bytes(self.sizes.key_type) as u64
            }
            Resource::Values(layer) => {
                let kv = self.plan.kv_layer(layer);
                self.cells(op, kv) * kv.value_bytes(self.sizes.value_type) as u64
            }
            Resource::Scratch(Scratch::Rounded) => self.rounded_bytes(op, dispatch),
            Resource::Scratch(Scratch::PartSums) => {
                self.part_floats(op, dispatch, |kv| kv.value_length) * 4
            }
            Resource::Scratch(Scratch::PartMaxima) => self.part_floats(op, dispatch, |_| 2) * 4,
            _ => 0,
        });
        Cost { bytes: bytes.sum(), multiply_adds: self.multiply_adds(op, dispatch, product) }
    }

    /// Bytes of inputs that were rounded: halves, or bytes.
    fn rounded_bytes(&self, op: &Op, dispatch: &Dispatch) -> u64 {
        let is_bytes = dispatch.bindings.iter().any(|(name, _)| *name == "bytes");
        let each = if is_bytes { 1 } else { 2 };
        match *op {
            Op::Norm(op::Norm { out, .. }) => {
                self.rows(out) * self.plan.value(out).width as u64 * each
            }
            Op::Linear(op::Linear { input, out, .. }) => {
                self.rows(out) * self.plan.value(input).width as u64 * each
            }
            // Of experts rows are read by those that chose them.
            _ => 0,
        }
    }

    fn tokens(&self) -> u64 {
        self.step.tokens.len() as u64
    }

    fn rows(&self, value: ValueId) -> u64 {
        match self.plan.value(value).rows {
            Rows::Tokens => self.tokens(),
            Rows::Outputs => {
                self.step.tokens.iter().filter(|token| token.want_logits).count() as u64
            }
        }
    }

    /// What a dispatch multiplies, if its op is a product and it binds a matrix.
    fn product(&self, op: &Op, dispatch: &Dispatch) -> Option<Product> {
        let buffer = dispatch.bindings.iter().find_map(|(_, resource)| match resource {
            Resource::Matrix(buffer) => Some(*buffer),
            _ => None,
        })?;
        // How many experts there are, and how many of them a row of input meets.
        let (out, experts, used) = match *op {
            Op::Linear(op::Linear { out, .. }) => (out, 1, 1),
            Op::HeadLinear(op::HeadLinear { out, heads, .. }) => (out, heads as u64, heads as u64),
            Op::ExpertsGated(op::ExpertsGated { out, ref routing, .. })
            | Op::ExpertsDown(op::ExpertsDown { out, ref routing, .. }) => {
                (out, routing.count as u64, routing.used as u64)
            }
            _ => return None,
        };
        let matrices = dispatch.variant.numbers.get("MATRICES").copied().unwrap_or(1);
        // A buffer with a piece of a weight holds some of the experts.
        let here = param(dispatch, "experts").map_or(1, u64::from).min(experts);
        let pairs = self.rows(out) * used * here / experts;
        Some(Product {
            rows: u64::from(param(dispatch, "rows")?) * u64::from(matrices),
            columns: self.layout.matrices[buffer].columns as u64,
            pairs,
            reads: pairs.min(here),
            parts: used,
        })
    }

    fn weight_bytes(
        &self,
        op: &Op,
        buffer: usize,
        dispatch: &Dispatch,
        product: Option<Product>,
    ) -> u64 {
        let matrix = &self.layout.matrices[buffer];
        let row = matrix.format.bytes(matrix.columns) as u64;
        match (product, op) {
            (Some(product), _) => product.reads * product.rows * row,
            // A row a token; those of a table in pieces are shared out evenly.
            (None, Op::Embed(op::Embed { table, .. }) | Op::AddRow(op::AddRow { table, .. })) => {
                let rows = self.plan.weight(*table).rows as u64;
                let here = param(dispatch, "rows").map_or(rows, u64::from);
                self.tokens() * row * here / rows.max(1)
            }
            _ => 0,
        }
    }

    /// Bytes of an activation: written once, read once, of a product's result what this dispatch makes of it.
    fn value_bytes(&self, op: &Op, id: ValueId, product: Option<Product>) -> u64 {
        let (_, written) = op.uses();
        let is_written = written.contains(&id);
        // What becomes a result is read where that is written.
        let times = 1 + u64::from(id == op.result() && op.before().is_some());
        let whole = self.plan.value(id).width as u64;
        let width = match product {
            Some(product) if is_written => whole.min(product.rows * product.parts),
            _ => whole,
        };
        self.rows(id) * width * 4 * times
    }

    /// Pairs of a token and a position that it sees, and positions that any token sees.
    fn seen(&self, window: Option<usize>, causal: bool) -> (u64, u64) {
        if !causal {
            return (self.tokens() * self.tokens(), self.tokens());
        }
        let window = window.map_or(u64::MAX, |window| window as u64);
        let mut pairs = 0;
        let mut first_and_last: HashMap<u32, (u64, u64)> = HashMap::new();
        for token in &self.step.tokens {
            let end = u64::from(token.position) + 1;
            let start = end.saturating_sub(window);
            pairs += end - start;
            let (first, last) = first_and_last.entry(token.seat).or_insert((start, end));
            (*first, *last) = ((*first).min(start), (*last).max(end));
        }
        (pairs, first_and_last.values().map(|(first, last)| last - first).sum())
    }

    /// Cells of a layer that the op reads or writes.
    fn cells(&self, op: &Op, kv: &KvLayer) -> u64 {
        match *op {
            Op::Attention(op::Attention { causal, .. }) => self.seen(kv.window, causal).1,
            Op::QkRopeStore(op::QkRopeStore { store: true, .. }) => self.tokens(),
            _ => 0,
        }
    }

    /// `per_head` floats of each head of each token in each part that attention is split into.
    fn part_floats(
        &self,
        op: &Op,
        dispatch: &Dispatch,
        per_head: impl Fn(&KvLayer) -> usize,
    ) -> u64 {
        let Op::Attention(op::Attention { layer, .. }) = *op else { return 0 };
        let kv = self.plan.kv_layer(layer);
        let parts = match (dispatch.variant.numbers.get("PARTS"), dispatch.grid[2]) {
            (Some(&parts), _) | (None, Extent::Fixed(parts)) => u64::from(parts),
            _ => 1,
        };
        // Parts have whole blocks, and those without any write no sums.
        let tokens = self.tokens().max(1);
        let blocks = (self.seen(kv.window, true).0 / tokens).div_ceil(BLOCK as u64).max(1);
        let parts = blocks.div_ceil(blocks.div_ceil(parts));
        self.tokens() * parts * (kv.heads * per_head(kv)) as u64
    }

    /// Sequences that take part.
    fn sequences(&self) -> u64 {
        let mut seats: Vec<u32> = self.step.tokens.iter().map(|token| token.seat).collect();
        seats.sort_unstable();
        seats.dedup();
        seats.len() as u64
    }

    fn multiply_adds(&self, op: &Op, dispatch: &Dispatch, product: Option<Product>) -> u64 {
        if let Some(product) = product {
            return product.pairs * product.rows * product.columns;
        }
        let binds = |wanted| dispatch.bindings.iter().any(|(_, resource)| *resource == wanted);
        match *op {
            Op::Attention(op::Attention { layer, causal, .. }) if binds(Resource::Keys(layer)) => {
                let kv = self.plan.kv_layer(layer);
                let of_pair = kv.heads * (kv.key_length + kv.value_length);
                self.seen(kv.window, causal).0 * of_pair as u64
            }
            Op::Conv(op::Conv { channels, taps, .. }) => self.tokens() * (channels * taps) as u64,
            // Each number of the state decays, takes something in and is read.
            Op::Mamba2(op::Mamba2 { state, .. }) | Op::DeltaNet(op::DeltaNet { state, .. }) => {
                self.tokens() * self.plan.states[state.0] as u64 * 3
            }
            _ => 0,
        }
    }
}

fn param(dispatch: &Dispatch, name: &str) -> Option<u32> {
    dispatch.params.iter().find(|(given, _)| *given == name).map(|(_, value)| *value)
}
