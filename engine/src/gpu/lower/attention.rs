//! Attention to dispatches.

use shaders::Variant;

use super::{Dispatch, Extent, LANES, Lowering, Resource};
use crate::gpu::choice::Count;
use crate::plan::{Op, Rows};
use crate::{Error, Result};

/// The most queries of a tile.
const MOST_QUERIES: u32 = 8;
/// Vectors of queries that a tile keeps in workgroup memory: 8 KiB.
const TILE_VECTORS: u32 = 512;
/// The most parts that cells are split into.
pub const MOST_PARTS: u32 = 16;

impl Lowering<'_> {
    /// Attention in tiles of queries; over long contexts with few tokens in parts that are merged.
    pub(super) fn attention(&self, op: &Op, dispatches: &mut Vec<Dispatch>) -> Result<()> {
        let &Op::Attention { qkv, layer, scale, softcap, sinks, causal, out } = op else {
            return Ok(());
        };
        let kv = self.plan.kv_layer(layer);
        if !(kv.key_length.is_multiple_of(8) && kv.value_length.is_multiple_of(8)) {
            return Err(Error::Device(format!(
                "heads of {} and {} elements are no multiples of 8, which the GPU kernels need; use --device cpu",
                kv.key_length, kv.value_length
            )));
        }
        let (key_length4, value_length4) = (kv.key_length as u32 / 4, kv.value_length as u32 / 4);
        let most = (TILE_VECTORS / key_length4).clamp(1, MOST_QUERIES);
        let per_kv = (kv.heads / kv.kv_heads) as u32;
        let heads = (1..=most.min(per_kv)).rev().find(|&n| per_kv.is_multiple_of(n)).unwrap_or(1);
        let many = self.class.tokens == Count::Many;
        let tokens = if self.class.together && many { most / heads } else { 1 };
        let queries = heads * tokens;
        let windowed = usize::from(kv.window.is_some());
        let tiles = kv.heads as u32 / heads;
        let parts = self.caps.attention_parts(tiles);
        let split = self.class.long && !many && parts > 1;
        let mut bindings = vec![
            ("qkv", Resource::Value(qkv)),
            ("keys", Resource::Keys(layer)),
            ("values", Resource::Values(layer)),
            ("tokens", Resource::Tokens),
            ("tables", Resource::Tables),
            ("out", if split { Resource::PartSums } else { Resource::Value(out) }),
            ("step", Resource::Step),
        ];
        let sinks = sinks.map(|id| Resource::Vector(self.layout.vector_of(self.plan, id)));
        if split {
            bindings.push(("maxima_and_sums", Resource::PartMaxima));
        } else if let Some(sinks) = sinks {
            bindings.push(("sinks", sinks));
        }
        dispatches.push(Dispatch {
            variant: self
                .kv_types(Variant::new("attention"))
                .define_if(split, "PARTS")
                .define_if(!causal, "ALL")
                .define_if(softcap.is_some(), "SOFTCAP")
                .define_if(sinks.is_some() && !split, "SINKS")
                .number("HEADS", heads)
                .number("TOKENS", tokens)
                .number("QUERIES", queries)
                .number("QUERY_VECTORS", queries * key_length4)
                .number("SLICES", value_length4.div_ceil(LANES))
                .constant("VECTORS", value_length4.next_power_of_two().min(LANES)),
            bindings,
            params: vec![
                ("heads", kv.heads as u32),
                ("heads_per_kv", per_kv),
                ("key_length4", key_length4),
                ("value_length4", value_length4),
                ("kv_heads", kv.kv_heads as u32),
                ("qkv_stride4", self.plan.value(qkv).width as u32 / 4),
                ("scale", scale.to_bits()),
                ("window", kv.window.map_or(u32::MAX, |window| window as u32)),
                ("windowed", windowed as u32),
                ("table_blocks", self.table_blocks[windowed] as u32),
                ("blocks", self.blocks[windowed] as u32),
                ("softcap", softcap.unwrap_or(0.0).to_bits()),
            ]
            .into_iter()
            .chain(self.head_words(kv))
            .collect(),
            grid: [
                Extent::Fixed(tiles),
                Extent::Per(Rows::Tokens, tokens),
                Extent::Fixed(if split { parts } else { 1 }),
            ],
            op: 0,
        });
        if split {
            dispatches.push(Dispatch {
                variant: Variant::new("attention_merge").define_if(sinks.is_some(), "SINKS"),
                bindings: [
                    ("sums", Resource::PartSums),
                    ("maxima_and_sums", Resource::PartMaxima),
                    ("out", Resource::Value(out)),
                ]
                .into_iter()
                .chain(sinks.map(|sinks| ("sinks", sinks)))
                .collect(),
                params: vec![
                    ("heads", kv.heads as u32),
                    ("value_length4", value_length4),
                    ("parts", parts),
                ],
                grid: [
                    Extent::Fixed(kv.heads as u32),
                    Extent::Per(Rows::Tokens, 1),
                    Extent::Fixed(1),
                ],
                op: 0,
            });
        }
        Ok(())
    }
}
