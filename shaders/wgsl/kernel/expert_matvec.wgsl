// Products of few tokens with the experts that each chose: each slot's weights are read for it alone.
//
// Shapes: weights [experts * expert_rows, 32 * groups] in a block format; routes [tokens, used, 2]: an expert's number
// and its weight. Without DOWN: input [tokens, 32 * groups], out [slots, out_stride] from column out_offset on; with
// GATED activation(gate) * up. With DOWN: input [slots, 32 * groups], out [tokens, out_stride] gets the sum over the
// token's slots of weight * (product + bias) added.
// With HEADS there are no routes: slot s of a token is the work of expert s.
// Threads: a workgroup of LANES computes ROWS rows (x and z together) of a slot, or with DOWN of a token (y); its lanes
// stride over the groups of a row, then their sums are added.
#define EXPERTS
#import shared/product

#ifdef HEADS
fn expert_of(slot: u32) -> u32 {
    return slot % params.used - params.first_expert;
}
#else
@group(0) @binding(7) var<storage, read> routes: array<u32>;

// The expert's number among those that the matrix holds.
fn expert_of(slot: u32) -> u32 {
    return routes[2u * slot] - params.first_expert;
}
#endif

override LANES: u32 = 32u;
#import shared/reduce

fn sum_of(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
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
    let first = (workgroup.z * workgroups.x + workgroup.x) * {ROWS}u;
    // Uniform: the whole workgroup leaves.
    if first >= params.rows {
        return;
    }
    let groups = params.groups;
    let last = params.rows - 1u;
#ifdef DOWN
    let first_slot = workgroup.y * params.used;
    let slots = params.used;
#else
    let first_slot = workgroup.y;
    let slots = 1u;
    // Uniform: the whole workgroup leaves where the matrix does not hold the expert.
    if expert_of(first_slot) >= params.experts {
        return;
    }
#endif
#unroll m MATRICES
#unroll r ROWS
    var sum_{m}_{r} = 0.0;
    var bias_{m}_{r} = 0.0;
#end
#end
    for (var slot = first_slot; slot < first_slot + slots; slot++) {
        let expert = expert_of(slot);
        if expert >= params.experts {
            continue;
        }
#ifdef DOWN
        let weight = bitcast<f32>(routes[2u * slot + 1u]);
#else
        let weight = 1.0;
#endif
        let x_at = slot / params.slots_per_row * groups;
#unroll m MATRICES
#unroll r ROWS
        let of_expert_{m}_{r} = expert * params.expert_rows + {m}u * params.up_rows + min(first + {r}u, last);
        let row_{m}_{r} = (params.first_row + of_expert_{m}_{r}) * groups;
#ifdef BIAS
        bias_{m}_{r} = fma(weight, bias[params.first_bias + of_expert_{m}_{r}], bias_{m}_{r});
#endif
#end
#end
        for (var g = lane; g < groups; g += LANES) {
#unroll k 8
            let x{k} = input[(x_at + g) * 8u + {k}u] * weight;
#end
#ifdef CODES
            let x_sum = vec2<f32>(sum_of((x0 + x1) + (x2 + x3)), sum_of((x4 + x5) + (x6 + x7)));
#endif
#unroll m MATRICES
#unroll r ROWS
            {
#ifdef CODES
                let s = scales(row_{m}_{r} + g);
                let c = codes(row_{m}_{r} + g);
#unroll k 4
                let w{k} = codes_to_floats(c.low[{k}]);
                let v{k} = codes_to_floats(c.high[{k}]);
#end
                let low = fma(w0, x0, w1 * x1) + fma(w2, x2, w3 * x3);
                let high = fma(v0, x4, v1 * x5) + fma(v2, x6, v3 * x7);
                sum_{m}_{r} += s.scale.x * sum_of(low) + s.scale.y * sum_of(high) + dot(s.offset, x_sum);
#else
                let w = decode_group(row_{m}_{r} + g);
                let low = fma(w[0], x0, w[1] * x1) + fma(w[2], x2, w[3] * x3);
                let high = fma(w[4], x4, w[5] * x5) + fma(w[6], x6, w[7] * x7);
                sum_{m}_{r} += sum_of(low + high);
#endif
            }
#end
#end
        }
    }
#unroll r ROWS
    {
        let sum = workgroup_sum(sum_0_{r}, lane, subgroup, subgroups, subgroup_lane);
        var y = (sum * params.scale + bias_0_{r}) * params.factor;
#ifdef GATED
        let up = workgroup_sum(sum_1_{r}, lane, subgroup, subgroups, subgroup_lane);
        y = gate_times_up(y, (up * params.scale + bias_1_{r}) * params.factor);
#endif
        if lane == {r}u && first + {r}u <= last {
            put(workgroup.y * params.out_stride + params.out_offset + first + {r}u, y);
        }
    }
#end
}
