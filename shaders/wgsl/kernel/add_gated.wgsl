// out += factor * activation(gate) * input, one gate a row.
//
// Shapes: gate [tokens, 1] f32; input, out [tokens, 4 * width4] f32.
// Threads: x over vec4s of the width, y over tokens.
#import shared/activation

struct Params {
    width4: u32,
    factor: f32,
}

@group(0) @binding(0) var<storage, read> gate: array<f32>;
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = workgroup.x * LANES + lane;
    if column >= params.width4 {
        return;
    }
    let at = workgroup.y * params.width4 + column;
    out[at] += params.factor * activate(gate[workgroup.y]) * input[at];
}
