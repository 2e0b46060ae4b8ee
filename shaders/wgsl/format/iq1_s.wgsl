// IQ1_S: d * (2 scale + 1) * (g +- 1/8). Planes: low bits of four indices a group, two bytes a group (high bits of the
// indices, the scale, the direction), a half d a superblock. Table: half a word an entry.
#define CODES
#define ONE_SCALE
#import shared/ternary

fn four(group: u32, i: u32) -> u32 {
    let k = i >> 1u;
    let rest = plane_half(params.plane1, group);
    let index = plane_byte(0u, group * 4u + k) | (((rest >> (3u * k)) & 7u) << 8u);
    return moved_four(index, i & 1u, (rest & 0x8000u) != 0u);
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane2, group >> 3u));
    return one_scale(d * f32(2u * ((plane_half(params.plane1, group) >> 12u) & 7u) + 1u) * 0.125, 0.0);
}
#import shared/fours
