// Q5_1: d * code + m. Planes: 16 bytes of low bits, 4 bytes of high bits, the halves d and m.
#import shared/half

fn decode_group(group: u32) -> Group {
    let dm = halves_to_floats(plane_word(params.plane2, group));
    return affine(nibbles_and_bits(weights[group], plane_word(params.plane1, group)), dm.x, dm.y);
}
