//! Attention: a tile of queries that share their keys goes through the visible cells block by block, keeping a
//! running maximum (Dao et al. 2022, arXiv 2205.14135). Where there are fewer tiles than threads, as
//! when a single token is generated, a tile's cells are split among threads and the parts merged.

use std::ops::Range;

use super::cells::Cells;
use super::math::{exp, exp_each, largest, tanh};
use super::slots::Slots;
use super::team::Team;
use super::vector::{InstructionSet, Vector, with_set};
use crate::kv::{BLOCK, Placed};
use crate::plan::KvLayer;

/// The most queries of a tile.
const TILE: usize = 32;
/// Blocks of a part, at least: shorter parts cost more to merge than they save.
const PART_BLOCKS: usize = 4;

/// A layer's attention over a step's tokens.
pub(super) struct Attention<'a> {
    pub kv: KvLayer,
    pub keys: &'a Cells,
    pub values: &'a Cells,
    /// The factor of the scores.
    pub scale: f32,
    /// Scores become cap * tanh(score / cap).
    pub softcap: Option<f32>,
    /// Whether a token sees those before it only; if not, all of its sequence in the step too.
    pub causal: bool,
    /// A logit a head that takes its share of the sum.
    pub sinks: Option<&'a [f32]>,
    pub tokens: &'a [Placed],
    /// `[q | k | v]` of each token.
    pub qkv: &'a [f32],
    /// Floats of a row of it.
    pub qkv_width: usize,
    /// The blocks of each seat's positions, and how many entries a table has.
    pub tables: &'a [Vec<Option<u32>>],
    pub table_blocks: usize,
    pub set: InstructionSet,
}

/// Queries of one head of keys: neighbouring tokens of one sequence, each with all its heads of that group.
struct Tile {
    kv_head: usize,
    /// Tokens first to last.
    tokens: Range<usize>,
    /// Positions that any of them sees.
    visible: Range<usize>,
}

/// What a part of the cells makes of a tile: per query the maximum, the sum, and the weighted values.
#[derive(Default)]
struct Part {
    max: Vec<f32>,
    sum: Vec<f32>,
    values: Vec<f32>,
}

thread_local! {
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    block: Vec<f32>,
    scores: Vec<f32>,
    part: Part,
}

