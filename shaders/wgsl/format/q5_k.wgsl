// Q5_K: d * scale * code - dmin * minimum. Planes: 128 bytes of low bits, 32 bytes of high bits, 16 bytes
// of scales a superblock.
#define CODES
#define ONE_SCALE
#define OFFSETS
#define OWN_QUAD_SCALES
#define UNSIGNED_CODES
#import shared/k_scales

fn codes(group: u32) -> Codes {
    return nibbles_and_bits(words_at(group), plane_word(params.plane1, group));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return nibble_and_bit_words(plane_word(0u, group * 4u + q), plane_word(params.plane1, group), q);
}

fn scales(group: u32) -> Scales {
    return k_scales(params.plane2, group);
}

fn quad_scales(quad: u32) -> QuadScales {
    return k_quad_scales(params.plane2, quad);
}
#import shared/codes
