// Mamba 2's recurrence, token by token: per head, with d = softplus(dt + bias): S = e^(d a) S + d x B; out = S C + D x.
//
// Shapes: values [tokens, z | x | B | C | dt] f32: inner, inner, groups * state, groups * state, heads; a, d, dt_bias [heads];
// state [sequences, heads, state, head_size]; out [tokens, heads * head_size].
// Threads: a workgroup a head (x) of a sequence (y), through all tokens; a lane every LANES-th element of the head.
#import shared/step
#import shared/softplus

struct Params {
    heads: u32,
    head_size: u32,
    states: u32,
    groups: u32,
}

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> d: array<f32>;
@group(0) @binding(3) var<storage, read> dt_bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
@group(0) @binding(5) var<storage, read> tokens: array<Token>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;
@group(0) @binding(8) var<uniform> step: Step;

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = workgroup.x;
    let inner = params.heads * params.head_size;
    let shared_width = params.groups * params.states;
    let row = 2u * inner + 2u * shared_width + params.heads;
    let group = head / (params.heads / params.groups);
    let memory = (workgroup.y * params.heads + head) * params.states * params.head_size;
    for (var t = 0u; t < step.tokens; t++) {
        if tokens[t].seat != workgroup.y {
            continue;
        }
        let at = t * row;
        let b = at + 2u * inner + group * params.states;
        let c = b + shared_width;
        let delta = softplus(values[at + 2u * inner + 2u * shared_width + head] + dt_bias[head]);
        let decay = exp(delta * a[head]);
        let starts = tokens[t].position == 0u;
        for (var p = lane; p < params.head_size; p += LANES) {
            let x = values[at + inner + head * params.head_size + p];
            var y = d[head] * x;
            for (var i = 0u; i < params.states; i++) {
                let cell = memory + i * params.head_size + p;
                let kept = fma(select(state[cell], 0.0, starts), decay, delta * x * values[b + i]);
                state[cell] = kept;
                y = fma(kept, values[c + i], y);
            }
            out[t * inner + head * params.head_size + p] = y;
        }
    }
}
