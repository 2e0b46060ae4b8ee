// Norms parts of each row in place: x factor / sqrt(mean(x^2) + epsilon); with LAYER x less its mean; with L2 the sum in
// place of the mean. With FACTORS times a factor a column.
//
// Shapes: values [rows, row] f32; part p is `width` columns from column offset + p * part_stride on; factors [width] for
// every part, or [parts, width].
// Threads: a workgroup of LANES a part (x) of a row (y), striding over its columns.

struct Params {
    row: u32,
    part_stride: u32,
    offset: u32,
    width: u32,
    // From one part's factors to the next part's: 0 or the width.
    factor_stride: u32,
    epsilon: f32,
    // The columns of a part that are numbers, the others being zeros.
    count: u32,
}

@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@group(0) @binding(1) var<uniform> params: Params;
#ifdef FACTORS
@group(0) @binding(2) var<storage, read> factors: array<f32>;
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
    let at = workgroup.y * params.row + params.offset + workgroup.x * params.part_stride;
    let count = f32(params.count);
#ifdef LAYER
    var sum = 0.0;
    for (var i = lane; i < params.width; i += LANES) {
        sum += values[at + i];
    }
    let mean = workgroup_sum(sum, lane, subgroup, subgroups, subgroup_lane) / count;
#else
    let mean = 0.0;
#endif
    var squares = 0.0;
    for (var i = lane; i < params.width; i += LANES) {
        let x = values[at + i] - mean;
        squares += x * x;
    }
    let all = workgroup_sum(squares, lane, subgroup, subgroups, subgroup_lane);
#ifdef L2
    let scale = 1.0 / sqrt(all + params.epsilon);
#else
    let scale = 1.0 / sqrt(all / count + params.epsilon);
#endif
    for (var i = lane; i < params.width; i += LANES) {
        let y = (values[at + i] - mean) * scale;
#ifdef FACTORS
        values[at + i] = y * factors[workgroup.x * params.factor_stride + i];
#else
        values[at + i] = y;
#endif
    }
}
