//! Ops to dispatches: which kernel in which form, what it binds, how large its grid is. Pure: no GPU.

mod attention;
pub mod cost;
mod elementwise;
mod experts;
mod halves;
mod linear;
mod recurrent;
mod selection;

use shaders::{Multiplies, Variant};

pub use self::attention::attention_parts;
pub use self::experts::tile_words;
use self::halves::{cooperative, round_halves};
use self::linear::Norm;
pub use self::selection::{MOST_CANDIDATES, candidate_room, kept_candidates, lower_selection};
use super::choice::ProductKernel;
pub use super::choice::{Count, Family, Kernels};
pub use super::dispatch::{Dispatch, Extent, Resource, Scratch};
use super::layout::{Layout, Part};
use super::limits::check_limits;
use crate::Result;
use crate::blueprint::{Blueprint, Sizes};
use crate::kv::{KvType, Placed, PlacedStep};
use crate::plan::{KvLayer, Op, Parts, Plan, Rows, ValueId, op};
use crate::spec::Activation;

/// How many rows a step has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepClass {
    /// Tokens.
    pub tokens: Count,
    /// Tokens whose logits are wanted.
    pub outputs: Count,
    /// Whether all tokens are of one sequence, one after the other.
    pub together: bool,
    /// Whether any token sees [`Kernels::split_from`] positions.
    pub long: bool,
}

impl StepClass {
    /// The class of a step of neighbouring tokens of one sequence, near its start.
    pub fn of(tokens: usize, outputs: usize) -> Self {
        let (tokens, outputs) = (Count::of(tokens), Count::of(outputs));
        Self { tokens, outputs, together: true, long: false }
    }

    /// The class of a step with cells.
    pub fn of_step(step: &PlacedStep, split_from: u32) -> Self {
        let outputs = step.tokens.iter().filter(|token| token.want_logits).count();
        let follows = |pair: &[Placed]| {
            pair[0].seat == pair[1].seat && pair[0].position + 1 == pair[1].position
        };
        Self {
            together: step.tokens.windows(2).all(follows),
            long: step.tokens.iter().any(|token| token.position >= split_from),
            ..Self::of(step.tokens.len(), outputs)
        }
    }

    /// How many rows a value has.
    fn count(self, rows: Rows) -> Count {
        match rows {
            Rows::Tokens => self.tokens,
            Rows::Outputs => self.outputs,
        }
    }
}

/// What lowering needs to know.
#[derive(Debug)]
pub struct Lowering<'a> {
    /// What is computed, in steps of which sizes.
    pub blueprint: &'a Blueprint,
    /// Where the plan's weights lie.
    pub layout: &'a Layout,
    /// What the adapter can do.
    pub kernels: &'a Kernels,
    /// The rows of the step.
    pub class: StepClass,
}

/// Weights of a group, the unit of all kernels.
const GROUP: usize = 32;
/// Invocations of element-wise kernels and of attention.
const LANES: u32 = 64;

/// Multiply-adds of a product for each row of its input, about.
fn work_of(dispatch: &Dispatch) -> u64 {
    if dispatch.variant.multiplies() == Multiplies::Nothing {
        return 0;
    }
    let param = |name| dispatch.params.iter().find(|(given, _)| *given == name);
    let number = |name| param(name).map_or(1, |(_, number)| u64::from(*number));
    let matrices = dispatch.variant.numbers.get("MATRICES").copied().unwrap_or(1);
    // With experts a row meets several.
    number("rows") * number("groups") * GROUP as u64 * u64::from(matrices) * number("used")
}

