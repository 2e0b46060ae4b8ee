#ifdef HALVES
enable f16;
#endif
// RMS norm of each row: y = x w / sqrt(mean(x^2) + epsilon); with LAYER x less its mean, with BIAS plus a bias. Stored, or
// with ADD added to `out`. With GATHER
// row r of `out` comes from the input's row that `outputs` says. `count` columns are numbers, those behind them zeros; with PADDED
// they are kept out of the squares that LAYER sums up.
// With HALVES the rows go, as halves, where products with cooperative matrices read them, as round_halves puts them.
//
// Shapes: input, out [rows, 4 * width4] f32; weight, bias [4 * width4] f32.
// Threads: a workgroup of LANES a row. A lane keeps VECTORS vec4s of it, LANES apart, so that a row is read once, all of
// it at a time; with RAGGED the last of them may lie behind the row's end.

struct Params {
    width4: u32,
    epsilon: f32,
    // The columns that are numbers.
    count: u32,
    // The last row of `input` that there is room for.
    last_row: u32,
}

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
#ifdef HALVES
@group(0) @binding(2) var<storage, read_write> halves: array<vec4<f16>>;
@group(0) @binding(6) var<storage, read_write> largest: array<f32>;
#else
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
#endif
@group(0) @binding(3) var<uniform> params: Params;
#ifdef GATHER
@group(0) @binding(4) var<storage, read> outputs: array<u32>;
#endif

#ifdef BIAS
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
#endif

override LANES: u32 = 64u;
#define MANY_SUBGROUPS
#import shared/reduce
#ifdef HALVES
#import shared/largest
#endif

#import shared/inside

// `x` if vector `i` belongs to the row, else zeros.
fn or_zeros(i: u32, x: vec4<f32>) -> vec4<f32> {
#ifdef RAGGED
    return select(vec4<f32>(0.0), x, i < params.width4);
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
#ifdef GATHER
    let read_at = min(outputs[workgroup.x], params.last_row) * params.width4;
#else
    let read_at = workgroup.x * params.width4;
#endif
    let to = workgroup.x * params.width4;
    // All that is read is asked for at a time.
#unroll v VECTORS
    let i{v} = lane + {v}u * LANES;
    var x{v} = or_zeros(i{v}, input[read_at + inside(i{v})]);
#end
#unroll v VECTORS
    let w{v} = weight[inside(i{v})];
#ifdef ADD
    let before{v} = out[to + inside(i{v})];
#endif
#end
#ifdef LAYER
    var total = vec4<f32>(0.0);
#unroll v VECTORS
    total += x{v};
#end
    let of_lane = (total.x + total.y) + (total.z + total.w);
    let mean = workgroup_sum(of_lane, lane, subgroup, subgroups, subgroup_lane) / f32(params.count);
#unroll v VECTORS
    x{v} = or_zeros(i{v}, x{v} - mean);
#end
#endif
    var squares = 0.0;
#unroll v VECTORS
    {
#ifdef PADDED
        let columns = vec4<u32>(4u * i{v}) + vec4<u32>(0u, 1u, 2u, 3u);
        let x = select(vec4<f32>(0.0), x{v}, columns < vec4<u32>(params.count));
        squares += dot(x, x);
#else
        squares += dot(x{v}, x{v});
#endif
    }
    // Here, not behind the sum: compilers move a load to where it is used, and would wait for memory a second time.
    x{v} *= w{v};
#end
    let sum = workgroup_sum(squares, lane, subgroup, subgroups, subgroup_lane);
    let scale = 1.0 / sqrt(sum / f32(params.count) + params.epsilon);
#ifdef HALVES
    var most = vec4<f32>(0.0);
#unroll v VECTORS
    x{v} *= scale;
#ifdef BIAS
    x{v} += bias[inside(i{v})];
#endif
    most = max(most, abs(or_zeros(i{v}, x{v})));
#end
    let of_row = workgroup_largest(max(max(most.x, most.y), max(most.z, most.w)), lane);
    if lane == 0u {
        largest[workgroup.x] = of_row;
    }
    let factor = 1.0 / of_row;
#unroll v VECTORS
#ifdef RAGGED
    if i{v} < params.width4 {
        halves[to + i{v}] = vec4<f16>(x{v} * factor);
    }
#else
    halves[to + i{v}] = vec4<f16>(x{v} * factor);
#endif
#end
#else
#unroll v VECTORS
    {
        var y = x{v} * scale;
#ifdef BIAS
        y += bias[inside(i{v})];
#endif
#ifdef ADD
        y += before{v};
#endif
#ifdef RAGGED
        if i{v} < params.width4 {
            out[to + i{v}] = y;
        }
#else
        out[to + i{v}] = y;
#endif
    }
#end
#endif
}
