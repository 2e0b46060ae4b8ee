// NVFP4: scale * value of the code, values being doubled, a scale for each 16 weights: a float of four bits of exponent
// and three of mantissa. Planes: 32 bytes of codes, 4 scales for 64 weights.
#define CODES

#import shared/e2m1

// Half of the number, since the values are doubled; 0x7f, which is none, counts as 0.
fn eight_bit_float(bits: u32) -> f32 {
    let exponent = (bits >> 3u) & 15u;
    let mantissa = f32(bits & 7u);
    let normal = (1.0 + mantissa * 0.125) * bitcast<f32>((exponent + 119u) << 23u);
    return select(select(normal, mantissa / 1024.0, exponent == 0u), 0.0, bits == 0x7fu);
}

fn scales(group: u32) -> Scales {
    let pair = plane_half(params.plane1, group);
    return Scales(vec2<f32>(eight_bit_float(pair & 255u), eight_bit_float((pair >> 8u) & 255u)), vec2<f32>(0.0));
}
#import shared/codes
