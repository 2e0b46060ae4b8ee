// What the products' kernels share: their numbers and what they bind.
#import shared/weights

struct Params {
    rows: u32,
    groups: u32,
    out_stride: u32,
    out_offset: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
    table: u32,
    // 1 if the input has a row per output instead of one per token.
    per_output: u32,
    // Added to the mean square of a row with NORM.
    epsilon: f32,
    // What products are multiplied by, and, with their bias, once more.
    scale: f32,
    factor: f32,
    // The bias of the matrix's first row; of the first expert in all.
    first_bias: u32,
#ifdef EXPERTS
    // Of the matrix's rows: of an expert; from gate to up; to the first.
    expert_rows: u32,
    up_rows: u32,
    first_row: u32,
    // The experts that the matrix holds.
    first_expert: u32,
    experts: u32,
    // Experts of a token: pair s of token t has the number t * used + s.
    used: u32,
    // Pairs with the same input.
    pairs_per_row: u32,
    // Where pairs begin in the list of tiles.
    order: u32,
#endif
}

#ifdef HALVES_INPUT
@group(0) @binding(1) var<storage, read> input: array<vec4<f16>>;
// Of each token the number that its inputs were divided by.
@group(0) @binding(9) var<storage, read> largest: array<f32>;
#else
#ifdef ROUNDED
@group(0) @binding(1) var<storage, read> bytes: array<vec4<u32>>;
@group(0) @binding(9) var<storage, read> x_scales: array<vec2<f32>>;
#else
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
#endif
#endif
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;
#ifdef BIAS
// Of all rows of the op, so that this buffer's first is at first_bias.
@group(0) @binding(4) var<storage, read> bias: array<f32>;
#endif
#ifdef SEVERAL
#import shared/step
@group(0) @binding(5) var<uniform> step: Step;

// Rows of the input.
fn input_rows() -> u32 {
    return select(step.tokens, step.outputs, params.per_output == 1u);
}
#endif
#ifdef NORM
@group(0) @binding(6) var<storage, read> norm_weight: array<vec4<f32>>;
#endif

#import format
#import shared/activation

fn sum_of(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// The unit of a row's sums in mat-vec kernels, an exact power of two.
#ifdef SPLIT
const SUM_UNIT: f32 = CODE_UNIT * SCALE_UNIT;
#else
const SUM_UNIT: f32 = 1.0;
#endif

// What becomes of a sum: scaled, with its bias, multiplied, through the activation.
fn finish(sum: f32, bias_row: u32) -> f32 {
    var y = sum * params.scale;
#ifdef BIAS
    y += bias[bias_row];
#endif
    y *= params.factor;
#ifdef ACTIVATED
    y = activate(y);
#endif
    return y;
}

// Where it goes.
fn put(to: u32, y: f32) {
#ifdef ADD
    out[to] += y;
#else
    out[to] = y;
#endif
}
