// Q4_0: d * (code - 8). Planes: 16 bytes of codes, a half d.
#import shared/half

fn decode_group(group: u32) -> Group {
    let d = half_to_float(plane_half(params.plane1, group));
    return centered(nibbles(weights[group]), 8.0, d, d);
}
