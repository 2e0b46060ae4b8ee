// IQ3_S: d * (1 + 2 scale) * +-magnitude. Planes: low bits of eight indices a group, 4 bytes of signs a group, two bytes
// a group (high bits of the indices; the scale), a half d a superblock. Table: a word an entry.
#define CODES
#define ONE_SCALE
#import shared/signs

fn four(group: u32, i: u32) -> u32 {
    let high = (plane_half(params.plane2, group) >> i) & 1u;
    let index = plane_byte(0u, group * 8u + i) | (high << 8u);
    return with_signs(table_word(index), plane_word(params.plane1, group) >> (4u * i));
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane3, group >> 3u));
    return one_scale(d * f32(1u + 2u * ((plane_half(params.plane2, group) >> 8u) & 15u)), 0.0);
}
#import shared/fours
