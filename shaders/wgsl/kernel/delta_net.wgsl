// The gated delta rule, token by token: per value head, with g = a softplus(alpha + bias): M = e^g M; M += k (sigmoid(beta)
// (v - M^T k))^T; out = M^T q / sqrt(size).
//
// Shapes: qkv [tokens, q | k | v] f32: key_heads * size twice, heads * size; gates [tokens, 2 * heads]: betas, then alphas, or
// with BY_KEY_HEAD of each key head its value heads' betas, then their alphas; a, dt_bias [heads]; state [sequences, heads,
// size of k, size of v]; out [tokens, heads * size]. Head h has key head h mod key_heads, with GROUPED h / (heads / key_heads).
// Threads: a workgroup a head (x) of a sequence (y), through all tokens; a lane every LANES-th element of v.
#import shared/step
#import shared/softplus

struct Params {
    heads: u32,
    key_heads: u32,
    size: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read> gates: array<f32>;
@group(0) @binding(2) var<storage, read> a: array<f32>;
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
    let size = params.size;
    let per_key = params.heads / params.key_heads;
#ifdef GROUPED
    let key_head = head / per_key;
#else
    let key_head = head % params.key_heads;
#endif
#ifdef BY_KEY_HEAD
    let beta_at = head / per_key * 2u * per_key + head % per_key;
    let alpha_at = beta_at + per_key;
#else
    let beta_at = head;
    let alpha_at = params.heads + head;
#endif
    let row = (2u * params.key_heads + params.heads) * size;
    let memory = (workgroup.y * params.heads + head) * size * size;
    let scale = 1.0 / sqrt(f32(size));
    for (var t = 0u; t < step.tokens; t++) {
        if tokens[t].seat != workgroup.y {
            continue;
        }
        let q = t * row + key_head * size;
        let k = q + params.key_heads * size;
        let v = t * row + (2u * params.key_heads + head) * size;
        let beta = 1.0 / (1.0 + exp(-gates[t * 2u * params.heads + beta_at]));
        let growth = a[head] * softplus(gates[t * 2u * params.heads + alpha_at] + dt_bias[head]);
        let decay = exp(growth);
        let starts = tokens[t].position == 0u;
        for (var j = lane; j < size; j += LANES) {
            var known = 0.0;
            for (var i = 0u; i < size; i++) {
                known = fma(select(state[memory + i * size + j], 0.0, starts) * decay, qkv[k + i], known);
            }
            let change = beta * (qkv[v + j] - known);
            var y = 0.0;
            for (var i = 0u; i < size; i++) {
                let before = select(state[memory + i * size + j], 0.0, starts);
                let kept = fma(qkv[k + i], change, before * decay);
                state[memory + i * size + j] = kept;
                y = fma(kept, qkv[q + i], y);
            }
            out[(t * params.heads + head) * size + j] = y * scale;
        }
    }
}
