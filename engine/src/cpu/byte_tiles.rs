//! Products of many rows with many tokens' inputs rounded to bytes, on processors that multiply bytes (AVX-512 VNNI,
//! AVX-VNNI): an instruction multiplies four codes of a row with four inputs of each lane's token and adds them up.
//!
//! It takes codes without a sign. So 128 is added to each, and each sum starts at -128 times the sum of its inputs.

use std::ops::Range;

use gguf::{Block, Codes};

use super::tile::{GROUP, HALF, Output, Products, decode, round};
use super::vector::{ByteVector, InstructionSet, Vector, with_set};
#[cfg(target_arch = "x86_64")]
use super::vector::{V256, V512};

/// Inputs of as many tokens as a vector has lanes, 16 columns ("a half" of a group) after 16 columns. Lanes without
/// a token are zeros.
#[derive(Default)]
pub(super) struct BytePanel {
    /// For each four columns, those of one lane after another's.
    bytes: Vec<i8>,
    /// Each half's scales, lane by lane; so in all below.
    scales: Vec<f32>,
    /// Sums of the inputs, for weights with offsets.
    sums: Vec<f32>,
    /// Where sums of products start.
    starts: Vec<i32>,
}

impl BytePanel {
    /// Rounds rows of `columns` inputs, of which there are no more than lanes.
    pub fn fill(&mut self, set: InstructionSet, rows: &[f32], columns: usize) {
        let panel = self;
        with_set!(set, |V, panel: &mut BytePanel, rows: &[f32], columns: usize| {
            panel.fill_lanes::<V>(rows, columns);
        });
    }

    #[inline(always)]
    fn fill_lanes<V: Vector>(&mut self, rows: &[f32], columns: usize) {
        let halves = columns / HALF;
        self.bytes.resize(columns * V::LANES, 0);
        self.scales.resize(halves * V::LANES, 0.0);
        self.sums.resize(halves * V::LANES, 0.0);
        self.starts.resize(halves * V::LANES, 0);
        if rows.len() < columns * V::LANES {
            self.bytes.fill(0);
            self.scales.fill(0.0);
            self.sums.fill(0.0);
            self.starts.fill(0);
        }
        for (lane, row) in rows.chunks_exact(columns).enumerate() {
            let halves = row.as_chunks().0.iter();
            for ((index, half), to) in
                halves.enumerate().zip(self.bytes.chunks_exact_mut(HALF * V::LANES))
            {
                let (bytes, scale) = round::<V>(half);
                for (four, to) in
                    bytes.as_chunks::<4>().0.iter().zip(to.chunks_exact_mut(4 * V::LANES))
                {
                    to[lane * 4..][..4].copy_from_slice(four);
                }
                let sum: i32 = bytes.into_iter().map(i32::from).sum();
                let at = index * V::LANES + lane;
                self.scales[at] = scale;
                self.sums[at] = sum as f32 * scale;
                self.starts[at] = -128 * sum;
            }
        }
    }
}

/// Decoded rows of a tile, a half of each group after another.
#[derive(Default)]
pub(super) struct ByteTile {
    /// Each row's codes plus 128.
    codes: Vec<[u8; HALF]>,
    scales: Vec<f32>,
    offsets: Vec<f32>,
}

impl ByteTile {
    /// Decodes the rows in `blocks`, no more than [`Vector::TILE_ROWS`]; missing rows keep what was there.
    #[inline(always)]
    pub fn decode<V: Vector, B: Block>(&mut self, blocks: &[B], columns: usize) {
        let length = columns / HALF * V::TILE_ROWS;
        self.codes.resize(length, [0; HALF]);
        self.scales.resize(length, 0.0);
        self.offsets.resize(length, 0.0);
        for (r, row) in blocks.chunks_exact(columns / B::WEIGHTS).enumerate() {
            for (index, block) in row.iter().enumerate() {
                let groups = decode::<V, B>(block);
                for (group, codes) in groups[..B::WEIGHTS / GROUP].iter().enumerate() {
                    let first = (index * (B::WEIGHTS / GROUP) + group) * 2;
                    let Codes { codes, scale, offset } = codes;
                    for half in 0..2 {
                        let at = (first + half) * V::TILE_ROWS + r;
                        self.codes[at] =
                            std::array::from_fn(|i| codes[half * HALF + i].cast_unsigned() ^ 0x80);
                        self.scales[at] = scale[half];
                        if B::OFFSETS {
                            self.offsets[at] = offset[half];
                        }
                    }
                }
            }
        }
    }

