// out = activation(gate) * up, for a feed-forward network whose two products were computed first.
//
// Shapes: both [rows, 2 * width] f32, gate before up; out [rows, width] f32.
// Threads: x over the width, y over rows: tokens, or pairs of experts.
#import shared/activation

struct Params {
    width: u32,
}

@group(0) @binding(0) var<storage, read> both: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = workgroup.x * LANES + lane;
    if column >= params.width {
        return;
    }
    let at = workgroup.y * params.width * 2u + column;
    out[workgroup.y * params.width + column] = gate_times_up(both[at], both[at + params.width]);
}
