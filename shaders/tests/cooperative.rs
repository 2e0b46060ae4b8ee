//! What `matmul_cooperative` loads, stores and guards, on whole numbers: its arithmetic of indices, written down a second
//! time lane by lane, as no device of the tests has cooperative matrices. Whoever changes the kernel changes this first.

const ROWS: usize = 128;
const STAGED: usize = 4;
/// What lies where nothing was written: in a sum it would be noticed.
const GARBAGE: i64 = 1 << 28;

/// Four halves.
type Vector = [i64; 4];

struct Shape {
    rows: usize,
    tokens: usize,
    groups: usize,
    /// Tokens of a tile.
    tile: usize,
    /// Groups of a step.
    step: usize,
    /// Lanes of a subgroup.
    subgroup: usize,
    /// Blocks that a subgroup may keep.
    blocks: usize,
    /// Whether the format's codes and scales are asked for, or decoded weights.
    codes: bool,
    experts: Option<Experts>,
}

/// Pairs in place of tokens, and the list of tiles that `expert_lists` makes of them.
struct Experts {
    count: usize,
    /// Of the first expert in the matrix.
    first_row: usize,
    pairs_per_row: usize,
    /// The pairs by the experts that they chose.
    order: Vec<usize>,
    /// Expert, first place in the order, pairs.
    tiles: Vec<(usize, usize, usize)>,
}

impl Experts {
    /// Most pairs choose one expert, some choose none, and no two neighbours choose the same.
    fn new(pairs: usize, tile: usize, pairs_per_row: usize) -> Self {
        let count = 5;
        let expert =
            |pair: usize| if pair.is_multiple_of(2) { 3 } else { [0, 4][pair / 2 % 7 / 6] };
        let mut order = Vec::new();
        let mut tiles = Vec::new();
        for e in 0..count {
            let first = order.len();
            order.extend((0..pairs).rev().filter(|&pair| expert(pair) == e));
            for done in (first..order.len()).step_by(tile) {
                tiles.push((e, done, (order.len() - done).min(tile)));
            }
        }
        Self { count, first_row: 3, pairs_per_row, order, tiles }
    }
}

/// What a workgroup finds out about its tile of tokens.
struct Tile {
    first_token: usize,
    tokens: usize,
    weight_row: usize,
}

fn code(row: usize, k: usize) -> i64 {
    (row * 31 + k * 17) as i64 % 97 - 48
}

/// Of half a group.
fn scale(row: usize, half: usize) -> i64 {
    (row * 3 + half * 5) as i64 % 7 + 1
}

/// Of half a group.
fn offset(row: usize, half: usize) -> i64 {
    (row * 5 + half * 3) as i64 % 11 - 5
}

fn weight(row: usize, k: usize) -> i64 {
    code(row, k) * scale(row, k / 16) + offset(row, k / 16)
}

fn input(token: usize, k: usize) -> i64 {
    (token * 41 + k * 29) as i64 % 89 - 44
}

/// What a token's inputs were divided by.
fn largest(token: usize) -> i64 {
    token as i64 % 5 + 1
}

/// Four neighbouring numbers of a row.
fn vector(of: fn(usize, usize) -> i64, row: usize, first: usize) -> Vector {
    std::array::from_fn(|i| of(row, first + i))
}

impl Shape {
    /// Vectors from one row of a tile to the next.
    fn stride(&self) -> usize {
        8 * self.step + 2
    }

    /// The inputs as they lie in their buffer: of the last tile too all tokens, but of pairs those that there are.
    fn inputs(&self) -> Vec<Vector> {
        let vectors = |token| {
            let of = if token < self.tokens { input } else { |_, _| GARBAGE };
            (0..8 * self.groups).map(move |v| vector(of, token, 4 * v))
        };
        let rows = match &self.experts {
            Some(experts) => self.tokens.div_ceil(experts.pairs_per_row),
            None => self.tokens.next_multiple_of(self.tile),
        };
        (0..rows).flat_map(vectors).collect()
    }

