// IEEE halves by integer arithmetic. unpack2x16float may flush subnormal halves to zero, and the scales of
// K-quants often are subnormal; pack2x16float may round either way.

// The half in the low 16 bits of `bits` as f32, exactly. NATIVE_HALVES: the device was seen to do that by unpack2x16float,
// for every half.
#ifdef NATIVE_HALVES
fn half_to_float(bits: u32) -> f32 {
    return unpack2x16float(bits).x;
}

fn halves_to_floats(bits: u32) -> vec2<f32> {
    return unpack2x16float(bits);
}
#else
fn half_to_float(bits: u32) -> f32 {
    let magnitude = bits & 0x7fffu;
    let normal = bitcast<f32>((magnitude << 13u) + 0x38000000u);
    let subnormal = f32(magnitude) * 5.9604644775390625e-8;
    let value = select(select(normal, subnormal, magnitude < 0x400u), bitcast<f32>((magnitude << 13u) | 0x7f800000u), magnitude >= 0x7c00u);
    return select(value, -value, (bits & 0x8000u) != 0u);
}

// Both halves of a word: x from the low 16 bits.
fn halves_to_floats(bits: u32) -> vec2<f32> {
    return vec2<f32>(half_to_float(bits), half_to_float(bits >> 16u));
}
#endif

// f32 to the nearest half, ties to even; beyond the range: infinity.
fn float_to_half(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    // Normal halves: drop 13 bits of mantissa.
    let rebased = magnitude - 0x38000000u;
    let normal = (rebased + 0xfffu + ((rebased >> 13u) & 1u)) >> 13u;
    // Subnormal halves: a multiple of 2^-24. Adding 2^23 lets f32 addition round; for magnitudes this
    // small the sum is exact but for that rounding.
    let subnormal = bitcast<u32>(bitcast<f32>(magnitude) * 16777216.0 + 8388608.0) - 0x4b000000u;
    var half = select(normal, subnormal, magnitude < 0x38800000u);
    half = select(half, 0x7c00u, magnitude >= 0x477ff000u);
    half = select(half, 0x7e00u, magnitude > 0x7f800000u);
    return sign | half;
}

fn floats_to_halves(value: vec2<f32>) -> u32 {
    return float_to_half(value.x) | (float_to_half(value.y) << 16u);
}
