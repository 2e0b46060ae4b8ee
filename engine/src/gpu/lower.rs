//! Ops to dispatches: which kernel in which form, what it binds, how large its grid is. Pure: no GPU.

mod attention;
pub mod cost;
mod elementwise;
mod experts;
mod halves;
mod recurrent;
mod selection;

use shaders::Variant;

pub use self::attention::attention_parts;
pub use self::experts::tile_words;
use self::halves::{cooperative, round_halves};
pub use self::selection::{MOST_CANDIDATES, candidate_room, kept_candidates, lower_selection};
use super::choice::ProductKernel;
pub use super::choice::{Count, Family, Kernels};
use super::layout::{Layout, Part, VectorId};
use super::products::{self, Product};
pub use super::scratch::Scratch;
use crate::Result;
use crate::blueprint::{Blueprint, Sizes};
use crate::kv::{KvType, Placed, PlacedStep};
use crate::plan::{Epilogue, KvLayer, KvLayerId, Op, Plan, RopeId, Rows, StateId, ValueId, op};
use crate::spec::{Activation, NormKind};

/// What a dispatch binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// One of [`Layout::matrices`].
    Matrix(usize),
    /// A vector.
    Vector(VectorId),
    /// An activation.
    Value(ValueId),
    /// The keys of a layer.
    Keys(KvLayerId),
    /// The values of a layer.
    Values(KvLayerId),
    /// The step's tokens.
    Tokens,
    /// Which tokens' logits are wanted.
    Outputs,
    /// Cosines and sines of the step's tokens.
    Angles(RopeId),
    /// How the next id is chosen.
    Selection,
    /// A state of all sequences.
    State(StateId),
    /// A buffer that the context has once.
    Scratch(Scratch),
}

/// A number of workgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Always so many.
    Fixed(u32),
    /// One for each so many rows of a value.
    Per(Rows, u32),
    /// So many for each token.
    Times(u32),
    /// As many tiles as pairs of a token and an expert can make: `used` a token, `per` a tile, and one begun for each expert.
    Tiles {
        /// Slots a token.
        used: u32,
        /// Slots a tile.
        per: u32,
        /// Experts.
        experts: u32,
    },
}

impl Extent {
    /// The number for a step of `tokens` tokens, of which `outputs` want logits.
    pub fn count(self, tokens: u32, outputs: u32) -> u32 {
        match self {
            Extent::Fixed(n) => n,
            Extent::Per(Rows::Tokens, per) => tokens.div_ceil(per),
            Extent::Per(Rows::Outputs, per) => outputs.div_ceil(per),
            Extent::Times(n) => tokens * n,
            Extent::Tiles { used, per, experts } => {
                // Every expert that has pairs may leave one tile begun.
                (tokens * used) / per + experts.min(tokens * used)
            }
        }
    }
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The kernel.
    pub variant: Variant,
    /// What it binds, by the kernel's names.
    pub bindings: Vec<(&'static str, Resource)>,
    /// The numbers of its `params`, by the kernel's names, as bits.
    pub params: Vec<(&'static str, u32)>,
    /// Workgroups.
    pub grid: [Extent; 3],
    /// The op it belongs to.
    pub op: usize,
}

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

/// A norm that the products of its result apply themselves.
#[derive(Debug, Clone, Copy)]
struct Norm {
    /// What is normed.
    input: ValueId,
    weight: VectorId,
    epsilon: f32,
}

/// The rows that a product multiplies: a value, or what its norm would be computed from.
#[derive(Debug, Clone, Copy)]
struct Input {
    value: ValueId,
    norm: Option<Norm>,
}

impl Input {
    /// What a kernel reads that norms its input itself.
    fn value_read(&self) -> ValueId {
        self.norm.map_or(self.value, |norm| norm.input)
    }
}

/// Weights of a group, the unit of all kernels.
const GROUP: usize = 32;
/// Invocations of element-wise kernels and of attention.
const LANES: u32 = 64;

impl<'a> Lowering<'a> {
    fn plan(&self) -> &'a Plan {
        &self.blueprint.plan
    }

    fn sizes(&self) -> &'a Sizes {
        &self.blueprint.sizes
    }

