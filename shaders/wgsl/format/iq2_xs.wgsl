// IQ2_XS: d * (0.5 + scale) / 4 * +-magnitude, a scale for each 16 weights. Planes: 8 bytes a group (four times nine bits
// of index and seven signs), a byte of two scales a group, a half d a superblock. Table: two words an entry.
#define CODES
#import shared/signs

fn four(group: u32, i: u32) -> u32 {
    let bits = plane_half(0u, group * 4u + (i >> 1u));
    let signs = with_parity((bits >> 9u) & 127u);
    return with_signs(table_word((bits & 511u) * 2u + (i & 1u)), signs >> (4u * (i & 1u)));
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane2, group >> 3u));
    let byte = plane_byte(params.plane1, group);
    return Scales(d * (vec2<f32>(0.5) + vec2<f32>(f32(byte & 15u), f32(byte >> 4u))) * 0.25, vec2<f32>(0.0));
}
#import shared/fours
