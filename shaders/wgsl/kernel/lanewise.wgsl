// Y = X W^T with a row a lane: each lane multiplies rows of its own with inputs that the lanes of a cluster
// load together and hand to each other by shuffles. No workgroup memory, no sum over lanes. For software drivers, whose
// loads are dear and shuffles cheap.
//
// Shapes: weights [rows, 32 * groups] in a block format (GATED: 2 * rows, gate before up); input [tokens,
// 32 * groups] f32; out [tokens, out_stride] f32, written from column out_offset on.
// Result: y, or y + bias with BIAS; stored, or with ADD added; with GATED activation(gate) * up. With NORM the
// input is normed on the way: x norm_weight / sqrt(mean(x^2) + epsilon), its last factor applied to y. With INT8
// inputs are rounded to bytes and multiplied as whole numbers.
// Threads: a lane computes ROWS rows, LANES apart, of TOKENS tokens (z). A cluster is eight lanes of a
// subgroup, which must have at least eight: together they hold a group's 32 inputs, four each.
// Workgroups: x and y together over the rows, LANES * ROWS each.
#define SEVERAL
#import shared/product
#ifdef INT8
#import shared/int8
#endif

override LANES: u32 = 32u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    let first = (workgroup.y * workgroups.x + workgroup.x) * LANES * {ROWS}u;
    // Uniform: the whole workgroup leaves.
    if first >= params.rows {
        return;
    }
    let groups = params.groups;
    let last = params.rows - 1u;
    let first_token = workgroup.z * {TOKENS}u;
    let last_token = input_rows() - 1u;
    // Where in the cluster this lane is, and the lanes that it takes inputs from: half h of a group, vec4 k.
    let inner = subgroup_lane % 8u;
#unroll h 2
#unroll k 4
    let from_{h}_{k} = subgroup_lane - inner + {h}u * 4u + {k}u;
#end
#end
#unroll t TOKENS
    let row_of_x{t} = min(first_token + {t}u, last_token) * groups;
#end
    // sum_m_r_t: of matrix m (1: up), row first + r LANES + lane, token first_token + t.
