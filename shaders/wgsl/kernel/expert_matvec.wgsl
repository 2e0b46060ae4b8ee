// Products of few tokens with the experts that each chose: each pair's weights are read for it alone.
//
// Shapes: weights [experts * expert_rows, 32 * groups] in a block format; routes [tokens, used, 2]: an expert's number
// and its weight. Without DOWN: input [tokens, 32 * groups], out [pairs, out_stride] from column out_offset on; with
// GATED activation(gate) * up. With DOWN: input [pairs, 32 * groups], out [tokens, out_stride] gets the sum over the
// token's pairs of weight * (product + bias), with ADD added.
// With HEADS there are no routes: pair s of a token is the work of expert s.
// Threads: a workgroup of LANES computes ROWS rows (x and z together) of a pair, or with DOWN of a token (y); its lanes
// share the groups of a row (shared/row_products), then their sums are added. TOKENS is 1.
#define EXPERTS
#ifdef QUADS
#define SPLIT
#endif
#ifdef SPLIT
#define PREPARES
#endif
#import shared/product

#ifdef HEADS
fn expert_of(pair: u32) -> u32 {
    return pair % params.used - params.first_expert;
}
#else
@group(0) @binding(7) var<storage, read> routes: array<u32>;

// The expert's number among those that the matrix holds.
fn expert_of(pair: u32) -> u32 {
    return routes[2u * pair] - params.first_expert;
}
#endif

override LANES: u32 = 32u;
#import shared/row_partials

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
#ifdef PREPARED
    prepare(lane, LANES);
#endif
    let first_row = (workgroup.z * workgroups.x + workgroup.x) * {ROWS}u;
    // Uniform: the whole workgroup leaves.
    if first_row >= params.rows {
        return;
    }
    let groups = params.groups;
    let last = params.rows - 1u;
#ifdef DOWN
    let first_pair = workgroup.y * params.used;
    let pairs = params.used;
#else
    let first_pair = workgroup.y;
    let pairs = 1u;
    // Uniform: the whole workgroup leaves where the matrix does not hold the expert.
    if expert_of(first_pair) >= params.experts {
        return;
    }
#endif
#unroll m MATRICES
#unroll r ROWS
    var total_{m}_{r} = 0.0;
    var bias_{m}_{r} = 0.0;
#end
#end
    for (var pair = first_pair; pair < first_pair + pairs; pair++) {
        let expert = expert_of(pair);
        if expert >= params.experts {
            continue;
        }
        let row_of_x0 = pair / params.pairs_per_row * groups;
#unroll m MATRICES
#unroll r ROWS
        let of_expert_{m}_{r} = expert * params.expert_rows + {m}u * params.up_rows + min(first_row + {r}u, last);
        let row_{m}_{r} = (params.first_row + of_expert_{m}_{r}) * groups;
        var sum_{m}_{r}_0 = 0.0;
#end
#end
#import shared/row_products
#ifdef DOWN
        let weight = bitcast<f32>(routes[2u * pair + 1u]);
#else
        let weight = 1.0;
#endif
#unroll m MATRICES
#unroll r ROWS
        total_{m}_{r} = fma(weight, sum_{m}_{r}_0, total_{m}_{r});
#ifdef BIAS
        bias_{m}_{r} = fma(weight, bias[params.first_bias + of_expert_{m}_{r}], bias_{m}_{r});
#endif
#end
#end
    }
#unroll m MATRICES
#unroll r ROWS
    var sum_{m}_{r}_0 = total_{m}_{r};
#end
#end
#import shared/row_sums
#unroll r ROWS
    {
        var y = (sum_0_{r}_0 * (1.0 / SUM_UNIT) * params.scale + bias_0_{r}) * params.factor;
#ifdef GATED
        y = gate_times_up(y, (sum_1_{r}_0 * (1.0 / SUM_UNIT) * params.scale + bias_1_{r}) * params.factor);
#endif
        if lane == {r}u && first_row + {r}u <= last {
            put(workgroup.y * params.out_stride + params.out_offset + first_row + {r}u, y);
        }
    }
#end
}
