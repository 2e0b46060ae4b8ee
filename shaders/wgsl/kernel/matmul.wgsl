// Y = X W^T for many tokens, tile by tile: a tile's weights are decoded once into workgroup memory and used
// for {TOKENS} tokens.
//
// Shapes: weights [rows, 32 * groups] in a block format; input [tokens, 32 * groups] f32; out [tokens,
// out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added. Tiles hold f32; with INT8 bytes, inputs rounded to them.
// With EXPERTS the tokens of a tile are pairs that chose one expert, whose rows it multiplies: see expert_lists.
// Grid: tiles of tokens on x, of rows on y and, where y does not reach, on z. Workgroups that run at the same time are
// neighbours on x: they multiply the same rows, so that these come from memory once, whatever the number of tokens.
// Threads: 2 TOKENS a workgroup, which computes 64 rows for TOKENS tokens; each thread 8 rows, 8 apart, for 4
// neighbouring tokens, so that eight lanes share what is read of a token. A subgroup whose tokens do not exist
// only decodes. A step of the loop takes one group of 32 along the row.
#define SEVERAL
#import shared/product
#ifdef EXPERTS
#import shared/expert_tiles
#endif

const TILE_ROWS: u32 = 64u;
const TILE_TOKENS: u32 = {TOKENS}u;
const LANES: u32 = 2u * TILE_TOKENS;

#ifdef INT8
#import shared/int8
// Of each row and token the first half of a group, and TILE_ROWS and TILE_TOKENS further on the second: bytes; scale
// and offset of a row, scale and scaled sum of a token.
var<workgroup> weight_tile: array<vec4<u32>, 2u * TILE_ROWS>;
var<workgroup> input_tile: array<vec4<u32>, 2u * TILE_TOKENS>;
var<workgroup> weight_scales: array<vec2<f32>, 2u * TILE_ROWS>;
var<workgroup> input_scales: array<vec2<f32>, 2u * TILE_TOKENS>;
#else
// Eight vectors a row. Vector k of row i lies at k ^ (i % 8), of token i at k ^ (i / 4 % 8): the eight rows, and the four
// or eight tokens, that lanes read at once lie in different banks, without padding.
var<workgroup> weight_tile: array<vec4<f32>, 8u * TILE_ROWS>;
var<workgroup> input_tile: array<vec4<f32>, 8u * TILE_TOKENS>;
#endif

#ifndef EXPERTS
// The rows of input and output of a tile's token.
fn input_row(tile_at: u32, token: u32) -> u32 {
    return tile_at + token;
}

fn output_row(tile_at: u32, token: u32) -> u32 {
    return tile_at + token;
}
#endif

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
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
    let tile_at = tiles[2u + workgroup.x * 3u];
    let tile_tokens = min(tiles[3u + workgroup.x * 3u], TILE_TOKENS);
    let weight_row = params.first_row + expert * params.expert_rows;
    let bias_row = params.first_bias + expert * params.expert_rows;
#else
    let tile_at = workgroup.x * TILE_TOKENS;
    let tile_tokens = min(input_rows() - tile_at, TILE_TOKENS);
    let weight_row = 0u;
    let bias_row = params.first_bias;
#endif
    let my_row = lane % 8u;
    let my_token = lane / 8u * 4u;
    let works = my_token < tile_tokens;
    // The row that this lane decodes.
    let weight_group = (weight_row + min(first_row + lane, params.rows - 1u)) * groups;
#ifdef INT8
    // Half of the token that this lane rounds.
    let input_half = lane % 2u;
    let input_at = (input_row(tile_at, min(lane / 2u, tile_tokens - 1u)) * groups * 2u + input_half) * 4u;
#else
    // The vector of its tokens that this lane copies; how vectors of weights and inputs are mixed.
    let my_vector = lane % 8u;
    let weight_mix = lane % 8u;
    let input_mix = lane / 8u % 8u;
#unroll t 4
    let input_at{t} = input_row(tile_at, min(my_token + {t}u, tile_tokens - 1u)) * groups * 8u + my_vector;
#end
#endif
    // sums{r}[t]: row my_row + 8 r, token my_token + t.
