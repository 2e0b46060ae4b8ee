// Q5_K: d * scale * code - dmin * minimum. Planes: 128 bytes of low bits, 32 bytes of high bits, 16 bytes
// of scales a superblock.
#import shared/k_scales

fn decode_group(group: u32) -> Group {
    let s = k_scale_and_offset(params.plane2, group);
    return affine(nibbles_and_bits(weights[group], plane_word(params.plane1, group)), s.x, s.y);
}
