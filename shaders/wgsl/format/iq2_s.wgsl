// IQ2_S: d * (0.5 + scale) / 4 * +-magnitude, a scale for each 16 weights. Planes: 8 bytes a group (low bits of four
// indices; signs), two bytes a group (high bits of the indices; two scales), a half d a superblock. Table: two words an entry.
#define CODES
#import shared/signs

fn four(group: u32, i: u32) -> u32 {
    let k = i >> 1u;
    let high = (plane_half(params.plane1, group) >> (2u * k)) & 3u;
    let index = plane_byte(0u, group * 8u + k) | (high << 8u);
    return with_signs(table_word(index * 2u + (i & 1u)), plane_word(0u, group * 2u + 1u) >> (4u * i));
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane2, group >> 3u));
    let byte = (plane_half(params.plane1, group) >> 8u) & 255u;
    return Scales(d * (vec2<f32>(0.5) + vec2<f32>(f32(byte & 15u), f32(byte >> 4u))) * 0.25, vec2<f32>(0.0));
}
#import shared/fours
