// TQ1_0: d * (code - 1). Planes as TQ2_0: 64 bytes of codes, a half d for 256 weights.
#define CODES
#define ONE_SCALE
#define OFFSETS
#define ZERO_POINT

const ZERO_POINT: f32 = 1.0;

fn codes(group: u32) -> Codes {
    return two_bits(plane_word(0u, group * 2u), plane_word(0u, group * 2u + 1u));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return two_bit_words(plane_word(0u, group * 2u), plane_word(0u, group * 2u + 1u), q);
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane1, group >> 3u));
    return one_scale(d, -d);
}
#import shared/codes
