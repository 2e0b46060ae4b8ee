// IQ2_XXS: d * (0.5 + scale) / 4 * +-magnitude. Planes: 8 bytes a group (four indices; four times seven signs, and the
// scale), a half d a superblock. Table: two words an entry.
#define CODES
#define ONE_SCALE
#import shared/signs

fn four(group: u32, i: u32) -> u32 {
    let k = i >> 1u;
    let index = plane_byte(0u, group * 8u + k);
    let signs = with_parity((plane_word(0u, group * 2u + 1u) >> (7u * k)) & 127u);
    return with_signs(table_word(index * 2u + (i & 1u)), signs >> (4u * (i & 1u)));
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane1, group >> 3u));
    return one_scale(d * (0.5 + f32(plane_word(0u, group * 2u + 1u) >> 28u)) * 0.25, 0.0);
}
#import shared/fours
