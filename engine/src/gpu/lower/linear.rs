//! Matrix products to dispatches: which kernel multiplies which rows, with what norm before and what after it.

use shaders::Variant;

use super::halves::{cooperative, round_halves};
use super::{Dispatch, Extent, GROUP, Lowering, Resource, Scratch, activated};
use crate::gpu::choice::{Count, ProductKernel};
use crate::gpu::layout::{Part, VectorId};
use crate::gpu::products::{self, Product};
use crate::plan::{Epilogue, Op, Rows, ValueId, op};
use crate::spec::{Activation, NormKind};

/// A norm that the products of its result apply themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
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

impl Lowering<'_> {
    /// An op's products with their kernels.
    pub(super) fn products_of(&self, op: &op::Linear) -> Vec<(Product, ProductKernel)> {
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
    pub(super) fn fused_norm(&self, index: usize) -> Option<(ValueId, Norm)> {
        let Op::Norm(op::Norm {
            input,
            kind: NormKind::Rms,
            weight,
            bias: None,
            epsilon,
            count,
            add_to: None,
            out: normed,
        }) = self.plan().ops[index]
        else {
            return None;
        };
        let reads = |op: &&Op| op.reads(normed);
        let products = self.plan().ops[index + 1..].iter().take_while(reads).count();
        let readers = self.plan().ops.iter().filter(reads).count();
        if products == 0
            || !self.blueprint.are_together(index, index + products)
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
            // A product must not write over what its own norm, or the next one's, still reads.
            let buffer_of = |value: ValueId| self.blueprint.buffers.buffer_of[value.0];
            let (_, written) = op.uses();
            *read == normed
                && !written.iter().any(|&value| buffer_of(value) == buffer_of(input))
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

    pub(super) fn linear(&self, op: &op::Linear, norm: Option<Norm>, out: &mut Vec<Dispatch>) {
        let &op::Linear {
            input,
            ref weights,
            ref biases,
            factor,
            epilogue,
            offset,
            out: value,
            ..
        } = op;
        let bias = self.layout.biases_of(self.plan(), weights, biases);
        let from = Input { value: input, norm };
        // Once for all the op's products that take bytes, or halves.
        let all = self.products_of(op);
        if all.iter().any(|(product, kernel)| self.is_rounded(*kernel, &product.part, value)) {
            out.push(self.round_input(from, value));
        }
        let takes_halves = all.iter().any(|(_, kernel)| kernel.takes_halves());
        if takes_halves && !self.norms_to_halves(input) {
            let rows = Extent::Per(self.plan().value(value).rows, 1);
            out.push(round_halves(input, self.plan().value(input).width, rows));
        }
        let product = |(product, kernel): &(Product, ProductKernel), to| {
            self.product(*kernel, from, &product.part, (bias, factor), to)
        };
        let stored = (value, offset);
        match epilogue {
            Epilogue::Store => out.extend(all.iter().map(|one| product(one, stored))),
            Epilogue::AddTo => out.extend(all.iter().map(|one| {
                let mut dispatch = product(one, stored);
                dispatch.variant = dispatch.variant.define("ADD");
                dispatch
            })),
            Epilogue::Activated(activation) => out.extend(all.iter().map(|one| {
                let mut dispatch = product(one, stored);
                dispatch.variant = activated(dispatch.variant.define("ACTIVATED"), activation);
                dispatch
            })),
            Epilogue::Gated { activation, both } => {
                if let [(Product { part, gated: true }, kernel)] = all.as_slice() {
                    out.push(self.gated(*kernel, from, part, bias, activation, value));
                } else {
                    out.extend(all.iter().map(|one| product(one, (both, 0))));
                    let rows = Extent::Per(self.plan().value(value).rows, 1);
                    out.push(self.gate_both(activation, both, value, 1, rows));
                }
            }
        }
    }

    /// The product of a part's rows, in the columns from `offset` on.
    fn product(
        &self,
        kernel: ProductKernel,
        input: Input,
        part: &Part,
        (bias, factor): (Option<VectorId>, f32),
        (out, offset): (ValueId, usize),
    ) -> Dispatch {
        let matrix = &self.layout.matrices[part.buffer];
        let value = self.plan().value(out);
        let (variant, mut params) = self.matrix(kernel.name(), part);
        params.extend([
            ("rows", part.rows as u32),
            ("groups", (matrix.columns / GROUP) as u32),
            ("out_stride", value.width as u32),
            ("out_offset", (offset + part.first_row) as u32),
            ("first_bias", part.first_row as u32),
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
        let variant =
            variant.define_if(bias.is_some(), "BIAS").define_if(input.norm.is_some(), "NORM");
        let variant = match self.kernels.precision_define(matrix.format) {
            Some(name) => variant.define(name),
            None => variant,
        };
        let variant = variant.define_if(rounded, "ROUNDED");
        // The others go through the tokens that there are.
        if !matches!(kernel, ProductKernel::Matvec { tokens: 1, .. }) {
            bindings.push(("step", Resource::Scratch(Scratch::Step)));
        }
        let variant = self.shaped(variant, kernel);
        let grid = self.product_grid(kernel, part.rows, value.rows);
        Dispatch { variant, bindings, params, grid, op: 0, work: 0 }
    }

    /// A product's variant in its kernel's shape.
    fn shaped(&self, variant: Variant, kernel: ProductKernel) -> Variant {
        match kernel {
            ProductKernel::Matvec { lanes, rows, tokens, take } => take
                .define()
                .into_iter()
                .fold(variant, Variant::define)
                .define_if(self.kernels.subgroups, "SUBGROUP")
                .define_if(tokens > 1, "SEVERAL")
                .number("MATRICES", 1)
                .number("ROWS", rows)
                .number("TOKENS", tokens)
                .constant("LANES", lanes),
            ProductKernel::Lanewise { lanes, rows, tokens } => variant
                .number("MATRICES", 1)
                .number("ROWS", rows)
                .number("TOKENS", tokens)
                .constant("LANES", lanes),
            ProductKernel::Matmul { tokens } => variant.number("TOKENS", tokens),
            ProductKernel::Cooperative { .. } => cooperative(variant, kernel),
        }
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
            work: 0,
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
        let mut dispatch = self.product(kernel, input, &half, (bias, 1.0), (out, 0));
        let gated = dispatch.variant.define("GATED").number("MATRICES", 2);
        dispatch.variant = activated(gated, activation);
        dispatch
    }
}
