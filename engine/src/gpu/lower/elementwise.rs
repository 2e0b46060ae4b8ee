//! Embeddings, norms, rope and what else goes element by element, to dispatches.

use shaders::Variant;

use super::{Dispatch, Extent, GROUP, LANES, Lowering, Resource, Scratch, activated};
use crate::plan::{RowOf, Rows, ValueId, op};
use crate::spec::rope::RopeStyle;
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
            });
        }
    }

    fn vector(&self, id: WeightId) -> Resource {
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
        }
    }

    pub(super) fn qk_rope_store(&self, op: &op::QkRopeStore) -> Dispatch {
        let &op::QkRopeStore {
            v,
            layer,
            q_norm,
            k_norm,
            epsilon,
            count,
            rope,
            turn_from,
            store,
            temperature,
            out: qkv,
            ..
        } = op;
        let kv = self.plan().kv_layer(layer);
        let rotation = rope.map(|rope| &self.plan().ropes[rope.0]);
        let mut bindings = vec![
            ("qkv", Resource::Value(qkv)),
            ("keys", Resource::Keys(layer)),
            ("values", Resource::Values(layer)),
            ("tokens", Resource::Tokens),
        ];
        bindings.extend(v.map(|v| ("v", Resource::Value(v))));
        bindings.extend(rope.map(|rope| ("angles", Resource::Angles(rope))));
        if let (Some(q_norm), Some(k_norm)) = (q_norm, k_norm) {
            bindings.extend([("q_norm", self.vector(q_norm)), ("k_norm", self.vector(k_norm))]);
        }
        let halves = rotation.is_some_and(|rotation| rotation.style == RopeStyle::Halves);
        Dispatch {
            variant: Variant::new("qk_rope_store")
                .constant("KEYS", self.sizes().key_type.format().id())
                .constant("VALUES", self.sizes().value_type.format().id())
                .define_if(self.kernels.subgroups, "SUBGROUP")
                .define_if(v.is_some(), "V_APART")
                .define_if(q_norm.is_some(), "QK_NORM")
                .define_if(rope.is_some(), "ROPE")
                .define_if(temperature.is_some(), "TEMPERATURE")
                .define_if(halves, "HALVES")
                .constant("LANES", LANES),
            bindings,
            params: vec![
                ("heads", kv.heads as u32),
                ("kv_heads", kv.kv_heads as u32),
                ("key_length", kv.key_length as u32),
                ("value_length", kv.value_length as u32),
                ("pairs", rotation.map_or(0, |rotation| rotation.pairs() as u32)),
                ("turn_from", turn_from as u32),
                ("epsilon", epsilon.to_bits()),
                ("count", count as u32),
                ("windowed", u32::from(kv.window.is_some())),
                ("temperature", temperature.map_or(0, |t| t.scale.to_bits())),
                ("temperature_length", temperature.map_or(1, |t| t.length as u32)),
            ]
            .into_iter()
            .chain(self.head_words(kv))
            .collect(),
            grid: [
                // The heads of k and v are left out where they are not stored.
                Extent::Fixed((kv.heads + if store { 2 * kv.kv_heads } else { 0 }) as u32),
                Extent::Per(Rows::Tokens, 1),
                Extent::Fixed(1),
            ],
            op: 0,
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
        }
    }
}
