// What the host says of a step.

// One token of the step.
struct Token {
    // The id, or the slot of `selected` that holds it.
    id_or_slot: u32,
    // 1 if `id_or_slot` is a slot.
    from_slot: u32,
    position: u32,
    // Where its sequence's entries start in `tables`, per group of layers: full and windowed.
    table_full: u32,
    table_window: u32,
    // The cell that its keys and values go to, per group.
    cell_full: u32,
    cell_window: u32,
    // The place of its sequence among those of the context.
    slot: u32,
}

struct Step {
    tokens: u32,
    outputs: u32,
    padding0: u32,
    padding1: u32,
}
