// Q1_0: d or -d. Planes: 16 bytes of signs, a half d for 128 weights.
#define CODES
#define ONE_SCALE
#define OFFSETS
#define UNSIGNED_CODES

fn codes(group: u32) -> Codes {
    return one_bit(plane_word(0u, group));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return one_bit_words(plane_word(0u, group), q);
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane1, group >> 2u));
    return one_scale(2.0 * d, -d);
}
#import shared/codes
