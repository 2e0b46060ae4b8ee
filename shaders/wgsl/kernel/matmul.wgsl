// Y = X W^T for many tokens, tile by tile: a tile's weights are decoded once into workgroup memory and used
// for 32 tokens.
//
// Shapes: weights [rows, 32 * groups] in a block format; input [tokens, 32 * groups] f32; out [tokens,
// out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added.
// Threads: 128 a workgroup, which computes 64 rows (x) for 32 tokens (y); each thread 4 rows, 16 apart, for
// 4 tokens, 8 apart. A step of the loop takes one group of 32 along the row.
#import shared/weights
#import shared/step

struct Params {
    rows: u32,
    groups: u32,
    out_stride: u32,
    out_offset: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
    // 1 if the input has a row per output instead of one per token.
    per_output: u32,
}

@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;
@group(0) @binding(4) var<uniform> step: Step;
#ifdef BIAS
// Of all rows of the op, so that this buffer's first is at out_offset.
@group(0) @binding(5) var<storage, read> bias: array<f32>;
#endif

#import format

const TILE_ROWS: u32 = 64u;
const TILE_TOKENS: u32 = 32u;
const LANES: u32 = 128u;
// vec4s from one row of a tile to the next: 8 and one of padding, against bank conflicts.
const STRIDE: u32 = 9u;

var<workgroup> weight_tile: array<vec4<f32>, 576>;
var<workgroup> input_tile: array<vec4<f32>, 288>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let groups = params.groups;
    let first_row = workgroup.x * TILE_ROWS;
    let first_token = workgroup.y * TILE_TOKENS;
    let token_count = select(step.tokens, step.outputs, params.per_output == 1u);
    let my_row = lane % 16u;
    let my_token = lane / 16u;
    // sums[r][t]: row my_row + 16 r, token my_token + 8 t.
    var sums: array<vec4<f32>, 4>;
    for (var g = 0u; g < groups; g++) {
        workgroupBarrier();
        if lane < TILE_ROWS {
            let row = min(first_row + lane, params.rows - 1u);
            let w = decode_group(row * groups + g);
            let to = lane * STRIDE;
            weight_tile[to] = w[0];
            weight_tile[to + 1u] = w[1];
            weight_tile[to + 2u] = w[2];
            weight_tile[to + 3u] = w[3];
            weight_tile[to + 4u] = w[4];
            weight_tile[to + 5u] = w[5];
            weight_tile[to + 6u] = w[6];
            weight_tile[to + 7u] = w[7];
        }
        for (var i = lane; i < TILE_TOKENS * 8u; i += LANES) {
            let token = min(first_token + i / 8u, token_count - 1u);
            input_tile[(i / 8u) * STRIDE + i % 8u] = input[(token * groups + g) * 8u + i % 8u];
        }
        workgroupBarrier();
        for (var k = 0u; k < 8u; k++) {
            let x0 = input_tile[my_token * STRIDE + k];
            let x1 = input_tile[(my_token + 8u) * STRIDE + k];
            let x2 = input_tile[(my_token + 16u) * STRIDE + k];
            let x3 = input_tile[(my_token + 24u) * STRIDE + k];
            for (var r = 0u; r < 4u; r++) {
                let w = weight_tile[(my_row + 16u * r) * STRIDE + k];
                sums[r] += vec4<f32>(dot(w, x0), dot(w, x1), dot(w, x2), dot(w, x3));
            }
        }
    }
    for (var r = 0u; r < 4u; r++) {
        let row = first_row + my_row + 16u * r;
        for (var t = 0u; t < 4u; t++) {
            let token = first_token + my_token + 8u * t;
            if row < params.rows && token < token_count {
                let to = token * params.out_stride + params.out_offset + row;
                var y = sums[r][t];
#ifdef BIAS
                y += bias[params.out_offset + row];
#endif
#ifdef ADD
                out[to] += y;
#else
                out[to] = y;
#endif
            }
        }
    }
}