impl Attention<'_> {
    /// Computes all heads of all tokens: `out` is `[tokens, heads * value_length]`.
    pub fn run(&self, team: &Team, out: &mut [f32]) {
        let kv = &self.kv;
        let tiles = self.tiles();
        let most = tiles.iter().map(|tile| tile.visible.len().div_ceil(BLOCK)).max().unwrap_or(0);
        let wanted = team.threads().div_ceil(tiles.len().max(1));
        let parts = wanted.min(most / PART_BLOCKS).max(1);
        let heads = Slots::new(out, kv.value_length);
        if parts == 1 {
            team.share(tiles.len(), 1, &|range| {
                for tile in &tiles[range] {
                    SCRATCH.with_borrow_mut(|scratch| {
                        self.part(tile, tile.visible.clone(), scratch);
                        self.finish(tile, std::slice::from_ref(&scratch.part), &heads);
                    });
                }
            });
            return;
        }
        let mut partials: Vec<Part> = Vec::new();
        partials.resize_with(tiles.len() * parts, Part::default);
        let slots = Slots::new(&mut partials, 1);
        team.share(tiles.len() * parts, 1, &|range| {
            for item in range {
                let tile = &tiles[item / parts];
                let blocks = tile.visible.len().div_ceil(BLOCK).div_ceil(parts);
                let start = tile.visible.start + item % parts * blocks * BLOCK;
                let end = (start + blocks * BLOCK).min(tile.visible.end);
                SCRATCH.with_borrow_mut(|scratch| {
                    self.part(tile, start.min(end)..end, scratch);
                    slots.with(item, |slot| slot[0] = std::mem::take(&mut scratch.part));
                });
            }
        });
        for (tile, parts) in tiles.iter().zip(partials.chunks(parts)) {
            self.finish(tile, parts, &heads);
        }
    }

    fn tiles(&self) -> Vec<Tile> {
        let kv = &self.kv;
        let per_token = kv.heads / kv.kv_heads;
        let most_tokens = (TILE / per_token).max(1);
        let mut tiles = Vec::new();
        let mut start = 0;
        while start < self.tokens.len() {
            let first = &self.tokens[start];
            let mut end = start + 1;
            while end < self.tokens.len()
                && end - start < most_tokens
                && self.tokens[end].seat == first.seat
            {
                end += 1;
            }
            let positions = || self.tokens[start..end].iter().map(|token| token.position as usize);
            let seen = |position: usize| self.first_visible(position);
            let from = positions().map(seen).min().unwrap_or(0);
            let of_step = || {
                let same = self.tokens.iter().filter(|token| token.seat == first.seat);
                same.map(|token| token.position as usize).max()
            };
            let last = if self.causal { positions().max() } else { of_step() };
            let to = last.unwrap_or(0) + 1;
            for kv_head in 0..kv.kv_heads {
                tiles.push(Tile { kv_head, tokens: start..end, visible: from..to });
            }
            start = end;
        }
        tiles
    }

    fn first_visible(&self, position: usize) -> usize {
        self.kv.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Goes through the cells of `positions` for a tile, into `scratch.part`.
    fn part(&self, tile: &Tile, positions: Range<usize>, scratch: &mut Scratch) {
        let attention = self;
        with_set!(self.set, |V,
                             attention: &Attention,
                             tile: &Tile,
                             positions: Range<usize>,
                             scratch: &mut Scratch| {
            part::<V>(attention, tile, positions, scratch);
        });
    }

    /// Merges the parts of a tile into its heads.
    fn finish(&self, tile: &Tile, parts: &[Part], heads: &Slots<f32>) {
        let kv = &self.kv;
        let per_token = kv.heads / kv.kv_heads;
        let length = kv.value_length;
        for query in 0..tile.tokens.len() * per_token {
            let token = tile.tokens.start + query / per_token;
            let head = tile.kv_head * per_token + query % per_token;
            let sink = self.sinks.map_or(f32::MIN, |sinks| sinks[head]);
            let max = parts.iter().map(|part| part.max[query]).fold(sink, f32::max);
            let total: f32 =
                parts.iter().map(|part| part.sum[query] * exp(part.max[query] - max)).sum();
            let total = total + exp(sink - max);
            heads.with(token * kv.heads + head, |out| {
                out.fill(0.0);
                for part in parts {
                    let factor = exp(part.max[query] - max) / total;
                    for (out, value) in out.iter_mut().zip(&part.values[query * length..]) {
                        *out += factor * value;
                    }
                }
            });
        }
    }
}

#[inline(always)]
fn part<V: Vector>(
    attention: &Attention,
    tile: &Tile,
    positions: Range<usize>,
    scratch: &mut Scratch,
) {
    let kv = &attention.kv;
    let per_token = kv.heads / kv.kv_heads;
    let queries = tile.tokens.len() * per_token;
    let Scratch { queries: q, block, scores, part } = scratch;
    q.clear();
    for token in tile.tokens.clone() {
        let at = token * attention.qkv_width + tile.kv_head * per_token * kv.key_length;
        let heads = &attention.qkv[at..][..per_token * kv.key_length];
        q.extend(heads.iter().map(|x| x * attention.scale));
    }
    part.max.clear();
    part.max.resize(queries, -1e30);
    part.sum.clear();
    part.sum.resize(queries, 0.0);
    part.values.clear();
    part.values.resize(queries * kv.value_length, 0.0);
    block.resize(BLOCK * kv.key_length.max(kv.value_length), 0.0);
    scores.resize(queries * BLOCK, 0.0);
    let table = &attention.tables[attention.tokens[tile.tokens.start].seat as usize];
    let mut at = positions.start;
    while at < positions.end {
        // To the end of the block, whose cells lie side by side.
        let count = (BLOCK - at % BLOCK).min(positions.end - at);
        let entry = table[at / BLOCK % attention.table_blocks].unwrap_or(0) as usize;
        let cell = entry * BLOCK + at % BLOCK;
        for (index, key) in block.chunks_exact_mut(kv.key_length).enumerate().take(count) {
            attention.keys.load(cell + index, tile.kv_head, key);
        }
        score::<V>(q, &block[..count * kv.key_length], kv.key_length, scores);
        for query in 0..queries {
            let position =
                attention.tokens[tile.tokens.start + query / per_token].position as usize;
            let last = if attention.causal { position } else { tile.visible.end - 1 };
            let seen = attention.first_visible(position)..last + 1;
            let scores = &mut scores[query * BLOCK..][..count];
            if let Some(cap) = attention.softcap {
                for score in scores.iter_mut() {
                    *score = cap * tanh(*score / cap);
                }
            }
            // What the query doesn't see counts nothing.
            let cell_of = |position: usize| position.saturating_sub(at).min(count);
            let from = cell_of(seen.start);
            let to = cell_of(seen.end).max(from);
            scores[..from].fill(0.0);
            scores[to..].fill(0.0);
            let scores = &mut scores[from..to];
            let max = largest(scores, part.max[query]);
            let correction = exp(part.max[query] - max);
            part.max[query] = max;
            let sum = exp_each(scores, max);
            part.sum[query] = part.sum[query] * correction + sum;
            if correction != 1.0 {
                for value in &mut part.values[query * kv.value_length..][..kv.value_length] {
                    *value *= correction;
                }
            }
        }
        for (index, value) in block.chunks_exact_mut(kv.value_length).enumerate().take(count) {
            attention.values.load(cell + index, tile.kv_head, value);
        }
        accumulate::<V>(
            scores,
            &block[..count * kv.value_length],
            kv.value_length,
            &mut part.values,
        );
        at += count;
    }
}

