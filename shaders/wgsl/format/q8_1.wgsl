// Q8_1: d * code, codes signed bytes. Planes: 32 bytes of codes, a half d.
#define CODES
#define ONE_SCALE
#define OWN_QUAD_SCALES

fn codes(group: u32) -> Codes {
    return Codes(words_at(group * 2u), words_at(group * 2u + 1u));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return vec2<u32>(plane_word(0u, group * 8u + q), plane_word(0u, group * 8u + 4u + q));
}

fn scales(group: u32) -> Scales {
    return one_scale(half_to_float(plane_half(params.plane1, group)), 0.0);
}

fn quad_scales(quad: u32) -> QuadScales {
    return one_quad_scale(quad_halves(params.plane1, quad), vec4<f32>(0.0));
}
#import shared/codes