#unroll r 8
    var sums{r} = vec4<f32>(0.0);
#end
    for (var g = 0u; g < groups; g++) {
        workgroupBarrier();
        if lane < TILE_ROWS {
#ifdef INT8
            let c = codes(weight_group + g);
            let s = scales(weight_group + g);
            weight_tile[lane] = c.low;
            weight_tile[TILE_ROWS + lane] = c.high;
            weight_scales[lane] = vec2<f32>(s.scale.x, s.offset.x);
            weight_scales[TILE_ROWS + lane] = vec2<f32>(s.scale.y, s.offset.y);
#else
            let w = decode_group(weight_group + g);
#unroll k 8
            weight_tile[lane * 8u + ({k}u ^ weight_mix)] = w[{k}];
#end
#endif
        }
        if works {
#ifdef INT8
#unroll k 4
            let x{k} = input[input_at + g * 8u + {k}u];
#end
            let most = max(max(largest_of(x0), largest_of(x1)), max(largest_of(x2), largest_of(x3)));
            let factor = int8_factor(most);
            let bytes = vec4<u32>(int8_bytes(x0, factor), int8_bytes(x1, factor), int8_bytes(x2, factor), int8_bytes(x3, factor));
            let sum = int8_sum(bytes.x) + int8_sum(bytes.y) + int8_sum(bytes.z) + int8_sum(bytes.w);
            let scale = int8_scale(most);
            input_tile[input_half * TILE_TOKENS + lane / 2u] = bytes;
            input_scales[input_half * TILE_TOKENS + lane / 2u] = vec2<f32>(scale, scale * f32(sum));
#else
#unroll t 4
            input_tile[(my_token + {t}u) * 8u + (my_vector ^ input_mix)] = input[input_at{t} + g * 8u];
#end
#endif
        }
        workgroupBarrier();
        if works {
#ifdef INT8
#unroll half 2
            {
#unroll t 4
                let x{t} = input_tile[{half}u * TILE_TOKENS + my_token + {t}u];
                let x_scales{t} = input_scales[{half}u * TILE_TOKENS + my_token + {t}u];
#end
#unroll r 8
                {
                    let w = weight_tile[{half}u * TILE_ROWS + my_row + 8u * {r}u];
                    let s = weight_scales[{half}u * TILE_ROWS + my_row + 8u * {r}u];
#unroll t 4
                    let dot{t} = int8_dot(w.x, x{t}.x) + int8_dot(w.y, x{t}.y) + int8_dot(w.z, x{t}.z) + int8_dot(w.w, x{t}.w);
                    sums{r}[{t}] = fma(f32(dot{t}), s.x * x_scales{t}.x, fma(s.y, x_scales{t}.y, sums{r}[{t}]));
#end
                }
#end
            }
#end
#else
            for (var k = 0u; k < 8u; k++) {
                let weight_at = my_row * 8u + (k ^ weight_mix);
                let input_at = my_token * 8u + (k ^ input_mix);
#unroll t 4
                let x{t} = input_tile[input_at + {t}u * 8u];
#end
#unroll r 8
                {
                    let w = weight_tile[weight_at + {r}u * 64u];
#unroll t 4
                    sums{r}[{t}] = fma(w.w, x{t}.w, fma(w.z, x{t}.z, fma(w.y, x{t}.y, fma(w.x, x{t}.x, sums{r}[{t}]))));
#end
                }
#end
            }
#endif
        }
    }
    // Of this lane's rows those that there are: a loop, not eight copies of what follows, each with its loads and stores.
    let rows_here = min(8u, (params.rows - first_row + 7u - my_row) / 8u);
    for (var turn = 0u; turn < rows_here; turn++) {
        let row = first_row + my_row + 8u * turn;
        var sums = sums0;
#unroll r 8
        sums = select(sums, sums{r}, turn == {r}u);
#end
#unroll t 4
        if my_token + {t}u < tile_tokens {
            put(output_row(tile_at, my_token + {t}u) * params.out_stride + params.out_offset + row, finish(sums[{t}], bias_row + row));
        }
#end
    }
}
