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
    /// AVX-512 F, BW, VL and what Avx2 says.
    Avx512,
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
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                sets.push(Self::Avx512);
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
            InstructionSet::Avx512 => "AVX-512",
        }
    }
}

/// Rows that are decoded and multiplied together.
const ROWS: usize = 4;
/// Tokens that are multiplied together.
const TOKENS: usize = 2;

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
        InstructionSet::Avx512 => unsafe { multiply_avx512::<B>(product, scratch, store) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { multiply_avx2::<B>(product, scratch, store) },
        _ => multiply_rows::<B, 4, { cfg!(target_arch = "aarch64") }>(product, scratch, store),
    });
}

/// The dot product of two slices of the same length.
pub fn dot(set: InstructionSet, a: &[f32], b: &[f32]) -> f32 {
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a set is only chosen where `available` found its features.
        InstructionSet::Avx512 | InstructionSet::Avx2 => unsafe { dot_avx2(a, b) },
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

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn multiply_avx512<B: Block>(
    product: Product,
    scratch: &mut Vec<f32>,
    store: &mut dyn FnMut(usize, usize, f32),
) {
    multiply_rows::<B, 16, true>(product, scratch, store);
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

/// Decodes `ROWS` rows at a time into `scratch` and multiplies them with `TOKENS` tokens at a time.
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
        let mut token = 0;
        while token < tokens {
            let second = (token + 1).min(tokens - 1);
            let inputs = [
                &product.input[token * columns..][..columns],
                &product.input[second * columns..][..columns],
            ];
            let sums = if token + 1 < tokens {
                tile::<LANES, FMA, ROWS, TOKENS>(weights, inputs)
            } else {
                let one = tile::<LANES, FMA, ROWS, 1>(weights, [inputs[0]]);
                one.map(|[sum]| [sum, 0.0])
            };
            for (row, sums) in sums.iter().enumerate().take(rows) {
                for (offset, &sum) in sums.iter().enumerate().take(tokens - token) {
                    store(group * ROWS + row, token + offset, sum);
                }
            }
            token += TOKENS;
        }
    }
}

/// The dot products of R rows with T tokens, all of one length, a multiple of 32.
#[inline(always)]
fn tile<const LANES: usize, const FMA: bool, const R: usize, const T: usize>(
    weights: [&[f32]; R],
    inputs: [&[f32]; T],
) -> [[f32; T]; R] {
    let mut sums = [[[0.0f32; LANES]; T]; R];
    let columns = inputs[0].len();
    for start in (0..columns / LANES * LANES).step_by(LANES) {
        let x: [&[f32; LANES]; T] = std::array::from_fn(|t| lanes(inputs[t], start));
        for r in 0..R {
            let w: &[f32; LANES] = lanes(weights[r], start);
            for t in 0..T {
                for lane in 0..LANES {
                    sums[r][t][lane] = multiply_add::<FMA>(w[lane], x[t][lane], sums[r][t][lane]);
                }
            }
        }
    }
    std::array::from_fn(|r| std::array::from_fn(|t| sums[r][t].iter().sum()))
}

/// `LANES` floats from `start` on.
#[inline(always)]
fn lanes<const LANES: usize>(slice: &[f32], start: usize) -> &[f32; LANES] {
    match slice[start..start + LANES].first_chunk() {
        Some(lanes) => lanes,
        None => unreachable!("the range has LANES elements"),
    }
}
