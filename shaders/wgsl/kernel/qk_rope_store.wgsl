// For each token: norms the heads of q and k (with QK_NORM), turns them by rope (with ROPE), multiplies q by 1 +
// temperature ln(1 + floor(position / length)) (with TEMPERATURE), stores k and v in the cache.
// q stays, turned, in `qkv`.
//
// Shapes: qkv [tokens, heads * key_length + kv_heads * (key_length + value_length)] f32, q before k before v; with V_APART
// qkv ends with k, and v is [tokens, kv_heads * value_length] f32;
// angles [tokens, pairs] of (cos, sin); keys [cells, kv_heads, key_words], values [cells, kv_heads, value_words], of the
// types KEYS and VALUES: f32; two halves, or upper halves of floats (BF16), a word; codes of 32 elements each and then
// their scales, halves, two a word (Q8_0: bytes; Q4_0: element j low, element j + 16 high in byte j).
// Threads: a workgroup of LANES a head (x: q heads, then k heads, then v heads) of a token (y). A lane stores a word at a
// time.
#import shared/step
#import shared/half

struct Params {
    heads: u32,
    kv_heads: u32,
    key_length: u32,
    value_length: u32,
    // Pairs that turn: half the rope's dimensions.
    pairs: u32,
    // The first element of a head that turns.
    turn_from: u32,
    epsilon: f32,
    // Elements of a head that are numbers, the others being zeros.
    count: u32,
    // 1 if the layer has a window: which cell of the token to use.
    windowed: u32,
    temperature: f32,
    temperature_length: u32,
    // Of a head.
    key_words: u32,
    value_words: u32,
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

#ifdef V_APART
@group(0) @binding(8) var<storage, read> v: array<f32>;
#endif

override LANES: u32 = 64u;
// Ids of types, as in files.
const F32 = 0u;
const F16 = 1u;
const Q8_0 = 8u;
const BF16 = 30u;
// Else Q4_0.
override KEYS: u32 = F16;
override VALUES: u32 = F16;
#import shared/reduce

// A head, normed and then turned. At most 1024 elements.
var<workgroup> head: array<f32, 1024>;

// f32 to the nearest upper half of a float, ties to even.
fn float_to_bfloat(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

// Of 32 elements of `head` from `at` on: the largest magnitude, and that number with its sign.
fn largest_of_block(at: u32) -> vec2<f32> {
    var largest = vec2<f32>(0.0);
    for (var i = at; i < at + 32u; i++) {
        if abs(head[i]) > largest.x {
            largest = vec2<f32>(abs(head[i]), head[i]);
        }
    }
    return largest;
}

// Elements at to at + 3 as signed bytes.
fn four_bytes(at: u32, factor: f32) -> u32 {
    let x = vec4<f32>(head[at], head[at + 1u], head[at + 2u], head[at + 3u]) * factor;
    let rounded = vec4<u32>(vec4<i32>(sign(x) * floor(abs(x) + 0.5))) & vec4<u32>(255u);
    return rounded.x | (rounded.y << 8u) | (rounded.z << 16u) | (rounded.w << 24u);
}

// Elements at to at + 3 as codes of four bits in the low halves of bytes, those 16 further in the high halves.
fn eight_nibbles(at: u32, factor: f32) -> u32 {
    let low = vec4<f32>(head[at], head[at + 1u], head[at + 2u], head[at + 3u]) * factor + 8.5;
    let high = vec4<f32>(head[at + 16u], head[at + 17u], head[at + 18u], head[at + 19u]) * factor + 8.5;
    let codes = min(vec4<u32>(low), vec4<u32>(15u)) | (min(vec4<u32>(high), vec4<u32>(15u)) << vec4<u32>(4u));
    return codes.x | (codes.y << 8u) | (codes.z << 16u) | (codes.w << 24u);
}

// The scale of block `block` of `head`, 0 behind the last.
fn block_scale(kind: u32, block: u32, blocks: u32) -> f32 {
    if block >= blocks {
        return 0.0;
    }
    let largest = largest_of_block(block * 32u);
    return select(largest.y / -8.0, largest.x / 127.0, kind == Q8_0);
}

// Word `i` of `head`, of `length` elements, as `kind` keeps it.
fn stored_word(kind: u32, length: u32, i: u32) -> u32 {
    if kind == F32 {
        return bitcast<u32>(head[i]);
    }
    if kind == BF16 {
        return float_to_bfloat(head[2u * i]) | (float_to_bfloat(head[2u * i + 1u]) << 16u);
    }
    if kind == F16 {
        return floats_to_halves(vec2<f32>(head[2u * i], head[2u * i + 1u]));
    }
    let blocks = length / 32u;
    let block_words = select(4u, 8u, kind == Q8_0);
    if i >= blocks * block_words {
        let block = 2u * (i - blocks * block_words);
        return floats_to_halves(vec2<f32>(block_scale(kind, block, blocks), block_scale(kind, block + 1u, blocks)));
    }
    let block = i / block_words;
    let scale = block_scale(kind, block, blocks);
    let factor = select(1.0 / scale, 0.0, scale == 0.0);
    let at = block * 32u + i % block_words * 4u;
    if kind == Q8_0 {
        return four_bytes(at, factor);
    }
    return eight_nibbles(at, factor);
}

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
#ifdef V_APART
    let row = token * (query_width + key_width);
#else
    let row = token * (query_width + key_width + value_width);
#endif
    let cell = select(tokens[token].cell_full, tokens[token].cell_window, params.windowed == 1u);

    if workgroup.x >= params.heads + params.kv_heads {
        let of_row = (workgroup.x - params.heads - params.kv_heads) * params.value_length;
        for (var i = lane; i < params.value_length; i += LANES) {
#ifdef V_APART
            head[i] = v[token * value_width + of_row + i];
#else
            head[i] = qkv[row + query_width + key_width + of_row + i];
#endif
        }
        workgroupBarrier();
        let to = (cell * params.kv_heads + workgroup.x - params.heads - params.kv_heads) * params.value_words;
        for (var i = lane; i < params.value_words; i += LANES) {
            values[to + i] = stored_word(VALUES, params.value_length, i);
        }
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
    let scale = 1.0 / sqrt(sum / f32(params.count) + params.epsilon);
    for (var i = lane; i < params.key_length; i += LANES) {
        head[i] = head[i] * scale * select(q_norm[i], k_norm[i], is_key);
    }
#endif
    workgroupBarrier();
#ifdef ROPE
    for (var j = lane; j < params.pairs; j += LANES) {
#ifdef HALVES
        let a = params.turn_from + j;
        let b = params.turn_from + j + params.pairs;
#else
        let a = params.turn_from + 2u * j;
        let b = params.turn_from + 2u * j + 1u;
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
    let to = (cell * params.kv_heads + workgroup.x - params.heads) * params.key_words;
    for (var i = lane; i < params.key_words; i += LANES) {
        keys[to + i] = stored_word(KEYS, params.key_length, i);
    }
}
