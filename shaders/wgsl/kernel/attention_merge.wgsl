// Merges what workgroups made of parts of the cells: out = sum over parts of e^(m - max) * sums / sum over
// parts of e^(m - max) * l. With SINKS each head has one more logit in maximum and sum.
//
// Shapes: sums [tokens, heads, parts, value_length] f32; maxima_and_sums [tokens, heads, parts] of m and l;
// out [tokens, heads * value_length] f32.
// Threads: a workgroup of 64 a head (x) of a token (y), a lane every 64th vector of the head.

struct Params {
    heads: u32,
    value_length4: u32,
    parts: u32,
}

@group(0) @binding(0) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> maxima_and_sums: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;
#ifdef SINKS
@group(0) @binding(4) var<storage, read> sinks: array<f32>;
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = workgroup.y * params.heads + workgroup.x;
    let first = head * params.parts;
#ifdef SINKS
    var most = sinks[workgroup.x];
#else
    var most = -1e30;
#endif
    for (var p = 0u; p < params.parts; p++) {
        most = max(most, maxima_and_sums[first + p].x);
    }
    var total = 0.0;
    for (var p = 0u; p < params.parts; p++) {
        let part = maxima_and_sums[first + p];
        total += exp(part.x - most) * part.y;
    }
#ifdef SINKS
    total += exp(sinks[workgroup.x] - most);
#endif
    for (var v = lane; v < params.value_length4; v += 64u) {
        var sum = vec4<f32>(0.0);
        for (var p = 0u; p < params.parts; p++) {
            let factor = exp(maxima_and_sums[first + p].x - most);
            sum = fma(vec4<f32>(factor), sums[(first + p) * params.value_length4 + v], sum);
        }
        out[head * params.value_length4 + v] = sum / total;
    }
}
