//! Embeddings, norms, rope and what else goes element by element, to dispatches.

use shaders::Variant;

use super::{Dispatch, Extent, GROUP, LANES, Lowering, Resource, Scratch, activated};
use crate::plan::{Parts, RowOf, Rows, ValueId, op};
use crate::spec::weights::WeightId;
use crate::spec::{Activation, NormKind};

/// Numbers or vectors of a row that a lane keeps at the least, while there are lanes to spare.
const KEPT: usize = 2;
/// The most lanes of a workgroup that norms a row.
const MOST_LANES: u32 = 256;

/// How the lanes of a workgroup share what it keeps in registers.
pub(super) struct Shares {
    pub lanes: u32,
    /// Of a lane.
    pub each: u32,
    /// Whether the last of some lanes lies behind the end.
    pub ragged: bool,
}

impl Lowering<'_> {
    pub(super) fn embed(&self, op: &op::Embed, out: &mut Vec<Dispatch>) {
        let &op::Embed { table, scale, out: value } = op;
        let groups = self.plan().value(value).width / GROUP;
        for part in self.layout.parts(&[table]) {
            let (variant, mut params) = self.matrix("embed", part);
            params.extend([
                ("groups", groups as u32),
                ("first_row", part.first_row as u32),
                ("rows", part.rows as u32),
                ("vocabulary", self.plan().weight(table).rows as u32),
                ("scale", scale.to_bits()),
            ]);
            let mut bindings = Self::weights_of(part).to_vec();
            bindings.extend([
                ("tokens", Resource::Tokens),
                ("selected", Resource::Scratch(Scratch::Selected)),
                ("out", Resource::Value(value)),
            ]);
            out.push(Dispatch {
                variant,
                bindings,
                params,
                grid: [
                    Extent::Fixed((groups as u32).div_ceil(LANES)),
                    Extent::Per(Rows::Tokens, 1),
                    Extent::Fixed(1),
                ],
                op: 0,
                work: 0,
            });
        }
    }

    pub(super) fn vector(&self, id: WeightId) -> Resource {
        Resource::Vector(self.layout.vector_of(self.plan(), id))
    }

    /// The shares in `count` numbers or vectors: so many lanes that each has a few, all in flight at a time.
    pub(super) fn shares(count: usize) -> Shares {
        let lanes = (count.div_ceil(KEPT) as u32).next_power_of_two().clamp(LANES, MOST_LANES);
        let each = (count as u32).div_ceil(lanes);
        Shares { lanes, each, ragged: !(count as u32).is_multiple_of(lanes) }
    }

    pub(super) fn norm(&self, op: &op::Norm) -> Dispatch {
        let &op::Norm { input, kind, weight, bias, epsilon, count, add_to, out: value } = op;
        let to = self.plan().value(value);
        let gather = to.rows == Rows::Outputs;
        let halves = self.norms_to_halves(value);
        let mut bindings = vec![("input", Resource::Value(input)), ("weight", self.vector(weight))];
        if halves {
            bindings.extend([
                ("halves", Resource::Scratch(Scratch::Rounded)),
                ("largest", Resource::Scratch(Scratch::RoundedScales)),
            ]);
        } else {
            bindings.push(("out", Resource::Value(value)));
        }
        if gather {
            bindings.push(("outputs", Resource::Outputs));
        }
        if let Some(bias) = bias {
            bindings.push(("bias", self.vector(bias)));
        }
        let shares = Self::shares(to.width / 4);
        Dispatch {
            variant: Variant::new("norm")
                .define_if(self.kernels.subgroups, "SUBGROUP")
                .define_if(kind == NormKind::Layer, "LAYER")
                .define_if(kind == NormKind::Layer && count < to.width, "PADDED")
                .define_if(bias.is_some(), "BIAS")
                .define_if(add_to.is_some(), "ADD")
                .define_if(gather, "GATHER")
                .define_if(halves, "HALVES")
                .define_if(shares.ragged, "RAGGED")
                .number("VECTORS", shares.each)
                .constant("LANES", shares.lanes),
            bindings,
            params: vec![
                ("width4", to.width as u32 / 4),
                ("epsilon", epsilon.to_bits()),
                ("count", count as u32),
                ("last_row", self.sizes().chunk as u32 - 1),
            ],
            grid: [Extent::Per(to.rows, 1), Extent::Fixed(1), Extent::Fixed(1)],
            op: 0,
            work: 0,
        }
    }

    pub(super) fn norm_parts(&self, op: &op::NormParts) -> Dispatch {
        let &op::NormParts {
            offset,
            parts,
            width,
            stride,
            kind,
            weight,
            epsilon,
            count,
            out: value,
            ..
        } = op;
        let of_value = self.plan().value(value);
        let mut bindings = vec![("values", Resource::Value(value))];
        let mut factor_stride = 0;
        if let Some(id) = weight {
            bindings.push(("factors", self.vector(id)));
            let weight = self.plan().weight(id);
            factor_stride = if weight.columns * weight.rows > width { width } else { 0 };
        }
        let shares = Self::shares(width);
        Dispatch {
            variant: Variant::new("norm_parts")
                .define_if(self.kernels.subgroups, "SUBGROUP")
                .define_if(kind == NormKind::Layer, "LAYER")
                .define_if(kind == NormKind::L2, "L2")
                .define_if(weight.is_some(), "FACTORS")
                .define_if(shares.ragged, "RAGGED")
                .number("COLUMNS", shares.each)
                .constant("LANES", shares.lanes),
            bindings,
            params: vec![
                ("row", of_value.width as u32),
                ("part_stride", stride as u32),
                ("offset", offset as u32),
                ("width", width as u32),
                ("factor_stride", factor_stride as u32),
                ("epsilon", epsilon.to_bits()),
                ("count", count as u32),
            ],
            grid: [Extent::Fixed(parts as u32), Extent::Per(of_value.rows, 1), Extent::Fixed(1)],
            op: 0,
            work: 0,
        }
    }

    pub(super) fn gate(&self, op: &op::Gate) -> Dispatch {
        let &op::Gate { gate, activation, input, shape: (parts, width), out, .. } = op;
        let row = |p: Parts| self.plan().value(p.value).width as u32;
        let mut variant = Variant::new("gate_parts").constant("LANES", LANES);
        if let Some(activation) = activation {
            variant = activated(variant, activation);
        }
        let mut bindings = vec![("out", Resource::Value(out.value))];
        // Where the result is written over what it is made of.
        let buffer_of = |p: Parts| self.blueprint.buffers.buffer_of[p.value.0];
        let in_out = |p: Parts| buffer_of(p) == buffer_of(out);
        if !in_out(gate) {
            bindings.push(("gate", Resource::Value(gate.value)));
        }
        if let Some(input) = input.filter(|&input| !in_out(input)) {
            bindings.push(("input", Resource::Value(input.value)));
        }
        let of_input = input.unwrap_or(gate);
        Dispatch {
            variant: variant
                .define_if(input.is_none(), "COPY")
                .define_if(activation.is_none(), "PLAIN")
                .define_if(in_out(gate), "GATE_IN_OUT")
                .define_if(input.is_some_and(in_out), "INPUT_IN_OUT"),
            bindings,
            params: vec![
                ("parts", parts as u32),
                ("width", width as u32),
                ("gate_row", row(gate)),
                ("gate_stride", gate.stride as u32),
                ("gate_offset", gate.offset as u32),
                ("input_row", row(of_input)),
                ("input_stride", of_input.stride as u32),
                ("input_offset", of_input.offset as u32),
                ("out_row", row(out)),
                ("out_stride", out.stride as u32),
                ("out_offset", out.offset as u32),
            ],
            grid: [
                Extent::Fixed(((parts * width) as u32).div_ceil(LANES)),
                Extent::Per(self.plan().value(out.value).rows, 1),
                Extent::Fixed(1),
            ],
            op: 0,
            work: 0,
        }
    }

    /// activation(gate) * up for `rows` rows, of which a row of `out` holds `parts`.
    pub(super) fn gate_both(
        &self,
        activation: Activation,
        both: ValueId,
        out: ValueId,
        parts: usize,
        rows: Extent,
    ) -> Dispatch {
        let width = (self.plan().value(out).width / parts) as u32;
        Dispatch {
            variant: activated(Variant::new("gate"), activation).constant("LANES", LANES),
            bindings: vec![("both", Resource::Value(both)), ("out", Resource::Value(out))],
            params: vec![("width", width)],
            grid: [Extent::Fixed(width.div_ceil(LANES)), rows, Extent::Fixed(1)],
            op: 0,
            work: 0,
        }
    }

    pub(super) fn add_gated(&self, op: &op::AddGated) -> Dispatch {
        let &op::AddGated { gate, activation, input, factor, out, .. } = op;
        let width4 = self.plan().value(out).width as u32 / 4;
        Dispatch {
            variant: activated(Variant::new("add_gated"), activation).constant("LANES", LANES),
            bindings: vec![
                ("gate", Resource::Value(gate)),
                ("input", Resource::Value(input)),
                ("out", Resource::Value(out)),
            ],
            params: vec![("width4", width4), ("factor", factor.to_bits())],
            grid: [
                Extent::Fixed(width4.div_ceil(LANES)),
                Extent::Per(Rows::Tokens, 1),
                Extent::Fixed(1),
            ],
            op: 0,
            work: 0,
        }
    }

    pub(super) fn scale(&self, op: &op::Scale) -> Dispatch {
        let &op::Scale { input, factor, out } = op;
        let mut dispatch = self.softcap(&op::Softcap { input, cap: factor, out });
        dispatch.variant = dispatch.variant.define("SCALE");
        dispatch
    }

    /// Rows of a table added: the kernel of embeddings, which takes the table in pieces too.
    pub(super) fn add_row(&self, op: &op::AddRow, out: &mut Vec<Dispatch>) {
        let &op::AddRow { table, row, scale, out: value, .. } = op;
        let first = out.len();
        self.embed(&op::Embed { table, scale, out: value }, out);
        for dispatch in &mut out[first..] {
            let variant = dispatch.variant.clone().define("ADD");
            dispatch.variant = match row {
                RowOf::Id => variant,
                RowOf::Position => variant.define("POSITION"),
                RowOf::First => variant.define("FIRST"),
            };
        }
    }

    pub(super) fn softcap(&self, op: &op::Softcap) -> Dispatch {
        let &op::Softcap { cap, out: value, .. } = op;
        let of_value = self.plan().value(value);
        let width = of_value.width as u32;
        let workgroups = width.div_ceil(LANES).min(self.kernels.adapter.max_workgroups);
        Dispatch {
            variant: Variant::new("softcap").constant("LANES", LANES),
            bindings: vec![("values", Resource::Value(value))],
            params: vec![("width", width), ("cap", cap.to_bits())],
            grid: [Extent::Fixed(workgroups), Extent::Per(of_value.rows, 1), Extent::Fixed(1)],
            op: 0,
            work: 0,
        }
    }
}
