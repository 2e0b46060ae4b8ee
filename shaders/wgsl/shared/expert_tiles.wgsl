// Tiles of pairs that chose one expert, as kernel/expert_lists makes them.
@group(0) @binding(7) var<storage, read> tiles: array<u32>;

// The rows of input and output of a tile's token.
fn input_row(tile_at: u32, token: u32) -> u32 {
    return output_row(tile_at, token) / params.pairs_per_row;
}

// Clamped, as what a buffer says.
fn output_row(tile_at: u32, token: u32) -> u32 {
    let last = step.tokens * params.used - 1u;
    return min(tiles[params.order + min(tile_at + token, last)], last);
}
