//! Matrix products: rows of blocks with rows of activations.
//!
//! Few tokens: a group of 32 codes becomes floats in registers, is multiplied with each token's inputs and
//! only then scaled; no weight is ever stored. Many tokens: a tile's rows are decoded into a scratch that stays in
//! the cache, and multiplied with tokens that lie side by side in vectors ([`Panels`]), so that no sum crosses lanes.

use gguf::{Block, Codes, Format, with_block};

use super::slots::Slots;
use super::vector::{InstructionSet, Plain, Vector, with_set};
#[cfg(target_arch = "x86_64")]
use super::vector::{V256, V512};

/// Weights of a group, the unit of all loops.
const GROUP: usize = 32;
/// From this many tokens on, tokens are multiplied by tiles.
const TILED_FROM: usize = 7;
/// The most rows of a tile.
const MOST_TILE_ROWS: usize = 12;
/// The most lanes of a vector.
const MOST_LANES: usize = 16;

/// Activations made ready for products.
#[derive(Default)]
pub(super) struct Panels {
    /// Rows of activations.
    tokens: usize,
    columns: usize,
    /// Few tokens: the rows as they are. Many: vector after vector of neighbouring tokens, for each
    /// column; the last panel is padded with zeros.
    data: Vec<f32>,
    /// Few tokens: the sum of each 16 inputs, for weights with offsets.
    sums: Vec<f32>,
    /// Whether inputs were rounded to bytes, each 16 with one scale.
    int8: bool,
    /// Few tokens: those bytes and their scales.
    bytes: Vec<i8>,
    scales: Vec<f32>,
}

impl Panels {
    /// A token's part of one of the rows of few tokens, in runs of `N`: groups, or what belongs to each.
    #[inline(always)]
    fn groups<'a, T, const N: usize>(&self, rows: &'a [T], token: usize) -> &'a [[T; N]] {
        let groups = self.columns / GROUP;
        &rows.as_chunks().0[token * groups..][..groups]
    }

    /// Rounds inputs to bytes; answers what they stand for.
    fn round(&mut self, input: &[f32]) -> Vec<f32> {
        self.bytes.clear();
        self.scales.clear();
        let mut rounded = Vec::with_capacity(input.len());
        for half in input.chunks_exact(GROUP / 2) {
            let largest = half.iter().fold(0f32, |most, x| most.max(x.abs()));
            let (factor, scale) =
                if largest < 1e-30 { (0.0, 0.0) } else { (127.0 / largest, largest / 127.0) };
            self.scales.push(scale);
            for &x in half {
                // Adding 1.5 * 2^23 rounds to the nearest whole number.
                let byte = (x * factor + 12_582_912.0) - 12_582_912.0;
                self.bytes.push(byte as i8);
                rounded.push(byte * scale);
            }
        }
        rounded
    }

    /// Makes rows of `columns` floats ready; with `int8` rounded to bytes.
    pub fn fill(&mut self, set: InstructionSet, input: &[f32], columns: usize, int8: bool) {
        self.int8 = int8;
        let rounded;
        let input = if int8 {
            rounded = self.round(input);
            &rounded
        } else {
            input
        };
        self.columns = columns;
        self.tokens = input.len() / columns;
        if self.tokens < TILED_FROM {
            self.data.clear();
            self.data.extend_from_slice(input);
            self.sums.clear();
            self.sums.extend(input.chunks_exact(16).map(|x| x.iter().sum::<f32>()));
            return;
        }
        let lanes = set.lanes();
        let panels = self.tokens.div_ceil(lanes);
        self.data.clear();
        self.data.resize(panels * columns * lanes, 0.0);
        for (panel, rows) in
            self.data.chunks_exact_mut(columns * lanes).zip(input.chunks(columns * lanes))
        {
            for (lane, row) in rows.chunks_exact(columns).enumerate() {
                for (column, &x) in panel.chunks_exact_mut(lanes).zip(row) {
                    column[lane] = x;
                }
            }
        }
    }
}

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
    #[inline(always)]
    fn put(&self, row: usize, token: usize, product: f32) {
        let y = (product * self.scale + self.bias.map_or(0.0, |bias| bias[row])) * self.factor;
        self.cells.with(token * self.stride + self.offset + row, |cell| {
            cell[0] = if self.add { cell[0] + y } else { y };
        });
    }
}

impl InstructionSet {
    fn lanes(self) -> usize {
        match self {
            Self::Baseline => Plain::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => V256::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => V512::LANES,
            #[cfg(not(target_arch = "x86_64"))]
            _ => Plain::LANES,
        }
    }

    /// Rows that are multiplied together: runs of rows are best multiples of this.
    pub(super) fn tile_rows(self) -> usize {
        match self {
            Self::Baseline => Plain::TILE_ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => V256::TILE_ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => V512::TILE_ROWS,
            #[cfg(not(target_arch = "x86_64"))]
            _ => Plain::TILE_ROWS,
        }
    }
}

