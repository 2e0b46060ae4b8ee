//! Matrix products: rows of blocks with rows of activations.
//!
//! Few tokens: a group of 32 codes becomes floats in registers, is multiplied with each token's inputs and
//! only then scaled; no weight is ever stored. Many tokens: a tile's rows are decoded into a scratch that stays in
//! the cache, and multiplied with tokens that lie side by side in vectors ([`Panels`]), so that no sum crosses lanes.

use gguf::{Block, Codes, Format, with_block};

use super::slots::Slots;
use super::vector::{InstructionSet, Plain, Vector};
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
        match set {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a set is only chosen where `available` found its features.
            InstructionSet::Avx2 => unsafe { multiply_avx2(blocks, first_row, x, scratch, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a set is only chosen where `available` found its features.
            InstructionSet::Avx512 => unsafe { multiply_avx512(blocks, first_row, x, scratch, out) },
            _ => multiply_rows::<Plain, B>(blocks, first_row, x, scratch, out),
        }
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_avx2<B: Block>(
    blocks: &[B],
    first_row: usize,
    x: &Panels,
    scratch: &mut Vec<f32>,
    out: &Output,
) {
    multiply_rows::<V256, B>(blocks, first_row, x, scratch, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn multiply_avx512<B: Block>(
    blocks: &[B],
    first_row: usize,
    x: &Panels,
    scratch: &mut Vec<f32>,
    out: &Output,
) {
    multiply_rows::<V512, B>(blocks, first_row, x, scratch, out);
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
            let row = first_row + tile * V::TILE_ROWS;
            // The number of rows is a constant of each loop; the last tile's missing rows repeat its last.
            tiled_rows::<V, B>(blocks, row, x, scratch, out);
        }
        return;
    }
    for (index, row) in blocks.chunks_exact(row_blocks).enumerate() {
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

/// A group of 32 weights as codes; floats are their own.
#[inline(always)]
fn group_of<V: Vector, B: Block>(row: &[B], group: usize) -> Group<V> {
    if B::WEIGHTS == 1 {
        let mut floats = [0.0; GROUP];
        for (out, block) in floats.iter_mut().zip(&row[group * GROUP..][..GROUP]) {
            *out = block.float::<V>();
        }
        return Group::Floats(floats, std::marker::PhantomData);
    }
    let groups = B::WEIGHTS / GROUP;
    Group::Codes(row[group / groups].codes::<V>(group % groups))
}

enum Group<V> {
    Codes(Codes),
    Floats([f32; GROUP], std::marker::PhantomData<V>),
}

/// The products of a row with `T` tokens from `token` on.
#[inline(always)]
fn dot_row<V: Vector, B: Block, const T: usize>(row: &[B], x: &Panels, token: usize) -> [f32; T] {
    let columns = x.columns;
    let inputs: [&[f32]; T] = std::array::from_fn(|t| &x.data[(token + t) * columns..][..columns]);
    let sums: [&[f32]; T] =
        std::array::from_fn(|t| &x.sums[(token + t) * (columns / 16)..][..columns / 16]);
    let mut totals = [[V::splat(0.0); 2]; T];
    let mut offsets = [0.0; T];
    for group in 0..columns / GROUP {
        match group_of::<V, B>(row, group) {
            Group::Codes(Codes { codes, scale, offset }) if x.int8 => {
                for t in 0..T {
                    let at = (token + t) * columns + group * GROUP;
                    let x_scale = &x.scales[at / 16..][..2];
                    let scale = [scale[0] * x_scale[0], scale[1] * x_scale[1]];
                    let Some(bytes) = x.bytes[at..].first_chunk() else { continue };
                    totals[t][0] = V::add_byte_products(&codes, bytes, scale, totals[t][0]);
                    if B::OFFSETS {
                        offsets[t] +=
                            offset[0] * sums[t][group * 2] + offset[1] * sums[t][group * 2 + 1];
                    }
                }
            }
            Group::Codes(Codes { codes, scale, offset }) => {
                for half in 0..2 {
                    let mut parts = [V::splat(0.0); T];
                    for i in 0..16 / V::LANES {
                        let at = half * 16 + i * V::LANES;
                        let w = V::load_codes(&codes[at..]);
                        for t in 0..T {
                            let x = V::load(&inputs[t][group * GROUP + at..]);
                            parts[t] =
                                if i == 0 { w.multiply(x) } else { w.multiply_add(x, parts[t]) };
                        }
                    }
                    for t in 0..T {
                        totals[t][half] =
                            V::splat(scale[half]).multiply_add(parts[t], totals[t][half]);
                        if B::OFFSETS {
                            offsets[t] += offset[half] * sums[t][group * 2 + half];
                        }
                    }
                }
            }
            Group::Floats(floats, _) => {
                for i in 0..GROUP / V::LANES {
                    let w = V::load(&floats[i * V::LANES..]);
                    for t in 0..T {
                        let x = V::load(&inputs[t][group * GROUP + i * V::LANES..]);
                        totals[t][i % 2] = w.multiply_add(x, totals[t][i % 2]);
                    }
                }
            }
        }
    }
    let one = V::splat(1.0);
    std::array::from_fn(|t| totals[t][0].multiply_add(one, totals[t][1]).sum() + offsets[t])
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
        for group in 0..groups {
            let to = &mut scratch[group * tile + r * GROUP..][..GROUP];
            decode_group::<V, B>(row, group, to);
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

/// Group `group` of a row as floats.
#[inline(always)]
fn decode_group<V: Vector, B: Block>(row: &[B], group: usize, out: &mut [f32]) {
    if B::WEIGHTS == 1 {
        for (out, block) in out.iter_mut().zip(&row[group * GROUP..][..GROUP]) {
            *out = block.float::<V>();
        }
        return;
    }
    let groups = B::WEIGHTS / GROUP;
    let Codes { codes, scale, offset } = row[group / groups].codes::<V>(group % groups);
    for (index, (out, &code)) in out.iter_mut().zip(&codes).enumerate() {
        *out = f32::from(code) * scale[index / 16] + offset[index / 16];
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
