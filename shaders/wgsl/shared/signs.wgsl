// Magnitudes with signs.

// Four magnitudes, bytes other than 0, of which byte i is negated where bit i of `signs` is set.
fn with_signs(magnitudes: u32, signs: u32) -> u32 {
    // The product has bit i of `signs` at 8i.
    let ones = ((signs & 15u) * 0x00204081u) & 0x01010101u;
    return (magnitudes ^ (ones * 255u)) + ones;
}

// Seven signs and the eighth, which makes their number even.
fn with_parity(signs: u32) -> u32 {
    return signs | ((countOneBits(signs) & 1u) << 7u);
}
