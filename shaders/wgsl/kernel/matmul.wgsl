// Y = X W^T for many tokens, tile by tile: a tile's weights are decoded once into workgroup memory and used
// for 32 tokens.
//
// Shapes: weights [rows, 32 * groups] in a block format; input [tokens, 32 * groups] f32; out [tokens,
// out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added. Tiles hold f32; halves with F16; bytes, inputs rounded
// to them, with INT8.
// With EXPERTS the tokens of a tile are slots that chose one expert, whose rows it multiplies: see expert_lists.
// Threads: 128 a workgroup, which computes 64 rows (x) for 32 tokens (y); each thread 4 rows, 16 apart, for
// 4 tokens, 8 apart. A step of the loop takes one group of 32 along the row.
#define SEVERAL
#import shared/product
#ifdef EXPERTS
@group(0) @binding(7) var<storage, read> tiles: array<u32>;
#endif

const TILE_ROWS: u32 = 64u;
const TILE_TOKENS: u32 = 32u;
const LANES: u32 = 128u;
// From one row of a tile to the next: 8 vectors and one of padding, against bank conflicts.
const STRIDE: u32 = 9u;

#ifdef INT8
#import shared/int8
var<workgroup> weight_tile: array<u32, 576>;
var<workgroup> input_tile: array<u32, 288>;
// Scales and offsets of a row's group; scales and sums of a token's; each of both halves.
var<workgroup> weight_scales: array<vec4<f32>, 64>;
var<workgroup> input_scales: array<vec4<f32>, 32>;
#else
#ifdef F16
// Halves of numbers divided by the largest of their group, so that none overflows.
var<workgroup> weight_tile: array<vec2<u32>, 576>;
var<workgroup> input_tile: array<vec2<u32>, 288>;
var<workgroup> weight_scales: array<f32, 64>;
var<workgroup> input_scales: array<f32, 32>;

fn largest_of_group(x: Group) -> f32 {
    let most = max(
        max(max(abs(x[0]), abs(x[1])), max(abs(x[2]), abs(x[3]))),
        max(max(abs(x[4]), abs(x[5])), max(abs(x[6]), abs(x[7]))),
    );
    return max(max(max(most.x, most.y), max(most.z, most.w)), 1e-30);
}

fn to_halves(x: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(pack2x16float(x.xy), pack2x16float(x.zw));
}

fn from_halves(x: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(x.x), unpack2x16float(x.y));
}
#else
var<workgroup> weight_tile: array<vec4<f32>, 576>;
var<workgroup> input_tile: array<vec4<f32>, 288>;
#endif
#endif

// The rows of input and output of a tile's token.
#ifdef EXPERTS
fn input_row(tile_at: u32, token: u32) -> u32 {
    return tiles[tile_at + token] / params.slots_per_row;
}

fn output_row(tile_at: u32, token: u32) -> u32 {
    return tiles[tile_at + token];
}
#else
fn input_row(tile_at: u32, token: u32) -> u32 {
    return tile_at + token;
}

fn output_row(tile_at: u32, token: u32) -> u32 {
    return tile_at + token;
}
#endif

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let groups = params.groups;
    let first_row = workgroup.x * TILE_ROWS;
#ifdef EXPERTS
    // Uniform: the whole workgroup leaves.
    if workgroup.y >= tiles[0] {
        return;
    }
    let expert = tiles[1u + workgroup.y * 3u] - params.first_expert;
    if expert >= params.experts {
        return;
    }
    let tile_at = params.order + tiles[2u + workgroup.y * 3u];
    let tile_tokens = tiles[3u + workgroup.y * 3u];
    let weight_row = params.first_row + expert * params.expert_rows;
    let bias_row = params.first_bias + expert * params.expert_rows;
#else
    let first_token = workgroup.y * TILE_TOKENS;
    let tile_at = first_token;
    let tile_tokens = min(input_rows() - first_token, TILE_TOKENS);
    let weight_row = 0u;
    let bias_row = params.out_offset;
#endif
    let my_row = lane % 16u;
    let my_token = lane / 16u;
    // sums{r}[t]: row my_row + 16 r, token my_token + 8 t.
#unroll r 4
    var sums{r} = vec4<f32>(0.0);
