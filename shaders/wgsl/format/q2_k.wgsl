// Q2_K: d * scale * code - dmin * minimum, a scale and a minimum for each 16 weights. Planes: 64 bytes of codes, 16
// bytes of scales (low half) and minima (high half), the halves d and dmin a superblock.
#define CODES
#define OFFSETS
#define UNSIGNED_CODES

fn codes(group: u32) -> Codes {
    return two_bits(plane_word(0u, group * 2u), plane_word(0u, group * 2u + 1u));
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return two_bit_words(plane_word(0u, group * 2u), plane_word(0u, group * 2u + 1u), q);
}

fn scales(group: u32) -> Scales {
    let d = halves_to_floats(plane_word(params.plane2, group >> 3u));
    let pair = plane_half(params.plane1, group);
    return Scales(
        d.x * vec2<f32>(f32(pair & 15u), f32((pair >> 8u) & 15u)),
        -d.y * vec2<f32>(f32((pair >> 4u) & 15u), f32((pair >> 12u) & 15u)),
    );
}
#import shared/codes
