// Reads all of `input` once and keeps nothing: the most that a kernel can read in its time. With COPY what is read is
// written to `out`.
//
// Shapes: input [vectors] u32 by fours, vectors a multiple of 4 * LANES * workgroups; out the same with COPY, else [1] u32.
// Threads: x over vec4s, striding over all; each lane has four loads under way at once.

struct Params {
    vectors: u32,
}

@group(0) @binding(0) var<storage, read> input: array<vec4<u32>>;
#ifdef COPY
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;
#else
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
#endif
@group(0) @binding(2) var<uniform> params: Params;

override LANES: u32 = 256u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let stride = workgroups.x * LANES;
    var all = vec4<u32>(0u);
    for (var i = workgroup.x * LANES + lane; i < params.vectors; i += 4u * stride) {
        let a = input[i];
        let b = input[i + stride];
        let c = input[i + 2u * stride];
        let d = input[i + 3u * stride];
#ifdef COPY
        out[i] = a;
        out[i + stride] = b;
        out[i + 2u * stride] = c;
        out[i + 3u * stride] = d;
#else
        all ^= (a ^ b) ^ (c ^ d);
#endif
    }
#ifndef COPY
    // Next to never true, but no compiler can know.
    if (all.x & all.y & all.z & all.w) == 0xfffffffeu {
        out[0] = all.x;
    }
#endif
}
