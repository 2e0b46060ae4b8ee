// Codes of four bits that are floats: a sign, two bits of exponent, one of mantissa; codes are twice the floats.

// 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
const VALUES: vec4<u32> = vec4<u32>(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);

#ifdef NATIVE_HALVES
#define OWN_EIGHTS
// Moved to where a half has them, exponent and mantissa are the float times 2^-14; 0.5 is subnormal, as it should be.
const CODE_UNIT: f32 = 0x1p-15f;
const HIGH_UNIT: f32 = 1.0;

fn eight_codes(group: u32, q: u32) -> Eight {
    let word = plane_word(0u, group * 4u + q);
    let low_even = unpack2x16float(((word << 9u) & 0x0e000e00u) | ((word << 12u) & 0x80008000u));
    let low_odd = unpack2x16float(((word << 1u) & 0x0e000e00u) | ((word << 4u) & 0x80008000u));
    let high_even = unpack2x16float(((word << 5u) & 0x0e000e00u) | ((word << 8u) & 0x80008000u));
    let high_odd = unpack2x16float(((word >> 3u) & 0x0e000e00u) | (word & 0x80008000u));
    return Eight(
        vec4<f32>(low_even.x, low_odd.x, low_even.y, low_odd.y),
        vec4<f32>(high_even.x, high_odd.x, high_even.y, high_odd.y),
    );
}
#endif
#import shared/chosen