#unroll m MATRICES
#unroll r ROWS
    let row_{m}_{r} = ({m}u * params.rows + min(first + {r}u * LANES + lane, last)) * groups;
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
    for (var g = 0u; g < groups; g++) {
#ifdef NORM
        let factors = norm_weight[g * 8u + inner];
#unroll t TOKENS
        let raw{t} = input[(row_of_x{t} + g) * 8u + inner];
        squares{t} += dot(raw{t}, raw{t});
        let held{t} = raw{t} * factors;
#end
#else
#unroll t TOKENS
        let held{t} = input[(row_of_x{t} + g) * 8u + inner];
#end
#endif
#ifdef CODES
#unroll t TOKENS
#ifdef INT8
        // The largest of the lane's four inputs, of two lanes', of four: each half of a group has its scale.
        let most1_{t} = largest_of(held{t});
        let most2_{t} = max(most1_{t}, subgroupShuffle(most1_{t}, subgroup_lane ^ 1u));
        let most4_{t} = max(most2_{t}, subgroupShuffle(most2_{t}, subgroup_lane ^ 2u));
        let x_scale{t} = vec2<f32>(
            int8_scale(subgroupShuffle(most4_{t}, from_0_0)), int8_scale(subgroupShuffle(most4_{t}, from_1_0)),
        );
        let bytes_of_x{t} = int8_bytes(held{t}, int8_factor(most4_{t}));
        let of_lane{t} = int8_sum(bytes_of_x{t});
#else
        // The sum of the lane's four inputs, of two lanes', of four: lanes 0 to 3 hold those of weights 0 to 15.
        let of_lane{t} = sum_of(held{t});
#endif
        let of_two{t} = of_lane{t} + subgroupShuffle(of_lane{t}, subgroup_lane ^ 1u);
        let of_four{t} = of_two{t} + subgroupShuffle(of_two{t}, subgroup_lane ^ 2u);
#ifdef INT8
        let x_sum{t} = vec2<f32>(vec2<i32>(subgroupShuffle(of_four{t}, from_0_0), subgroupShuffle(of_four{t}, from_1_0))) * x_scale{t};
#else
        let x_sum{t} = vec2<f32>(subgroupShuffle(of_four{t}, from_0_0), subgroupShuffle(of_four{t}, from_1_0));
        let spread{t} = held{t} * SPREAD_FACTORS;
#endif
#end
#unroll m MATRICES
#unroll r ROWS
        let codes_{m}_{r} = codes(row_{m}_{r} + g);
        let bytes_{m}_{r}_0 = codes_{m}_{r}.low;
        let bytes_{m}_{r}_1 = codes_{m}_{r}.high;
        let scales_{m}_{r} = scales(row_{m}_{r} + g);
#unroll t TOKENS
        sum_{m}_{r}_{t} += dot(scales_{m}_{r}.offset, x_sum{t});
#end
#end
#end
#else
#unroll m MATRICES
#unroll r ROWS
        let group_{m}_{r} = decode_group(row_{m}_{r} + g);
#end
#end
#unroll t TOKENS
        let spread{t} = held{t};
#end
#endif
#unroll h 2
        {
#unroll m MATRICES
#unroll r ROWS
#unroll t TOKENS
#ifdef INT8
            var part_{m}_{r}_{t} = 0i;
#else
            var part_{m}_{r}_{t} = 0.0;
#endif
#end
#end
#end
#unroll k 4
            {
#unroll t TOKENS
#ifdef INT8
                let x{t} = subgroupShuffle(bytes_of_x{t}, from_{h}_{k});
#else
                let x{t} = vec4<f32>(
                    subgroupShuffle(spread{t}.x, from_{h}_{k}), subgroupShuffle(spread{t}.y, from_{h}_{k}),
                    subgroupShuffle(spread{t}.z, from_{h}_{k}), subgroupShuffle(spread{t}.w, from_{h}_{k}),
                );
#endif
#end
#unroll m MATRICES
#unroll r ROWS
                {
#ifdef INT8
#unroll t TOKENS
                    part_{m}_{r}_{t} += dot4I8Packed(bytes_{m}_{r}_{h}[{k}], x{t});
#end
#else
#ifdef CODES
                    let w = codes_to_spread_floats(bytes_{m}_{r}_{h}[{k}]);
#else
                    let w = group_{m}_{r}[{h} * 4 + {k}];
#endif
#unroll t TOKENS
                    part_{m}_{r}_{t} += dot(w, x{t});
#end
#endif
                }
#end
#end
            }
#end
#unroll m MATRICES
#unroll r ROWS
#unroll t TOKENS
#ifdef INT8
            sum_{m}_{r}_{t} = fma(scales_{m}_{r}.scale[{h}] * x_scale{t}[{h}], f32(part_{m}_{r}_{t}), sum_{m}_{r}_{t});
#else
#ifdef CODES
            sum_{m}_{r}_{t} = fma(scales_{m}_{r}.scale[{h}], part_{m}_{r}_{t}, sum_{m}_{r}_{t});
#else
            sum_{m}_{r}_{t} += part_{m}_{r}_{t};
#endif
#endif
#end
#end
#end
        }
#end
    }
#ifdef NORM
#unroll t TOKENS
    // The cluster's lanes hold the squares of a row together.
    squares{t} += subgroupShuffle(squares{t}, subgroup_lane ^ 1u);
    squares{t} += subgroupShuffle(squares{t}, subgroup_lane ^ 2u);
    squares{t} += subgroupShuffle(squares{t}, subgroup_lane ^ 4u);
    let norm{t} = 1.0 / sqrt(squares{t} / f32(params.groups * 32u) + params.epsilon);
#unroll m MATRICES
#unroll r ROWS
    sum_{m}_{r}_{t} *= norm{t};
#end
#end
#end
#endif
#unroll r ROWS
    {
        let row = first + {r}u * LANES + lane;
        if row <= last {
#unroll t TOKENS
            if first_token + {t}u <= last_token {
                var y = finish(sum_0_{r}_{t}, params.first_bias + row);
#ifdef GATED
                y = gate_times_up(y, finish(sum_1_{r}_{t}, params.rows + row));
#endif
                put((first_token + {t}u) * params.out_stride + params.out_offset + row, y);
            }
#end
        }
    }
#end
}
