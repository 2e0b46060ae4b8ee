// Q5_0: d * (code - 16). Planes: 16 bytes of low bits, 4 bytes of high bits, a half d.
#define CODES
#define ONE_SCALE
#define OFFSETS
#define ZERO_POINT
#define OWN_QUAD_SCALES
#define UNSIGNED_CODES

const ZERO_POINT: f32 = 16.0;

fn codes(group: u32) -> Codes {
    return nibbles_and_bits(words_at(group), plane_word(params.plane1, group));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return nibble_and_bit_words(plane_word(0u, group * 4u + q), plane_word(params.plane1, group), q);
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane2, group));
    return one_scale(d, -16.0 * d);
}

fn quad_scales(quad: u32) -> QuadScales {
    let d = quad_halves(params.plane2, quad);
    return one_quad_scale(d, -16.0 * d);
}
#import shared/codes
