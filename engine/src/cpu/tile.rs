//! What products and their tiles share: the unit of weights, a block decoded, where sums go.

use std::ops::Range;

use gguf::{Block, Codes};

use super::slots::Slots;
use super::vector::Vector;

/// Weights of a group, the unit of all loops.
pub(super) const GROUP: usize = 32;
/// Weights that share a scale.
pub(super) const HALF: usize = GROUP / 2;
/// The most rows of a tile.
pub(super) const MOST_TILE_ROWS: usize = 12;
/// The most lanes of a vector.
pub(super) const MOST_LANES: usize = 16;

/// Where products go.
pub(super) struct Output<'a> {
    /// All outputs, in runs of one.
    pub cells: Slots<'a, f32>,
    /// From a token's outputs to the next token's.
    pub stride: usize,
    /// Where the first row's output is.
    pub offset: usize,
    /// What each row's product is multiplied by.
    pub scale: f32,
    /// Added to each row's product.
    pub bias: Option<&'a [f32]>,
    /// What both are multiplied by.
    pub factor: f32,
    /// Whether the result is added to what is there.
    pub add: bool,
}

impl Output<'_> {
    /// Puts a token's products with rows from `row` on.
    #[inline(always)]
    pub fn put(&self, row: usize, token: usize, products: &[f32]) {
        let start = token * self.stride + self.offset + row;
        self.cells.with_range(start..start + products.len(), |cells| {
            // Four by four: less than calls to copy so little would take.
            let (fours, rest) = cells.as_chunks_mut::<4>();
            let (products, last) = products.as_chunks::<4>();
            for (cells, y) in fours.iter_mut().zip(products) {
                let sums = std::array::from_fn(|i| cells[i] + y[i]);
                *cells = if self.add { sums } else { *y };
            }
            for (cell, y) in rest.iter_mut().zip(last) {
                *cell = if self.add { *cell + y } else { *y };
            }
        });
    }

    /// Puts the products of a tile's rows with some tokens, both counted from their first.
    #[inline(always)]
    pub fn put_tile(&self, rows: Range<usize>, tokens: Range<usize>, products: &Products) {
        let mut biases = [0.0; MOST_TILE_ROWS];
        if let Some(bias) = self.bias {
            biases[..rows.len()].copy_from_slice(&bias[rows.clone()]);
        }
        for (index, token) in tokens.enumerate() {
            let mut outputs = [0.0; MOST_TILE_ROWS];
            for ((out, products), bias) in outputs.iter_mut().zip(products).zip(biases) {
                *out = (products[index] * self.scale + bias) * self.factor;
            }
            self.put(rows.start, token, &outputs[..rows.len()]);
        }
    }
}

/// What a tile's rows multiplied with tokens give.
pub(super) type Products = [[f32; 2 * MOST_LANES]; MOST_TILE_ROWS];

/// Inputs rounded to bytes, and the scale of these.
#[inline(always)]
pub(super) fn round<V: Vector>(inputs: &[f32; HALF]) -> ([i8; HALF], f32) {
    // Without their signs floats are ordered as their bits are; the largest of whole numbers is vector code.
    let largest = inputs.iter().map(|x| x.abs().to_bits()).max().unwrap_or(0);
    let largest = f32::from_bits(largest);
    let (factor, scale) =
        if largest < 1e-30 { (0.0, 0.0) } else { (127.0 / largest, largest / 127.0) };
    (V::to_bytes(inputs, factor), scale)
}

/// The most groups of a block.
const MOST_GROUPS: usize = 8;

/// All groups of a block; those past its end are of no meaning.
#[inline(always)]
pub(super) fn decode<V: Vector, B: Block>(block: &B) -> [Codes; MOST_GROUPS] {
    let mut groups = [Codes { codes: [0; GROUP], scale: [0.0; 2], offset: [0.0; 2] }; MOST_GROUPS];
    if !V::UNROLLED {
        for (group, codes) in groups[..B::WEIGHTS / GROUP].iter_mut().enumerate() {
            *codes = block.codes::<V>(group);
        }
        return groups;
    }
    // Each group is code of its own, its number a constant: what a superblock keeps packed is then taken apart
    // once, and all shifts are constants.
    macro_rules! decode_groups {
        ($($group:literal)*) => {
            $(if $group < B::WEIGHTS / GROUP {
                groups[$group] = block.codes::<V>($group);
            })*
        };
    }
    decode_groups!(0 1 2 3 4 5 6 7);
    groups
}

/// A group of weights that are floats.
#[inline(always)]
pub(super) fn floats_of<V: Vector, B: Block>(blocks: &[B; GROUP]) -> [f32; GROUP] {
    let mut floats = [0.0; GROUP];
    for (out, blocks) in floats.as_chunks_mut().0.iter_mut().zip(blocks.as_chunks().0) {
        *out = B::floats::<V>(blocks);
    }
    floats
}
