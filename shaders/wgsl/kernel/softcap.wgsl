// x = cap * tanh(x / cap), in place; with SCALE x = cap * x.
//
// Shapes: values [rows, width] f32.
// Threads: x over the width, y over rows.

struct Params {
    width: u32,
    cap: f32,
}

@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@group(0) @binding(1) var<uniform> params: Params;

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // A vocabulary may need more workgroups than a dimension has: each takes every so many.
    for (var column = workgroup.x * LANES + lane; column < params.width; column += workgroups.x * LANES) {
        let at = workgroup.y * params.width + column;
#ifdef SCALE
        // By 0 it is made 0, whatever was there.
        values[at] = select(params.cap * values[at], 0.0, params.cap == 0.0);
#else
        // Clamped: some drivers compute tanh as (e^2x - 1) / (e^2x + 1) and overflow.
        values[at] = params.cap * tanh(clamp(values[at] / params.cap, -15.0, 15.0));
#endif
    }
}
