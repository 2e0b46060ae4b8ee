//! Mixtures of experts to dispatches: few tokens pair by pair, many by tiles of pairs that chose the same expert.

use shaders::Variant;

use super::{
    Dispatch, Extent, GROUP, LANES, Lowering, Resource, Scratch, activated, cooperative,
    round_halves,
};
use crate::executor::Precision;
use crate::gpu::choice::{Count, Kernels};
use crate::gpu::layout::{Part, VectorId};
use crate::plan::{Rows, ValueId, op};
use crate::spec::{Gating, Routing};

/// Rows of a workgroup for few tokens.
const ROWS: u32 = 2;

/// The tiles that a step's pairs can make.
fn tiles(routing: &Routing, kernels: &Kernels) -> Extent {
    let (used, experts) = (routing.used as u32, routing.count as u32);
    Extent::Tiles { used, per: kernels.expert_tile_pairs(), experts }
}

/// Words of the list of tiles before the pairs: their count, and three a tile.
fn order_of(tokens: usize, routing: &Routing, kernels: &Kernels) -> usize {
    1 + 3 * tiles(routing, kernels).count(tokens as u32, 0) as usize
}

/// Words of the list of tiles for steps of up to `tokens` tokens.
pub fn tile_words(tokens: usize, routing: &Routing, kernels: &Kernels) -> usize {
    order_of(tokens, routing, kernels) + tokens * routing.used
}

/// One product with experts.
struct Product<'a> {
    routing: &'a Routing,
    /// Rows of an expert in the matrix.
    expert_rows: usize,
    part: &'a Part,
    bias: Option<VectorId>,
    input: ValueId,
    /// Pairs with the same row of input.
    pairs_per_row: usize,
    out: ValueId,
    /// From one pair's results to the next pair's.
    out_stride: usize,
    out_offset: usize,
    /// The first of the part's rows that count, and of the op's weights' rows.
    first_row: usize,
    first_bias: usize,
    factor: f32,
}