    /// The tiles of all tokens.
    fn tiles(&self) -> Vec<Tile> {
        let of_tokens = |first_token| Tile {
            first_token,
            tokens: (self.tokens - first_token).min(self.tile),
            weight_row: 0,
        };
        let Some(experts) = &self.experts else {
            return (0..self.tokens).step_by(self.tile).map(of_tokens).collect();
        };
        let of_pairs = |&(expert, first_token, tokens): &(usize, usize, usize)| Tile {
            first_token,
            tokens,
            weight_row: experts.first_row + expert * self.rows,
        };
        experts.tiles.iter().map(of_pairs).collect()
    }

    /// The row of the output of a tile's token.
    fn output_row(&self, tile_at: usize, token: usize) -> usize {
        match &self.experts {
            Some(experts) => experts.order[(tile_at + token).min(self.tokens - 1)],
            None => tile_at + token,
        }
    }

    /// The row of the input of a tile's token.
    fn input_row(&self, tile_at: usize, token: usize) -> usize {
        self.output_row(tile_at, token) / self.experts.as_ref().map_or(1, |e| e.pairs_per_row)
    }

    /// Tokens whose inputs all lanes take at a time.
    fn tokens_at_once(&self) -> usize {
        2 * self.tile / (8 * self.step)
    }

    /// Vectors from one of a lane's tokens to the next.
    fn tokens_apart(&self) -> usize {
        self.tokens_at_once() * self.groups * 8
    }

    /// A group's row, and its place in that.
    fn place(&self, group: usize) -> (usize, usize) {
        let rows = self.experts.as_ref().map_or(self.rows, |e| e.first_row + e.count * self.rows);
        assert!(group < rows * self.groups, "group {group} does not exist");
        (group / self.groups, group % self.groups)
    }

    /// Quarters `q` on of both halves of a group, as many as a lane takes.
    fn my_codes(&self, group: usize, q: usize) -> Vec<[Vector; 2]> {
        let (row, group) = self.place(group);
        let quarter = |q| [0, 16].map(|half| vector(code, row, group * 32 + half + 4 * q));
        (q..q + 2 * self.step).map(quarter).collect()
    }

    /// Scale and offset of both halves of a group.
    fn scales(&self, group: usize) -> [(i64, i64); 2] {
        let (row, group) = self.place(group);
        [0, 1].map(|half| (scale(row, 2 * group + half), offset(row, 2 * group + half)))
    }

    fn decode_group(&self, group: usize) -> [Vector; 8] {
        let (row, group) = self.place(group);
        std::array::from_fn(|v| vector(weight, row, group * 32 + 4 * v))
    }
}

fn halves_of(codes: Vector, (scale, offset): (i64, i64)) -> Vector {
    codes.map(|code| code * scale + offset)
}

/// What a lane keeps of its group of a step.
struct Kept {
    /// The group's number in the first step, and its place in the tile.
    group: usize,
    to: usize,
    scales: [(i64, i64); 2],
    words: Vec<[Vector; 2]>,
    next_words: Vec<[Vector; 2]>,
    weights: [Vector; 8],
}

/// What a lane keeps from step to step.
struct Lane {
    q: usize,
    /// Of each of its vectors.
    input_at: Vec<usize>,
    input_to: usize,
    x: Vec<Vector>,
    kept: Vec<Kept>,
}