    /// Lowers a plan.
    pub fn lower(&self) -> Result<Vec<Dispatch>> {
        let mut dispatches = Vec::new();
        // A norm that is fused, and its result.
        let mut fused: Option<(ValueId, Norm)> = None;
        for (index, op) in self.plan().ops.iter().enumerate() {
            let first = dispatches.len();
            if let Some(norm) = self.fused_norm(index) {
                fused = Some(norm);
                continue;
            }
            let norm = fused.filter(|(normed, _)| op.reads(*normed));
            self.op(op, norm.map(|(_, norm)| norm), &mut dispatches)?;
            for dispatch in &mut dispatches[first..] {
                dispatch.op = index;
            }
            if let Some(both) = self.fused_rounding(&dispatches, first) {
                dispatches.splice(first - 1..=first, [both]);
            }
        }
        Ok(dispatches)
    }

    /// An op's products with their kernels.
    fn products_of(&self, op: &op::Linear) -> Vec<(Product, ProductKernel)> {
        let op::Linear { out, .. } = op;
        let count = self.class.count(self.plan().value(*out).rows);
        let with_kernel = |product: Product| {
            let product = product.as_lowered(self.layout, self.kernels, count);
            (product, self.kernels.product(&product.shape(self.layout, count)))
        };
        products::of(self.layout, op).into_iter().map(with_kernel).collect()
    }

    /// The norm of op `index`, with its result, if the products of the ops that follow can norm their input themselves,
    /// and nothing else reads it.
    fn fused_norm(&self, index: usize) -> Option<(ValueId, Norm)> {
        let Op::Norm(op::Norm {
            input,
            kind: NormKind::Rms,
            weight,
            bias: None,
            epsilon,
            count,
            add: false,
            out: normed,
        }) = self.plan().ops[index]
        else {
            return None;
        };
        let reads = |op: &&Op| op.reads(normed);
        let products = self.plan().ops[index + 1..].iter().take_while(reads).count();
        let readers = self.plan().ops.iter().filter(reads).count();
        // Where nobody wants `input` any more, the second product may be written over it.
        let lives = |op: &Op| op.reads(input);
        if products == 0
            || (products > 1 && !self.plan().ops[index + 1 + products..].iter().any(lives))
            || readers != products
            || self.plan().value(input).rows != self.plan().value(normed).rows
            // Products take all columns for numbers.
            || count < self.plan().value(normed).width
        {
            return None;
        }
        let fuses = |op: &Op| {
            let Op::Linear(linear) = op else { return false };
            let op::Linear { input: read, out, .. } = linear;
            let count = self.class.count(self.plan().value(*out).rows);
            // A product must not write what its own norm still reads.
            let (_, written) = op.uses();
            *read == normed
                && !written.contains(&input)
                && products::of(self.layout, linear).iter().all(|product| {
                    let shape = product.shape(self.layout, count);
                    // Inputs that are rounded once are normed once.
                    let rounded =
                        self.is_rounded(self.kernels.product(&shape), &product.part, *out);
                    rounded || self.kernels.fuses_norm(&shape)
                })
        };
        let weight = self.layout.vector_of(self.plan(), weight);
        let all = self.plan().ops[index + 1..][..products].iter().all(fuses);
        all.then_some((normed, Norm { input, weight, epsilon }))
    }

    fn op(&self, op: &Op, norm: Option<Norm>, out: &mut Vec<Dispatch>) -> Result<()> {
        match op {
            Op::Embed(op::Embed { table, scale, out: value }) => {
                self.embed(*table, *scale, *value, out);
            }
            Op::Norm(op) => out.push(self.norm(op)),
            Op::AddRow(op) => self.add_row(op, out),
            Op::Scale(op::Scale { value, factor }) => out.push(self.scale(*value, *factor)),
            Op::HeadLinear(op) => self.head_linear(op, out),
            Op::NormParts(op) => out.push(self.norm_parts(op)),
            Op::Linear(op) => self.linear(op, norm, out),
            Op::QkRopeStore(op) => out.push(self.qk_rope_store(op)?),
            Op::Attention(op) => self.attention(op, out)?,
            Op::Route(op) => out.push(self.route(op)),
            Op::ExpertsGated(op) => self.experts_gated(op, out),
            Op::ExpertsDown(op) => self.experts_down(op, out),
            Op::AddGated(op) => out.push(self.add_gated(op)),
            Op::Gate(op) => out.push(self.gate_parts(op)),
            Op::Conv(op) => out.push(self.conv(op)),
            Op::Mamba2(op) => out.push(self.mamba2(op)),
            Op::DeltaNet(op) => out.push(self.delta_net(op)),
            Op::Softcap(op::Softcap { value, cap }) => out.push(self.softcap(*value, *cap)),
        }
        Ok(())
    }