impl Lowering<'_> {
    pub(super) fn route(&self, op: &op::Route) -> Dispatch {
        let op::Route { logits, bias, routing, scales, out } = op;
        let mut bindings =
            vec![("logits", Resource::Value(*logits)), ("out", Resource::Value(*out))];
        if let Some(bias) = bias {
            bindings.push(("bias", Resource::Vector(self.layout.vector_of(self.plan(), *bias))));
        }
        if let Some(scales) = scales {
            bindings
                .push(("scales", Resource::Vector(self.layout.vector_of(self.plan(), *scales))));
        }
        let variant = match routing.gating {
            Gating::Softmax => Variant::new("route").define("SOFTMAX"),
            Gating::Sigmoid => Variant::new("route").define("SIGMOID"),
            Gating::SoftmaxOfChosen => Variant::new("route").define("OF_CHOSEN"),
        };
        Dispatch {
            variant: variant
                .define_if(bias.is_some(), "BIAS")
                .define_if(scales.is_some(), "SCALES")
                .define_if(routing.groups > 1, "GROUPS")
                .define_if(routing.normalize, "NORMALIZE"),
            bindings,
            params: vec![
                ("experts", routing.count as u32),
                ("used", routing.used as u32),
                ("groups", routing.groups as u32),
                ("groups_used", routing.groups_used as u32),
                ("scale", routing.scale.to_bits()),
            ],
            grid: [Extent::Per(Rows::Tokens, 1), Extent::Fixed(1), Extent::Fixed(1)],
            op: 0,
            work: 0,
        }
    }

    pub(super) fn experts_gated(&self, op: &op::ExpertsGated, out: &mut Vec<Dispatch>) {
        let &op::ExpertsGated {
            input,
            routes,
            ref routing,
            ref weights,
            ref biases,
            activation,
            both,
            out: value,
        } = op;
        let bias = self.layout.biases_of(self.plan(), weights, biases);
        let parts = self.layout.parts(weights);
        let width = self.plan().value(value).width / routing.used;
        let many = self.class.tokens == Count::Many;
        // Of one weight: both matrices are an expert's rows, or there are two weights.
        let expert_rows = self.plan().weight(weights[0]).rows / routing.count;
        let of_weight = expert_rows * routing.count;
        let product = |part, first_row, first_bias, out_offset, out, out_stride| Product {
            routing,
            expert_rows,
            part,
            bias,
            input,
            pairs_per_row: routing.used,
            out,
            out_stride,
            out_offset,
            first_row,
            first_bias,
            factor: 1.0,
        };
        if let ([part], false) = (parts, many) {
            let gate = product(part, 0, 0, 0, value, width);
            let up_rows = if weights.len() == 2 { of_weight } else { width };
            let mut dispatch = self.by_pair(&gate, routes, width, up_rows);
            dispatch.variant =
                activated(dispatch.variant.define("GATED").number("MATRICES", 2), activation);
            out.push(dispatch);
            return;
        }
        if many {
            out.push(self.expert_lists(routing, routes));
            let rows = Extent::Per(self.plan().value(input).rows, 1);
            out.extend(self.expert_halves(input, self.plan().value(input).width, rows));
        }
        for part in parts {
            // The weights that the part holds rows of, by their first rows.
            for (index, first) in (0..weights.len()).map(|index| (index, index * of_weight)) {
                let rows = part.first_row..part.first_row + part.rows;
                if first + of_weight <= rows.start || first >= rows.end {
                    continue;
                }
                let local = first.saturating_sub(rows.start);
                let (offset, first_bias) = (index * expert_rows, rows.start.max(first));
                let product = product(part, local, first_bias, offset, both, 2 * width);
                out.push(self.expert_product(&product, routes, expert_rows));
            }
        }
        let pairs = Extent::Times(routing.used as u32);
        out.push(self.gate_both(activation, both, value, routing.used, pairs));
    }

    pub(super) fn experts_down(&self, op: &op::ExpertsDown, out: &mut Vec<Dispatch>) {
        let &op::ExpertsDown {
            input,
            routes,
            ref routing,
            weight,
            bias,
            factor,
            parts: products,
            add_to,
            out: value,
        } = op;
        let bias = self.layout.biases_of(self.plan(), &[weight], &[bias]);
        let width = self.plan().value(value).width;
        let many = self.class.tokens == Count::Many;
        if many {
            let pairs = Extent::Times(routing.used as u32);
            let of_pair = self.plan().value(input).width / routing.used;
            out.extend(self.expert_halves(input, of_pair, pairs));
        }
        for (index, part) in self.layout.parts(&[weight]).iter().enumerate() {
            let product = Product {
                routing,
                expert_rows: width,
                part,
                bias,
                input,
                pairs_per_row: 1,
                out: if many { products } else { value },
                out_stride: width,
                out_offset: 0,
                first_row: 0,
                first_bias: part.first_row,
                factor: if many { 1.0 } else { factor },
            };
            if many {
                out.push(self.expert_product(&product, routes, width));
                continue;
            }
            let mut dispatch = self.by_pair(&product, routes, width, 0);
            // The experts of a second piece are added to those of the first.
            let adds = add_to.is_some() || index > 0;
            dispatch.variant = dispatch.variant.define("DOWN").define_if(adds, "ADD");
            dispatch.grid[1] = Extent::Per(Rows::Tokens, 1);
            out.push(dispatch);
        }
        if many {
            let width4 = width as u32 / 4;
            out.push(Dispatch {
                variant: Variant::new("expert_sum")
                    .define_if(add_to.is_some(), "ADD")
                    .constant("LANES", LANES),
                bindings: vec![
                    ("products", Resource::Value(products)),
                    ("routes", Resource::Value(routes)),
                    ("out", Resource::Value(value)),
                ],
                params: vec![
                    ("width4", width4),
                    ("used", routing.used as u32),
                    ("factor", factor.to_bits()),
                ],
                grid: [
                    Extent::Fixed(width4.div_ceil(LANES)),
                    Extent::Per(Rows::Tokens, 1),
                    Extent::Fixed(1),
                ],
                op: 0,
                work: 0,
            });
        }
    }

    /// A matrix for each head: as experts, of which every token uses all in order.
    pub(super) fn head_linear(&self, op: &op::HeadLinear, out: &mut Vec<Dispatch>) {
        let &op::HeadLinear { input, heads, weight, out: value } = op;
        let rows = self.plan().weight(weight).rows / heads;
        let routing = &Routing {
            count: heads,
            used: heads,
            gating: Gating::Softmax,
            normalize: false,
            scale: 1.0,
            groups: 1,
            groups_used: 1,
        };
        for part in self.layout.parts(&[weight]) {
            let product = Product {
                routing,
                expert_rows: rows,
                part,
                bias: None,
                input,
                pairs_per_row: 1,
                out: value,
                out_stride: rows,
                out_offset: 0,
                first_row: 0,
                first_bias: 0,
                factor: 1.0,
            };
            let mut dispatch = self.by_pair(&product, value, rows, 0);
            dispatch.variant = dispatch.variant.define("HEADS");
            dispatch.bindings.retain(|(name, _)| *name != "routes");
            out.push(dispatch);
        }
    }

    fn expert_lists(&self, routing: &Routing, routes: ValueId) -> Dispatch {
        Dispatch {
            variant: Variant::new("expert_lists")
                .number("TOKENS", self.kernels.expert_tile_pairs()),
            bindings: vec![
                ("routes", Resource::Value(routes)),
                ("tiles", Resource::Scratch(Scratch::ExpertTiles)),
                ("step", Resource::Scratch(Scratch::Step)),
            ],
            params: vec![
                ("experts", routing.count as u32),
                ("used", routing.used as u32),
                ("order", order_of(self.sizes().chunk, routing, self.kernels) as u32),
            ],
            grid: [Extent::Fixed(1); 3],
            op: 0,
            work: 0,
        }
    }

    /// The input of products of many pairs as halves, where they take it so.
    fn expert_halves(&self, input: ValueId, width: usize, rows: Extent) -> Option<Dispatch> {
        let halves = self.kernels.expert_tiles(width).takes_halves();
        halves.then(|| round_halves(input, width, rows))
    }

    /// A product that is stored pair by pair.
    fn expert_product(&self, product: &Product, routes: ValueId, rows: usize) -> Dispatch {
        if self.class.tokens != Count::Many {
            return self.by_pair(product, routes, rows, 0);
        }
        let matrix = &self.layout.matrices[product.part.buffer];
        let kernel = self.kernels.expert_tiles(matrix.columns);
        let mut dispatch = self.with_experts(product, kernel.name(), rows, 0);
        if let Some(name) = self.kernels.precision_define(matrix.format) {
            dispatch.variant = dispatch.variant.define(name);
        }
        let variant =
            dispatch.variant.define("EXPERTS").number("TOKENS", kernel.workgroup_tokens());
        dispatch.variant = cooperative(variant, kernel);
        if kernel.takes_halves() {
            dispatch.bindings.retain(|(name, _)| *name != "input");
            dispatch.bindings.extend([
                ("input", Resource::Scratch(Scratch::Rounded)),
                ("largest", Resource::Scratch(Scratch::RoundedScales)),
            ]);
        }
        dispatch.bindings.extend([
            ("tiles", Resource::Scratch(Scratch::ExpertTiles)),
            ("step", Resource::Scratch(Scratch::Step)),
        ]);
        let tiles = tiles(product.routing, self.kernels);
        dispatch.grid = self.tiled_grid(tiles, (rows as u32).div_ceil(kernel.workgroup_rows()));
        dispatch
    }

    /// A product whose pairs each read their weights.
    fn by_pair(&self, product: &Product, routes: ValueId, rows: usize, up_rows: usize) -> Dispatch {
        let mut dispatch = self.with_experts(product, "expert_matvec", rows, up_rows);
        let matrix = &self.layout.matrices[product.part.buffer];
        // Bytes are not made here.
        let exact = Kernels { precision: Precision::F32, ..self.kernels.clone() };
        let take = exact.take(matrix.format, matrix.columns, 1, false);
        dispatch.variant = take
            .define()
            .into_iter()
            .fold(dispatch.variant, Variant::define)
            .define_if(self.kernels.subgroups, "SUBGROUP")
            .number("MATRICES", 1)
            .number("ROWS", ROWS)
            .number("TOKENS", 1)
            .constant(
                "LANES",
                if self.kernels.subgroups {
                    self.kernels.adapter.subgroup_max.clamp(8, 64)
                } else {
                    32
                },
            );
        dispatch.bindings.push(("routes", Resource::Value(routes)));
        let workgroups = (rows as u32).div_ceil(ROWS);
        let x = workgroups.min(self.kernels.adapter.max_workgroups);
        dispatch.grid = [
            Extent::Fixed(x),
            Extent::Times(product.routing.used as u32),
            Extent::Fixed(workgroups.div_ceil(x)),
        ];
        dispatch
    }

    fn with_experts(
        &self,
        product: &Product,
        kernel: &'static str,
        rows: usize,
        up_rows: usize,
    ) -> Dispatch {
        let Product { routing, part, .. } = *product;
        let matrix = &self.layout.matrices[part.buffer];
        let (variant, mut params) = self.matrix(kernel, part);
        // Where a weight is in pieces, which experts this one holds.
        let of_weight = product.expert_rows * routing.count;
        let first_expert = part.first_row % of_weight / product.expert_rows;
        let experts = (part.rows / product.expert_rows).min(routing.count - first_expert);
        params.extend([
            ("rows", rows as u32),
            ("groups", (matrix.columns / GROUP) as u32),
            ("out_stride", product.out_stride as u32),
            ("out_offset", product.out_offset as u32),
            ("per_output", 0),
            ("epsilon", 0),
            ("scale", self.scale_of(part).to_bits()),
            ("factor", product.factor.to_bits()),
            ("expert_rows", product.expert_rows as u32),
            ("up_rows", up_rows as u32),
            ("first_row", product.first_row as u32),
            ("first_expert", first_expert as u32),
            ("experts", experts as u32),
            ("used", routing.used as u32),
            ("pairs_per_row", product.pairs_per_row as u32),
            ("order", order_of(self.sizes().chunk, routing, self.kernels) as u32),
            ("first_bias", product.first_bias as u32),
        ]);
        let mut bindings = Self::weights_of(part).to_vec();
        bindings.extend([
            ("input", Resource::Value(product.input)),
            ("out", Resource::Value(product.out)),
        ]);
        if let Some(bias) = product.bias {
            bindings.push(("bias", Resource::Vector(bias)));
        }
        let variant = variant.define_if(product.bias.is_some(), "BIAS");
        Dispatch { variant, bindings, params, grid: [Extent::Fixed(1); 3], op: 0, work: 0 }
    }
}
