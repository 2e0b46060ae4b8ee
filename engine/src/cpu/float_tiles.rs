//! Products of many rows with many tokens' inputs in floats.

use std::ops::Range;

use gguf::{Block, Codes};

use super::panels::Panels;
use super::tile::{GROUP, Output, Products, decode, floats_of};
use super::vector::Vector;

/// Decoded rows of a tile, a group of each after another.
#[derive(Default)]
pub(super) struct FloatTile(Vec<f32>);

impl FloatTile {
    /// Decodes the rows in `blocks`, no more than [`Vector::TILE_ROWS`]; missing rows keep what was there.
    #[inline(always)]
    pub fn decode<V: Vector, B: Block>(&mut self, blocks: &[B], columns: usize) {
        let tile = V::TILE_ROWS * GROUP;
        self.0.resize(columns / GROUP * tile, 0.0);
        for (r, row) in blocks.chunks_exact(columns / B::WEIGHTS).enumerate() {
            let mut to = self.0.chunks_exact_mut(tile).map(|tile| &mut tile[r * GROUP..][..GROUP]);
            if B::WEIGHTS == 1 {
                for (blocks, to) in row.as_chunks().0.iter().zip(to) {
                    to.copy_from_slice(&floats_of::<V, B>(blocks));
                }
                continue;
            }
            for block in row {
                let groups = decode::<V, B>(block);
                let groups = groups[..B::WEIGHTS / GROUP].iter();
                groups.zip(&mut to).for_each(|(codes, to)| scale_codes::<V>(codes, to));
            }
        }
    }

    /// Multiplies `rows`, decoded, with all tokens.
    #[inline(always)]
    pub fn multiply<V: Vector>(&self, rows: Range<usize>, x: &Panels, out: &Output) {
        let panel = x.columns * V::LANES;
        let panels = x.tokens.div_ceil(V::LANES);
        let mut sums = Products::default();
        let mut at = 0;
        while at < panels {
            let together = if at + 1 < panels { 2 } else { 1 };
            let data = &x.floats[at * panel..][..together * panel];
            // The number of rows is a constant of each loop.
            match (V::TILE_ROWS, together) {
                (12, 2) => tile_sums::<V, 12, 2>(&self.0, data, &mut sums),
                (12, _) => tile_sums::<V, 12, 1>(&self.0, data, &mut sums),
                (6, 2) => tile_sums::<V, 6, 2>(&self.0, data, &mut sums),
                (6, _) => tile_sums::<V, 6, 1>(&self.0, data, &mut sums),
                (_, 2) => tile_sums::<V, 4, 2>(&self.0, data, &mut sums),
                _ => tile_sums::<V, 4, 1>(&self.0, data, &mut sums),
            }
            let first = at * V::LANES;
            out.put_tile(rows.clone(), first..x.tokens.min(first + together * V::LANES), &sums);
            at += together;
        }
    }
}

/// Codes as the floats they stand for.
#[inline(always)]
fn scale_codes<V: Vector>(Codes { codes, scale, offset }: &Codes, out: &mut [f32]) {
    for at in (0..GROUP).step_by(V::LANES) {
        let half = at / (GROUP / 2);
        V::load_codes(&codes[at..])
            .multiply_add(V::splat(scale[half]), V::splat(offset[half]))
            .store(&mut out[at..]);
    }
}

/// The products of `R` decoded rows with `P` vectors of tokens, over all columns: `sums[r][p * LANES + lane]`.
#[inline(always)]
fn tile_sums<V: Vector, const R: usize, const P: usize>(
    scratch: &[f32],
    panels: &[f32],
    sums: &mut Products,
) {
    let mut totals = [[V::splat(0.0); P]; R];
    let length = panels.len() / P;
    let panels: [&[f32]; P] = std::array::from_fn(|p| &panels[p * length..][..length]);
    for (group, weights) in scratch.chunks_exact(R * GROUP).enumerate() {
        for column in 0..GROUP {
            let at = (group * GROUP + column) * V::LANES;
            let x: [V; P] = std::array::from_fn(|p| V::load(&panels[p][at..]));
            for r in 0..R {
                let w = V::splat(weights[r * GROUP + column]);
                for p in 0..P {
                    totals[r][p] = w.multiply_add(x[p], totals[r][p]);
                }
            }
        }
    }
    for r in 0..R {
        for p in 0..P {
            totals[r][p].store(&mut sums[r][p * V::LANES..]);
        }
    }
}
