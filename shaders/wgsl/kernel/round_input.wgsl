// Inputs of products rounded to signed bytes, once for all their rows: each half of a group (16) with a scale of its own,
// x = scale * byte.
//
// Shapes: input [rows, 32 * groups] f32; bytes [rows, 8 * groups] words of four; scales [rows, groups, 2] f32.
// With NORM the input is normed on the way: x norm_weight / sqrt(mean(x^2) + epsilon).
// Threads: a workgroup of LANES a row; a lane takes half a group at a time.
#import shared/int8

struct Params {
    groups: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> bytes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;
#ifdef NORM
@group(0) @binding(4) var<storage, read> norm_weight: array<vec4<f32>>;
#endif

override LANES: u32 = 64u;
#define MANY_SUBGROUPS
#import shared/reduce

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
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
    let halves = params.groups * 2u;
    let first = workgroup.x * halves;
#ifdef NORM
    var squares = 0.0;
    for (var i = lane; i < halves * 4u; i += LANES) {
        let x = input[first * 4u + i];
        squares += dot(x, x);
    }
    let all_squares = workgroup_sum(squares, lane, subgroup, subgroups, subgroup_lane);
    let norm = 1.0 / sqrt(all_squares / f32(halves * 16u) + params.epsilon);
#endif
    for (var i = lane; i < halves; i += LANES) {
#unroll k 4
#ifdef NORM
        let x{k} = input[(first + i) * 4u + {k}u] * norm_weight[i * 4u + {k}u] * norm;
#else
        let x{k} = input[(first + i) * 4u + {k}u];
#endif
#end
        let most = max(max(largest_of(x0), largest_of(x1)), max(largest_of(x2), largest_of(x3)));
        let factor = int8_factor(most);
        bytes[first + i] = vec4<u32>(int8_bytes(x0, factor), int8_bytes(x1, factor), int8_bytes(x2, factor), int8_bytes(x3, factor));
        scales[first + i] = int8_scale(most);
    }
}
