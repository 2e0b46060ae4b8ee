// The grid of the IQ1 formats: eights of -1, 0 and 1, two bits each, one more than the number, two entries a word.

// Numbers 4 * part to 4 * part + 3 of entry `index` in eighths, moved up or down by one.
fn moved_four(index: u32, part: u32, down: bool) -> u32 {
    let byte = (table_word(index >> 1u) >> (16u * (index & 1u) + 8u * part)) & 255u;
    let digits = (byte | (byte << 6u) | (byte << 12u) | (byte << 18u)) & 0x03030303u;
    // Eight times the digit, less 7 or 9, byte by byte: the highest bits apart, so that nothing is carried over.
    let by = select(0xf9f9f9f9u, 0xf7f7f7f7u, down);
    return ((digits << 3u) + (by & 0x7f7f7f7fu)) ^ (by & 0x80808080u);
}
