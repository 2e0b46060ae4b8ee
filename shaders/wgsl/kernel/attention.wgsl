// out = softmax(scale * q.k over the visible keys) v for a tile of queries that share their keys, in one pass
// over the cells with a running maximum (Dao et al. 2022, arXiv 2205.14135).
//
// Shapes: qkv [tokens, qkv_stride4 * 4] f32, the turned q first; keys and values as qk_rope_store writes them, by type;
// out [tokens, heads * value_length] f32. Position p of a sequence lies in cell tables[table + p / 64 mod
// table_blocks] * 64 + p mod 64. With PARTS the visible blocks are split among workgroups (z): out is then
// [tokens, heads, parts, value_length] of sums, and maxima_and_sums [tokens, heads, parts]; attention_merge ends it.
// A part without blocks has maximum -1e30 and sum 0, and leaves its place in out as it was.
// With SOFTCAP scores are cap * tanh(score / cap); with SINKS each head has one more logit, which takes its share of the sum
// (with PARTS attention_merge adds it).
// With ALL a token sees all of the step, whose tokens then are one sequence.
// A tile: HEADS heads of one key head (x) for TOKENS neighbouring tokens (y), which must be of one sequence
// where TOKENS is more than 1; at most eight queries in all.
// Threads: 64. A round is a block of 64 cells. Scores: SHARE lanes share a cell, each taking every SHARE-th vector of eight
// elements, for SHARE cells; vectors of KEYS_AT_ONCE turns are loaded before they are multiplied, and one read of a query
// serves SHARE cells. Then eight lanes a query find maximum and sum. Then the lanes add up values: lane = part * VECTORS +
// vector of eight elements, each part taking every parts-th group of CELLS_AT_ONCE cells, whose values are loaded before
// they are multiplied. Cells behind the last position are read as the last one's.
#import shared/step
#import shared/half

