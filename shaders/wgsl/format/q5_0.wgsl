// Q5_0: d * (code - 16). Planes: 16 bytes of low bits, 4 bytes of high bits, a half d.
#import shared/half

fn decode_group(group: u32) -> Group {
    let d = half_to_float(plane_half(params.plane2, group));
    return centered(nibbles_and_bits(weights[group], plane_word(params.plane1, group)), 16.0, d, d);
}
