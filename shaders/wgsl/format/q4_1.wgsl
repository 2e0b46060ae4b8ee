// Q4_1: d * code + m. Planes: 16 bytes of codes, the halves d and m.
#import shared/half

fn decode_group(group: u32) -> Group {
    let dm = halves_to_floats(plane_word(params.plane1, group));
    return affine(nibbles(weights[group]), dm.x, dm.y);
}
