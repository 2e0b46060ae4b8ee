// MXFP4: 2^(exponent - 128) * value of the code, values being doubled. Planes: 16 bytes of codes, a byte of exponent.
#define CODES
#define ONE_SCALE
#define OWN_QUAD_SCALES

#import shared/e2m1

// 2^(exponent - 128) of four exponents; the two smallest are subnormal.
fn powers(exponents: vec4<u32>) -> vec4<f32> {
    let normal = (max(exponents, vec4<u32>(1u)) - 1u) << vec4<u32>(23u);
    let subnormal = vec4<u32>(0x00200000u) << (exponents & vec4<u32>(1u));
    return bitcast<vec4<f32>>(select(normal, subnormal, exponents < vec4<u32>(2u)));
}

fn scales(group: u32) -> Scales {
    return one_scale(powers(vec4<u32>(plane_byte(params.plane1, group))).x, 0.0);
}

fn quad_scales(quad: u32) -> QuadScales {
    let bytes = plane_word(params.plane1, quad);
    return one_quad_scale(powers((vec4<u32>(bytes) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u)), vec4<f32>(0.0));
}
#import shared/codes
