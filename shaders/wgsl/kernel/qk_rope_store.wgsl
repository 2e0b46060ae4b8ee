// For each token: norms the heads of q and k (with QK_NORM), turns them by rope (with ROPE), multiplies q by 1 +
// temperature ln(1 + floor(position / length)) (with TEMPERATURE), stores k and v in the cache.
// q stays, turned, in `qkv`.
//
// Shapes: qkv [tokens, heads * key_length + kv_heads * (key_length + value_length)] f32, q before k before v;
// angles [tokens, pairs] of (cos, sin); keys [cells, kv_heads * key_length], values [cells, kv_heads *
// value_length], f32 (KEYS_F32, VALUES_F32) or two halves a word.
// Threads: a workgroup of LANES a head (x: q heads, then k heads, then v heads) of a token (y). A lane keeps
// to the same elements from the norm on, two neighbours at a time when storing.
#import shared/step
#import shared/half

struct Params {
    heads: u32,
    kv_heads: u32,
    key_length: u32,
    value_length: u32,
    // Pairs that turn: half the rope's dimensions.
    pairs: u32,
    epsilon: f32,
    // 1 if the layer has a window: which cell of the token to use.
    windowed: u32,
    temperature: f32,
    temperature_length: u32,
}

@group(0) @binding(0) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(1) var<storage, read_write> keys: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<u32>;
@group(0) @binding(3) var<storage, read> tokens: array<Token>;
#ifdef ROPE
@group(0) @binding(4) var<storage, read> angles: array<vec2<f32>>;
#endif
@group(0) @binding(5) var<uniform> params: Params;
#ifdef QK_NORM
@group(0) @binding(6) var<storage, read> q_norm: array<f32>;
@group(0) @binding(7) var<storage, read> k_norm: array<f32>;
#endif

override LANES: u32 = 64u;
#import shared/reduce

// A head, normed and then turned. At most 1024 elements.
var<workgroup> head: array<f32, 1024>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
#ifdef SUBGROUP
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#endif
) {
#ifndef SUBGROUP
    let subgroup = 0u;
    let subgroups = 1u;
    let subgroup_lane = 0u;
#endif
    let token = workgroup.y;
    let query_width = params.heads * params.key_length;
    let key_width = params.kv_heads * params.key_length;
    let value_width = params.kv_heads * params.value_length;
    let row = token * (query_width + key_width + value_width);
    let cell = select(tokens[token].cell_full, tokens[token].cell_window, params.windowed == 1u);

    if workgroup.x >= params.heads + params.kv_heads {
        let read_at = row + query_width + key_width + (workgroup.x - params.heads - params.kv_heads) * params.value_length;
        let to = cell * value_width + (workgroup.x - params.heads - params.kv_heads) * params.value_length;
#ifdef VALUES_F32
        for (var i = lane; i < params.value_length; i += LANES) {
            values[to + i] = bitcast<u32>(qkv[read_at + i]);
        }
#else
        for (var i = lane; i < params.value_length / 2u; i += LANES) {
            values[to / 2u + i] = floats_to_halves(vec2<f32>(qkv[read_at + 2u * i], qkv[read_at + 2u * i + 1u]));
        }
#endif
        return;
    }

    let is_key = workgroup.x >= params.heads;
    // k follows q, so that head number x starts here in either case.
    let read_at = row + workgroup.x * params.key_length;
    for (var i = lane; i < params.key_length; i += LANES) {
        head[i] = qkv[read_at + i];
    }
#ifdef QK_NORM
    var squares = 0.0;
    for (var i = lane; i < params.key_length; i += LANES) {
        squares += head[i] * head[i];
    }
    let sum = workgroup_sum(squares, lane, subgroup, subgroups, subgroup_lane);
    let scale = 1.0 / sqrt(sum / f32(params.key_length) + params.epsilon);
    for (var i = lane; i < params.key_length; i += LANES) {
        head[i] = head[i] * scale * select(q_norm[i], k_norm[i], is_key);
    }
#endif
    workgroupBarrier();
#ifdef ROPE
    for (var j = lane; j < params.pairs; j += LANES) {
#ifdef HALVES
        let a = j;
        let b = j + params.pairs;
#else
        let a = 2u * j;
        let b = 2u * j + 1u;
#endif
        let angle = angles[token * params.pairs + j];
        let x = head[a];
        let y = head[b];
        head[a] = x * angle.x - y * angle.y;
        head[b] = x * angle.y + y * angle.x;
    }
    workgroupBarrier();
#endif
    if !is_key {
#ifdef TEMPERATURE
        let steps = f32(tokens[token].position / params.temperature_length);
        let factor = 1.0 + params.temperature * log(1.0 + steps);
#else
        let factor = 1.0;
#endif
        for (var i = lane; i < params.key_length; i += LANES) {
            qkv[read_at + i] = head[i] * factor;
        }
        return;
    }
    let to = cell * key_width + (workgroup.x - params.heads) * params.key_length;
#ifdef KEYS_F32
    for (var i = lane; i < params.key_length; i += LANES) {
        keys[to + i] = bitcast<u32>(head[i]);
    }
#else
    for (var i = lane; i < params.key_length / 2u; i += LANES) {
        keys[to / 2u + i] = floats_to_halves(vec2<f32>(head[2u * i], head[2u * i + 1u]));
    }
#endif
}
