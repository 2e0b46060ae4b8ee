//! What `matmul_cooperative` loads, stores and guards, on whole numbers: its arithmetic of indices, written down a second
//! time lane by lane, as no device of the tests has cooperative matrices. Whoever changes the kernel changes this first.

const ROWS: usize = 128;
const STRIDE: usize = 6;
const STAGED: usize = 4;

/// Four halves.
type Vector = [i64; 4];

struct Shape {
    rows: usize,
    tokens: usize,
    groups: usize,
    /// Tokens of a tile.
    tile: usize,
    /// Lanes of a subgroup.
    subgroup: usize,
    /// Blocks that a subgroup may keep.
    blocks: usize,
}

fn weight(row: usize, k: usize) -> i64 {
    (row * 31 + k * 17) as i64 % 97 - 48
}

fn input(token: usize, k: usize) -> i64 {
    (token * 41 + k * 29) as i64 % 89 - 44
}

/// Four neighbouring numbers of a row.
fn vector(of: fn(usize, usize) -> i64, row: usize, first: usize) -> Vector {
    std::array::from_fn(|i| of(row, first + i))
}

/// The product of the matrices of 16 x 16 whose rows begin at `a` and `b`, at (row, column): rows of STRIDE vectors.
fn product(weights: &[Vector], inputs: &[Vector], a: usize, b: usize, at: (usize, usize)) -> i64 {
    let (w, x) = (&weights[a + at.0 * STRIDE..][..4], &inputs[b + at.1 * STRIDE..][..4]);
    w.iter().flatten().zip(x.iter().flatten()).map(|(w, x)| w * x).sum()
}

/// What a workgroup puts: token, row, sum.
fn workgroup(shape: &Shape, first_token: usize, first_row: usize) -> Vec<(usize, usize, i64)> {
    let (tile, lanes) = (shape.tile, 2 * shape.tile);
    let (parts, all_blocks) = (ROWS / tile, tile / 16);
    let subgroups = lanes / shape.subgroup;
    let tile_tokens = (shape.tokens - first_token).min(tile);
    let mut sums = vec![[[[[0; 16]; 16]; 2]; 4]; shape.blocks * subgroups];
    let nothing = [i64::MIN; 4];
    for group in 0..shape.groups {
        for half in 0..2 {
            let mut weight_tile = vec![nothing; STRIDE * ROWS];
            let mut input_tile = vec![nothing; STRIDE * tile];
            for lane in 0..lanes {
                for part in 0..parts {
                    let tile_row = lane / 2 + part * tile;
                    let row = (first_row + tile_row).min(shape.rows - 1);
                    let quarter = 2 * half + lane % 2;
                    let to = tile_row * STRIDE + lane % 2;
                    weight_tile[to] = vector(weight, row, group * 32 + 4 * quarter);
                    weight_tile[to + 2] = vector(weight, row, group * 32 + 16 + 4 * quarter);
                }
                for p in 0..2 {
                    let tile_token = lane / 4 + p * (tile / 2);
                    let token = first_token + tile_token.min(tile_tokens - 1);
                    let k = (group * 8 + 2 * half + lane % 4 + (lane & 2)) * 4;
                    input_tile[tile_token * STRIDE + lane % 4] = vector(input, token, k);
                }
            }
            for subgroup in 0..subgroups {
                for b in 0..shape.blocks {
                    let block = b * subgroups + subgroup;
                    let block_token = block / 4 * 64;
                    if block >= all_blocks || block_token >= tile_tokens {
                        continue;
                    }
                    for (t, r, m, n) in matrices().flat_map(|(t, r)| elements(t, r)) {
                        let a = (block % 4 * 32 + r * 16) * STRIDE;
                        let b = (block_token + t * 16) * STRIDE;
                        sums[block][t][r][m][n] += product(&weight_tile, &input_tile, a, b, (m, n));
                    }
                }
            }
        }
    }
    let mut out = Vec::new();
    for b in 0..shape.blocks {
        for first in (0..subgroups.min(all_blocks)).step_by(STAGED) {
            for (t, r) in matrices() {
                let mut out_tile = vec![i64::MIN; 256 * STAGED];
                for subgroup in first..subgroups.min(first + STAGED) {
                    let block = b * subgroups + subgroup;
                    if block < all_blocks {
                        for (_, _, m, n) in elements(t, r) {
                            out_tile[(subgroup - first) * 256 + n * 16 + m] =
                                sums[block][t][r][m][n];
                        }
                    }
                }
                for lane in 0..lanes {
                    let out_token = lane / (lanes / 16);
                    for at in (lane % (lanes / 16)..16 * STAGED).step_by(lanes / 16) {
                        let owner = first + at / 16;
                        let block = b * subgroups + owner;
                        let row = first_row + block % 4 * 32 + r * 16 + at % 16;
                        let token = block / 4 * 64 + t * 16 + out_token;
                        if owner < subgroups
                            && block < all_blocks
                            && row < shape.rows
                            && token < tile_tokens
                        {
                            let sum = out_tile[at / 16 * 256 + out_token * 16 + at % 16];
                            out.push((first_token + token, row, sum));
                        }
                    }
                }
            }
        }
    }
    out
}

/// The matrices of a block: 16 tokens each, 16 rows each.
fn matrices() -> impl Iterator<Item = (usize, usize)> {
    (0..4).flat_map(|t| [(t, 0), (t, 1)])
}

/// The elements of one.
fn elements(t: usize, r: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..256).map(move |i| (t, r, i / 16, i % 16))
}

#[test]
fn every_product_is_put_once() {
    for (rows, tokens, groups) in [(1, 1, 1), (129, 65, 1), (300, 130, 1), (100, 200, 2)] {
        for (tile, subgroup, blocks) in [
            (64, 16, 1),
            (64, 32, 1),
            (64, 32, 2),
            (64, 64, 2),
            (128, 16, 1),
            (128, 32, 1),
            (128, 32, 2),
            (128, 64, 2),
        ] {
            let shape = Shape { rows, tokens, groups, tile, subgroup, blocks };
            let mut seen = vec![false; rows * tokens];
            for first_token in (0..tokens).step_by(tile) {
                for first_row in (0..rows).step_by(ROWS) {
                    for (token, row, sum) in workgroup(&shape, first_token, first_row) {
                        let all = (0..groups * 32).map(|k| weight(row, k) * input(token, k));
                        assert_eq!(sum, all.sum(), "row {row}, token {token}");
                        assert!(!seen[token * rows + row], "row {row}, token {token}: again");
                        seen[token * rows + row] = true;
                    }
                }
            }
            assert!(seen.iter().all(|&seen| seen), "{rows} x {tokens} by {subgroup} lanes");
        }
    }
}
