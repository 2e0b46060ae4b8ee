// Y = X W^T for few tokens: the lanes of a workgroup share the columns of a few rows, each weight is read
// once for TOKENS tokens, so that reading it is the cost.
//
// Shapes: weights [rows, 32 * groups] in a block format (GATED: 2 * rows, gate before up); input [tokens,
// 32 * groups] f32; out [tokens, out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added; with GATED activation(gate) * up. With NORM the
// input is normed on the way: x norm_weight / sqrt(mean(x^2) + epsilon), its last factor applied to y. With INT8
// (never with SPLIT) inputs are rounded to bytes and multiplied as whole numbers.
// Threads: a workgroup of LANES computes ROWS rows of TOKENS tokens (z); its lanes stride over the groups of
// a row, a lane taking a whole group, or with SPLIT eight weights of it, so that four neighbours
// share a group; then the lanes' sums are added. Workgroups: x and y together over the rows.
#import shared/product
#ifdef INT8
#import shared/int8
#endif

override LANES: u32 = 32u;
#import shared/reduce

fn sum_of(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

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
    let first = (workgroup.y * workgroups.x + workgroup.x) * {ROWS}u;
    // Uniform: the whole workgroup leaves.
    if first >= params.rows {
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
    // sum_m_r_t: of matrix m (1: up), row first + r, token first_token + t.
#unroll m MATRICES
#unroll r ROWS
    let row_{m}_{r} = ({m}u * params.rows + min(first + {r}u, last)) * groups;
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
#ifdef SPLIT
    for (var i = lane; i < groups * 4u; i += LANES) {
        let g = i / 4u;
        let q = i % 4u;
#ifdef NORM
        let low_factors = norm_weight[g * 8u + q];
        let high_factors = norm_weight[g * 8u + 4u + q];
#endif
#unroll t TOKENS
#ifdef NORM
        let raw_low{t} = input[(row_of_x{t} + g) * 8u + q];
        let raw_high{t} = input[(row_of_x{t} + g) * 8u + 4u + q];
        squares{t} += dot(raw_low{t}, raw_low{t}) + dot(raw_high{t}, raw_high{t});
        let low{t} = raw_low{t} * low_factors;
        let high{t} = raw_high{t} * high_factors;
#else
        let low{t} = input[(row_of_x{t} + g) * 8u + q];
        let high{t} = input[(row_of_x{t} + g) * 8u + 4u + q];
#endif
        let x_sum{t} = vec2<f32>(sum_of(low{t}), sum_of(high{t}));
#end
#unroll m MATRICES
#unroll r ROWS
        {
            let s = scales(row_{m}_{r} + g);
            let words = code_words(row_{m}_{r} + g, q);
            let a = codes_to_floats(words.x);
            let b = codes_to_floats(words.y);
#unroll t TOKENS
            sum_{m}_{r}_{t} += s.scale.x * dot(a, low{t}) + s.scale.y * dot(b, high{t}) + dot(s.offset, x_sum{t});
#end
        }
#end
#end
    }
#else
    for (var g = lane; g < groups; g += LANES) {
#unroll t TOKENS
#unroll k 8
#ifdef NORM
        let raw{t}_{k} = input[(row_of_x{t} + g) * 8u + {k}u];
        squares{t} += dot(raw{t}_{k}, raw{t}_{k});
        let x{t}_{k} = raw{t}_{k} * norm_weight[g * 8u + {k}u];
#else
        let x{t}_{k} = input[(row_of_x{t} + g) * 8u + {k}u];
#endif
#end
#ifdef INT8
        // Each half of a group has its scale.
        let low_most{t} = max(max(largest_of(x{t}_0), largest_of(x{t}_1)), max(largest_of(x{t}_2), largest_of(x{t}_3)));
        let high_most{t} = max(max(largest_of(x{t}_4), largest_of(x{t}_5)), max(largest_of(x{t}_6), largest_of(x{t}_7)));
        let x_scale{t} = vec2<f32>(int8_scale(low_most{t}), int8_scale(high_most{t}));
        let low_factor{t} = int8_factor(low_most{t});
        let high_factor{t} = int8_factor(high_most{t});
        let bytes{t}_0 = int8_bytes(x{t}_0, low_factor{t});
        let bytes{t}_1 = int8_bytes(x{t}_1, low_factor{t});
        let bytes{t}_2 = int8_bytes(x{t}_2, low_factor{t});
        let bytes{t}_3 = int8_bytes(x{t}_3, low_factor{t});
        let bytes{t}_4 = int8_bytes(x{t}_4, high_factor{t});
        let bytes{t}_5 = int8_bytes(x{t}_5, high_factor{t});
        let bytes{t}_6 = int8_bytes(x{t}_6, high_factor{t});
        let bytes{t}_7 = int8_bytes(x{t}_7, high_factor{t});
        let x_sum{t} = x_scale{t} * vec2<f32>(
            f32(int8_sum(bytes{t}_0) + int8_sum(bytes{t}_1) + int8_sum(bytes{t}_2) + int8_sum(bytes{t}_3)),
            f32(int8_sum(bytes{t}_4) + int8_sum(bytes{t}_5) + int8_sum(bytes{t}_6) + int8_sum(bytes{t}_7)),
        );
#else
#ifdef CODES
        let x_sum{t} = vec2<f32>(sum_of((x{t}_0 + x{t}_1) + (x{t}_2 + x{t}_3)), sum_of((x{t}_4 + x{t}_5) + (x{t}_6 + x{t}_7)));
#endif
#endif
#end
#unroll m MATRICES
#unroll r ROWS
        {
#ifdef CODES
            let s = scales(row_{m}_{r} + g);
            let c = codes(row_{m}_{r} + g);
#ifdef INT8
#unroll t TOKENS
            let low{t} = dot4I8Packed(c.low.x, bytes{t}_0) + dot4I8Packed(c.low.y, bytes{t}_1)
                + dot4I8Packed(c.low.z, bytes{t}_2) + dot4I8Packed(c.low.w, bytes{t}_3);
            let high{t} = dot4I8Packed(c.high.x, bytes{t}_4) + dot4I8Packed(c.high.y, bytes{t}_5)
                + dot4I8Packed(c.high.z, bytes{t}_6) + dot4I8Packed(c.high.w, bytes{t}_7);
            sum_{m}_{r}_{t} += dot(s.scale * x_scale{t}, vec2<f32>(f32(low{t}), f32(high{t}))) + dot(s.offset, x_sum{t});
#end
#else
#unroll k 4
            let w{k} = codes_to_floats(c.low[{k}]);
            let v{k} = codes_to_floats(c.high[{k}]);
#end
#unroll t TOKENS
            let low{t} = fma(w0, x{t}_0, w1 * x{t}_1) + fma(w2, x{t}_2, w3 * x{t}_3);
            let high{t} = fma(v0, x{t}_4, v1 * x{t}_5) + fma(v2, x{t}_6, v3 * x{t}_7);
            sum_{m}_{r}_{t} += s.scale.x * sum_of(low{t}) + s.scale.y * sum_of(high{t}) + dot(s.offset, x_sum{t});
#end
#endif
#else
            let w = decode_group(row_{m}_{r} + g);
#unroll t TOKENS
            let low{t} = fma(w[0], x{t}_0, w[1] * x{t}_1) + fma(w[2], x{t}_2, w[3] * x{t}_3);
            let high{t} = fma(w[4], x{t}_4, w[5] * x{t}_5) + fma(w[6], x{t}_6, w[7] * x{t}_7);
            sum_{m}_{r}_{t} += sum_of(low{t} + high{t});
#end
#endif
        }
#end
#end
    }
#endif
#unroll t TOKENS
#ifdef NORM
    let all_squares{t} = workgroup_sum(squares{t}, lane, subgroup, subgroups, subgroup_lane);
    let norm{t} = 1.0 / sqrt(all_squares{t} / f32(groups * 32u) + params.epsilon);
#endif
#unroll r ROWS
    {
        let row = min(first + {r}u, last);
        var y = workgroup_sum(sum_0_{r}_{t}, lane, subgroup, subgroups, subgroup_lane);
#ifdef NORM
        y *= norm{t};
#endif
        y = finish(y, params.out_offset + row);
#ifdef GATED
        var up = workgroup_sum(sum_1_{r}_{t}, lane, subgroup, subgroups, subgroup_lane);
#ifdef NORM
        up *= norm{t};
#endif
        y = gate_times_up(y, finish(up, params.rows + row));
#endif
        if lane == {r}u && first + {r}u <= last && first_token + {t}u <= last_token {
            put((first_token + {t}u) * params.out_stride + params.out_offset + row, y);
        }
    }
#end
#end
}
