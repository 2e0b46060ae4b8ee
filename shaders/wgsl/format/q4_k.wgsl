// Q4_K: d * scale * code - dmin * minimum. Planes: 128 bytes of codes, 16 bytes of scales a superblock.
#define OWN_QUAD_SCALES
#import shared/nibbles
#import shared/k_scales

fn scales(group: u32) -> Scales {
    return k_scales(params.plane1, group);
}

fn quad_scales(quad: u32) -> QuadScales {
    return k_quad_scales(params.plane1, quad);
}
#import shared/codes
