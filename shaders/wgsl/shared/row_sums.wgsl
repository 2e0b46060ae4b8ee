// Within main, behind shared/row_products: makes of a lane's sum_m_r_t, and with NORM of its squares_t, the sums over the
// workgroup, which every lane then has. All wait for the other subgroups once; a workgroup of one subgroup does not wait.
#ifdef SUBGROUP
#unroll t TOKENS
#unroll m MATRICES
#unroll r ROWS
    sum_{m}_{r}_{t} = subgroupAdd(sum_{m}_{r}_{t});
#end
#end
#ifdef NORM
    squares{t} = subgroupAdd(squares{t});
#endif
#end
    // Uniform.
    if subgroups > 1u {
        if subgroup_lane == 0u {
#unroll t TOKENS
#unroll m MATRICES
#unroll r ROWS
            row_partials[(({t}u * {MATRICES}u + {m}u) * {ROWS}u + {r}u) * MOST_SUBGROUPS + subgroup] = sum_{m}_{r}_{t};
#end
#end
#ifdef NORM
            row_partials[(SUMS + {t}u) * MOST_SUBGROUPS + subgroup] = squares{t};
#endif
#end
        }
        workgroupBarrier();
#unroll t TOKENS
#unroll m MATRICES
#unroll r ROWS
        sum_{m}_{r}_{t} = 0.0;
#end
#end
#ifdef NORM
        squares{t} = 0.0;
#endif
#end
        for (var i = 0u; i < subgroups; i++) {
#unroll t TOKENS
#unroll m MATRICES
#unroll r ROWS
            sum_{m}_{r}_{t} += row_partials[(({t}u * {MATRICES}u + {m}u) * {ROWS}u + {r}u) * MOST_SUBGROUPS + i];
#end
#end
#ifdef NORM
            squares{t} += row_partials[(SUMS + {t}u) * MOST_SUBGROUPS + i];
#endif
#end
        }
    }
#else
#unroll t TOKENS
#unroll m MATRICES
#unroll r ROWS
    sum_{m}_{r}_{t} = workgroup_sum(sum_{m}_{r}_{t}, lane, subgroup, subgroups, subgroup_lane);
#end
#end
#ifdef NORM
    squares{t} = workgroup_sum(squares{t}, lane, subgroup, subgroups, subgroup_lane);
#endif
#end
#endif
