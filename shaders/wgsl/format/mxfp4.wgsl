// MXFP4: 2^(exponent - 128) * value of the code, values being doubled. Planes: 16 bytes of codes, a byte of exponent.
#define CODES
#define ONE_SCALE
#define OWN_QUAD_SCALES
#define OWN_SCALE_UNIT

#import shared/e2m1

// The doubling taken back where a row's sum ends, not at each scale.
#ifdef SPLIT
const SCALE_UNIT: f32 = 2.0;
#else
const SCALE_UNIT: f32 = 1.0;
#endif

// 2^(exponent - 128) of four exponents, in units of SCALE_UNIT; of exponent 0 the power is subnormal.
fn powers(exponents: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(max(exponents << vec4<u32>(23u), vec4<u32>(0x00400000u))) * (0.5 * SCALE_UNIT);
}

fn scales(group: u32) -> Scales {
    return one_scale(powers(vec4<u32>(plane_byte(params.plane1, group))).x, 0.0);
}

fn quad_scales(quad: u32) -> QuadScales {
    let bytes = plane_word(params.plane1, quad);
    return one_quad_scale(powers((vec4<u32>(bytes) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u)), vec4<f32>(0.0));
}
#import shared/codes
