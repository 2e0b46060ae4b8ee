// Norms parts of each row in place: x factor / sqrt(mean(x^2) + epsilon); with LAYER x less its mean; with L2 the sum in
// place of the mean. With FACTORS times a factor a column.
//
// Shapes: values [rows, row] f32; part p is `width` columns from column offset + p * part_stride on; factors [width] for
// every part, or [parts, width].
// Threads: a workgroup of LANES a part (x) of a row (y). A lane keeps COLUMNS of its columns, LANES apart, so that a part
// is read once; with RAGGED the last of them may lie behind the part's end.

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
#define MANY_SUBGROUPS
#import shared/reduce

// Column `i` of a part, within it.
fn inside(i: u32) -> u32 {
#ifdef RAGGED
    return min(i, params.width - 1u);
#else
    return i;
#endif
}

// `x` if column `i` belongs to the part, else 0.
fn or_zero(i: u32, x: f32) -> f32 {
#ifdef RAGGED
    return select(0.0, x, i < params.width);
#else
    return x;
#endif
}

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
    // All that is read is asked for at a time.
#unroll c COLUMNS
    let i{c} = lane + {c}u * LANES;
    var x{c} = or_zero(i{c}, values[at + inside(i{c})]);
#end
#ifdef FACTORS
#unroll c COLUMNS
    let factor{c} = factors[workgroup.x * params.factor_stride + inside(i{c})];
#end
#endif
#ifdef LAYER
    var sum = 0.0;
#unroll c COLUMNS
    sum += x{c};
#end
    let mean = workgroup_sum(sum, lane, subgroup, subgroups, subgroup_lane) / count;
#unroll c COLUMNS
    x{c} = or_zero(i{c}, x{c} - mean);
#end
#endif
    var squares = 0.0;
#unroll c COLUMNS
    squares += x{c} * x{c};
#ifdef FACTORS
    // Here, not behind the sum: compilers move a load to where it is used, and would wait for memory a second time.
    x{c} *= factor{c};
#endif
#end
    let all = workgroup_sum(squares, lane, subgroup, subgroups, subgroup_lane);
#ifdef L2
    let scale = 1.0 / sqrt(all + params.epsilon);
#else
    let scale = 1.0 / sqrt(all / count + params.epsilon);
#endif
#unroll c COLUMNS
#ifdef RAGGED
    if i{c} < params.width {
        values[at + i{c}] = x{c} * scale;
    }
#else
    values[at + i{c}] = x{c} * scale;
#endif
#end
}
