//! The inner loops, compiled once per instruction set: rows of blocks decoded and multiplied with rows of
//! activations.
//!
//! The loops are plain Rust over fixed-size arrays; compiled with a set's features enabled they become
//! vector code. What a set changes is the number of lanes and whether multiply-add is one instruction.

use gguf::{Block, Format, with_block};

/// The vector instructions that the loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// What every processor of the architecture has: SSE2 on x86-64, NEON on AArch64.
    Baseline,
    /// AVX2, FMA and F16C.
    Avx2,
}

impl InstructionSet {
    /// The best one that this processor has.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Baseline)
    }

    /// All that this processor has, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures have no more")]
        let mut sets = vec![Self::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            if avx2 {
                sets.push(Self::Avx2);
            }
        }
        sets
    }

    /// The set's name.
    pub fn name(self) -> &'static str {
        match self {
            InstructionSet::Baseline if cfg!(target_arch = "aarch64") => "NEON",
            InstructionSet::Baseline => "baseline",
            InstructionSet::Avx2 => "AVX2",
        }
    }
}

/// Rows that are decoded and multiplied together.
const ROWS: usize = 4;

/// A matrix product's inputs: rows of blocks, and rows of activations.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// The rows' blocks, end to end.
    pub blocks: &'a [u8],
    /// Weights per row.
    pub columns: usize,
    /// The activations, rows of `columns` floats end to end.
    pub input: &'a [f32],
}

/// Computes the products of all rows with all tokens: `store(row, token, product)`. `scratch` keeps its
/// memory between calls.
pub fn multiply(
    set: InstructionSet,
    format: Format,
    product: Product,
    scratch: &mut Vec<f32>,
    store: &mut dyn FnMut(usize, usize, f32),
) {
    with_block!(format, B => match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a set is only chosen where `available` found its features.
        InstructionSet::Avx2 => unsafe { multiply_avx2::<B>(product, scratch, store) },
        _ => multiply_rows::<B, 4, { cfg!(target_arch = "aarch64") }>(product, scratch, store),
    });
}

/// The dot product of two slices of the same length.
pub fn dot(set: InstructionSet, a: &[f32], b: &[f32]) -> f32 {
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a set is only chosen where `available` found its features.
        InstructionSet::Avx2 => unsafe { dot_avx2(a, b) },
        _ => dot_lanes::<4, { cfg!(target_arch = "aarch64") }>(a, b),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    dot_lanes::<8, true>(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_avx2<B: Block>(
    product: Product,
    scratch: &mut Vec<f32>,
    store: &mut dyn FnMut(usize, usize, f32),
) {
    multiply_rows::<B, 8, true>(product, scratch, store);
}

#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, sum: f32) -> f32 {
    // Without the instruction, mul_add is a call into the C library.
    if FMA { a.mul_add(b, sum) } else { a * b + sum }
}

#[inline(always)]
fn dot_lanes<const LANES: usize, const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [[0.0; LANES]; 2];
    let (a_chunks, b_chunks) = (a.chunks_exact(2 * LANES), b.chunks_exact(2 * LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for (half, sums) in sums.iter_mut().enumerate() {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let at = half * LANES + lane;
                *sum = multiply_add::<FMA>(a[at], b[at], *sum);
            }
        }
    }
    let total: f32 = (0..LANES).map(|lane| sums[0][lane] + sums[1][lane]).sum();
    total + rest
}