struct Params {
    heads: u32,
    // Query heads a key head.
    heads_per_kv: u32,
    kv_heads: u32,
    qkv_stride4: u32,
    scale: f32,
    // Positions that a query sees, itself included.
    window: u32,
    windowed: u32,
    table_blocks: u32,
    // Entries of all tables.
    table_entries: u32,
    // Blocks of keys and values that there are.
    blocks: u32,
    softcap: f32,
    // Of a head.
    key_words: u32,
    value_words: u32,
    // Vectors of eight elements of a key that are read by full turns: KEY_TURNS * KEYS_AT_ONCE * SHARE.
    keys_in_turns: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
// KEY_UNIT, VALUE_UNIT: words of the elements of keys and values.
#ifdef KEYS_SCALED
const KEY_UNIT: u32 = 1u;
@group(0) @binding(1) var<storage, read> keys: array<u32>;
#else
const KEY_UNIT: u32 = 4u;
@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;
#endif
#ifdef VALUES_SCALED
const VALUE_UNIT: u32 = 1u;
@group(0) @binding(2) var<storage, read> values: array<u32>;
#else
const VALUE_UNIT: u32 = 4u;
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
// Positions of a block, which are the cells of a round.
const BLOCK: u32 = 64u;
const QUERIES: u32 = {HEADS}u * {TOKENS}u;
// Of a key head and a value head, in vectors of eight and of four elements.
const KEY_LENGTH8: u32 = {KEY_LENGTH8}u;
const KEY_LENGTH4: u32 = 2u * KEY_LENGTH8;
const VALUE_LENGTH8: u32 = {VALUE_LENGTH8}u;
const VALUE_LENGTH4: u32 = 2u * VALUE_LENGTH8;
// Lanes that share the elements of a value head: the power of two up to LANES that covers VALUE_LENGTH8; and how many
// such groups of lanes share the cells.
const VECTORS: u32 = {VECTORS}u;
const LANE_PARTS: u32 = LANES / VECTORS;
// The last position that a table can hold: what is read from a buffer must not make the loop endless.
const LAST_POSITION: u32 = 0x7fffffffu;

// Turns in which SHARE lanes read a key head; the vectors of a query, zeros behind its elements.
const QUERY_LENGTH8: u32 = (KEY_LENGTH8 + {SHARE}u - 1u) / {SHARE}u * {SHARE}u;
const QUERY_LENGTH4: u32 = 2u * QUERY_LENGTH8;
const COLUMNS: u32 = LANES / {SHARE}u;

// QUERY_LENGTH4 of each query, in full turns of the lanes.
var<workgroup> query: array<vec4<f32>, {QUERY_TURNS}u * LANES>;
// The SHARE parts of each score, 64 scores a query; then weights, 64 a query.
var<workgroup> shared_floats: array<f32, QUERIES * 64u * {SHARE}u>;
// At the end, sums. Not in the same memory: FXC ends on vectors put together from it (internal error).
var<workgroup> shared_vectors: array<vec4<f32>, 2u * LANES>;
var<workgroup> partial: array<f32, 64>;
// What a query's earlier sums are worth now.
var<workgroup> correction: array<f32, 8>;

// Eight neighbouring elements.
struct Eight { low: vec4<f32>, high: vec4<f32> }

// Four signed bytes.
fn signed_bytes(word: u32) -> vec4<f32> {
    let bits = bitcast<i32>(word);
    return vec4<f32>(f32((bits << 24u) >> 24u), f32((bits << 16u) >> 24u), f32((bits << 8u) >> 24u), f32(bits >> 24u));
}

// Four codes of four bits, less 8, in the low halves of bytes.
fn signed_nibbles(word: u32) -> vec4<f32> {
    return vec4<f32>(vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(15u)) - 8.0;
}

// Elements 8 * i to 8 * i + 7 of the key head that starts at `head`: as they lie in memory, and as floats.
#ifdef KEYS_F32
struct KeyWords { low: vec4<u32>, high: vec4<u32> }
fn load_key(head: u32, i: u32) -> KeyWords {
    return KeyWords(keys[head + i * 2u], keys[head + i * 2u + 1u]);
}
fn floats_of_key(w: KeyWords) -> Eight {
    return Eight(bitcast<vec4<f32>>(w.low), bitcast<vec4<f32>>(w.high));
}
#else
#ifdef KEYS_Q8_0
alias KeyWords = vec3<u32>;
fn load_key(head: u32, i: u32) -> KeyWords {
    let scale = keys[head + KEY_LENGTH8 * 2u + i / 8u] >> (4u * (i & 4u));
    return vec3<u32>(keys[head + i * 2u], keys[head + i * 2u + 1u], scale);
}
fn floats_of_key(w: KeyWords) -> Eight {
    let scale = half_to_float(w.z);
    return Eight(scale * signed_bytes(w.x), scale * signed_bytes(w.y));
}
#else
#ifdef KEYS_Q4_0
alias KeyWords = vec3<u32>;
fn load_key(head: u32, i: u32) -> KeyWords {
    let scale = keys[head + KEY_LENGTH8 + i / 8u] >> (4u * (i & 4u));
    // Of a block's four words the low halves of bytes hold its first 16 elements.
    let at = head + i / 4u * 4u + (i & 1u) * 2u;
    let shift = 2u * (i & 2u);
    return vec3<u32>(keys[at] >> shift, keys[at + 1u] >> shift, scale);
}
fn floats_of_key(w: KeyWords) -> Eight {
    let scale = half_to_float(w.z);
    return Eight(scale * signed_nibbles(w.x), scale * signed_nibbles(w.y));
}
#else
alias KeyWords = vec4<u32>;
fn load_key(head: u32, i: u32) -> KeyWords {
    return keys[head + i];
}
fn floats_of_key(w: KeyWords) -> Eight {
#ifdef KEYS_BF16
    return Eight(
        bitcast<vec4<f32>>(vec4<u32>(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u)),
        bitcast<vec4<f32>>(vec4<u32>(w.z << 16u, w.z & 0xffff0000u, w.w << 16u, w.w & 0xffff0000u)),
    );
#else
    return Eight(
        vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
#endif
}
#endif
#endif
#endif

// Elements 8 * i to 8 * i + 7 of the value head that starts at `head`: as they lie in memory, and as floats.
#ifdef VALUES_F32
struct ValueWords { low: vec4<u32>, high: vec4<u32> }
fn load_value(head: u32, i: u32) -> ValueWords {
    return ValueWords(values[head + i * 2u], values[head + i * 2u + 1u]);
}
fn floats_of_value(w: ValueWords) -> Eight {
    return Eight(bitcast<vec4<f32>>(w.low), bitcast<vec4<f32>>(w.high));
}
#else
#ifdef VALUES_Q8_0
alias ValueWords = vec3<u32>;
fn load_value(head: u32, i: u32) -> ValueWords {
    let scale = values[head + VALUE_LENGTH8 * 2u + i / 8u] >> (4u * (i & 4u));
    return vec3<u32>(values[head + i * 2u], values[head + i * 2u + 1u], scale);
}
fn floats_of_value(w: ValueWords) -> Eight {
    let scale = half_to_float(w.z);
    return Eight(scale * signed_bytes(w.x), scale * signed_bytes(w.y));
}
#else
#ifdef VALUES_Q4_0
alias ValueWords = vec3<u32>;
fn load_value(head: u32, i: u32) -> ValueWords {
    let scale = values[head + VALUE_LENGTH8 + i / 8u] >> (4u * (i & 4u));
    // Of a block's four words the low halves of bytes hold its first 16 elements.
    let at = head + i / 4u * 4u + (i & 1u) * 2u;
    let shift = 2u * (i & 2u);
    return vec3<u32>(values[at] >> shift, values[at + 1u] >> shift, scale);
}
fn floats_of_value(w: ValueWords) -> Eight {
    let scale = half_to_float(w.z);
    return Eight(scale * signed_nibbles(w.x), scale * signed_nibbles(w.y));
}
#else
alias ValueWords = vec4<u32>;
fn load_value(head: u32, i: u32) -> ValueWords {
    return values[head + i];
}
fn floats_of_value(w: ValueWords) -> Eight {
#ifdef VALUES_BF16
    return Eight(
        bitcast<vec4<f32>>(vec4<u32>(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u)),
        bitcast<vec4<f32>>(vec4<u32>(w.z << 16u, w.z & 0xffff0000u, w.w << 16u, w.w & 0xffff0000u)),
    );
#else
    return Eight(
        vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
#endif
}
#endif
#endif
#endif

// `sum` and eight products.
fn add_products(sum: f32, low: vec4<f32>, high: vec4<f32>, k: Eight) -> f32 {
    let of_low = fma(low.w, k.low.w, fma(low.z, k.low.z, fma(low.y, k.low.y, fma(low.x, k.low.x, sum))));
    return fma(high.w, k.high.w, fma(high.z, k.high.z, fma(high.y, k.high.y, fma(high.x, k.high.x, of_low))));
}

fn first_visible(position: u32) -> u32 {
    return position + 1u - min(position + 1u, params.window);
}

fn position_of(token: u32) -> u32 {
    return min(tokens[token].position, LAST_POSITION);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_token = workgroup.y * {TOKENS}u;
    let last_token = min(first_token + {TOKENS}u, step.tokens) - 1u;
    // x counts the groups of HEADS heads.
    let first_head = workgroup.x * {HEADS}u;
    let kv_head = first_head / params.heads_per_kv;
    // Positions that any of the tile's queries sees, from the start of a block, and this workgroup's part of them.
    let all_start = first_visible(position_of(first_token)) / BLOCK * BLOCK;
#ifdef ALL
    let all_end = position_of(step.tokens - 1u) + 1u;
#else
    let all_end = position_of(last_token) + 1u;
#endif
#ifdef PARTS
    let blocks = (all_end - all_start + BLOCK - 1u) / BLOCK;
    let length = (blocks + workgroups.z - 1u) / workgroups.z * BLOCK;
    let start = min(all_start + workgroup.z * length, all_end);
    let end = min(start + length, all_end);
    if start >= end {
        if lane < {HEADS}u {
            let at = (first_token * params.heads + first_head + lane) * workgroups.z + workgroup.z;
            maxima_and_sums[at] = vec2<f32>(-1e30, 0.0);
        }
        return;
    }
#else
    let start = all_start;
    let end = all_end;
#endif
    let table = select(tokens[first_token].table_full, tokens[first_token].table_window, params.windowed == 1u);
#unroll n QUERY_TURNS
    {
        let i = min(lane + {n}u * LANES, QUERIES * QUERY_LENGTH4 - 1u);
        let r = i / QUERY_LENGTH4;
        let element4 = i % QUERY_LENGTH4;
        let of_token = min(first_token + r / {HEADS}u, last_token);
        let head = first_head + r % {HEADS}u;
        let at = of_token * params.qkv_stride4 + head * KEY_LENGTH4 + min(element4, KEY_LENGTH4 - 1u);
        query[lane + {n}u * LANES] = select(vec4<f32>(0.0), qkv[at] * params.scale, element4 < KEY_LENGTH4);
    }
#end
    let share = lane % {SHARE}u;
    let column = lane / {SHARE}u;
    let vector = lane % VECTORS;
    // Which query this lane counts for between scores and values, which of its scores (every eighth), and what it sees. Each
    // of a query's eight lanes keeps its maximum, and a sum of its own. Lanes without a query do as the last one's.
    let my_query = min(lane / 8u, QUERIES - 1u);
    let my_scores = my_query * 64u + lane % 8u;
    let has_query = lane / 8u < QUERIES;
    let is_leader = lane % 8u == 0u;
    let my_position = position_of(min(first_token + my_query / {HEADS}u, last_token));
    let my_first = first_visible(my_position);
#ifdef ALL
    let my_last = all_end - 1u;
#else
    let my_last = my_position;
#endif
#ifdef SINKS
    var maximum = sinks[first_head + my_query % {HEADS}u];
    var total = select(0.0, 1.0, is_leader);
#else
    var maximum = -1e30;
    var total = 0.0;
#endif
    // low, high _t_h_s: of head h of token t, vector number vector + s * 64 of eight elements.
#unroll t TOKENS
#unroll h HEADS
#unroll s SLICES
    var low_{t}_{h}_{s} = vec4<f32>(0.0);
    var high_{t}_{h}_{s} = vec4<f32>(0.0);
#end
#end
#end
    // Compilers unroll a loop of known length, which pays while its text stays short.
    let keys_in_turns = select({KEY_TURNS}u * {KEYS_AT_ONCE}u * {SHARE}u, params.keys_in_turns, KEY_LENGTH8 * QUERIES > {MOST_UNROLLED}u);
    for (var round = start; round < end; round += BLOCK) {
        let entry = min(table + (round / BLOCK) % params.table_blocks, params.table_entries - 1u);
        let block_head = min(tables[entry], params.blocks - 1u) * BLOCK * params.kv_heads + kv_head;
        let last_cell = min(BLOCK, end - round) - 1u;
        workgroupBarrier();
        let key_stride = params.kv_heads * (params.key_words / KEY_UNIT);
        let key = block_head * (params.key_words / KEY_UNIT) + column * key_stride;
        let last_key = block_head * (params.key_words / KEY_UNIT) + last_cell * key_stride;
#unroll n SHARE
        let key_{n} = min(key + {n}u * COLUMNS * key_stride, last_key);
#end
#unroll t TOKENS
#unroll h HEADS
#unroll n SHARE
        var product_{t}_{h}_{n} = 0.0;
#end
#end
#end
        for (var i = 0u; i < keys_in_turns; i += {KEYS_AT_ONCE}u * {SHARE}u) {
#unroll j KEYS_AT_ONCE
#unroll n SHARE
            let words_{j}_{n} = load_key(key_{n}, share + i + {j}u * {SHARE}u);
#end
#end
#unroll j KEYS_AT_ONCE
#unroll n SHARE
            let k_{j}_{n} = floats_of_key(words_{j}_{n});
#end
#unroll t TOKENS
#unroll h HEADS
            let query_low_{j}_{t}_{h} = query[({t}u * {HEADS}u + {h}u) * QUERY_LENGTH4 + 2u * (share + i + {j}u * {SHARE}u)];
            let query_high_{j}_{t}_{h} = query[({t}u * {HEADS}u + {h}u) * QUERY_LENGTH4 + 2u * (share + i + {j}u * {SHARE}u) + 1u];
#unroll n SHARE
            product_{t}_{h}_{n} = add_products(product_{t}_{h}_{n}, query_low_{j}_{t}_{h}, query_high_{j}_{t}_{h}, k_{j}_{n});
#end
#end
#end
#end
        }
        {
#unroll j KEYS_LEFT
#unroll n SHARE
            let words_{j}_{n} = load_key(key_{n}, min(share + ({KEY_TURNS}u * {KEYS_AT_ONCE}u + {j}u) * {SHARE}u, KEY_LENGTH8 - 1u));
#end
#end
#unroll j KEYS_LEFT
#unroll n SHARE
            let k_{j}_{n} = floats_of_key(words_{j}_{n});
#end
#unroll t TOKENS
#unroll h HEADS
            let query_low_{j}_{t}_{h} = query[({t}u * {HEADS}u + {h}u) * QUERY_LENGTH4 + 2u * (share + ({KEY_TURNS}u * {KEYS_AT_ONCE}u + {j}u) * {SHARE}u)];
            let query_high_{j}_{t}_{h} = query[({t}u * {HEADS}u + {h}u) * QUERY_LENGTH4 + 2u * (share + ({KEY_TURNS}u * {KEYS_AT_ONCE}u + {j}u) * {SHARE}u) + 1u];
#unroll n SHARE
            product_{t}_{h}_{n} = add_products(product_{t}_{h}_{n}, query_low_{j}_{t}_{h}, query_high_{j}_{t}_{h}, k_{j}_{n});
#end
#end
#end
#end
        }
#unroll t TOKENS
#unroll h HEADS
#unroll n SHARE
        shared_floats[({t}u * {HEADS}u + {h}u) * 64u * {SHARE}u + {n}u * LANES + lane] = product_{t}_{h}_{n};
#end
#end
#end
        workgroupBarrier();
        var most = -1e30;
#unroll i 8
        var score_{i} = 0.0;
#unroll n SHARE
        score_{i} += shared_floats[(my_scores + {i}u * 8u) * {SHARE}u + {n}u];
#end
#ifdef SOFTCAP
        score_{i} = params.softcap * tanh(clamp(score_{i} / params.softcap, -15.0, 15.0));
#endif
        let position_{i} = round + lane % 8u + {i}u * 8u;
        score_{i} = select(-1e30, score_{i}, position_{i} >= my_first && position_{i} <= my_last);
        most = max(most, score_{i});
#end
        partial[lane] = most;
        workgroupBarrier();
        most = maximum;
#unroll i 8
        most = max(most, partial[my_query * 8u + {i}u]);
#end
        let earlier = exp(maximum - most);
        maximum = most;
        total *= earlier;
#unroll i 8
        let weight_{i} = select(0.0, exp(score_{i} - most), score_{i} > -1e30);
        total += weight_{i};
#end
        if has_query {
#unroll i 8
            shared_floats[my_scores + {i}u * 8u] = weight_{i};
#end
            if is_leader {
                correction[my_query] = earlier;
            }
        }
        workgroupBarrier();
#unroll t TOKENS
#unroll h HEADS
#unroll s SLICES
        low_{t}_{h}_{s} *= correction[{t}u * {HEADS}u + {h}u];
        high_{t}_{h}_{s} *= correction[{t}u * {HEADS}u + {h}u];
#end
#end
#end
        let value = block_head * (params.value_words / VALUE_UNIT);
        let value_stride = params.kv_heads * (params.value_words / VALUE_UNIT);
        let last_value = value + last_cell * value_stride;
#unroll s SLICES
        {
            let i = min(vector + {s}u * 64u, VALUE_LENGTH8 - 1u);
            for (var group = lane / VECTORS; group * {CELLS_AT_ONCE}u <= last_cell; group += LANE_PARTS) {
                let cell = group * {CELLS_AT_ONCE}u;
                let at = value + cell * value_stride;
#unroll c CELLS_AT_ONCE
                let words_{c} = load_value(min(at + {c}u * value_stride, last_value), i);
#end
#unroll c CELLS_AT_ONCE
                let v_{c} = floats_of_value(words_{c});
#unroll t TOKENS
#unroll h HEADS
                let w_{c}_{t}_{h} = vec4<f32>(shared_floats[({t}u * {HEADS}u + {h}u) * 64u + cell + {c}u]);
                low_{t}_{h}_{s} = fma(w_{c}_{t}_{h}, v_{c}.low, low_{t}_{h}_{s});
                high_{t}_{h}_{s} = fma(w_{c}_{t}_{h}, v_{c}.high, high_{t}_{h}_{s});
#end
#end
#end
            }
        }
#end
    }
    workgroupBarrier();
    partial[lane] = total;
    workgroupBarrier();
    if is_leader && has_query {
        var all = 0.0;
#unroll i 8
        all += partial[lane + {i}u];
#end
#ifdef PARTS
        if first_token + my_query / {HEADS}u <= last_token {
            let of_query = (first_token + my_query / {HEADS}u) * params.heads + first_head + my_query % {HEADS}u;
            maxima_and_sums[of_query * workgroups.z + workgroup.z] = vec2<f32>(maximum, all);
        }
        correction[my_query] = 1.0;
#else
        correction[my_query] = 1.0 / all;
#endif
    }
    // A loop over the tile's queries, not as many copies of it, each with its barriers, loads and stores.
    let queries_here = (last_token - first_token + 1u) * {HEADS}u;
    for (var r = 0u; r < queries_here; r++) {
#ifdef PARTS
        let at = ((first_token + r / {HEADS}u) * params.heads + first_head + r % {HEADS}u) * workgroups.z + workgroup.z;
#else
        let at = (first_token + r / {HEADS}u) * params.heads + first_head + r % {HEADS}u;
#endif
#unroll s SLICES
        {
            var low = low_0_0_{s};
            var high = high_0_0_{s};
#unroll t TOKENS
#unroll h HEADS
            low = select(low, low_{t}_{h}_{s}, r == {t}u * {HEADS}u + {h}u);
            high = select(high, high_{t}_{h}_{s}, r == {t}u * {HEADS}u + {h}u);
#end
#end
            // Vectors of four: those of this slice, and where they begin in the head.
            let vectors = min(2u * VECTORS, VALUE_LENGTH4 - {s}u * 128u);
            let first_vector = at * VALUE_LENGTH4 + {s}u * 128u;
            workgroupBarrier();
            shared_vectors[lane * 2u] = low;
            shared_vectors[lane * 2u + 1u] = high;
            workgroupBarrier();
            let factor = correction[r];
#unroll n OUT_TURNS
            if lane + {n}u * LANES < vectors {
                var sum = shared_vectors[lane + {n}u * LANES];
                for (var p = 1u; p < LANE_PARTS; p++) {
                    sum += shared_vectors[lane + {n}u * LANES + p * 2u * VECTORS];
                }
                out[first_vector + lane + {n}u * LANES] = sum * factor;
            }
#end
        }
#end
    }
}
