// Q5_0: d * (code - 16). Planes: 16 bytes of low bits, 4 bytes of high bits, a half d.
#define CODES
#define UNSIGNED_CODES
#import shared/half

fn codes(group: u32) -> Codes {
    return nibbles_and_bits(words_at(group), plane_word(params.plane1, group));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return nibble_and_bit_words(words_at(group)[q], plane_word(params.plane1, group), q);
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane2, group));
    return one_scale(d, -16.0 * d);
}
#import shared/codes
