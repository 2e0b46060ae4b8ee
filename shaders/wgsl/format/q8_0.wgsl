// Q8_0: d * code, codes signed bytes. Planes: 32 bytes of codes, a half d.
#import shared/half

fn decode_group(group: u32) -> Group {
    let d = half_to_float(plane_half(params.plane1, group));
    let a = weights[group * 2u];
    let b = weights[group * 2u + 1u];
    return Group(
        signed_bytes_to_floats(a.x) * d, signed_bytes_to_floats(a.y) * d,
        signed_bytes_to_floats(a.z) * d, signed_bytes_to_floats(a.w) * d,
        signed_bytes_to_floats(b.x) * d, signed_bytes_to_floats(b.y) * d,
        signed_bytes_to_floats(b.z) * d, signed_bytes_to_floats(b.w) * d,
    );
}
