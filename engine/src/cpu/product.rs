//! Matrix products: rows of blocks with rows of activations.
//!
//! Few tokens: a group of 32 codes becomes floats in registers, is multiplied with each token's inputs and
//! only then scaled; no weight is ever stored. Many tokens: a tile's rows are decoded into a scratch that stays in
//! the cache, as floats or bytes, and multiplied with tokens that lie side by side in vectors ([`Panels`]), so that no
//! sum crosses lanes.

use gguf::{Block, Codes, Format, with_block};

use super::byte_tiles::ByteTile;
use super::float_tiles::FloatTile;
use super::panels::{Layout, Panels};
use super::tile::{GROUP, Output, decode, floats_of};
use super::vector::{InstructionSet, Vector, with_set};

/// A thread's decoded rows; it keeps its memory between products.
#[derive(Default)]
pub(super) struct Scratch {
    floats: FloatTile,
    bytes: ByteTile,
}

/// Multiplies the rows in `blocks`, of which the first is row `first_row` of the output, with all tokens.
pub(super) fn multiply(
    set: InstructionSet,
    format: Format,
    blocks: &[u8],
    first_row: usize,
    x: &Panels,
    scratch: &mut Scratch,
    out: &Output,
) {
    with_block!(format, B => {
        let blocks: &[B] = bytemuck::cast_slice(blocks);
        with_set!(
            set,
            |V, blocks: &[B], first_row: usize, x: &Panels, scratch: &mut Scratch, out: &Output| {
                multiply_rows::<V, B>(blocks, first_row, x, scratch, out);
            }
        );
    });
}

/// How far ahead of the row at hand weights are asked for, in bytes (1 to 16 KiB measured alike). The processor's own
/// prefetching stops at the end of each page.
#[cfg(target_arch = "x86_64")]
const PREFETCH_AHEAD: usize = 4096;

