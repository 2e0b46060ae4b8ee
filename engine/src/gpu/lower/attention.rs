//! Attention to dispatches.

use shaders::Variant;

use super::{Dispatch, Extent, LANES, Lowering, Resource, Scratch};
use crate::gpu::choice::{Count, Family, Kernels, MOST_PARTS};
use crate::kv::{BLOCK, KvType};
use crate::plan::{KvLayer, Rows, ValueId, op};
use crate::spec::rope::RopeStyle;

/// The most queries of a tile.
const MOST_QUERIES: u32 = 8;
/// Vectors of queries that a tile keeps in workgroup memory: 8 KiB.
const TILE_VECTORS: u32 = 512;
/// The most lanes that share a cell's key.
const MOST_SHARE: u32 = 4;

/// The most vectors of eight of a key, times queries, whose products are unrolled: else the code outgrows its cache.
const MOST_UNROLLED: u32 = 128;

/// The most queries of a tile of a layer, and how many of them are heads of one token.
fn tile_queries(kv: &KvLayer, kernels: &Kernels) -> (u32, u32) {
    let vectors = (kv.key_length as u32 / 8).next_multiple_of(MOST_SHARE) * 2;
    let most = (TILE_VECTORS / vectors).clamp(1, MOST_QUERIES);
    let per_kv = (kv.heads / kv.kv_heads) as u32;
    // Eight heads of a token, split, do not stay in AMD's registers (gfx1100, by Mesa 22) nor in Intel's (tgl).
    let few = matches!(kernels.adapter.family, Family::Amd | Family::Intel);
    let most_heads = if few { most.min(4) } else { most };
    (most, (1..=most_heads.min(per_kv)).rev().find(|&n| per_kv.is_multiple_of(n)).unwrap_or(1))
}

/// Into how many parts a layer's cells are split over a long context, in steps of so many tokens: no more than a window
/// has blocks.
pub fn attention_parts(kv: &KvLayer, kernels: &Kernels, count: Count) -> u32 {
    let (_, heads) = tile_queries(kv, kernels);
    let blocks = kv.window.map_or(MOST_PARTS, |window| window.div_ceil(BLOCK) as u32 + 1);
    kernels.attention_parts(kv.heads as u32 / heads, count).min(blocks)
}

/// How a variant unrolls its loops over keys and values.
fn unrolled(
    variant: Variant,
    kv: &KvLayer,
    queries: u32,
    types: [KvType; 2],
    kernels: &Kernels,
) -> Variant {
    let [key_length8, value_length8] = [kv.key_length, kv.value_length].map(|n| n as u32 / 8);
    // What keeps a variant below some 130 registers (docs/decisions.md): 8 to 16 loads in flight, with many queries 4.
    // Intel's lanes have 128 in all.
    let (share, keys, cells) = match (kernels.adapter.family, queries) {
        _ if !kernels.unrolls => (1, 1, 1),
        (Family::Intel, 5..) => (1, 1, 1),
        (Family::Intel, 3..) => (2, 2, 2),
        (_, 5..) => (2, if types[0].has_scales() { 1 } else { 2 }, 4),
        _ => (MOST_SHARE, 2, 8),
    };
    let fewer =
        |count: u32, kind: KvType| if kind == KvType::F32 { count.div_ceil(2) } else { count };
    let keys = fewer(keys, types[0]);
    let vectors = value_length8.next_power_of_two().min(LANES);
    let cells = fewer(cells, types[1]).min(vectors);
    let pieces = key_length8 / share / keys;
    let turns = key_length8.div_ceil(share);
    variant
        .number("KEY_LENGTH8", key_length8)
        .number("VALUE_LENGTH8", value_length8)
        .number("SHARE", share)
        .number("KEYS_AT_ONCE", keys)
        .number("KEY_TURNS", pieces)
        .number("KEYS_LEFT", turns - pieces * keys)
        .number("MOST_UNROLLED", if kernels.unrolls { MOST_UNROLLED } else { 0 })
        .number("CELLS_AT_ONCE", cells)
        .number("QUERY_TURNS", (queries * turns * share * 2).div_ceil(LANES))
        .number("VECTORS", vectors)
        .number("SLICES", value_length8.div_ceil(LANES))
        // Vectors of four elements that a lane writes of a slice.
        .number("OUT_TURNS", (2 * vectors).div_ceil(LANES))
}

