// y = W x for few tokens: each weight is read once per token, so that reading it is the cost.
//
// Shapes: weights [rows, 32 * groups] in a block format (GATED: 2 * rows, gate before up); input [tokens,
// 32 * groups] f32; out [tokens, out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added; with GATED activation(gate) * up.
// Threads: a workgroup of LANES computes ROWS rows of one token (z); its lanes stride over the groups of a
// row, each decoding 32 weights of every row against the same 32 inputs; then the lanes' sums are added.
// Workgroups: x and y together over the rows.
#import shared/weights

struct Params {
    rows: u32,
    groups: u32,
    out_stride: u32,
    out_offset: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
}

@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;
#ifdef BIAS
// Of all rows of the op, so that this buffer's first is at out_offset.
@group(0) @binding(4) var<storage, read> bias: array<f32>;
#endif

#import format
#import shared/activation

override LANES: u32 = 32u;
// At most 8.
override ROWS: u32 = 4u;
#import shared/reduce

fn dot_group(w: Group, x: Group) -> f32 {
    var sum = w[0] * x[0];
    sum = fma(w[1], x[1], sum);
    sum = fma(w[2], x[2], sum);
    sum = fma(w[3], x[3], sum);
    sum = fma(w[4], x[4], sum);
    sum = fma(w[5], x[5], sum);
    sum = fma(w[6], x[6], sum);
    sum = fma(w[7], x[7], sum);
    return (sum.x + sum.y) + (sum.z + sum.w);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
#ifdef SUBGROUP
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#endif
) {
#ifndef SUBGROUP
    let subgroup = 0u;
    let subgroups = 1u;
    let subgroup_lane = 0u;
#endif
    let first = (workgroup.y * workgroups.x + workgroup.x) * ROWS;
    // Uniform: the whole workgroup leaves.
    if first >= params.rows {
        return;
    }
    let groups = params.groups;
    let last = params.rows - 1u;
    let token = workgroup.z;
    var sums: array<f32, 8>;
#ifdef GATED
    var up_sums: array<f32, 8>;
#endif
    for (var g = lane; g < groups; g += LANES) {
        let at = (token * groups + g) * 8u;
        let x = Group(
            input[at], input[at + 1u], input[at + 2u], input[at + 3u],
            input[at + 4u], input[at + 5u], input[at + 6u], input[at + 7u],
        );
        for (var r = 0u; r < ROWS; r++) {
            let row = min(first + r, last);
            sums[r] += dot_group(decode_group(row * groups + g), x);
#ifdef GATED
            up_sums[r] += dot_group(decode_group((row + params.rows) * groups + g), x);
#endif
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        let row = first + r;
        var y = workgroup_sum(sums[r], lane, subgroup, subgroups, subgroup_lane);
#ifdef BIAS
        y += bias[params.out_offset + min(row, last)];
#endif
#ifdef GATED
        var up = workgroup_sum(up_sums[r], lane, subgroup, subgroups, subgroup_lane);
#ifdef BIAS
        up += bias[params.rows + min(row, last)];
#endif
        y = activate(y) * up;
#endif
        if lane == 0u && row <= last {
            let to = token * params.out_stride + params.out_offset + row;
#ifdef ADD
            out[to] += y;
#else
            out[to] = y;
#endif
        }
    }
}
