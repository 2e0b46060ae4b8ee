// Workgroup memory and what else shared/row_sums needs: LANES, and the numbers MATRICES, ROWS and TOKENS.
#ifdef SUBGROUP
const SUMS: u32 = {MATRICES}u * {ROWS}u * {TOKENS}u;
// A subgroup has at least four lanes.
override MOST_SUBGROUPS: u32 = LANES / 4u;
#ifdef NORM
var<workgroup> row_partials: array<f32, (SUMS + {TOKENS}u) * MOST_SUBGROUPS>;
#else
var<workgroup> row_partials: array<f32, SUMS * MOST_SUBGROUPS>;
#endif
#else
#import shared/reduce
#endif