/// Decodes `ROWS` rows at a time into `scratch` and multiplies them with two tokens at a time. Columns are a
/// multiple of 32, which the Spec checks.
#[inline(always)]
fn multiply_rows<B: Block, const LANES: usize, const FMA: bool>(
    product: Product,
    scratch: &mut Vec<f32>,
    store: &mut dyn FnMut(usize, usize, f32),
) {
    let columns = product.columns;
    let row_blocks = columns / B::WEIGHTS;
    let blocks: &[B] = bytemuck::cast_slice(product.blocks);
    let tokens = product.input.len() / columns;
    scratch.resize(ROWS * columns, 0.0);
    for (group, group_blocks) in blocks.chunks(ROWS * row_blocks).enumerate() {
        let rows = group_blocks.len() / row_blocks;
        for (block, out) in group_blocks.iter().zip(scratch.chunks_exact_mut(B::WEIGHTS)) {
            block.decode(out);
        }
        let (w0, rest) = scratch.split_at(columns);
        let (w1, rest) = rest.split_at(columns);
        let (w2, w3) = rest.split_at(columns);
        let weights = [w0, w1, w2, &w3[..columns]];
        let row_of = |token: usize| &product.input[token * columns..][..columns];
        let mut token = 0;
        while token + 1 < tokens {
            let sums = tile2::<LANES, FMA>(weights, row_of(token), row_of(token + 1));
            for (row, sums) in sums.into_iter().enumerate().take(rows) {
                store(group * ROWS + row, token, sums[0]);
                store(group * ROWS + row, token + 1, sums[1]);
            }
            token += 2;
        }
        if token < tokens {
            let sums = tile1::<LANES, FMA>(weights, row_of(token));
            for (row, sum) in sums.into_iter().enumerate().take(rows) {
                store(group * ROWS + row, token, sum);
            }
        }
    }
}

/// A vector register's worth of sums.
#[derive(Clone, Copy)]
struct Sums<const LANES: usize>([f32; LANES]);

impl<const LANES: usize> Sums<LANES> {
    const ZERO: Self = Self([0.0; LANES]);

    #[inline(always)]
    fn add<const FMA: bool>(self, a: &[f32; LANES], b: &[f32; LANES]) -> Self {
        Self(std::array::from_fn(|lane| multiply_add::<FMA>(a[lane], b[lane], self.0[lane])))
    }

    #[inline(always)]
    fn total(self) -> f32 {
        self.0.iter().sum()
    }
}

/// The dot products of four rows with a token. The sums are variables, not an array, so that they stay in
/// registers.
#[inline(always)]
fn tile1<const LANES: usize, const FMA: bool>(weights: [&[f32]; ROWS], x: &[f32]) -> [f32; ROWS] {
    let [mut s0, mut s1, mut s2, mut s3] = [Sums::<LANES>::ZERO; ROWS];
    let [w0, w1, w2, w3] = weights.map(|row| row.as_chunks::<LANES>().0);
    let x = x.as_chunks::<LANES>().0;
    for ((((x, w0), w1), w2), w3) in x.iter().zip(w0).zip(w1).zip(w2).zip(w3) {
        s0 = s0.add::<FMA>(w0, x);
        s1 = s1.add::<FMA>(w1, x);
        s2 = s2.add::<FMA>(w2, x);
        s3 = s3.add::<FMA>(w3, x);
    }
    [s0, s1, s2, s3].map(Sums::total)
}

/// The dot products of four rows with two tokens.
#[inline(always)]
fn tile2<const LANES: usize, const FMA: bool>(
    weights: [&[f32]; ROWS],
    x: &[f32],
    y: &[f32],
) -> [[f32; 2]; ROWS] {
    let [mut s0, mut s1, mut s2, mut s3] = [Sums::<LANES>::ZERO; ROWS];
    let [mut t0, mut t1, mut t2, mut t3] = [Sums::<LANES>::ZERO; ROWS];
    let [w0, w1, w2, w3] = weights.map(|row| row.as_chunks::<LANES>().0);
    let (x, y) = (x.as_chunks::<LANES>().0, y.as_chunks::<LANES>().0);
    for (((((x, y), w0), w1), w2), w3) in x.iter().zip(y).zip(w0).zip(w1).zip(w2).zip(w3) {
        s0 = s0.add::<FMA>(w0, x);
        s1 = s1.add::<FMA>(w1, x);
        s2 = s2.add::<FMA>(w2, x);
        s3 = s3.add::<FMA>(w3, x);
        t0 = t0.add::<FMA>(w0, y);
        t1 = t1.add::<FMA>(w1, y);
        t2 = t2.add::<FMA>(w2, y);
        t3 = t3.add::<FMA>(w3, y);
    }
    let [s0, s1, s2, s3] = [s0, s1, s2, s3].map(Sums::total);
    let [t0, t1, t2, t3] = [t0, t1, t2, t3].map(Sums::total);
    [[s0, t0], [s1, t1], [s2, t2], [s3, t3]]
}
