// out = softmax(scale * q.k over the visible keys) v for a tile of queries that share their keys, in one pass
// over the cells with a running maximum (Dao et al. 2022, arXiv 2205.14135).
//
// Shapes: qkv [tokens, qkv_stride4 * 4] f32, the turned q first; keys and values as qk_rope_store writes them, by type;
// out [tokens, heads * value_length] f32. Position p of a sequence lies in cell tables[table + p / 64 mod
// table_blocks] * 64 + p mod 64. With PARTS the visible cells are split among workgroups (z): out is then
// [tokens, heads, parts, value_length] of sums, and maxima_and_sums [tokens, heads, parts]; attention_merge ends it.
// With SOFTCAP scores are cap * tanh(score / cap); with SINKS each head has one more logit, which takes its share of the sum
// (with PARTS attention_merge adds it).
// With ALL a token sees all of the step, whose tokens then are one sequence.
// A tile: HEADS heads of one key head (x) for TOKENS neighbouring tokens (y), which must be of one sequence
// where TOKENS is more than 1; query r is head r mod HEADS of token r / HEADS; at most eight queries.
// Threads: 64. In a round of 64 cells each lane scores one cell for every query; then eight lanes a query find
// maximum and sum; then the lanes add up values: lane = part * vectors + vector, each part taking every
// parts-th cell.
#import shared/step
#import shared/half

