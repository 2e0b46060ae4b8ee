// IQ1_M: d * (2 scale + 1) * (g +- 1/8), a scale for each 16 weights. Planes: low bits of four indices a group, two bytes a
// group (of each eight: high bits of its index, its direction), a byte of two scales a group, a half d a superblock.
// Table: half a word an entry.
#define CODES
#import shared/ternary

fn four(group: u32, i: u32) -> u32 {
    let k = i >> 1u;
    let bits = (plane_half(params.plane1, group) >> (4u * k)) & 15u;
    return moved_four(plane_byte(0u, group * 4u + k) | ((bits & 7u) << 8u), i & 1u, bits >= 8u);
}

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane3, group >> 3u));
    let byte = plane_byte(params.plane2, group);
    let scale = vec2<f32>(f32(2u * (byte & 7u) + 1u), f32(2u * ((byte >> 3u) & 7u) + 1u));
    return Scales(d * scale * 0.125, vec2<f32>(0.0));
}
#import shared/fours
