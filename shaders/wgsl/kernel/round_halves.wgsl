enable f16;
// Inputs of products with cooperative matrices, as halves, once for all their rows: a token's are divided by its largest,
// so that no half overflows: x = largest * half.
//
// Shapes: input [rows, 4 * width4] f32; halves [rows, 4 * width4]; largest [rows] f32, at least 1e-30. With GATED x is
// activation(gate) * up, of input [rows, 2, 4 * width4], gate before up.
// Threads: a workgroup of LANES a row. A lane keeps VECTORS vec4s of it, LANES apart; with RAGGED the last of them may lie
// behind the row's end.
#ifdef GATED
#import shared/activation
#endif

struct Params {
    width4: u32,
}

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> halves: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read_write> largest: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// At least 32.
override LANES: u32 = 256u;

#import shared/largest

#import shared/inside

// Vector `i` of row `row`.
fn vector(row: u32, i: u32) -> vec4<f32> {
#ifdef GATED
    let gate = input[row * 2u * params.width4 + i];
    let up = input[(row * 2u + 1u) * params.width4 + i];
    return vec4<f32>(
        gate_times_up(gate.x, up.x), gate_times_up(gate.y, up.y), gate_times_up(gate.z, up.z), gate_times_up(gate.w, up.w));
#else
    return input[row * params.width4 + i];
#endif
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = workgroup.x;
    var most = vec4<f32>(0.0);
#unroll v VECTORS
    let i{v} = lane + {v}u * LANES;
    let x{v} = vector(row, inside(i{v}));
    most = max(most, abs(x{v}));
#end
    let of_row = workgroup_largest(max(max(most.x, most.y), max(most.z, most.w)), lane);
    if lane == 0u {
        largest[row] = of_row;
    }
    let factor = 1.0 / of_row;
#unroll v VECTORS
#ifdef RAGGED
    if i{v} < params.width4 {
        halves[row * params.width4 + i{v}] = vec4<f16>(x{v} * factor);
    }
#else
    halves[row * params.width4 + i{v}] = vec4<f16>(x{v} * factor);
#endif
#end
}
