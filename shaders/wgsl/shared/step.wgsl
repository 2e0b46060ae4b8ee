// What the host says of a step.

// One token of the step.
struct Token {
    // The id, or the seat whose last chosen id it is.
    id_or_seat: u32,
    // 0: an id; 1: such a seat; 2: neither, the host gives its embedding.
    kind: u32,
    position: u32,
    // Where its sequence's entries start in `tables`, per group of layers: full and windowed.
    table_full: u32,
    table_window: u32,
    // The cell that its keys and values go to, per group.
    cell_full: u32,
    cell_window: u32,
    // The place of its sequence among those of the context.
    seat: u32,
}

struct Step {
    tokens: u32,
    outputs: u32,
    padding0: u32,
    padding1: u32,
}