impl Lowering<'_> {
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
            work: 0,
        }
    }

    /// Attention in tiles of queries; over long contexts with few tokens in parts that are merged.
    pub(super) fn attention(&self, op: &op::Attention, dispatches: &mut Vec<Dispatch>) {
        let &op::Attention { qkv, layer, scale, softcap, sinks, causal, out } = op;
        let kv = self.plan().kv_layer(layer);
        let (most, heads) = tile_queries(kv, self.kernels);
        let per_kv = (kv.heads / kv.kv_heads) as u32;
        let many = self.class.tokens == Count::Many;
        let parts = attention_parts(kv, self.kernels, self.class.tokens);
        let split = self.class.long && !many && parts > 1;
        // Of a short context a head is little: a card has room for a workgroup each, which has less to do.
        let short = self.class.tokens == Count::One && !split;
        let heads = if short && self.kernels.unrolls { 1 } else { heads };
        let tokens = if self.class.together && many { most / heads } else { 1 };
        let queries = heads * tokens;
        let windowed = kv.group();
        let mut bindings = vec![
            ("qkv", Resource::Value(qkv)),
            ("keys", Resource::Keys(layer)),
            ("values", Resource::Values(layer)),
            ("tokens", Resource::Tokens),
            ("tables", Resource::Scratch(Scratch::Tables)),
            (
                "out",
                if split { Resource::Scratch(Scratch::PartSums) } else { Resource::Value(out) },
            ),
            ("step", Resource::Scratch(Scratch::Step)),
        ];
        let sinks = sinks.map(|id| Resource::Vector(self.layout.vector_of(self.plan(), id)));
        if split {
            bindings.push(("maxima_and_sums", Resource::Scratch(Scratch::PartMaxima)));
        } else if let Some(sinks) = sinks {
            bindings.push(("sinks", sinks));
        }
        // Tables of full layers come first.
        let groups = &self.blueprint.groups;
        let tables: usize = groups[..=windowed].iter().map(|group| group.table_blocks).sum();
        let table_entries = tables * self.sizes().sequences;
        let variant = unrolled(
            self.kv_types(Variant::new("attention")),
            kv,
            queries,
            [self.sizes().key_type, self.sizes().value_type],
            self.kernels,
        )
        .define_if(split, "PARTS")
        .define_if(!causal, "ALL")
        .define_if(softcap.is_some(), "SOFTCAP")
        .define_if(sinks.is_some() && !split, "SINKS")
        .number("HEADS", heads)
        .number("TOKENS", tokens);
        let keys_in_turns =
            ["KEY_TURNS", "KEYS_AT_ONCE", "SHARE"].iter().map(|&n| variant.numbers[n]).product();
        dispatches.push(Dispatch {
            variant,
            bindings,
            params: vec![
                ("keys_in_turns", keys_in_turns),
                ("heads", kv.heads as u32),
                ("heads_per_kv", per_kv),
                ("kv_heads", kv.kv_heads as u32),
                ("qkv_stride4", self.plan().value(qkv).width as u32 / 4),
                ("scale", scale.to_bits()),
                ("window", kv.window.map_or(u32::MAX, |window| window as u32)),
                ("windowed", windowed as u32),
                ("table_blocks", groups[windowed].table_blocks as u32),
                ("table_entries", table_entries as u32),
                ("blocks", groups[windowed].blocks as u32),
                ("softcap", softcap.unwrap_or(0.0).to_bits()),
            ]
            .into_iter()
            .chain(self.head_words(kv))
            .collect(),
            grid: [
                Extent::Fixed(kv.heads as u32 / heads),
                Extent::Per(Rows::Tokens, tokens),
                Extent::Fixed(if split { parts } else { 1 }),
            ],
            op: 0,
            work: 0,
        });
        if split {
            dispatches.push(self.attention_merge(kv, sinks, parts, out));
        }
    }

    /// The parts of each head's cells, merged.
    fn attention_merge(
        &self,
        kv: &KvLayer,
        sinks: Option<Resource>,
        parts: u32,
        out: ValueId,
    ) -> Dispatch {
        let value_length4 = kv.value_length as u32 / 4;
        let lanes = if self.kernels.adapter.family == Family::Software { LANES } else { 4 * LANES };
        let mut bindings = vec![
            ("sums", Resource::Scratch(Scratch::PartSums)),
            ("maxima_and_sums", Resource::Scratch(Scratch::PartMaxima)),
            ("out", Resource::Value(out)),
        ];
        bindings.extend(sinks.map(|sinks| ("sinks", sinks)));
        Dispatch {
            variant: Variant::new("attention_merge")
                .define_if(sinks.is_some(), "SINKS")
                .number("PARTS", parts)
                .constant("LANES", lanes)
                .constant("VECTORS", value_length4.next_power_of_two().min(lanes)),
            bindings,
            params: vec![("heads", kv.heads as u32), ("value_length4", value_length4)],
            grid: [Extent::Fixed(kv.heads as u32), Extent::Per(Rows::Tokens, 1), Extent::Fixed(1)],
            op: 0,
            work: 0,
        }
    }
}
