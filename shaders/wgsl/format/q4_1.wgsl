// Q4_1: d * code + m. Planes: 16 bytes of codes, the halves d and m.
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
    let dm = halves_to_floats(plane_word(params.plane1, group));
    return one_scale(dm.x, dm.y);
}
#import shared/codes
