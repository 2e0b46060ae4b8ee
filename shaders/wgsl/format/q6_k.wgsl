// Q6_K: d * scale * (code - 32), a scale for each 16 weights. Planes: 128 bytes of low bits, 64 bytes of
// high bits, 16 signed scales, a half d a superblock.
#import shared/half

fn decode_group(group: u32) -> Group {
    let four = nibbles(weights[group]);
    let first = plane_word(params.plane1, group * 2u);
    let second = plane_word(params.plane1, group * 2u + 1u);
    let low_bits = vec4<u32>(first, first >> 2u, first >> 4u, first >> 6u) & vec4<u32>(0x03030303u);
    let high_bits = vec4<u32>(second, second >> 2u, second >> 4u, second >> 6u) & vec4<u32>(0x03030303u);
    let codes = Codes(four.low | (low_bits << vec4<u32>(4u)), four.high | (high_bits << vec4<u32>(4u)));
    let d = half_to_float(plane_half(params.plane3, group >> 3u));
    let scales = bitcast<i32>(plane_word(params.plane2, group >> 1u) >> ((group & 1u) * 16u));
    return centered(codes, 32.0, d * f32((scales << 24u) >> 24u), d * f32((scales << 16u) >> 24u));
}