impl<'a> Lowering<'a> {
    fn plan(&self) -> &'a Plan {
        &self.blueprint.plan
    }

    fn sizes(&self) -> &'a Sizes {
        &self.blueprint.sizes
    }

    /// Lowers a plan.
    ///
    /// # Errors
    /// The kernels do not hold it ([`check_limits`](super::limits::check_limits)).
    pub fn lower(&self) -> Result<Vec<Dispatch>> {
        check_limits(self.plan())?;
        let mut dispatches = Vec::new();
        // A norm that is fused, and its result.
        let mut fused: Option<(ValueId, Norm)> = None;
        for (index, op) in self.plan().ops.iter().enumerate() {
            let first = dispatches.len();
            if let Some(norm) = self.fused_norm(index) {
                fused = Some(norm);
                continue;
            }
            dispatches.extend(self.copy_before(op));
            let norm = fused.filter(|(normed, _)| op.reads(*normed));
            self.op(op, norm.map(|(_, norm)| norm), &mut dispatches);
            for dispatch in &mut dispatches[first..] {
                dispatch.op = index;
                dispatch.work = work_of(dispatch);
            }
            if let Some(both) = self.fused_rounding(&dispatches, first) {
                dispatches.splice(first - 1..=first, [both]);
            }
        }
        Ok(dispatches)
    }

    /// The copy that an op needs of what it changes, where that lives on, so that its result has a buffer of its own.
    fn copy_before(&self, op: &Op) -> Option<Dispatch> {
        let (before, result) = self.blueprint.copied_before(op)?;
        let width = self.plan().value(result).width;
        let whole = |value| Parts { value, offset: 0, stride: width };
        Some(self.gate(&op::Gate {
            gate: whole(before),
            activation: None,
            input: None,
            shape: (1, width),
            before: None,
            out: whole(result),
        }))
    }

    fn op(&self, op: &Op, norm: Option<Norm>, out: &mut Vec<Dispatch>) {
        match op {
            Op::Embed(op) => self.embed(op, out),
            Op::Norm(op) => out.push(self.norm(op)),
            Op::AddRow(op) => self.add_row(op, out),
            Op::Scale(op) => out.push(self.scale(op)),
            Op::HeadLinear(op) => self.head_linear(op, out),
            Op::NormParts(op) => out.push(self.norm_parts(op)),
            Op::Linear(op) => self.linear(op, norm, out),
            Op::QkRopeStore(op) => out.push(self.qk_rope_store(op)),
            Op::Attention(op) => self.attention(op, out),
            Op::Route(op) => out.push(self.route(op)),
            Op::ExpertsGated(op) => self.experts_gated(op, out),
            Op::ExpertsDown(op) => self.experts_down(op, out),
            Op::AddGated(op) => out.push(self.add_gated(op)),
            Op::Gate(op) => out.push(self.gate(op)),
            Op::Conv(op) => out.push(self.conv(op)),
            Op::Mamba2(op) => out.push(self.mamba2(op)),
            Op::DeltaNet(op) => out.push(self.delta_net(op)),
            Op::Softcap(op) => out.push(self.softcap(op)),
        }
    }

    fn kv_types(&self, variant: Variant) -> Variant {
        let keys = match self.sizes().key_type {
            KvType::F32 => Some("KEYS_F32"),
            KvType::F16 => None,
            KvType::Bf16 => Some("KEYS_BF16"),
            KvType::Q8_0 => Some("KEYS_Q8_0"),
            KvType::Q4_0 => Some("KEYS_Q4_0"),
        };
        let values = match self.sizes().value_type {
            KvType::F32 => Some("VALUES_F32"),
            KvType::F16 => None,
            KvType::Bf16 => Some("VALUES_BF16"),
            KvType::Q8_0 => Some("VALUES_Q8_0"),
            KvType::Q4_0 => Some("VALUES_Q4_0"),
        };
        let variant = keys.into_iter().chain(values).fold(variant, Variant::define);
        variant
            .define_if(self.kernels.native_halves, "NATIVE_HALVES")
            .define_if(self.sizes().key_type.has_scales(), "KEYS_SCALED")
            .define_if(self.sizes().value_type.has_scales(), "VALUES_SCALED")
    }

    /// The words of a head of keys and of values, as kernels get them.
    fn head_words(&self, kv: &KvLayer) -> [(&'static str, u32); 2] {
        [
            ("key_words", self.sizes().key_type.head_words(kv.key_length) as u32),
            ("value_words", self.sizes().value_type.head_words(kv.value_length) as u32),
        ]
    }

    /// A kernel for a matrix's format, and where the matrix's planes lie.
    fn matrix(&self, kernel: &'static str, part: &Part) -> (Variant, Vec<(&'static str, u32)>) {
        let matrix = &self.layout.matrices[part.buffer];
        let names = ["plane1", "plane2", "plane3"];
        let table = ("table", matrix.table_start as u32 / 16);
        let planes = names
            .iter()
            .enumerate()
            .map(|(index, &name)| {
                (name, matrix.plane_starts.get(index + 1).map_or(0, |start| *start as u32 / 16))
            })
            .chain([table])
            .collect();
        let variant = Variant::new(kernel)
            .format(matrix.format.file_stem())
            .define_if(self.kernels.native_halves, "NATIVE_HALVES");
        (variant, planes)
    }

    /// How kernels bind a matrix: by vec4s and by words.
    fn weights_of(part: &Part) -> [(&'static str, Resource); 2] {
        ["weights", "weight_words"].map(|name| (name, Resource::Matrix(part.buffer)))
    }

    /// A grid whose neighbouring workgroups, which run at the same time, multiply the same rows with other tokens: tiles
    /// of tokens on x, of rows on y and, beyond its limit, on z.
    fn tiled_grid(&self, tokens: Extent, row_tiles: u32) -> [Extent; 3] {
        let y = row_tiles.min(self.kernels.adapter.max_workgroups);
        [tokens, Extent::Fixed(y), Extent::Fixed(row_tiles.div_ceil(y))]
    }

    /// What products with a part's rows are multiplied by.
    fn scale_of(&self, part: &Part) -> f32 {
        let (weight, ..) = self.layout.matrices[part.buffer].sources[0];
        self.plan().weight(weight).scale
    }
}

/// A variant with its activation.
fn activated(variant: Variant, activation: Activation) -> Variant {
    match activation {
        Activation::Silu => variant,
        Activation::Gelu => variant.define("GELU"),
        Activation::ClampedSwiglu => variant.define("CLAMPED_SWIGLU"),
        Activation::Sigmoid => variant.define("SIGMOID"),
    }
}

#[cfg(test)]
mod tests;
