// IQ4_XS: d * scale * value of the code. Planes: 128 bytes of codes, 8 signed scales, a half d a superblock.
#define CODES
#define ONE_SCALE

// As IQ4_NL.
const VALUES: vec4<u32> = vec4<u32>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);
#import shared/chosen

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane2, group >> 3u));
    return one_scale(d * signed_byte(plane_byte(params.plane1, group)), 0.0);
}
#import shared/codes