    fn linear(&self, op: &op::Linear, norm: Option<Norm>, out: &mut Vec<Dispatch>) {
        let op::Linear { input, weights, biases, factor, epilogue, out: value } = op;
        let bias = self.layout.biases_of(self.plan(), weights, biases);
        let from = Input { value: *input, norm };
        // Once for all the op's products that take bytes, or halves.
        let all = self.products_of(op);
        if all.iter().any(|(product, kernel)| self.is_rounded(*kernel, &product.part, *value)) {
            out.push(self.round_input(from, *value));
        }
        let takes_halves = all.iter().any(|(_, kernel)| kernel.takes_halves());
        if takes_halves && !self.norms_to_halves(*input) {
            let rows = Extent::Per(self.plan().value(*value).rows, 1);
            out.push(round_halves(*input, self.plan().value(*input).width, rows));
        }
        let linear = |(product, kernel): &(Product, ProductKernel), value: ValueId, add: bool| {
            self.product(*kernel, from, &product.part, (bias, *factor), add, value)
        };
        match *epilogue {
            Epilogue::Store => out.extend(all.iter().map(|one| linear(one, *value, false))),
            Epilogue::AddTo => out.extend(all.iter().map(|one| linear(one, *value, true))),
            Epilogue::Activated(activation) => out.extend(all.iter().map(|one| {
                let mut dispatch = linear(one, *value, false);
                dispatch.variant = activated(dispatch.variant.define("ACTIVATED"), activation);
                dispatch
            })),
            Epilogue::Gated { activation, both } => {
                if let [(Product { part, gated: true }, kernel)] = all.as_slice() {
                    out.push(self.gated(*kernel, from, part, bias, activation, *value));
                } else {
                    out.extend(all.iter().map(|one| linear(one, both, false)));
                    let rows = Extent::Per(self.plan().value(*value).rows, 1);
                    out.push(self.gate(activation, both, *value, 1, rows));
                }
            }
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

    /// The product of a part's rows.
    fn product(
        &self,
        kernel: ProductKernel,
        input: Input,
        part: &Part,
        (bias, factor): (Option<VectorId>, f32),
        add: bool,
        out: ValueId,
    ) -> Dispatch {
        let matrix = &self.layout.matrices[part.buffer];
        let value = self.plan().value(out);
        let (variant, mut params) = self.matrix(kernel.name(), part);
        params.extend([
            ("rows", part.rows as u32),
            ("groups", (matrix.columns / GROUP) as u32),
            ("out_stride", value.width as u32),
            ("out_offset", part.first_row as u32),
            ("per_output", u32::from(value.rows == Rows::Outputs)),
        ]);
        let rounded = self.is_rounded(kernel, part, out);
        // The norm of rounded inputs is done.
        let input = if rounded { Input { norm: None, ..input } } else { input };
        let mut bindings = Self::weights_of(part).to_vec();
        bindings.push(("out", Resource::Value(out)));
        if rounded {
            bindings.extend([
                ("bytes", Resource::Scratch(Scratch::Rounded)),
                ("x_scales", Resource::Scratch(Scratch::RoundedScales)),
            ]);
        } else if kernel.takes_halves() {
            bindings.extend([
                ("input", Resource::Scratch(Scratch::Rounded)),
                ("largest", Resource::Scratch(Scratch::RoundedScales)),
            ]);
        } else {
            bindings.push(("input", Resource::Value(input.value_read())));
        }
        if let Some(id) = bias {
            bindings.push(("bias", Resource::Vector(id)));
        }
        if let Some(norm) = input.norm {
            bindings.push(("norm_weight", Resource::Vector(norm.weight)));
        }
        params.extend([
            ("epsilon", input.norm.map_or(0, |norm| norm.epsilon.to_bits())),
            ("scale", self.scale_of(part).to_bits()),
            ("factor", factor.to_bits()),
        ]);
        let variant = variant
            .define_if(bias.is_some(), "BIAS")
            .define_if(add, "ADD")
            .define_if(input.norm.is_some(), "NORM");
        let variant = match self.kernels.precision_define(matrix.format) {
            Some(name) => variant.define(name),
            None => variant,
        };
        let variant = variant.define_if(rounded, "ROUNDED");
        let (variant, needs_step) = match kernel {
            ProductKernel::Matvec { lanes, rows, tokens, take } => {
                let variant = take.define().into_iter().fold(variant, Variant::define);
                let variant = variant
                    .define_if(self.kernels.subgroups, "SUBGROUP")
                    .define_if(tokens > 1, "SEVERAL")
                    .number("MATRICES", 1)
                    .number("ROWS", rows)
                    .number("TOKENS", tokens)
                    .constant("LANES", lanes);
                (variant, tokens > 1)
            }
            ProductKernel::Lanewise { lanes, rows, tokens } => {
                let variant = variant
                    .number("MATRICES", 1)
                    .number("ROWS", rows)
                    .number("TOKENS", tokens)
                    .constant("LANES", lanes);
                (variant, true)
            }
            ProductKernel::Matmul { tokens } => (variant.number("TOKENS", tokens), true),
            ProductKernel::Cooperative { .. } => (cooperative(variant, kernel), true),
        };
        if needs_step {
            bindings.push(("step", Resource::Scratch(Scratch::Step)));
        }
        let grid = self.product_grid(kernel, part.rows, value.rows);
        Dispatch { variant, bindings, params, grid, op: 0 }
    }

    /// Whether a product takes inputs that were rounded before, instead of rounding them in every workgroup.
    fn is_rounded(&self, kernel: ProductKernel, part: &Part, out: ValueId) -> bool {
        let format = self.layout.matrices[part.buffer].format;
        matches!(kernel, ProductKernel::Matvec { .. })
            && self.kernels.precision.rounds_inputs(format)
            && self.class.count(self.plan().value(out).rows) != Count::Many
    }

    /// The input of a product that writes `out` rounded to bytes, with its norm if it has one.
    fn round_input(&self, input: Input, out: ValueId) -> Dispatch {
        let width = self.plan().value(input.value).width as u32;
        let mut bindings = vec![
            ("input", Resource::Value(input.value_read())),
            ("bytes", Resource::Scratch(Scratch::Rounded)),
            ("scales", Resource::Scratch(Scratch::RoundedScales)),
        ];
        bindings.extend(input.norm.map(|norm| ("norm_weight", Resource::Vector(norm.weight))));
        Dispatch {
            variant: Variant::new("round_input")
                .define_if(input.norm.is_some(), "NORM")
                .define_if(self.kernels.subgroups, "SUBGROUP")
                .constant("LANES", (width / 16).next_power_of_two().clamp(32, 256)),
            bindings,
            params: vec![
                ("groups", width / GROUP as u32),
                ("epsilon", input.norm.map_or(0, |norm| norm.epsilon.to_bits())),
            ],
            grid: [Extent::Per(self.plan().value(out).rows, 1), Extent::Fixed(1), Extent::Fixed(1)],
            op: 0,
        }
    }

    fn product_grid(&self, kernel: ProductKernel, rows: usize, of: Rows) -> [Extent; 3] {
        let workgroups = (rows as u32).div_ceil(kernel.workgroup_rows());
        let tokens = Extent::Per(of, kernel.workgroup_tokens());
        if !kernel.can_fuse() {
            return self.tiled_grid(tokens, workgroups);
        }
        // As few rows of workgroups as there may be, all alike, so that few workgroups find nothing to do.
        let y = workgroups.div_ceil(self.kernels.adapter.max_workgroups);
        [Extent::Fixed(workgroups.div_ceil(y)), Extent::Fixed(y), tokens]
    }

    /// A grid whose neighbouring workgroups, which run at the same time, multiply the same rows with other tokens: tiles
    /// of tokens on x, of rows on y and, beyond its limit, on z.
    fn tiled_grid(&self, tokens: Extent, row_tiles: u32) -> [Extent; 3] {
        let y = row_tiles.min(self.kernels.adapter.max_workgroups);
        [tokens, Extent::Fixed(y), Extent::Fixed(row_tiles.div_ceil(y))]
    }

    /// Gate and up of a part, with their activation.
    fn gated(
        &self,
        kernel: ProductKernel,
        input: Input,
        part: &Part,
        bias: Option<VectorId>,
        activation: Activation,
        out: ValueId,
    ) -> Dispatch {
        let half = Part { rows: part.rows / 2, ..*part };
        let mut dispatch = self.product(kernel, input, &half, (bias, 1.0), false, out);
        let gated = dispatch.variant.define("GATED").number("MATRICES", 2);
        dispatch.variant = activated(gated, activation);
        dispatch
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
