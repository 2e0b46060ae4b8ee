// Sum over a workgroup of LANES invocations, for any subgroup size. Every invocation must call it; all
// get the sum. MANY_SUBGROUPS: of kernels whose workgroups are usually more than four.

#ifdef SUBGROUP
var<workgroup> reduce_partials: array<f32, LANES>;

fn workgroup_sum(value: f32, lane: u32, subgroup: u32, subgroups: u32, subgroup_lane: u32) -> f32 {
    let part = subgroupAdd(value);
    if subgroups == 1u {
        return part;
    }
    workgroupBarrier();
    if subgroup_lane == 0u {
        reduce_partials[subgroup] = part;
    }
    workgroupBarrier();
    var sum = 0.0;
#ifdef MANY_SUBGROUPS
    // Four at a time, so that one load brings them. Behind the last partial lies what nobody wrote, within LANES all the same.
    for (var i = 0u; i < subgroups; i += 4u) {
#unroll k 4
        sum += select(0.0, reduce_partials[i + {k}u], i + {k}u < subgroups);
#end
    }
#else
    for (var i = 0u; i < subgroups; i++) {
        sum += reduce_partials[i];
    }
#endif
    return sum;
}
#else
var<workgroup> reduce_partials: array<f32, LANES>;

fn workgroup_sum(value: f32, lane: u32, subgroup: u32, subgroups: u32, subgroup_lane: u32) -> f32 {
    workgroupBarrier();
    reduce_partials[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half = half / 2u) {
        if lane < half {
            reduce_partials[lane] += reduce_partials[lane + half];
        }
        workgroupBarrier();
    }
    return reduce_partials[0];
}
#endif
