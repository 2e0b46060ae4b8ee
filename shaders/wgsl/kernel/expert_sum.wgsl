// out = factor * sum over a token's pairs of weight * products; with ADD that is added to it.
//
// Shapes: products [tokens, used, 4 * width4] f32; routes [tokens, used, 2]: an expert's number and its weight; out
// [tokens, 4 * width4] f32.
// Threads: x over vec4s of the width, y over tokens.

struct Params {
    width4: u32,
    used: u32,
    factor: f32,
}

@group(0) @binding(0) var<storage, read> products: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> routes: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = workgroup.x * LANES + lane;
    if column >= params.width4 {
        return;
    }
    var sum = vec4<f32>(0.0);
    for (var s = 0u; s < params.used; s++) {
        let pair = workgroup.y * params.used + s;
        sum = fma(vec4<f32>(bitcast<f32>(routes[2u * pair + 1u])), products[pair * params.width4 + column], sum);
    }
    sum *= params.factor;
#ifdef ADD
    sum += out[workgroup.y * params.width4 + column];
#endif
    out[workgroup.y * params.width4 + column] = sum;
}
