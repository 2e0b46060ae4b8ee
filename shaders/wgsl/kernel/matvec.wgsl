// Y = X W^T for few tokens: the lanes of a workgroup share the columns of a few rows, each weight is read
// once for TOKENS tokens, so that reading it is the cost.
//
// Shapes: weights [rows, 32 * groups] in a block format (GATED: 2 * rows, gate before up); input [tokens,
// 32 * groups] f32; out [tokens, out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added; with GATED activation(gate) * up. With NORM the
// input is normed on the way: x norm_weight / sqrt(mean(x^2) + epsilon), its last factor applied to y. With INT8
// (never with SPLIT or QUADS) inputs are rounded to bytes and multiplied as whole numbers.
// Threads: a workgroup of LANES computes ROWS rows of TOKENS tokens (z); its lanes share the groups of a row
// (shared/row_products), then their sums are added. Workgroups: x and y together over the rows.
#ifdef QUADS
#define SPLIT
#endif
#ifdef SPLIT
#define PREPARES
#endif
#import shared/product
#ifdef INT8
#import shared/int8
#endif

override LANES: u32 = 32u;
#import shared/row_partials

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
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
#ifdef PREPARED
    prepare(lane, LANES);
#endif
    let first_row = (workgroup.y * workgroups.x + workgroup.x) * {ROWS}u;
    // Uniform: the whole workgroup leaves.
    if first_row >= params.rows {
        return;
    }
    let groups = params.groups;
    let last = params.rows - 1u;
    let first_token = workgroup.z * {TOKENS}u;
#ifdef SEVERAL
    let last_token = input_rows() - 1u;
#else
    let last_token = first_token;
#endif
#unroll t TOKENS
    let row_of_x{t} = min(first_token + {t}u, last_token) * groups;
#end
    // sum_m_r_t: of matrix m (1: up), row first_row + r, token first_token + t.
#unroll m MATRICES
#unroll r ROWS
    let row_{m}_{r} = ({m}u * params.rows + min(first_row + {r}u, last)) * groups;
#unroll t TOKENS
    var sum_{m}_{r}_{t} = 0.0;
#end
#end
#end
#ifdef NORM
#unroll t TOKENS
    var squares{t} = 0.0;
#end
#endif
#import shared/row_products
#import shared/row_sums
#unroll t TOKENS
#ifdef NORM
    let norm{t} = 1.0 / sqrt(squares{t} / f32(groups * 32u) + params.epsilon);
#endif
#unroll r ROWS
    {
        let row = min(first_row + {r}u, last);
        var y = sum_0_{r}_{t} * (1.0 / SUM_UNIT);
#ifdef NORM
        y *= norm{t};
#endif
        y = finish(y, params.first_bias + row);
#ifdef GATED
        var up = sum_1_{r}_{t} * (1.0 / SUM_UNIT);
#ifdef NORM
        up *= norm{t};
#endif
        y = gate_times_up(y, finish(up, params.rows + row));
#endif
        if lane == {r}u && first_row + {r}u <= last && first_token + {t}u <= last_token {
            put((first_token + {t}u) * params.out_stride + params.out_offset + row, y);
        }
    }
#end
#end
}
