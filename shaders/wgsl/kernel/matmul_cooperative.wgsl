enable f16;
enable wgpu_cooperative_matrix;
// Y = X W^T for many tokens with cooperative matrices: a subgroup multiplies tiles of 16 x 16 halves, sums in f32.
//
// Shapes: weights [rows, 32 * groups] in a block format; input [tokens, 32 * groups] halves, each token's divided by
// largest [tokens] f32 (kernel/round_halves); out [tokens, out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added.
// With EXPERTS the tokens of a tile are pairs that chose one expert, whose rows it multiplies: see expert_lists. All that
// the list of tiles says is clamped.
// Grid: tiles of tokens on x, of rows on y and, where y does not reach, on z, as in matmul.
// Threads: 2 TOKENS a workgroup, which computes 128 rows for TOKENS tokens, in blocks of 32 rows for 64 tokens: eight
// matrices of sums each. Subgroup s of n takes blocks s, s + n, ...: at most BLOCKS, whatever size the driver chooses for
// subgroups. A step takes GROUPS groups of columns, by which a row's can be divided: all lanes decode them into workgroup
// memory, ask for the next step's inputs and scales and for the codes of the one after it, and multiply meanwhile.
#define SEVERAL
#define HALVES_INPUT
#import shared/product
#ifdef EXPERTS
#import shared/expert_tiles
#endif

const TILE_ROWS: u32 = 128u;
const TILE_TOKENS: u32 = {TOKENS}u;
const LANES: u32 = 2u * TILE_TOKENS;
const ALL_BLOCKS: u32 = TILE_TOKENS / 16u;
// Vectors of a token's inputs in a step, and the tokens that all lanes take at a time.
const VECTORS: u32 = 8u * {GROUPS}u;
const TOKENS_AT_ONCE: u32 = LANES / VECTORS;
// Vectors from one row of a tile to the next: 8 a group and 2 of padding. Eight rows in turn then lie in different banks,
// each at a multiple of 16 bytes.
const STRIDE: u32 = 8u * {GROUPS}u + 2u;
// Matrices of sums that workgroup memory holds at once.
const STAGED: u32 = 4u;

var<workgroup> weight_tile: array<vec4<f16>, STRIDE * TILE_ROWS>;
var<workgroup> input_tile: array<vec4<f16>, STRIDE * TILE_TOKENS>;
// Matrices of sums, token by token.
var<workgroup> out_tile: array<f32, 256u * STAGED>;

#ifdef CODES
// The codes of quarters `q` on of a group, of which all are read at once.
fn my_codes(group: u32, q: u32) -> array<vec2<u32>, {QUARTERS}> {
    let all = codes(group);
    return array<vec2<u32>, {QUARTERS}>(
#unroll j QUARTERS
        vec2<u32>(all.low[q + {j}u], all.high[q + {j}u]),
#end
    );
}

fn halves_of(codes: u32, scale: f32, offset: f32) -> vec4<f16> {
    return vec4<f16>(fma(codes_to_floats(codes), vec4<f32>(scale), vec4<f32>(offset)));
}
#else
// Vector `i` of a group, without an index that is known at run time alone.
fn quarter_of(group: Group, i: u32) -> vec4<f32> {
    var vector = group[0];
#unroll v 8
    vector = select(vector, group[{v}u], i == {v}u);
#end
    return vector;
}
#endif

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let groups = params.groups;
    let first_row = (workgroup.z * workgroups.y + workgroup.y) * TILE_ROWS;
    // Uniform, here and below: the whole workgroup leaves.
    if first_row >= params.rows {
        return;
    }
#ifdef EXPERTS
    if workgroup.x >= tiles[0] {
        return;
    }
    let expert = tiles[1u + workgroup.x * 3u] - params.first_expert;
    if expert >= params.experts {
        return;
    }
    let first_token = tiles[2u + workgroup.x * 3u];
    let tile_tokens = min(tiles[3u + workgroup.x * 3u], TILE_TOKENS);
    let weight_row = params.first_row + expert * params.expert_rows;
    let bias_row = params.first_bias + expert * params.expert_rows;
#else
    let first_token = workgroup.x * TILE_TOKENS;
    let tile_tokens = min(input_rows() - first_token, TILE_TOKENS);
#endif
    // Two lanes share a step's groups of a row: each takes one of the two, or of the only one two quarters of both halves.
    let my_row = lane / 2u;
    let my_group = lane % 2u * ({GROUPS}u - 1u);
    let q = 2u * (lane % 2u) * (2u - {GROUPS}u);
    // Neighbouring lanes take neighbouring vectors of a token.
#ifdef EXPERTS
    // Behind the last pair of a tile there is that one again: nobody reads the sums.
#unroll v INPUT_VECTORS
    let input_at{v} = input_row(first_token, min(lane / VECTORS + {v}u * TOKENS_AT_ONCE, tile_tokens - 1u)) * groups * 8u + lane % VECTORS;
#end
#else
    // Behind the last token there is room for a tile's; of what lies there nobody reads the sums.
    let input_at = (first_token + lane / VECTORS) * groups * 8u + lane % VECTORS;
#endif
    let input_to = lane / VECTORS * STRIDE + lane % VECTORS;
#ifdef EXPERTS
#unroll v INPUT_VECTORS
    var x{v} = input[input_at{v}];
#end
#else
    let tokens_apart = TOKENS_AT_ONCE * groups * 8u;
#unroll v INPUT_VECTORS
    var x{v} = input[input_at + {v}u * tokens_apart];
