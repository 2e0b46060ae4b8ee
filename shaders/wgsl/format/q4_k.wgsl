// Q4_K: d * scale * code - dmin * minimum. Planes: 128 bytes of codes, 16 bytes of scales a superblock.
#import shared/k_scales

fn decode_group(group: u32) -> Group {
    let s = k_scale_and_offset(params.plane1, group);
    return affine(nibbles(weights[group]), s.x, s.y);
}
