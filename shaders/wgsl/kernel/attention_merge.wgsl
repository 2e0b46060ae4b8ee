// Merges what workgroups made of parts of the cells: out = sum over parts of e^(m - max) * sums / sum over
// parts of e^(m - max) * l. With SINKS each head has one more logit in maximum and sum.
//
// Shapes: sums [tokens, heads, parts, value_length] f32; maxima_and_sums [tokens, heads, parts] of m and l;
// out [tokens, heads * value_length] f32. Of the PARTS parts, at most 64, those with l = 0 had no cells: they come last,
// and their sums are not read.
// Threads: a workgroup of LANES a head (x) of a token (y), lane = group * VECTORS + vector of four elements; a group adds
// up every groups-th part, and the first group the groups.

struct Params {
    heads: u32,
    value_length4: u32,
}

@group(0) @binding(0) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> maxima_and_sums: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;
#ifdef SINKS
@group(0) @binding(4) var<storage, read> sinks: array<f32>;
#endif

// At least 64.
override LANES: u32 = 256u;
// The power of two up to LANES that covers value_length4.
override VECTORS: u32 = 32u;

var<workgroup> maximum_of: array<f32, {PARTS}>;
var<workgroup> total_of: array<f32, {PARTS}>;
// What each part's sums are worth.
var<workgroup> factor_of: array<f32, {PARTS}>;
var<workgroup> group_sums: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = workgroup.y * params.heads + workgroup.x;
    let first = head * {PARTS}u;
    if lane < {PARTS}u {
        let part = maxima_and_sums[first + lane];
        maximum_of[lane] = part.x;
        total_of[lane] = part.y;
    }
    workgroupBarrier();
#ifdef SINKS
    var most = sinks[workgroup.x];
#else
    var most = -1e30;
#endif
    for (var p = 0u; p < {PARTS}u; p++) {
        most = max(most, maximum_of[p]);
    }
    if lane < {PARTS}u {
        factor_of[lane] = exp(maximum_of[lane] - most);
    }
    workgroupBarrier();
#ifdef SINKS
    var total = exp(sinks[workgroup.x] - most);
#else
    var total = 0.0;
#endif
    var used = 0u;
    for (var p = 0u; p < {PARTS}u; p++) {
        total += factor_of[p] * total_of[p];
        used += u32(total_of[p] > 0.0);
    }
    let vector = lane % VECTORS;
    let groups = LANES / VECTORS;
    for (var first_vector = 0u; first_vector < params.value_length4; first_vector += VECTORS) {
        let v = min(first_vector + vector, params.value_length4 - 1u);
        var sum = vec4<f32>(0.0);
        for (var p = lane / VECTORS; p < used; p += groups * 4u) {
#unroll i 4
            let p_{i} = p + {i}u * groups;
            let part_{i} = sums[(first + min(p_{i}, used - 1u)) * params.value_length4 + v];
#end
#unroll i 4
            sum = fma(vec4<f32>(select(0.0, factor_of[min(p_{i}, {PARTS}u - 1u)], p_{i} < used)), part_{i}, sum);
#end
        }
        workgroupBarrier();
        group_sums[lane] = sum;
        workgroupBarrier();
        if lane < VECTORS && first_vector + vector < params.value_length4 {
            for (var g = 1u; g < groups; g++) {
                sum += group_sums[lane + g * VECTORS];
            }
            out[head * params.value_length4 + v] = sum / total;
        }
    }
}
