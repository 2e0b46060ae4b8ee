#ifdef HALVES
enable f16;
#endif
// Multiplies and adds in registers, sixteen sums a lane that do not wait for each other: the most that a kernel can
// multiply in its time. With INT8 four signed bytes at a time, with HALVES f16.
//
// Shapes: out [LANES * workgroups] f32 or, with INT8, i32.
// Threads: x over lanes; a lane does 128 * turns multiplications with additions (with INT8 four times as many).

struct Params {
    turns: u32,
}

#ifdef INT8
@group(0) @binding(0) var<storage, read_write> out: array<i32>;
#else
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
#endif
@group(0) @binding(1) var<uniform> params: Params;

override LANES: u32 = 256u;

#ifdef INT8
// A function of its own: naga's Metal text declares a copy of each operand beside each dot4I8Packed, so that the factor of
// two in one block would be declared twice.
fn product(bytes: u32, factor: u32) -> i32 {
    return dot4I8Packed(bytes, factor);
}

fn next(x: vec4<i32>, factor: u32) -> vec4<i32> {
    let packed = bitcast<vec4<u32>>(x);
    return vec4<i32>(
        product(packed.x, factor),
        product(packed.y, factor),
        product(packed.z, factor),
        product(packed.w, factor),
    ) + x;
}
#else
#ifdef HALVES
alias Float = f16;
#else
alias Float = f32;
#endif

fn next(x: vec4<Float>, factor: Float) -> vec4<Float> {
    return fma(x, vec4<Float>(factor), vec4<Float>(0.5));
}
#endif

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = workgroup.x * LANES + lane;
#ifdef INT8
    let factor = id * 2654435761u;
    var a = vec4<i32>(i32(id)) + vec4<i32>(0, 1, 2, 3);
    var b = a + 4;
    var c = a + 8;
    var d = a + 12;
#else
    let factor = Float(0.25 + f32(id & 255u) * 0.001);
    var a = vec4<Float>(factor) + vec4<Float>(0.0, 1.0, 2.0, 3.0);
    var b = a + 4.0;
    var c = a + 8.0;
    var d = a + 12.0;
#endif
    for (var turn = 0u; turn < params.turns; turn++) {
#unroll step 8
        a = next(a, factor);
        b = next(b, factor);
        c = next(c, factor);
        d = next(d, factor);
#end
    }
    let all = (a + b) + (c + d);
#ifdef INT8
    out[id] = (all.x + all.y) + (all.z + all.w);
#else
    out[id] = f32((all.x + all.y) + (all.z + all.w));
#endif
}