/// The products of each query with each key: `scores[query * BLOCK + key]`.
#[inline(always)]
fn score<V: Vector>(queries: &[f32], keys: &[f32], length: usize, scores: &mut [f32]) {
    for (query, scores) in queries.chunks_exact(length).zip(scores.chunks_exact_mut(BLOCK)) {
        let mut keys = keys.chunks_exact(4 * length);
        let mut at = 0;
        for four in &mut keys {
            let mut sums = [V::splat(0.0); 4];
            for i in (0..length / V::LANES).map(|i| i * V::LANES) {
                let q = V::load(&query[i..]);
                for (key, sum) in sums.iter_mut().enumerate() {
                    *sum = q.multiply_add(V::load(&four[key * length + i..]), *sum);
                }
            }
            for (key, sum) in sums.into_iter().enumerate() {
                let rest = length / V::LANES * V::LANES;
                let tail: f32 = (rest..length).map(|i| query[i] * four[key * length + i]).sum();
                scores[at + key] = sum.sum() + tail;
            }
            at += 4;
        }
        for key in keys.remainder().chunks_exact(length) {
            scores[at] = query.iter().zip(key).map(|(q, k)| q * k).sum();
            at += 1;
        }
    }
}

/// Adds each value times its score to each query's sums.
#[inline(always)]
fn accumulate<V: Vector>(scores: &[f32], values: &[f32], length: usize, sums: &mut [f32]) {
    let count = values.len() / length;
    for (scores, sums) in scores.chunks_exact(BLOCK).zip(sums.chunks_exact_mut(length)) {
        let scores = &scores[..count];
        let mut at = 0;
        // Four registers of sums go through all cells at once.
        while at + 4 * V::LANES <= length {
            let mut four: [V; 4] = std::array::from_fn(|i| V::load(&sums[at + i * V::LANES..]));
            for (score, value) in scores.iter().zip(values.chunks_exact(length)) {
                let score = V::splat(*score);
                for (i, sum) in four.iter_mut().enumerate() {
                    *sum = score.multiply_add(V::load(&value[at + i * V::LANES..]), *sum);
                }
            }
            for (i, sum) in four.into_iter().enumerate() {
                sum.store(&mut sums[at + i * V::LANES..]);
            }
            at += 4 * V::LANES;
        }
        while at + V::LANES <= length {
            let mut sum = V::load(&sums[at..]);
            for (score, value) in scores.iter().zip(values.chunks_exact(length)) {
                sum = V::splat(*score).multiply_add(V::load(&value[at..]), sum);
            }
            sum.store(&mut sums[at..]);
            at += V::LANES;
        }
        for i in at..length {
            let column = values[i..].iter().step_by(length);
            sums[i] += scores.iter().zip(column).map(|(score, value)| score * value).sum::<f32>();
        }
    }
}
