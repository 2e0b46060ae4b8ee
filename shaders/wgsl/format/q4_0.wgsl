// Q4_0: d * (code - 8). Planes: 16 bytes of codes, a half d.
#define CODES
#define UNSIGNED_CODES
#import shared/half

fn codes(group: u32) -> Codes {
    return nibbles(words_at(group));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return nibble_words(words_at(group)[q]);
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane1, group));
    return one_scale(d, -8.0 * d);
}
#import shared/codes
