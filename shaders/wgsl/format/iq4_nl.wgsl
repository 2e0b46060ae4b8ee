// IQ4_NL: d * value of the code. Planes: 16 bytes of codes, a half d.
#define CODES
#define ONE_SCALE
#define OWN_QUAD_SCALES

// -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113.
const VALUES: vec4<u32> = vec4<u32>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);
#import shared/chosen

fn scales(group: u32) -> Scales {
    return one_scale(half_to_float(plane_half(params.plane1, group)), 0.0);
}

fn quad_scales(quad: u32) -> QuadScales {
    return one_quad_scale(quad_halves(params.plane1, quad), vec4<f32>(0.0));
}
#import shared/codes