/// Multiplies the rows in `blocks`, of which the first is row `first_row` of the output, with all tokens.
/// `scratch` keeps its memory between calls.
pub(super) fn multiply(
    set: InstructionSet,
    format: Format,
    blocks: &[u8],
    first_row: usize,
    x: &Panels,
    scratch: &mut Vec<f32>,
    out: &Output,
) {
    with_block!(format, B => {
        let blocks: &[B] = bytemuck::cast_slice(blocks);
        with_set!(
            set,
            |V, blocks: &[B], first_row: usize, x: &Panels, scratch: &mut Vec<f32>, out: &Output| {
                multiply_rows::<V, B>(blocks, first_row, x, scratch, out);
            }
        );
    });
}

/// How far ahead of the row at hand weights are asked for, in bytes (1 to 16 KiB measured alike). The processor's own
/// prefetching stops at the end of each page.
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
    scratch: &mut Vec<f32>,
    out: &Output,
) {
    let row_blocks = x.columns / B::WEIGHTS;
    if x.tokens >= TILED_FROM {
        for (tile, blocks) in blocks.chunks(V::TILE_ROWS * row_blocks).enumerate() {
            prefetch(blocks);
            let row = first_row + tile * V::TILE_ROWS;
            // The number of rows is a constant of each loop; the last tile's missing rows repeat its last.
            tiled_rows::<V, B>(blocks, row, x, scratch, out);
        }
        return;
    }
    for (index, row) in blocks.chunks_exact(row_blocks).enumerate() {
        prefetch(row);
        let put = |token: usize, product: f32| out.put(first_row + index, token, product);
        let mut token = 0;
        while token + 2 <= x.tokens {
            let [a, b] = dot_row::<V, B, 2>(row, x, token);
            put(token, a);
            put(token + 1, b);
            token += 2;
        }
        if token < x.tokens {
            let [a] = dot_row::<V, B, 1>(row, x, token);
            put(token, a);
        }
    }
}

/// The most groups of a block.
const MOST_GROUPS: usize = 8;

/// All groups of a block; those past its end are of no meaning.
#[inline(always)]
fn decode<V: Vector, B: Block>(block: &B) -> [Codes; MOST_GROUPS] {
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
fn floats_of<V: Vector, B: Block>(blocks: &[B; GROUP]) -> [f32; GROUP] {
    let mut floats = [0.0; GROUP];
    for (out, blocks) in floats.as_chunks_mut().0.iter_mut().zip(blocks.as_chunks().0) {
        *out = B::floats::<V>(blocks);
    }
    floats
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
fn dot_row<V: Vector, B: Block, const T: usize>(row: &[B], x: &Panels, token: usize) -> [f32; T] {
    let mut totals = [Total { halves: [V::splat(0.0); 2], offsets: 0.0 }; T];
    let tokens: [usize; T] = std::array::from_fn(|t| token + t);
    let inputs: [&[[f32; GROUP]]; T] = tokens.map(|token| x.groups(&x.data, token));
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
            if x.int8 {
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

/// Decodes up to `TILE_ROWS` rows, group by group side by side, and multiplies them with all tokens.
#[inline(always)]
fn tiled_rows<V: Vector, B: Block>(
    blocks: &[B],
    first_row: usize,
    x: &Panels,
    scratch: &mut Vec<f32>,
    out: &Output,
) {
    let row_blocks = x.columns / B::WEIGHTS;
    let rows = blocks.len() / row_blocks;
    let groups = x.columns / GROUP;
    let tile = V::TILE_ROWS * GROUP;
    scratch.resize(groups * tile, 0.0);
    for (r, row) in blocks.chunks_exact(row_blocks).enumerate() {
        let mut to = scratch.chunks_exact_mut(tile).map(|tile| &mut tile[r * GROUP..][..GROUP]);
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
    let panel = x.columns * V::LANES;
    let panels = x.data.len() / panel;
    let mut sums = [0.0; MOST_TILE_ROWS * 2 * MOST_LANES];
    let mut at = 0;
    while at < panels {
        let together = if at + 1 < panels { 2 } else { 1 };
        let data = &x.data[at * panel..][..together * panel];
        match (V::TILE_ROWS, together) {
            (12, 2) => tile_sums::<V, 12, 2>(scratch, data, &mut sums),
            (12, _) => tile_sums::<V, 12, 1>(scratch, data, &mut sums),
            (6, 2) => tile_sums::<V, 6, 2>(scratch, data, &mut sums),
            (6, _) => tile_sums::<V, 6, 1>(scratch, data, &mut sums),
            (_, 2) => tile_sums::<V, 4, 2>(scratch, data, &mut sums),
            _ => tile_sums::<V, 4, 1>(scratch, data, &mut sums),
        }
        for lane in 0..together * V::LANES {
            let token = at * V::LANES + lane;
            if token >= x.tokens {
                break;
            }
            for r in 0..rows {
                out.put(first_row + r, token, sums[r * together * V::LANES + lane]);
            }
        }
        at += together;
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

/// The products of `R` decoded rows with `P` vectors of tokens, over all columns: `sums[(r * P + p) * LANES +
/// lane]`.
#[inline(always)]
fn tile_sums<V: Vector, const R: usize, const P: usize>(
    scratch: &[f32],
    panels: &[f32],
    sums: &mut [f32],
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
            totals[r][p].store(&mut sums[(r * P + p) * V::LANES..]);
        }
    }
}