/// Asks for as much as these blocks take, `PREFETCH_AHEAD` bytes behind them.
#[inline(always)]
fn prefetch<B: Block>(blocks: &[B]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = blocks.as_ptr().cast::<i8>().wrapping_add(PREFETCH_AHEAD);
        for line in (0..size_of_val(blocks)).step_by(64) {
            // SAFETY: it only hints: an address that is not mapped is ignored.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = blocks;
}

#[inline(always)]
fn multiply_rows<V: Vector, B: Block>(
    blocks: &[B],
    first_row: usize,
    x: &Panels,
    scratch: &mut Scratch,
    out: &Output,
) {
    let row_blocks = x.columns / B::WEIGHTS;
    let Layout::Rows { rounded } = x.layout else {
        for (tile, blocks) in blocks.chunks(V::TILE_ROWS * row_blocks).enumerate() {
            prefetch(blocks);
            let row = first_row + tile * V::TILE_ROWS;
            let rows = row..row + blocks.len() / row_blocks;
            if let Layout::Bytes(kernel) = x.layout {
                scratch.bytes.decode::<V, B>(blocks, x.columns);
                let panels = (x.byte_panels.as_slice(), x.tokens);
                scratch.bytes.multiply::<V>(kernel, B::OFFSETS, rows, panels, out);
            } else {
                scratch.floats.decode::<V, B>(blocks, x.columns);
                scratch.floats.multiply::<V>(rows, x, out);
            }
        }
        return;
    };
    for (index, row) in blocks.chunks_exact(row_blocks).enumerate() {
        prefetch(row);
        let bias = out.bias.map_or(0.0, |bias| bias[first_row + index]);
        let put = |token: usize, product: f32| {
            out.put(first_row + index, token, &[(product * out.scale + bias) * out.factor]);
        };
        let mut token = 0;
        // A group's codes are taken apart once for as many tokens as have their sums in registers.
        while token + 4 <= x.tokens {
            let products = dot_row::<V, B, 4>(row, x, rounded, token);
            products.into_iter().enumerate().for_each(|(i, product)| put(token + i, product));
            token += 4;
        }
        if token + 2 <= x.tokens {
            let [a, b] = dot_row::<V, B, 2>(row, x, rounded, token);
            put(token, a);
            put(token + 1, b);
            token += 2;
        }
        if token < x.tokens {
            let [a] = dot_row::<V, B, 1>(row, x, rounded, token);
            put(token, a);
        }
    }
}

/// What a row's products with a token have added up to so far.
#[derive(Clone, Copy)]
struct Total<V> {
    /// Lane by lane, of the first and the second half of each group.
    halves: [V; 2],
    /// Of weights' offsets.
    offsets: f32,
}

impl<V: Vector> Total<V> {
    #[inline(always)]
    fn sum(self) -> f32 {
        let [first, second] = self.halves;
        first.multiply_add(V::splat(1.0), second).sum() + self.offsets
    }
}

/// The products of a row with `T` tokens from `token` on.
#[inline(always)]
fn dot_row<V: Vector, B: Block, const T: usize>(
    row: &[B],
    x: &Panels,
    rounded: bool,
    token: usize,
) -> [f32; T] {
    let mut totals = [Total { halves: [V::splat(0.0); 2], offsets: 0.0 }; T];
    let tokens: [usize; T] = std::array::from_fn(|t| token + t);
    let inputs: [&[[f32; GROUP]]; T] = tokens.map(|token| x.groups(&x.floats, token));
    if B::WEIGHTS == 1 {
        for (group, blocks) in row.as_chunks().0.iter().enumerate() {
            let weights = floats_of::<V, B>(blocks);
            add_floats(&weights, inputs.map(|x| &x[group]), &mut totals);
        }
        return totals.map(Total::sum);
    }
    let sums: [&[[f32; 2]]; T] = tokens.map(|token| x.groups(&x.sums, token));
    let groups = B::WEIGHTS / GROUP;
    for (index, block) in row.iter().enumerate() {
        let codes = decode::<V, B>(block);
        let first = index * groups;
        for (group, codes) in codes[..groups].iter().enumerate() {
            let at = first + group;
            if rounded {
                let bytes = tokens.map(|token| &x.groups(&x.bytes, token)[at]);
                add_bytes(
                    codes,
                    bytes,
                    tokens.map(|token| x.groups(&x.scales, token)[at]),
                    &mut totals,
                );
            } else {
                add_codes(codes, inputs.map(|x| &x[at]), &mut totals);
            }
            if B::OFFSETS {
                for (total, sums) in totals.iter_mut().zip(sums) {
                    let [first, second] = sums[at];
                    total.offsets += codes.offset[0] * first + codes.offset[1] * second;
                }
            }
        }
    }
    totals.map(Total::sum)
}

/// Adds the products of a group of floats.
#[inline(always)]
fn add_floats<V: Vector, const T: usize>(
    weights: &[f32; GROUP],
    inputs: [&[f32; GROUP]; T],
    totals: &mut [Total<V>; T],
) {
    for i in 0..GROUP / V::LANES {
        let w = V::load(&weights[i * V::LANES..]);
        for (total, x) in totals.iter_mut().zip(inputs) {
            let total = &mut total.halves[i % 2];
            *total = w.multiply_add(V::load(&x[i * V::LANES..]), *total);
        }
    }
}

/// Adds the products of a group's codes, scaled.
#[inline(always)]
fn add_codes<V: Vector, const T: usize>(
    weights: &Codes,
    inputs: [&[f32; GROUP]; T],
    totals: &mut [Total<V>; T],
) {
    for half in 0..2 {
        let mut parts = [V::splat(0.0); T];
        for i in 0..GROUP / 2 / V::LANES {
            let at = half * GROUP / 2 + i * V::LANES;
            let w = V::load_codes(&weights.codes[at..]);
            for (part, x) in parts.iter_mut().zip(inputs) {
                let x = V::load(&x[at..]);
                *part = if i == 0 { w.multiply(x) } else { w.multiply_add(x, *part) };
            }
        }
        let scale = V::splat(weights.scale[half]);
        for (total, part) in totals.iter_mut().zip(parts) {
            total.halves[half] = scale.multiply_add(part, total.halves[half]);
        }
    }
}

/// Adds the products of a group's codes with bytes, both scaled.
#[inline(always)]
fn add_bytes<V: Vector, const T: usize>(
    weights: &Codes,
    bytes: [&[i8; GROUP]; T],
    x_scales: [[f32; 2]; T],
    totals: &mut [Total<V>; T],
) {
    for ((total, bytes), x_scale) in totals.iter_mut().zip(bytes).zip(x_scales) {
        let scale = [weights.scale[0] * x_scale[0], weights.scale[1] * x_scale[1]];
        total.halves[0] = V::add_byte_products(&weights.codes, bytes, scale, total.halves[0]);
    }
}

#[cfg(test)]
mod tests;