#end
    for (var g = 0u; g < groups; g++) {
        workgroupBarrier();
        if lane < TILE_ROWS {
            let row = weight_row + min(first_row + lane, params.rows - 1u);
            let to = lane * STRIDE;
#ifdef INT8
            let c = codes(row * groups + g);
            let s = scales(row * groups + g);
            weight_scales[lane] = vec4<f32>(s.scale, s.offset);
#unroll k 4
            weight_tile[{k}u * TILE_ROWS + lane] = c.low[{k}];
            weight_tile[(4u + {k}u) * TILE_ROWS + lane] = c.high[{k}];
#end
#else
            let w = decode_group(row * groups + g);
#ifdef F16
            let most = largest_of_group(w);
            weight_scales[lane] = most;
#unroll k 8
            weight_tile[to + {k}u] = to_halves(w[{k}] / most);
#end
#else
#unroll k 8
            weight_tile[to + {k}u] = w[{k}];
#end
#endif
#endif
        }
#ifdef INT8
        if lane >= TILE_ROWS && lane < TILE_ROWS + TILE_TOKENS {
            let tile_token = lane - TILE_ROWS;
            let token = min(tile_token, tile_tokens - 1u);
            let at = (input_row(tile_at, token) * groups + g) * 8u;
#unroll k 8
            let x{k} = input[at + {k}u];
#end
            // Each half of a group has its scale.
            let low_most = max(max(largest_of(x0), largest_of(x1)), max(largest_of(x2), largest_of(x3)));
            let high_most = max(max(largest_of(x4), largest_of(x5)), max(largest_of(x6), largest_of(x7)));
            let low_factor = int8_factor(low_most);
            let high_factor = int8_factor(high_most);
            let bytes0 = int8_bytes(x0, low_factor);
            let bytes1 = int8_bytes(x1, low_factor);
            let bytes2 = int8_bytes(x2, low_factor);
            let bytes3 = int8_bytes(x3, low_factor);
            let bytes4 = int8_bytes(x4, high_factor);
            let bytes5 = int8_bytes(x5, high_factor);
            let bytes6 = int8_bytes(x6, high_factor);
            let bytes7 = int8_bytes(x7, high_factor);
#unroll k 8
            input_tile[tile_token * STRIDE + {k}u] = bytes{k};
#end
            let low = int8_sum(bytes0) + int8_sum(bytes1) + int8_sum(bytes2) + int8_sum(bytes3);
            let high = int8_sum(bytes4) + int8_sum(bytes5) + int8_sum(bytes6) + int8_sum(bytes7);
            let scale = vec2<f32>(int8_scale(low_most), int8_scale(high_most));
            input_scales[tile_token] = vec4<f32>(scale, scale * vec2<f32>(f32(low), f32(high)));
        }
#else
#ifdef F16
        if lane >= TILE_ROWS && lane < TILE_ROWS + TILE_TOKENS {
            let tile_token = lane - TILE_ROWS;
            let token = min(tile_token, tile_tokens - 1u);
            let at = (input_row(tile_at, token) * groups + g) * 8u;
            let x = Group(
                input[at], input[at + 1u], input[at + 2u], input[at + 3u],
                input[at + 4u], input[at + 5u], input[at + 6u], input[at + 7u],
            );
            let most = largest_of_group(x);
            input_scales[tile_token] = most;
#unroll k 8
            input_tile[tile_token * STRIDE + {k}u] = to_halves(x[{k}] / most);
#end
        }
#else
        for (var i = lane; i < TILE_TOKENS * 8u; i += LANES) {
            let token = min(i / 8u, tile_tokens - 1u);
            input_tile[(i / 8u) * STRIDE + i % 8u] = input[(input_row(tile_at, token) * groups + g) * 8u + i % 8u];
        }
#endif
#endif
        workgroupBarrier();
#ifdef INT8
#unroll r 4
        var low{r} = vec4<i32>(0);
        var high{r} = vec4<i32>(0);
        let s{r} = weight_scales[my_row + 16u * {r}u];
#end
#unroll t 4
        let x_scales{t} = input_scales[my_token + 8u * {t}u];
#end
        for (var k = 0u; k < 4u; k++) {
#unroll t 4
            let x_low{t} = input_tile[(my_token + 8u * {t}u) * STRIDE + k];
            let x_high{t} = input_tile[(my_token + 8u * {t}u) * STRIDE + 4u + k];
#end
#unroll r 4
            {
                let w_low = weight_tile[k * TILE_ROWS + my_row + 16u * {r}u];
                let w_high = weight_tile[(4u + k) * TILE_ROWS + my_row + 16u * {r}u];
#unroll t 4
                low{r}[{t}] += int8_dot(w_low, x_low{t});
                high{r}[{t}] += int8_dot(w_high, x_high{t});
#end
            }
#end
        }
#unroll r 4
#unroll t 4
        sums{r}[{t}] += dot(s{r}.xy * x_scales{t}.xy, vec2<f32>(f32(low{r}[{t}]), f32(high{r}[{t}]))) + dot(s{r}.zw, x_scales{t}.zw);
#end
#end
#else
#ifdef F16
#unroll r 4
        var part{r} = vec4<f32>(0.0);
#end
        for (var k = 0u; k < 8u; k++) {
#unroll t 4
            let x{t} = from_halves(input_tile[(my_token + 8u * {t}u) * STRIDE + k]);
#end
#unroll r 4
            {
                let w = from_halves(weight_tile[(my_row + 16u * {r}u) * STRIDE + k]);
                part{r} += vec4<f32>(dot(w, x0), dot(w, x1), dot(w, x2), dot(w, x3));
            }
#end
        }
        let x_scales = vec4<f32>(
            input_scales[my_token], input_scales[my_token + 8u], input_scales[my_token + 16u], input_scales[my_token + 24u],
        );
#unroll r 4
        sums{r} += part{r} * x_scales * weight_scales[my_row + 16u * {r}u];
#end
#else
        for (var k = 0u; k < 8u; k++) {
#unroll t 4
            let x{t} = input_tile[(my_token + 8u * {t}u) * STRIDE + k];
#end
#unroll r 4
            {
                let w = weight_tile[(my_row + 16u * {r}u) * STRIDE + k];
                sums{r} += vec4<f32>(dot(w, x0), dot(w, x1), dot(w, x2), dot(w, x3));
            }
#end
        }
#endif
#endif
    }
#unroll r 4
    {
        let row = first_row + my_row + 16u * {r}u;
        for (var t = 0u; t < 4u; t++) {
            let token = my_token + 8u * t;
            if row < params.rows && token < tile_tokens {
                put(output_row(tile_at, token) * params.out_stride + params.out_offset + row, finish(sums{r}[t], bias_row + row));
            }
        }
    }
#end
}