struct Params {
    heads: u32,
    // Query heads a key head.
    heads_per_kv: u32,
    key_length4: u32,
    value_length4: u32,
    kv_heads: u32,
    qkv_stride4: u32,
    scale: f32,
    // Positions that a query sees, itself included.
    window: u32,
    windowed: u32,
    table_blocks: u32,
    // Blocks of keys and values that there are.
    blocks: u32,
    softcap: f32,
    // Of a head.
    key_words: u32,
    value_words: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
#ifdef KEYS_SCALED
@group(0) @binding(1) var<storage, read> keys: array<u32>;
#else
@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;
#endif
#ifdef VALUES_SCALED
@group(0) @binding(2) var<storage, read> values: array<u32>;
#else
@group(0) @binding(2) var<storage, read> values: array<vec4<u32>>;
#endif
@group(0) @binding(3) var<storage, read> tokens: array<Token>;
@group(0) @binding(4) var<storage, read> tables: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;
@group(0) @binding(7) var<uniform> step: Step;
#ifdef PARTS
@group(0) @binding(8) var<storage, read_write> maxima_and_sums: array<vec2<f32>>;
#endif

#ifdef SINKS
@group(0) @binding(9) var<storage, read> sinks: array<f32>;
#endif

const LANES: u32 = 64u;
// Lanes that share the elements of a value head: the power of two up to LANES that covers value_length4.
override VECTORS: u32 = 16u;

// key_length4 of each query.
var<workgroup> query: array<vec4<f32>, {QUERY_VECTORS}>;
var<workgroup> cell_of: array<u32, 64>;
// Scores, then weights: 64 a query.
var<workgroup> weight_of: array<f32, {QUERIES} * 64>;
var<workgroup> partial: array<f32, 64>;
var<workgroup> maximum: array<f32, 8>;
var<workgroup> total: array<f32, 8>;
var<workgroup> correction: array<f32, 8>;
var<workgroup> partial_sums: array<vec4<f32>, 64>;

// Four signed bytes; four codes of four bits, less 8, in the low halves of bytes.
fn signed_bytes(word: u32) -> vec4<f32> {
    let bits = bitcast<i32>(word);
    return vec4<f32>(f32((bits << 24u) >> 24u), f32((bits << 16u) >> 24u), f32((bits << 8u) >> 24u), f32(bits >> 24u));
}

fn signed_nibbles(word: u32) -> vec4<f32> {
    return vec4<f32>(vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(15u)) - 8.0;
}

// Eight neighbouring elements.
struct Eight { low: vec4<f32>, high: vec4<f32> }

// Elements 8 * i to 8 * i + 7 of the key head that starts at word `head`.
fn load_keys(head: u32, i: u32) -> Eight {
#ifdef KEYS_F32
    return Eight(bitcast<vec4<f32>>(keys[head / 4u + i * 2u]), bitcast<vec4<f32>>(keys[head / 4u + i * 2u + 1u]));
#else
#ifdef KEYS_BF16
    let w = keys[head / 4u + i];
    return Eight(
        bitcast<vec4<f32>>(vec4<u32>(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u)),
        bitcast<vec4<f32>>(vec4<u32>(w.z << 16u, w.z & 0xffff0000u, w.w << 16u, w.w & 0xffff0000u)),
    );
#else
#ifdef KEYS_Q8_0
    let scale = half_to_float(keys[head + params.key_length4 + i / 8u] >> (16u * ((i / 4u) & 1u)));
    return Eight(scale * signed_bytes(keys[head + i * 2u]), scale * signed_bytes(keys[head + i * 2u + 1u]));
#else
#ifdef KEYS_Q4_0
    let scale = half_to_float(keys[head + params.key_length4 / 2u + i / 8u] >> (16u * ((i / 4u) & 1u)));
    // Of a block's four words the low halves hold its first 16 elements.
    let at = head + i / 4u * 4u + (i & 1u) * 2u;
    let shift = 2u * (i & 2u);
    return Eight(scale * signed_nibbles(keys[at] >> shift), scale * signed_nibbles(keys[at + 1u] >> shift));
#else
    let w = keys[head / 4u + i];
    return Eight(
        vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
#endif
#endif
#endif
#endif
}

// Elements 4 * i to 4 * i + 3 of the value head that starts at word `head`.
fn load_value(head: u32, i: u32) -> vec4<f32> {
#ifdef VALUES_F32
    return bitcast<vec4<f32>>(values[head / 4u + i]);
#else
#ifdef VALUES_BF16
    let words = values[head / 4u + i / 2u];
    let pair = select(words.xy, words.zw, (i & 1u) == 1u);
    return bitcast<vec4<f32>>(vec4<u32>(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u));
#else
#ifdef VALUES_Q8_0
    let scale = half_to_float(values[head + params.value_length4 + i / 16u] >> (16u * ((i / 8u) & 1u)));
    return scale * signed_bytes(values[head + i]);
#else
#ifdef VALUES_Q4_0
    let scale = half_to_float(values[head + params.value_length4 / 2u + i / 16u] >> (16u * ((i / 8u) & 1u)));
    return scale * signed_nibbles(values[head + i / 8u * 4u + (i & 3u)] >> (i & 4u));
#else
    let words = values[head / 4u + i / 2u];
    let pair = select(words.xy, words.zw, (i & 1u) == 1u);
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
#endif
#endif
#endif
#endif
}

fn first_visible(position: u32) -> u32 {
    return position + 1u - min(position + 1u, params.window);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_token = workgroup.y * {TOKENS}u;
    let last_token = min(first_token + {TOKENS}u, step.tokens) - 1u;
    let token = tokens[first_token];
    let table = select(token.table_full, token.table_window, params.windowed == 1u);
    // x counts the groups of HEADS heads.
    let first_head = workgroup.x * {HEADS}u;
    let kv_head = first_head / params.heads_per_kv;
    for (var i = lane; i < {QUERIES}u * params.key_length4; i += LANES) {
        let r = i / params.key_length4;
        let of_token = min(first_token + r / {HEADS}u, last_token);
        let head = first_head + r % {HEADS}u;
        let at = of_token * params.qkv_stride4 + head * params.key_length4 + i % params.key_length4;
        query[i] = qkv[at] * params.scale;
    }
    if lane < 8u {
#ifdef SINKS
        maximum[lane] = sinks[first_head + lane % {HEADS}u];
        total[lane] = 1.0;
#else
        maximum[lane] = -1e30;
        total[lane] = 0.0;
#endif
    }
    // Positions that any of the tile's queries sees, and this workgroup's part of them.
    let all_start = first_visible(token.position);
#ifdef ALL
    let all_end = tokens[step.tokens - 1u].position + 1u;
#else
    let all_end = tokens[last_token].position + 1u;
#endif
#ifdef PARTS
    let rounds = (all_end - all_start + 63u) / 64u;
    let length = (rounds + workgroups.z - 1u) / workgroups.z * 64u;
    let start = min(all_start + workgroup.z * length, all_end);
    let end = min(start + length, all_end);
#else
    let start = all_start;
    let end = all_end;
#endif
    let vector = lane % VECTORS;
    let part = lane / VECTORS;
    let parts = LANES / VECTORS;
    // Which query this lane counts for between scores and values, and which eight cells.
    let my_query = lane / 8u;
    let my_cells = lane * 8u;
    // sums_r_s: of query r, vector number vector + s * 64 of the head.
#unroll r QUERIES
#unroll s SLICES
    var sums_{r}_{s} = vec4<f32>(0.0);
#end
#end
    for (var round = start; round < end; round += LANES) {
        workgroupBarrier();
        let position = round + lane;
#unroll r QUERIES
        var products{r} = vec4<f32>(0.0);
#end
        if position < end {
            let block = min(tables[table + (position / 64u) % params.table_blocks], params.blocks - 1u);
            let cell = block * 64u + position % 64u;
            cell_of[lane] = cell;
            let key = (cell * params.kv_heads + kv_head) * params.key_words;
            for (var i = 0u; i < params.key_length4 / 2u; i++) {
                let k = load_keys(key, i);
#unroll r QUERIES
                products{r} = fma(query[{r}u * params.key_length4 + 2u * i], k.low, products{r});
                products{r} = fma(query[{r}u * params.key_length4 + 2u * i + 1u], k.high, products{r});
#end
            }
        }
#unroll r QUERIES
        {
            let at = tokens[min(first_token + {r}u / {HEADS}u, last_token)].position;
#ifdef ALL
            let visible = position < end && position >= first_visible(at);
#else
            let visible = position < end && position <= at && position >= first_visible(at);
#endif
            var score = (products{r}.x + products{r}.y) + (products{r}.z + products{r}.w);
#ifdef SOFTCAP
            score = params.softcap * tanh(clamp(score / params.softcap, -15.0, 15.0));
#endif
            weight_of[{r}u * 64u + lane] = select(-1e30, score, visible);
        }
#end
        workgroupBarrier();
        if my_query < {QUERIES}u {
            var most = weight_of[my_cells];
            for (var i = 1u; i < 8u; i++) {
                most = max(most, weight_of[my_cells + i]);
            }
            partial[lane] = most;
        }
        workgroupBarrier();
        if my_query < {QUERIES}u && lane % 8u == 0u {
            var most = maximum[my_query];
            for (var i = 0u; i < 8u; i++) {
                most = max(most, partial[lane + i]);
            }
            correction[my_query] = exp(maximum[my_query] - most);
            maximum[my_query] = most;
        }
        workgroupBarrier();
        if my_query < {QUERIES}u {
            let most = maximum[my_query];
            var sum = 0.0;
            for (var i = 0u; i < 8u; i++) {
                let score = weight_of[my_cells + i];
                let weight = select(0.0, exp(score - most), score > -1e30);
                weight_of[my_cells + i] = weight;
                sum += weight;
            }
            partial[lane] = sum;
        }
        workgroupBarrier();
        if my_query < {QUERIES}u && lane % 8u == 0u {
            var sum = total[my_query] * correction[my_query];
            for (var i = 0u; i < 8u; i++) {
                sum += partial[lane + i];
            }
            total[my_query] = sum;
        }
        let cells = min(LANES, end - round);
#unroll r QUERIES
#unroll s SLICES
        sums_{r}_{s} *= correction[{r}];
#end
#end
#unroll s SLICES
        if vector + {s}u * 64u < params.value_length4 {
            for (var i = part; i < cells; i += parts) {
                let v = load_value((cell_of[i] * params.kv_heads + kv_head) * params.value_words, vector + {s}u * 64u);
#unroll r QUERIES
                sums_{r}_{s} = fma(vec4<f32>(weight_of[{r}u * 64u + i]), v, sums_{r}_{s});
#end
            }
        }
#end
    }
#unroll r QUERIES
    {
        let of_token = first_token + {r}u / {HEADS}u;
        let head = first_head + {r}u % {HEADS}u;
#ifdef PARTS
        let at = (of_token * params.heads + head) * workgroups.z + workgroup.z;
#else
        let at = of_token * params.heads + head;
#endif
#unroll s SLICES
        if parts > 1u {
            workgroupBarrier();
            partial_sums[lane] = sums_{r}_{s};
            workgroupBarrier();
        }
        if part == 0u && vector + {s}u * 64u < params.value_length4 && of_token <= last_token {
            var sum = sums_{r}_{s};
            for (var p = 1u; p < parts; p++) {
                sum += partial_sums[lane + p * VECTORS];
            }
#ifndef PARTS
            sum /= total[{r}];
#endif
            out[at * params.value_length4 + vector + {s}u * 64u] = sum;
        }
#end
#ifdef PARTS
        if lane == 0u && of_token <= last_token {
            maxima_and_sums[at] = vec2<f32>(maximum[{r}], total[{r}]);
        }
#endif
    }
#end
}
