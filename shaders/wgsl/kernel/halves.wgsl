// All 65,536 halves as f32, as shared/half has them with NATIVE_HALVES: whether the device keeps subnormal ones.
//
// Shapes: out [32768, 4] f32 as bits: of word w, whose halves are 2w and 2w + 1, both converted, and both converted in
// the midst of a multiplication, which compilers may do by another instruction.
// Threads: a lane a word.
#define NATIVE_HALVES
#import shared/half

struct Params {
    one: f32,
}

@group(0) @binding(0) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(1) var<uniform> params: Params;

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let word = 2u * id.x | ((2u * id.x + 1u) << 16u);
    let pair = halves_to_floats(word);
    let multiplied = fma(vec2<f32>(half_to_float(word), half_to_float(word >> 16u)), vec2<f32>(params.one), vec2<f32>(-0.0));
    out[id.x] = bitcast<vec4<u32>>(vec4<f32>(pair, multiplied));
}
