// out = activation(gate) * input, part by part; with COPY out = gate, with PLAIN no activation.
//
// Shapes: part p of a row of a value starts at column offset + p * stride. With GATE_IN_OUT or INPUT_IN_OUT those rows are
// rows of `out` itself.
// Threads: x over the columns of all parts, y over tokens.
#import shared/activation

struct Params {
    parts: u32,
    width: u32,
    // Of a row, of a part, and the first.
    gate_row: u32,
    gate_stride: u32,
    gate_offset: u32,
    input_row: u32,
    input_stride: u32,
    input_offset: u32,
    out_row: u32,
    out_stride: u32,
    out_offset: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<uniform> params: Params;
#ifndef GATE_IN_OUT
@group(0) @binding(2) var<storage, read> gate: array<f32>;
#endif
#ifndef COPY
#ifndef INPUT_IN_OUT
@group(0) @binding(3) var<storage, read> input: array<f32>;
#endif
#endif

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = workgroup.x * LANES + lane;
    if at >= params.parts * params.width {
        return;
    }
    let part = at / params.width;
    let column = at % params.width;
    let gate_at = workgroup.y * params.gate_row + params.gate_offset + part * params.gate_stride + column;
#ifdef GATE_IN_OUT
    var y = out[gate_at];
#else
    var y = gate[gate_at];
#endif
#ifndef COPY
#ifndef PLAIN
    y = activate(y);
#endif
    let input_at = workgroup.y * params.input_row + params.input_offset + part * params.input_stride + column;
#ifdef INPUT_IN_OUT
    y *= out[input_at];
#else
    y *= input[input_at];
#endif
#endif
    out[workgroup.y * params.out_row + params.out_offset + part * params.out_stride + column] = y;
}