impl Lane {
    fn new(shape: &Shape, inputs: &[Vector], lane: usize, tile: &Tile, first_row: usize) -> Self {
        let (vectors, stride) = (8 * shape.step, shape.stride());
        let my_row = lane / 2;
        let my_group = lane % 2 * (shape.step - 1);
        let q = 2 * (lane % 2) * (2 - shape.step);
        let input_at = |v: usize| {
            let my_token = lane / vectors;
            if shape.experts.is_some() {
                let token = (my_token + v * shape.tokens_at_once()).min(tile.tokens - 1);
                shape.input_row(tile.first_token, token) * shape.groups * 8 + lane % vectors
            } else {
                let first = (tile.first_token + my_token) * shape.groups * 8 + lane % vectors;
                first + v * shape.tokens_apart()
            }
        };
        let input_at: Vec<_> = (0..4 * shape.step).map(input_at).collect();
        let mut kept = Vec::new();
        for i in 0..ROWS / shape.tile {
            let row = (first_row + my_row + i * shape.tile).min(shape.rows - 1);
            let row = (tile.weight_row + row) * shape.groups;
            let group = row + my_group;
            kept.push(Kept {
                group,
                to: (my_row + i * shape.tile) * stride + 8 * my_group + q,
                scales: shape.scales(group),
                words: shape.my_codes(group, q),
                next_words: shape.my_codes(group + shape.step.min(shape.groups - shape.step), q),
                weights: shape.decode_group(group),
            });
        }
        let x = input_at.iter().map(|&at| inputs[at]).collect();
        Self { q, input_at, input_to: lane / vectors * stride + lane % vectors, x, kept }
    }

    /// Writes what the lane has of a step into the tiles.
    fn store(&self, shape: &Shape, weight_tile: &mut [Vector], input_tile: &mut [Vector]) {
        for kept in &self.kept {
            for j in 0..2 * shape.step {
                let [low, high] = if shape.codes {
                    [0, 1].map(|half| halves_of(kept.words[j][half], kept.scales[half]))
                } else {
                    [kept.weights[self.q + j], kept.weights[4 + self.q + j]]
                };
                weight_tile[kept.to + j] = low;
                weight_tile[kept.to + 4 + j] = high;
            }
        }
        for (v, &x) in self.x.iter().enumerate() {
            input_tile[self.input_to + v * shape.tokens_at_once() * shape.stride()] = x;
        }
    }

    /// Asks for what the step after that of group `g` stores, and for codes of the one after it.
    fn load(&mut self, shape: &Shape, inputs: &[Vector], g: usize) {
        let next = (g + shape.step).min(shape.groups - shape.step);
        let after_next = (g + 2 * shape.step).min(shape.groups - shape.step);
        for kept in &mut self.kept {
            kept.scales = shape.scales(kept.group + next);
            let after_next = shape.my_codes(kept.group + after_next, self.q);
            kept.words = std::mem::replace(&mut kept.next_words, after_next);
            kept.weights = shape.decode_group(kept.group + next);
        }
        for (x, at) in self.x.iter_mut().zip(&self.input_at) {
            *x = inputs[at + next * 8];
        }
    }
}

/// The product of the matrices of 16 x 16 whose rows begin at `a` and `b`, at (row, column): rows of `stride` vectors.
fn product(
    (weights, a): (&[Vector], usize),
    (inputs, b): (&[Vector], usize),
    stride: usize,
    at: (usize, usize),
) -> i64 {
    let (w, x) = (&weights[a + at.0 * stride..][..4], &inputs[b + at.1 * stride..][..4]);
    w.iter().flatten().zip(x.iter().flatten()).map(|(w, x)| w * x).sum()
}

