// IQ3_XXS: d * (0.5 + scale) / 2 * +-magnitude. Planes: eight indices a group, 4 bytes a group (four times seven signs,
// and the scale), a half d a superblock. Table: a word an entry.
#define CODES
#define ONE_SCALE
#import shared/signs

fn four(group: u32, i: u32) -> u32 {
    let signs = with_parity((plane_word(params.plane1, group) >> (7u * (i >> 1u))) & 127u);
    return with_signs(table_word(plane_byte(0u, group * 8u + i)), signs >> (4u * (i & 1u)));
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane2, group >> 3u));
    return one_scale(d * (0.5 + f32(plane_word(params.plane1, group) >> 28u)) * 0.5, 0.0);
}
#import shared/fours
