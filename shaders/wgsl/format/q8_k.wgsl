// Q8_K: d * code, codes signed bytes. Planes: 256 bytes of codes, a float d a superblock.
#define CODES
#define ONE_SCALE

fn codes(group: u32) -> Codes {
    return Codes(words_at(group * 2u), words_at(group * 2u + 1u));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return vec2<u32>(plane_word(0u, group * 8u + q), plane_word(0u, group * 8u + 4u + q));
}

fn scales(group: u32) -> Scales {
    return one_scale(bitcast<f32>(plane_word(params.plane1, group >> 3u)), 0.0);
}
#import shared/codes
