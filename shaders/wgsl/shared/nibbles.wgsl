// Formats whose codes are the four bits of plane 0, none of them negative.
#define CODES
#define UNSIGNED_CODES
#define ONE_SCALE
#define OFFSETS

fn codes(group: u32) -> Codes {
    return nibbles(words_at(group));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return nibble_words(plane_word(0u, group * 4u + q));
}

#ifdef NATIVE_HALVES
#define OWN_EIGHTS
// A code where it stands in a half is a subnormal number: exact, and compilers convert it within the multiplication or
// by one instruction, two of them out of one masked word.
const CODE_UNIT: f32 = 0x1p-24f;
const HIGH_UNIT: f32 = 16.0;

fn eight_codes(group: u32, q: u32) -> Eight {
    let even = plane_word(0u, group * 4u + q);
    let odd = even >> 8u;
    let low_even = unpack2x16float(even & 0x000f000fu);
    let low_odd = unpack2x16float(odd & 0x000f000fu);
    let high_even = unpack2x16float(even & 0x00f000f0u);
    let high_odd = unpack2x16float(odd & 0x00f000f0u);
    return Eight(
        vec4<f32>(low_even.x, low_odd.x, low_even.y, low_odd.y),
        vec4<f32>(high_even.x, high_odd.x, high_even.y, high_odd.y),
    );
}
#endif