/// What a workgroup puts: token or pair, row, number.
fn workgroup(
    shape: &Shape,
    inputs: &[Vector],
    of_tokens: &Tile,
    first_row: usize,
) -> Vec<(usize, usize, i64)> {
    let (tile, lanes, stride) = (shape.tile, 2 * shape.tile, shape.stride());
    let all_blocks = tile / 16;
    let subgroups = lanes / shape.subgroup;
    let &Tile { first_token, tokens: tile_tokens, .. } = of_tokens;
    let mut sums = vec![[[[[0; 16]; 16]; 2]; 4]; shape.blocks * subgroups];
    let mut kept: Vec<_> =
        (0..lanes).map(|lane| Lane::new(shape, inputs, lane, of_tokens, first_row)).collect();
    for g in (0..shape.groups).step_by(shape.step) {
        let mut weight_tile = vec![[GARBAGE; 4]; stride * ROWS];
        let mut input_tile = vec![[GARBAGE; 4]; stride * tile];
        for lane in &mut kept {
            lane.store(shape, &mut weight_tile, &mut input_tile);
            lane.load(shape, inputs, g);
        }
        for subgroup in 0..subgroups {
            for b in 0..shape.blocks {
                let block = b * subgroups + subgroup;
                let block_token = block / 4 * 64;
                if block >= all_blocks || block_token >= tile_tokens {
                    continue;
                }
                let weights_at = block % 4 * 32 * stride;
                let inputs_at = block_token * stride;
                for k in 0..2 * shape.step {
                    for (t, r, m, n) in matrices().flat_map(|(t, r)| elements(t, r)) {
                        let w = (&weight_tile[..], weights_at + r * 16 * stride + k * 4);
                        let x = (&input_tile[..], inputs_at + t * 16 * stride + k * 4);
                        sums[block][t][r][m][n] += product(w, x, stride, (m, n));
                    }
                }
            }
        }
    }
    let mut out = Vec::new();
    for b in 0..shape.blocks {
        for first in (0..subgroups.min(all_blocks)).step_by(STAGED) {
            for (t, r) in matrices() {
                let mut out_tile = vec![GARBAGE; 256 * STAGED];
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
                    // Of a pair asked for once for all blocks staged.
                    let of_stage = (b * subgroups + first) / 4 * 64 + t * 16 + out_token;
                    let pair = shape.output_row(first_token, of_stage);
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
                            let (to, from) = match &shape.experts {
                                Some(experts) => (pair, pair / experts.pairs_per_row),
                                None => (first_token + token, first_token + token),
                            };
                            out.push((to, row, sum * largest(from)));
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
    // One step to five, of one group or of two: what is asked for two steps ahead is told from the next by three.
    for (rows, tokens, groups, step) in [
        (1, 1, 1, 1),
        (129, 65, 1, 1),
        (300, 130, 1, 1),
        (100, 200, 2, 1),
        (130, 70, 5, 1),
        (1, 1, 2, 2),
        (129, 65, 2, 2),
        (300, 130, 4, 2),
        (100, 200, 6, 2),
    ] {
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
            for (codes, pairs_per_row) in
                [(true, None), (false, None), (true, Some(1)), (true, Some(4))]
            {
                let experts = pairs_per_row.map(|per_row| Experts::new(tokens, tile, per_row));
                check(&Shape {
                    rows,
                    tokens,
                    groups,
                    tile,
                    step,
                    subgroup,
                    blocks,
                    codes,
                    experts,
                });
            }
        }
    }
}

fn check(shape: &Shape) {
    let &Shape { rows, tokens, groups, step, subgroup, .. } = shape;
    let per_row = shape.experts.as_ref().map_or(0, |experts| experts.pairs_per_row);
    let name = format!(
        "{rows} x {tokens}, {groups} groups by {step}, {subgroup} lanes, {per_row} pairs a row"
    );
    let all = |of: fn(usize, usize) -> i64, row| (0..groups * 32).map(move |k| of(row, k));
    let (experts, per_row) = match &shape.experts {
        Some(experts) => (experts.first_row + experts.count * rows, experts.pairs_per_row),
        None => (rows, 1),
    };
    let weights: Vec<Vec<i64>> = (0..experts).map(|row| all(weight, row).collect()).collect();
    let given: Vec<Vec<i64>> = (0..tokens).map(|token| all(input, token).collect()).collect();
    let inputs = shape.inputs();
    let mut seen = vec![false; rows * tokens];
    for tile in shape.tiles() {
        for first_row in (0..rows).step_by(ROWS) {
            for (token, row, sum) in workgroup(shape, &inputs, &tile, first_row) {
                let (weights, from) = (&weights[tile.weight_row + row], token / per_row);
                let products = weights.iter().zip(&given[from]).map(|(w, x)| w * x);
                let expected = products.sum::<i64>() * largest(from);
                assert_eq!(sum, expected, "{name}: row {row}, token {token}");
                assert!(!seen[token * rows + row], "{name}: row {row}, token {token}: again");
                seen[token * rows + row] = true;
            }
        }
    }
    assert!(seen.iter().all(|&seen| seen), "{name}: not all is put");
}
