// Q4_K: d * scale * code - dmin * minimum. Planes: 128 bytes of codes, 16 bytes of scales a superblock.
#define CODES
#define UNSIGNED_CODES
#import shared/k_scales

fn codes(group: u32) -> Codes {
    return nibbles(words_at(group));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return nibble_words(words_at(group)[q]);
}

fn scales(group: u32) -> Scales {
    return k_scales(params.plane1, group);
}
#import shared/codes
