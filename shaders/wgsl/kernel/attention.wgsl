// out = softmax(scale * q.k over the visible keys) v for one head of one token, in one pass over the cells
// with a running maximum (Dao et al. 2022, arXiv 2205.14135).
//
// Shapes: qkv [tokens, qkv_stride4 * 4] f32, the turned q first; keys and values as qk_rope_store writes them;
// out [tokens, heads * value_length] f32. Position p of a sequence lies in cell tables[table + p / 64 mod
// table_blocks] * 64 + p mod 64.
// Threads: a workgroup of LANES a head (x) of a token (y). In a round of LANES cells each lane scores one
// cell; then the lanes add up values: lane = part * vectors + vector, each part taking every parts-th cell.
#import shared/step

struct Params {
    heads: u32,
    // Query heads a key head.
    heads_per_kv: u32,
    key_length4: u32,
    value_length4: u32,
    // From one cell to the next, in elements / 4.
    key_width4: u32,
    value_width4: u32,
    qkv_stride4: u32,
    scale: f32,
    // Positions that a query sees, itself included.
    window: u32,
    windowed: u32,
    table_blocks: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> values: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tokens: array<Token>;
@group(0) @binding(4) var<storage, read> tables: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

override LANES: u32 = 64u;
// Lanes that share the elements of a value head: the power of two up to LANES that covers value_length4.
override VECTORS: u32 = 16u;

var<workgroup> query: array<vec4<f32>, 256>;
var<workgroup> cell_of: array<u32, LANES>;
var<workgroup> weight_of: array<f32, LANES>;
var<workgroup> scratch: array<f32, LANES>;
var<workgroup> partial_sums: array<vec4<f32>, LANES>;

// Elements 4 * index to 4 * index + 3 of the keys.
fn load_key(index: u32) -> vec4<f32> {
#ifdef KEYS_F32
    return bitcast<vec4<f32>>(keys[index]);
#else
    let words = keys[index >> 1u];
    let pair = select(words.xy, words.zw, (index & 1u) == 1u);
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
#endif
}

fn load_value(index: u32) -> vec4<f32> {
#ifdef VALUES_F32
    return bitcast<vec4<f32>>(values[index]);
#else
    let words = values[index >> 1u];
    let pair = select(words.xy, words.zw, (index & 1u) == 1u);
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
#endif
}

fn workgroup_max(value: f32, lane: u32) -> f32 {
    scratch[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half = half / 2u) {
        if lane < half {
            scratch[lane] = max(scratch[lane], scratch[lane + half]);
        }
        workgroupBarrier();
    }
    return scratch[0];
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = tokens[workgroup.y];
    let table = select(token.table_full, token.table_window, params.windowed == 1u);
    let kv_head = workgroup.x / params.heads_per_kv;
    let read_at = workgroup.y * params.qkv_stride4 + workgroup.x * params.key_length4;
    for (var i = lane; i < params.key_length4; i += LANES) {
        query[i] = qkv[read_at + i] * params.scale;
    }
    let end = token.position + 1u;
    let start = end - min(end, params.window);
    let vector = lane % VECTORS;
    let part = lane / VECTORS;
    let parts = LANES / VECTORS;
    var running_max = -1e30;
    var running_sum = 0.0;
    // Vectors vector, vector + VECTORS, ... of the head: at most 4 for heads up to 1024.
    var sums: array<vec4<f32>, 4>;
    for (var round = start; round < end; round += LANES) {
        workgroupBarrier();
        let position = round + lane;
        var score = -1e30;
        if position < end {
            let cell = tables[table + (position / 64u) % params.table_blocks] * 64u + position % 64u;
            cell_of[lane] = cell;
            let key = cell * params.key_width4 + kv_head * params.key_length4;
            var products = vec4<f32>(0.0);
            for (var i = 0u; i < params.key_length4; i++) {
                products = fma(query[i], load_key(key + i), products);
            }
            score = (products.x + products.y) + (products.z + products.w);
        }
        let new_max = max(running_max, workgroup_max(score, lane));
        let correction = exp(running_max - new_max);
        running_max = new_max;
        weight_of[lane] = select(0.0, exp(score - new_max), position < end);
        workgroupBarrier();
        let cells = min(LANES, end - round);
        running_sum *= correction;
        for (var i = 0u; i < cells; i++) {
            running_sum += weight_of[i];
        }
        for (var s = 0u; s < 4u; s++) {
            let v = vector + s * VECTORS;
            if v < params.value_length4 {
                var sum = sums[s] * correction;
                for (var i = part; i < cells; i += parts) {
                    let at = cell_of[i] * params.value_width4 + kv_head * params.value_length4 + v;
                    sum = fma(vec4<f32>(weight_of[i]), load_value(at), sum);
                }
                sums[s] = sum;
            }
        }
    }
    let to = (workgroup.y * params.heads + workgroup.x) * params.value_length4;
    for (var s = 0u; s < 4u; s++) {
        workgroupBarrier();
        partial_sums[lane] = sums[s];
        workgroupBarrier();
        let v = vector + s * VECTORS;
        if part == 0u && v < params.value_length4 {
            var sum = partial_sums[lane];
            for (var p = 1u; p < parts; p++) {
                sum += partial_sums[lane + p * VECTORS];
            }
            out[to + v] = sum / running_sum;
        }
    }
}
