// MXFP4: 2^(exponent - 128) * value of the code, values being doubled. Planes: 16 bytes of codes, a byte of exponent.
#define CODES

// 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
const VALUES: vec4<u32> = vec4<u32>(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);
#import shared/chosen

fn scales(group: u32) -> Scales {
    let exponent = plane_byte(params.plane1, group);
    // The two smallest are subnormal.
    let bits = select((max(exponent, 1u) - 1u) << 23u, 0x00200000u << (exponent & 1u), exponent < 2u);
    return one_scale(bitcast<f32>(bits), 0.0);
}
#import shared/codes
