// Q5_1: d * code + m. Planes: 16 bytes of low bits, 4 bytes of high bits, the halves d and m.
#define CODES
#define ONE_SCALE
#define OFFSETS
#define UNSIGNED_CODES

fn codes(group: u32) -> Codes {
    return nibbles_and_bits(words_at(group), plane_word(params.plane1, group));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return nibble_and_bit_words(plane_word(0u, group * 4u + q), plane_word(params.plane1, group), q);
}

fn scales(group: u32) -> Scales {
    let dm = halves_to_floats(plane_word(params.plane2, group));
    return one_scale(dm.x, dm.y);
}
#import shared/codes
