// Q6_K: d * scale * (code - 32), a scale for each 16 weights. Planes: 128 bytes of low bits, 64 bytes of
// high bits, 16 signed scales, a half d a superblock.
#define CODES
#import shared/half

fn codes(group: u32) -> Codes {
    let four = nibbles(weights[group]);
    let first = plane_word(params.plane1, group * 2u);
    let second = plane_word(params.plane1, group * 2u + 1u);
    let low_bits = vec4<u32>(first, first >> 2u, first >> 4u, first >> 6u) & vec4<u32>(0x03030303u);
    let high_bits = vec4<u32>(second, second >> 2u, second >> 4u, second >> 6u) & vec4<u32>(0x03030303u);
    return Codes(four.low | (low_bits << vec4<u32>(4u)), four.high | (high_bits << vec4<u32>(4u)));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    let bits = vec2<u32>(plane_word(params.plane1, group * 2u), plane_word(params.plane1, group * 2u + 1u));
    let high = (bits >> vec2<u32>(2u * q)) & vec2<u32>(0x03030303u);
    return nibble_words(weights[group][q]) | (high << vec2<u32>(4u));
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane3, group >> 3u));
    let pair = bitcast<i32>(plane_word(params.plane2, group >> 1u) >> ((group & 1u) * 16u));
    // Exact: 11 bits times 8.
    let scale = d * vec2<f32>(f32((pair << 24u) >> 24u), f32((pair << 16u) >> 24u));
    return Scales(scale, -32.0 * scale);
}
#import shared/codes
