// The loop of mat-vec kernels over a row's groups, for the middle of their main function, which declares
//   lane; groups, of a row; row_m_r: the first group of row r of matrix m; row_of_x{t}: of input row t;
//   sum_m_r_t: where the products are added, in units of SUM_UNIT (shared/product); with NORM squares{t}, where the input's squares are.
// What a lane takes in a turn: with QUADS eight weights of each of four neighbouring groups, whose scales are read once;
// with SPLIT eight weights of a group; so that four neighbouring lanes share what they read. Else a whole group; with ROUNDED of an input that is bytes and their
// scales already (kernel/round_input).
#ifdef QUADS
    for (var i = lane; i < groups; i += LANES) {
        let quad = i / 4u;
        let q = i % 4u;
#unroll g 4
        let at{g} = (quad * 4u + {g}u) * 8u + q;
#ifdef NORM
        let low_factors{g} = norm_weight[at{g}];
        let high_factors{g} = norm_weight[at{g} + 4u];
#endif
#unroll t TOKENS
#ifdef NORM
        let raw_low{t}_{g} = input[row_of_x{t} * 8u + at{g}];
        let raw_high{t}_{g} = input[row_of_x{t} * 8u + at{g} + 4u];
        squares{t} += dot(raw_low{t}_{g}, raw_low{t}_{g}) + dot(raw_high{t}_{g}, raw_high{t}_{g});
        let low{t}_{g} = raw_low{t}_{g} * low_factors{g};
        let high{t}_{g} = raw_high{t}_{g} * high_factors{g};
#else
        let low{t}_{g} = input[row_of_x{t} * 8u + at{g}];
        let high{t}_{g} = input[row_of_x{t} * 8u + at{g} + 4u];
#endif
#end
#end
#ifdef OFFSETS
        // What offsets are multiplied with; where they are a constant's, times it.
#ifdef ZERO_POINT
        let unit = ZERO_POINT * CODE_UNIT;
#else
        let unit = CODE_UNIT;
#endif
#unroll t TOKENS
#ifdef ONE_SCALE
        let x_sums{t} = unit * vec4<f32>(
            sum_of(low{t}_0 + high{t}_0), sum_of(low{t}_1 + high{t}_1), sum_of(low{t}_2 + high{t}_2), sum_of(low{t}_3 + high{t}_3));
#else
        let low_sums{t} = unit * vec4<f32>(sum_of(low{t}_0), sum_of(low{t}_1), sum_of(low{t}_2), sum_of(low{t}_3));
        let high_sums{t} = unit * vec4<f32>(sum_of(high{t}_0), sum_of(high{t}_1), sum_of(high{t}_2), sum_of(high{t}_3));
#endif
#end
#endif
#unroll m MATRICES
#unroll r ROWS
        {
            let first_group = row_{m}_{r} + quad * 4u;
            let s = quad_scales(first_group / 4u);
#unroll g 4
            let e{g} = eight_codes(first_group + {g}u, q);
#end
#unroll t TOKENS
            let low{t} = vec4<f32>(dot(e0.low, low{t}_0), dot(e1.low, low{t}_1), dot(e2.low, low{t}_2), dot(e3.low, low{t}_3));
            let high{t} = vec4<f32>(dot(e0.high, high{t}_0), dot(e1.high, high{t}_1), dot(e2.high, high{t}_2), dot(e3.high, high{t}_3));
#ifdef ONE_SCALE
#ifdef ZERO_POINT
            sum_{m}_{r}_{t} += dot(s.low, (fma(high{t}, vec4<f32>(1.0 / HIGH_UNIT), low{t}) - x_sums{t}));
#else
            sum_{m}_{r}_{t} += dot(s.low, fma(high{t}, vec4<f32>(1.0 / HIGH_UNIT), low{t}));
#ifdef OFFSETS
            sum_{m}_{r}_{t} += dot(s.low_offset, x_sums{t});
#endif
#endif
#else
#ifdef ZERO_POINT
            sum_{m}_{r}_{t} += dot(s.low, low{t} - low_sums{t}) + dot(s.high, high{t} - high_sums{t});
#else
            sum_{m}_{r}_{t} += dot(s.low, low{t}) + dot(s.high, high{t});
#ifdef OFFSETS
            sum_{m}_{r}_{t} += dot(s.low_offset, low_sums{t}) + dot(s.high_offset, high_sums{t});
#endif
#endif
#endif
#end
        }
#end
#end
    }