    /// Multiplies `rows`, decoded, with so many tokens in panels.
    #[inline(always)]
    pub fn multiply<V: Vector>(
        &self,
        kernel: ByteKernel,
        offsets: bool,
        rows: Range<usize>,
        (panels, tokens): (&[BytePanel], usize),
        out: &Output,
    ) {
        let mut sums = Products::default();
        for (index, panel) in panels[..tokens.div_ceil(V::LANES)].iter().enumerate() {
            kernel.run(self, panel, offsets, &mut sums);
            let first = index * V::LANES;
            let tokens = first..tokens.min(first + V::LANES);
            out.put_tile(rows.clone(), tokens, &sums);
        }
    }
}

/// The products of a tile with a panel, by instructions that this processor has.
#[derive(Clone, Copy)]
pub(super) struct ByteKernel(unsafe fn(&ByteTile, &BytePanel, bool, &mut Products));

impl ByteKernel {
    /// The one for a set's registers, if this processor multiplies bytes in them.
    pub fn of(set: InstructionSet) -> Option<Self> {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 if is_x86_feature_detected!("avxvnni") => {
                Some(Self(sums_avx_vnni))
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 if is_x86_feature_detected!("avx512vnni") => {
                Some(Self(sums_avx512_vnni))
            }
            _ => None,
        }
    }

    fn run(self, tile: &ByteTile, panel: &BytePanel, offsets: bool, sums: &mut Products) {
        // SAFETY: `of` found the features of the function, those of the set among them.
        unsafe { (self.0)(tile, panel, offsets, sums) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn sums_avx512_vnni(tile: &ByteTile, panel: &BytePanel, offsets: bool, sums: &mut Products) {
    tile_sums::<V512, { V512::TILE_ROWS }>(tile, panel, offsets, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn sums_avx_vnni(tile: &ByteTile, panel: &BytePanel, offsets: bool, sums: &mut Products) {
    tile_sums::<V256, { V256::TILE_ROWS }>(tile, panel, offsets, sums);
}

/// The products of `R` rows with a panel: `sums[r][lane]`.
#[inline(always)]
fn tile_sums<V: ByteVector, const R: usize>(
    tile: &ByteTile,
    panel: &BytePanel,
    offsets: bool,
    sums: &mut Products,
) {
    if offsets {
        lane_sums::<V, R, true>(tile, panel, sums);
    } else {
        lane_sums::<V, R, false>(tile, panel, sums);
    }
}

/// [`tile_sums`] for weights with or without offsets.
#[inline(always)]
fn lane_sums<V: ByteVector, const R: usize, const OFFSETS: bool>(
    tile: &ByteTile,
    panel: &BytePanel,
    sums: &mut Products,
) {
    let mut totals = [V::splat(0.0); R];
    let codes = tile.codes.as_chunks::<R>().0.iter();
    let scales = tile.scales.as_chunks::<R>().0.iter();
    let offsets = tile.offsets.as_chunks::<R>().0.iter();
    let bytes = panel.bytes.chunks_exact(HALF * V::LANES);
    let lanes = (panel.scales.chunks_exact(V::LANES))
        .zip(panel.sums.chunks_exact(V::LANES))
        .zip(panel.starts.chunks_exact(V::LANES));
    for ((((codes, scales), offsets), bytes), ((x_scale, x_sum), start)) in
        codes.zip(scales).zip(offsets).zip(bytes).zip(lanes)
    {
        let bytes: [V::Whole; HALF / 4] =
            std::array::from_fn(|four| V::load_bytes(&bytes[four * 4 * V::LANES..]));
        let (x_scale, x_sum, start) = (V::load(x_scale), V::load(x_sum), V::load_whole(start));
        // Code of its own for each row, so that all totals stay in registers.
        macro_rules! add_rows {
            ($($row:literal)*) => {
                $(if $row < R {
                    let mut part = start;
                    for (four, &bytes) in codes[$row].as_chunks().0.iter().zip(&bytes) {
                        part = V::add_products(part, *four, bytes);
                    }
                    let part = V::from_whole(part).multiply(V::splat(scales[$row]));
                    totals[$row] = part.multiply_add(x_scale, totals[$row]);
                    if OFFSETS {
                        totals[$row] = x_sum.multiply_add(V::splat(offsets[$row]), totals[$row]);
                    }
                })*
            };
        }
        add_rows!(0 1 2 3 4 5 6 7 8 9 10 11);
    }
    for (total, sums) in totals.into_iter().zip(sums) {
        total.store(sums);
    }
}