#end
#endif
#unroll i PARTS
#ifdef EXPERTS
    let row{i} = (weight_row + min(first_row + my_row + {i}u * TILE_TOKENS, params.rows - 1u)) * groups + my_group;
#else
    let row{i} = min(first_row + my_row + {i}u * TILE_TOKENS, params.rows - 1u) * groups + my_group;
#endif
    let to{i} = (my_row + {i}u * TILE_TOKENS) * STRIDE + 8u * my_group + q;
#ifdef CODES
    var scales{i} = scales(row{i});
    var words{i} = my_codes(row{i}, q);
    var next_words{i} = my_codes(row{i} + min({GROUPS}u, groups - {GROUPS}u), q);
#else
    var weights{i} = decode_group(row{i});
#endif
#end
#unroll b BLOCKS
#unroll t 4
#unroll r 2
    var sums_{b}_{t}_{r} = coop_mat16x16<f32, C>();
#end
#end
#end
    for (var g = 0u; g < groups; g += {GROUPS}u) {
        workgroupBarrier();
#unroll i PARTS
#unroll j QUARTERS
#ifdef CODES
        weight_tile[to{i} + {j}u] = halves_of(words{i}[{j}].x, scales{i}.scale.x, scales{i}.offset.x);
        weight_tile[to{i} + 4u + {j}u] = halves_of(words{i}[{j}].y, scales{i}.scale.y, scales{i}.offset.y);
#else
        weight_tile[to{i} + {j}u] = vec4<f16>(quarter_of(weights{i}, q + {j}u));
        weight_tile[to{i} + 4u + {j}u] = vec4<f16>(quarter_of(weights{i}, 4u + q + {j}u));
#endif
#end
#end
#unroll v INPUT_VECTORS
        input_tile[input_to + {v}u * TOKENS_AT_ONCE * STRIDE] = x{v};
#end
        workgroupBarrier();
        let next = min(g + {GROUPS}u, groups - {GROUPS}u);
#ifdef CODES
        let after_next = min(g + 2u * {GROUPS}u, groups - {GROUPS}u);
#endif
#unroll i PARTS
#ifdef CODES
        scales{i} = scales(row{i} + next);
        words{i} = next_words{i};
        next_words{i} = my_codes(row{i} + after_next, q);
#else
        weights{i} = decode_group(row{i} + next);
#endif
#end
#unroll v INPUT_VECTORS
#ifdef EXPERTS
        x{v} = input[input_at{v} + next * 8u];
#else
        x{v} = input[input_at + {v}u * tokens_apart + next * 8u];
#endif
#end
#unroll b BLOCKS
        // An if: naga takes what follows from subgroup_id to differ within a subgroup and lets no matrix stand behind a
        // condition of it, but behind a break.
        loop {
            let block = {b}u * subgroups + subgroup;
            let block_token = block / 4u * 64u;
            if block >= ALL_BLOCKS || block_token >= tile_tokens {
                break;
            }
            let weights_at = block % 4u * 32u * STRIDE;
            let inputs_at = block_token * STRIDE;
#unroll k HALF_GROUPS
            {
#unroll r 2
                let w{r} = coopLoadT<coop_mat16x16<f16, A>>(&weight_tile[weights_at + {r}u * 16u * STRIDE + {k}u * 4u], STRIDE);
#end
#unroll t 4
                {
                    let x = coopLoad<coop_mat16x16<f16, B>>(&input_tile[inputs_at + {t}u * 16u * STRIDE + {k}u * 4u], STRIDE);
#unroll r 2
                    sums_{b}_{t}_{r} = coopMultiplyAdd(w{r}, x, sums_{b}_{t}_{r});
#end
                }
#end
            }
#end
            break;
        }
#end
    }
    // Of the matrices each lane finishes one token's sums.
    let out_token = lane / (LANES / 16u);
#unroll b BLOCKS
    for (var first = 0u; first < min(subgroups, ALL_BLOCKS); first += STAGED) {
        let block = {b}u * subgroups + subgroup;
        let staged = subgroup >= first && subgroup < first + STAGED && block < ALL_BLOCKS;
#unroll t 4
#ifdef EXPERTS
        // Of all blocks that are staged together: they are of the same tokens.
        let pair{t} = output_row(first_token, ({b}u * subgroups + first) / 4u * 64u + {t}u * 16u + out_token);
        let largest{t} = largest[pair{t} / params.pairs_per_row];
#endif
#unroll r 2
        workgroupBarrier();
        loop {
            if !staged {
                break;
            }
            coopStore(sums_{b}_{t}_{r}, &out_tile[(subgroup - first) * 256u], 16u);
            break;
        }
        workgroupBarrier();
        for (var at = lane % (LANES / 16u); at < 16u * STAGED; at += LANES / 16u) {
            let owner = first + at / 16u;
            let of_owner = {b}u * subgroups + owner;
            let row = first_row + of_owner % 4u * 32u + {r}u * 16u + at % 16u;
            let token = of_owner / 4u * 64u + {t}u * 16u + out_token;
            if owner < subgroups && of_owner < ALL_BLOCKS && row < params.rows && token < tile_tokens {
                let sum = out_tile[at / 16u * 256u + out_token * 16u + at % 16u];
#ifdef EXPERTS
                put(pair{t} * params.out_stride + params.out_offset + row, finish(sum * largest{t}, bias_row + row));
#else
                let y = sum * largest[first_token + token];
                put((first_token + token) * params.out_stride + params.out_offset + row, finish(y, params.first_bias + row));
#endif
            }
        }
#end
#end
    }
#end
}