#else
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
#ifdef OFFSETS
#ifdef ONE_SCALE
        let x_sum{t} = CODE_UNIT * sum_of(low{t} + high{t});
#else
        let x_sum{t} = CODE_UNIT * vec2<f32>(sum_of(low{t}), sum_of(high{t}));
#endif
#endif
#end
#unroll m MATRICES
#unroll r ROWS
        {
            let s = scales(row_{m}_{r} + g);
            let e = eight_codes(row_{m}_{r} + g, q);
#unroll t TOKENS
#ifdef ONE_SCALE
            sum_{m}_{r}_{t} += s.scale.x * fma(dot(e.high, high{t}), 1.0 / HIGH_UNIT, dot(e.low, low{t}));
#ifdef OFFSETS
            sum_{m}_{r}_{t} += s.offset.x * x_sum{t};
#endif
#else
            sum_{m}_{r}_{t} += s.scale.x * dot(e.low, low{t}) + s.scale.y * dot(e.high, high{t});
#ifdef OFFSETS
            sum_{m}_{r}_{t} += dot(s.offset, x_sum{t});
#endif
#endif
#end
        }
#end
#end
    }
#else
    for (var g = lane; g < groups; g += LANES) {
#unroll t TOKENS
#ifdef ROUNDED
        let low_bytes{t} = bytes[(row_of_x{t} + g) * 2u];
        let high_bytes{t} = bytes[(row_of_x{t} + g) * 2u + 1u];
        let x_scale{t} = x_scales[row_of_x{t} + g];
#unroll k 4
        let bytes{t}_{k} = low_bytes{t}[{k}];
#end
        let bytes{t}_4 = high_bytes{t}.x;
        let bytes{t}_5 = high_bytes{t}.y;
        let bytes{t}_6 = high_bytes{t}.z;
        let bytes{t}_7 = high_bytes{t}.w;
#else
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
#endif
#endif
#ifdef INT8
#ifdef OFFSETS
        let x_sum{t} = x_scale{t} * vec2<f32>(
            f32(int8_sum(bytes{t}_0) + int8_sum(bytes{t}_1) + int8_sum(bytes{t}_2) + int8_sum(bytes{t}_3)),
            f32(int8_sum(bytes{t}_4) + int8_sum(bytes{t}_5) + int8_sum(bytes{t}_6) + int8_sum(bytes{t}_7)),
        );
#endif
#else
#ifdef OFFSETS
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
            sum_{m}_{r}_{t} += dot(s.scale * x_scale{t}, vec2<f32>(f32(low{t}), f32(high{t})));
#ifdef OFFSETS
            sum_{m}_{r}_{t} += dot(s.offset, x_sum{t});
#endif
#end
#else
#unroll k 4
            let w{k} = codes_to_floats(c.low[{k}]);
            let v{k} = codes_to_floats(c.high[{k}]);
#end
#unroll t TOKENS
            let low{t} = fma(w0, x{t}_0, w1 * x{t}_1) + fma(w2, x{t}_2, w3 * x{t}_3);
            let high{t} = fma(v0, x{t}_4, v1 * x{t}_5) + fma(v2, x{t}_6, v3 * x{t}_7);
            sum_{m}_{r}_{t} += s.scale.x * sum_of(low{t}) + s.scale.y * sum_of(high{t});
#ifdef OFFSETS
            sum_{m}_{r}_{t} += dot(s.offset, x_sum{t});
#endif
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
#endif
