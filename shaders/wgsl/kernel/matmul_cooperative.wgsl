enable f16;
enable wgpu_cooperative_matrix;
// Y = X W^T for many tokens with cooperative matrices: a subgroup multiplies tiles of 16 x 16 halves, sums in f32.
//
// Shapes: weights [rows, 32 * groups] in a block format; input [tokens, 32 * groups] f32; out [tokens,
// out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added. A token's inputs are divided by its largest, so that
// no half overflows.
// Grid: tiles of tokens on x, of rows on y and, where y does not reach, on z, as in matmul.
// Threads: 2 TOKENS a workgroup, which computes 128 rows for TOKENS tokens, in blocks of 32 rows for 64 tokens: eight
// matrices of sums each. Subgroup s of n takes blocks s, s + n, ...: at most BLOCKS, whatever size the driver chooses for
// subgroups. All lanes decode; a step takes half a group, the quarters of each of its halves that `code_words` gives.
#define SEVERAL
#import shared/product

const TILE_ROWS: u32 = 128u;
const TILE_TOKENS: u32 = {TOKENS}u;
const LANES: u32 = 2u * TILE_TOKENS;
const ALL_BLOCKS: u32 = TILE_TOKENS / 16u;
// Vectors from one row of a tile to the next: 4 and 2 of padding. Eight rows in turn then lie in different banks, each at
// a multiple of 16 bytes.
const STRIDE: u32 = 6u;
// Matrices of sums that workgroup memory holds at once.
const STAGED: u32 = 4u;

var<workgroup> weight_tile: array<vec4<f16>, STRIDE * TILE_ROWS>;
var<workgroup> input_tile: array<vec4<f16>, STRIDE * TILE_TOKENS>;
// First each token's largest inputs of its lanes, behind them of all; then matrices of sums, token by token.
var<workgroup> out_tile: array<f32, 256u * STAGED>;

#ifdef CODES
fn quarter(group: u32, s: Scales, q: u32) -> array<vec4<f16>, 2> {
    let words = code_words(group, q);
    return array<vec4<f16>, 2>(
        vec4<f16>(fma(codes_to_floats(words.x), vec4<f32>(s.scale.x), vec4<f32>(s.offset.x))),
        vec4<f16>(fma(codes_to_floats(words.y), vec4<f32>(s.scale.y), vec4<f32>(s.offset.y))),
    );
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
    // Uniform: the whole workgroup leaves.
    if first_row >= params.rows {
        return;
    }
    let first_token = workgroup.x * TILE_TOKENS;
    let tile_tokens = min(input_rows() - first_token, TILE_TOKENS);
    // Four lanes take a step's four vectors of two tokens, two lanes those of a row.
    let my_token = lane / 4u;
    let my_vector = lane % 4u + (lane & 2u);
    let my_row = lane / 2u;
    let my_quarter = lane % 2u;
#unroll p 2
    let input_at{p} = (first_token + min(my_token + {p}u * (TILE_TOKENS / 2u), tile_tokens - 1u)) * groups * 8u;
    var most{p} = vec4<f32>(0.0);
#end
    for (var at = lane % 4u; at < groups * 8u; at += 8u) {
#unroll p 2
        most{p} = max(most{p}, max(abs(input[input_at{p} + at]), abs(input[input_at{p} + at + 4u])));
#end
    }
#unroll p 2
    out_tile[{p}u * LANES + lane] = max(max(most{p}.x, most{p}.y), max(most{p}.z, most{p}.w));
#end
    workgroupBarrier();
    if lane < TILE_TOKENS {
        var of_token = 1e-30;
#unroll i 4
        of_token = max(of_token, out_tile[lane * 4u + {i}u]);
#end
        out_tile[2u * LANES + lane] = of_token;
    }
    workgroupBarrier();
#unroll p 2
    let factor{p} = 1.0 / out_tile[2u * LANES + my_token + {p}u * (TILE_TOKENS / 2u)];
#end
#unroll b BLOCKS
#unroll t 4
    var sums_{b}_{t}_0 = coop_mat16x16<f32, C>();
    var sums_{b}_{t}_1 = coop_mat16x16<f32, C>();
#end
#end
    for (var g = 0u; g < groups; g++) {
#unroll i PARTS
        let group{i} = min(first_row + my_row + {i}u * TILE_TOKENS, params.rows - 1u) * groups + g;
#ifdef CODES
        let scales{i} = scales(group{i});
#else
        let weights{i} = decode_group(group{i});
#endif
#end
#unroll h 2
        workgroupBarrier();
#unroll i PARTS
        {
#ifdef CODES
            let w = quarter(group{i}, scales{i}, 2u * {h}u + my_quarter);
#else
            let w = array<vec4<f16>, 2>(
                vec4<f16>(select(weights{i}[2u * {h}u], weights{i}[2u * {h}u + 1u], my_quarter == 1u)),
                vec4<f16>(select(weights{i}[4u + 2u * {h}u], weights{i}[5u + 2u * {h}u], my_quarter == 1u)),
            );
#endif
            let to = (my_row + {i}u * TILE_TOKENS) * STRIDE + my_quarter;
            weight_tile[to] = w[0];
            weight_tile[to + 2u] = w[1];
        }
#end
#unroll p 2
        input_tile[(my_token + {p}u * (TILE_TOKENS / 2u)) * STRIDE + lane % 4u] =
            vec4<f16>(input[input_at{p} + g * 8u + 2u * {h}u + my_vector] * factor{p});
#end
        workgroupBarrier();
#unroll b BLOCKS
        // An if: naga takes what follows from subgroup_id to differ within a subgroup and lets no matrix stand behind a
        // condition of it, but behind a break.
        loop {
            let block = {b}u * subgroups + subgroup;
            let block_token = block / 4u * 64u;
            if block >= ALL_BLOCKS || block_token >= tile_tokens {
                break;
            }
            let w0 = coopLoadT<coop_mat16x16<f16, A>>(&weight_tile[block % 4u * 32u * STRIDE], STRIDE);
            let w1 = coopLoadT<coop_mat16x16<f16, A>>(&weight_tile[(block % 4u * 32u + 16u) * STRIDE], STRIDE);
#unroll t 4
            {
                let x = coopLoad<coop_mat16x16<f16, B>>(&input_tile[(block_token + {t}u * 16u) * STRIDE], STRIDE);
                sums_{b}_{t}_0 = coopMultiplyAdd(w0, x, sums_{b}_{t}_0);
                sums_{b}_{t}_1 = coopMultiplyAdd(w1, x, sums_{b}_{t}_1);
            }
#end
            break;
        }
#end
#end
    }
    // Of the matrices each lane finishes one token's sums, whose largest inputs it takes before they are overwritten.
    let out_token = lane / (LANES / 16u);
#unroll t 4
    let largest_{t} = vec2<f32>(
        out_tile[2u * LANES + {t}u * 16u + out_token],
        out_tile[2u * LANES + (64u + {t}u * 16u + out_token) % TILE_TOKENS],
    );
#end
#unroll b BLOCKS
    for (var first = 0u; first < min(subgroups, ALL_BLOCKS); first += STAGED) {
        let block = {b}u * subgroups + subgroup;
        let staged = subgroup >= first && subgroup < first + STAGED && block < ALL_BLOCKS;
#unroll t 4
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
                let y = sum * select(largest_{t}.x, largest_{t}.y, of_owner >= 4u);
                put((first_token + token) * params.out_stride + params.out_offset + row, finish(y, params.out_offset + row));
            }
        }
#end
#end
    }
#end
}
