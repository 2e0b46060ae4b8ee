// Q3_K: d * scale * (code - 4), a scale for each 16 weights. Planes: 64 bytes of low bits, 32 bytes of high bits, 16
// signed scales, a half d a superblock.
#define CODES
#define OFFSETS
#define ZERO_POINT
#define UNSIGNED_CODES

const ZERO_POINT: f32 = 4.0;

fn codes(group: u32) -> Codes {
    let low = two_bits(plane_word(0u, group * 2u), plane_word(0u, group * 2u + 1u));
    let high = one_bit(plane_word(params.plane1, group));
    return Codes(low.low | (high.low << vec4<u32>(2u)), low.high | (high.high << vec4<u32>(2u)));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    let low = two_bit_words(plane_word(0u, group * 2u), plane_word(0u, group * 2u + 1u), q);
    return low | (one_bit_words(plane_word(params.plane1, group), q) << vec2<u32>(2u));
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane3, group >> 3u));
    let pair = plane_half(params.plane2, group);
    let scale = d * vec2<f32>(signed_byte(pair), signed_byte(pair >> 8u));
    return Scales(scale, -4.0 * scale);
}
#import shared/codes
