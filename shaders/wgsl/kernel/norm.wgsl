// RMS norm of each row: y = x w / sqrt(mean(x^2) + epsilon); with LAYER x less its mean, with BIAS plus a bias. Stored, or
// with ADD added to `out`. With GATHER
// row r of `out` comes from the input's row outputs[r]. `count` columns are numbers, those behind them zeros; with PADDED
// they are kept out of the squares that LAYER sums up.
//
// Shapes: input, out [rows, 4 * width4] f32; weight [4 * width4] f32.
// Threads: a workgroup of LANES a row, striding over vec4s.

struct Params {
    width4: u32,
    epsilon: f32,
    // The columns that are numbers.
    count: u32,
}

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;
#ifdef GATHER
@group(0) @binding(4) var<storage, read> outputs: array<u32>;
#endif

#ifdef BIAS
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
#endif

override LANES: u32 = 64u;
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
    let width = params.width4;
#ifdef GATHER
    let read_at = outputs[workgroup.x] * width;
#else
    let read_at = workgroup.x * width;
#endif
    let to = workgroup.x * width;
#ifdef LAYER
    var total = vec4<f32>(0.0);
    for (var i = lane; i < width; i += LANES) {
        total += input[read_at + i];
    }
    let of_lane = (total.x + total.y) + (total.z + total.w);
    let mean = workgroup_sum(of_lane, lane, subgroup, subgroups, subgroup_lane) / f32(params.count);
#else
    let mean = 0.0;
#endif
    var squares = 0.0;
    for (var i = lane; i < width; i += LANES) {
#ifdef PADDED
        let columns = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
        let is_number = columns < vec4<u32>(params.count);
        let x = select(vec4<f32>(0.0), input[read_at + i] - mean, is_number);
#else
        let x = input[read_at + i] - mean;
#endif
        squares += dot(x, x);
    }
    let sum = workgroup_sum(squares, lane, subgroup, subgroups, subgroup_lane);
    let scale = 1.0 / sqrt(sum / f32(params.count) + params.epsilon);
    for (var i = lane; i < width; i += LANES) {
        var y = (input[read_at + i] - mean) * scale * weight[i];
#ifdef BIAS
        y += bias[i];
#endif
#ifdef ADD
        out[to + i] += y;
#else
        out[to + i] = y;
#endif
    }
}
