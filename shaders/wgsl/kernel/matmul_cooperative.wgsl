enable f16;
enable wgpu_cooperative_matrix;
// Y = X W^T for many tokens with cooperative matrices: a subgroup multiplies tiles of 16 x 16 halves, sums in f32.
//
// Shapes: weights [rows, 32 * groups] in a block format; input [tokens, 32 * groups] f32; out [tokens,
// out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added. A token's inputs are divided by its largest, so that
// no half overflows.
// Threads: four subgroups a workgroup, which computes 64 rows (x) for 32 tokens (y); subgroup s multiplies rows
// 16 s to 16 s + 15 with both halves of the tokens. A step of the loop takes one group of 32 along the row.
#define SEVERAL
#import shared/product

const TILE_ROWS: u32 = 64u;
const TILE_TOKENS: u32 = 32u;
// Halves from one row of a tile to the next: 32 and 8 of padding, which keeps rows aligned to 16 bytes.
const STRIDE: u32 = 40u;

var<workgroup> weight_tile: array<f16, 2560>;
var<workgroup> input_tile: array<f16, 1280>;
var<workgroup> out_tile: array<f32, 2048>;
var<workgroup> largest: array<f32, 32>;

// Four subgroups' lanes: at least 64.
override LANES: u32 = 128u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let groups = params.groups;
    let first_row = workgroup.x * TILE_ROWS;
    let first_token = workgroup.y * TILE_TOKENS;
    let token_count = input_rows();
    // Each token's largest input, by LANES / 32 lanes a token.
    let shares = LANES / TILE_TOKENS;
    let my_token = min(first_token + lane / shares, token_count - 1u);
    var most = vec4<f32>(0.0);
    for (var i = lane % shares; i < groups * 8u; i += shares) {
        most = max(most, abs(input[my_token * groups * 8u + i]));
    }
    out_tile[lane] = max(max(most.x, most.y), max(most.z, most.w));
    workgroupBarrier();
    if lane < TILE_TOKENS {
        var of_token = 1e-30;
        for (var i = 0u; i < shares; i++) {
            of_token = max(of_token, out_tile[lane * shares + i]);
        }
        largest[lane] = of_token;
    }
    var sums0 = coop_mat16x16<f32, C>();
    var sums1 = coop_mat16x16<f32, C>();
    for (var g = 0u; g < groups; g++) {
        workgroupBarrier();
        if lane < TILE_ROWS {
            let w = decode_group(min(first_row + lane, params.rows - 1u) * groups + g);
#unroll k 8
            {
                let to = lane * STRIDE + {k}u * 4u;
                weight_tile[to] = f16(w[{k}].x);
                weight_tile[to + 1u] = f16(w[{k}].y);
                weight_tile[to + 2u] = f16(w[{k}].z);
                weight_tile[to + 3u] = f16(w[{k}].w);
            }
#end
        }
        for (var i = lane; i < TILE_TOKENS * 8u; i += LANES) {
            let token = min(first_token + i / 8u, token_count - 1u);
            let x = input[(token * groups + g) * 8u + i % 8u] / largest[i / 8u];
            let to = (i / 8u) * STRIDE + (i % 8u) * 4u;
            input_tile[to] = f16(x.x);
            input_tile[to + 1u] = f16(x.y);
            input_tile[to + 2u] = f16(x.z);
            input_tile[to + 3u] = f16(x.w);
        }
        workgroupBarrier();
#unroll k 2
        {
            let w = coopLoadT<coop_mat16x16<f16, A>>(&weight_tile[subgroup * 16u * STRIDE + {k}u * 16u], STRIDE);
            let x0 = coopLoad<coop_mat16x16<f16, B>>(&input_tile[{k}u * 16u], STRIDE);
            let x1 = coopLoad<coop_mat16x16<f16, B>>(&input_tile[16u * STRIDE + {k}u * 16u], STRIDE);
            sums0 = coopMultiplyAdd(w, x0, sums0);
            sums1 = coopMultiplyAdd(w, x1, sums1);
        }
#end
    }
    // out_tile[row * 32 + token].
    coopStoreT(sums0, &out_tile[subgroup * 512u], 32u);
    coopStoreT(sums1, &out_tile[subgroup * 512u + 16u], 32u);
    workgroupBarrier();
    for (var i = lane; i < TILE_ROWS * TILE_TOKENS; i += LANES) {
        let row = first_row + i % TILE_ROWS;
        let tile_token = i / TILE_ROWS;
        let token = first_token + tile_token;
        if row < params.rows && token < token_count {
            let sum = out_tile[(i % TILE_ROWS) * 32u + tile_token] * largest[tile_token];
            put(token * params.out_stride + params.out_offset + row, finish(sum, params.out_offset + row));
        }
    }
}
