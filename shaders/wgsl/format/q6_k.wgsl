// Q6_K: d * scale * (code - 32), a scale for each 16 weights. Planes: 128 bytes of low bits, 64 bytes of
// high bits, 16 signed scales, a half d a superblock.
#define CODES
#define OFFSETS
#define ZERO_POINT
#define OWN_QUAD_SCALES
#define UNSIGNED_CODES

const ZERO_POINT: f32 = 32.0;

fn codes(group: u32) -> Codes {
    let four = nibbles(words_at(group));
    let high = two_bits(plane_word(params.plane1, group * 2u), plane_word(params.plane1, group * 2u + 1u));
    return Codes(four.low | (high.low << vec4<u32>(4u)), four.high | (high.high << vec4<u32>(4u)));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    let high = two_bit_words(plane_word(params.plane1, group * 2u), plane_word(params.plane1, group * 2u + 1u), q);
    return nibble_words(plane_word(0u, group * 4u + q)) | (high << vec2<u32>(4u));
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane3, group >> 3u));
    let pair = plane_half(params.plane2, group);
    // Exact: 11 bits times 8.
    let scale = d * vec2<f32>(signed_byte(pair), signed_byte(pair >> 8u));
    return Scales(scale, -32.0 * scale);
}

fn quad_scales(quad: u32) -> QuadScales {
    let d = half_to_float(plane_half(params.plane3, quad >> 1u));
    let first = plane_word(params.plane2, quad * 2u);
    let last = plane_word(params.plane2, quad * 2u + 1u);
    let low = d * vec4<f32>(signed_byte(first), signed_byte(first >> 16u), signed_byte(last), signed_byte(last >> 16u));
    let high = d * vec4<f32>(signed_byte(first >> 8u), signed_byte(first >> 24u), signed_byte(last >> 8u), signed_byte(last >> 24u));
    return QuadScales(low, high, -32.0 * low, -32.0 * high);
}
#import shared/codes
