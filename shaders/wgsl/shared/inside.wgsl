// Vector `i` of a row of `params.width4`, within it: with RAGGED the last of some lanes lies behind.
fn inside(i: u32) -> u32 {
#ifdef RAGGED
    return min(i, params.width4 - 1u);
#else
    return i;
#endif
}
