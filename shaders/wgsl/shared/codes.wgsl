// What follows from a format's codes, code_words and scales, and from what it defines, so that formats import it last.

// Four codes in bytes as floats.
#ifdef UNSIGNED_CODES
fn codes_to_floats(bytes: u32) -> vec4<f32> {
    return vec4<f32>(f32(bytes & 255u), f32((bytes >> 8u) & 255u), f32((bytes >> 16u) & 255u), f32(bytes >> 24u));
}
#else
fn codes_to_floats(bytes: u32) -> vec4<f32> {
    let word = bitcast<i32>(bytes);
    return vec4<f32>(f32((word << 24u) >> 24u), f32((word << 16u) >> 24u), f32((word << 8u) >> 24u), f32(word >> 24u));
}
#endif

// Four codes as floats, each as large as it is where it stands in the word, which takes fewer shifts; times
// SPREAD_FACTORS, exact powers of two, they are the codes. For kernels that have the factors applied to their inputs.
#ifdef UNSIGNED_CODES
const SPREAD_FACTORS: vec4<f32> = vec4<f32>(1.0, 0x1p-8f, 0x1p-16f, 0x1p-24f);

fn codes_to_spread_floats(bytes: u32) -> vec4<f32> {
    let word = bitcast<i32>(bytes);
    return vec4<f32>(f32(word & 0x7f), f32(word & 0x7f00), f32(word & 0x7f0000), f32(word & 0x7f000000));
}
#else
const SPREAD_FACTORS: vec4<f32> = vec4<f32>(0x1p-24f);

fn codes_to_spread_floats(bytes: u32) -> vec4<f32> {
    let words = vec4<u32>(bytes << 24u, bytes << 16u, bytes << 8u, bytes) & vec4<u32>(0xff000000u);
    return vec4<f32>(bitcast<vec4<i32>>(words));
}
#endif

#ifndef OWN_EIGHTS
const CODE_UNIT: f32 = 1.0;
const HIGH_UNIT: f32 = 1.0;

fn eight_codes(group: u32, q: u32) -> Eight {
    let words = code_words(group, q);
    return Eight(codes_to_floats(words.x), codes_to_floats(words.y));
}
#endif

#ifndef OWN_SCALE_UNIT
const SCALE_UNIT: f32 = 1.0;
#endif

#ifndef OWN_QUAD_SCALES
fn quad_scales(quad: u32) -> QuadScales {
    let a = scales(quad * 4u);
    let b = scales(quad * 4u + 1u);
    let c = scales(quad * 4u + 2u);
    let d = scales(quad * 4u + 3u);
    return QuadScales(
        vec4<f32>(a.scale.x, b.scale.x, c.scale.x, d.scale.x),
        vec4<f32>(a.scale.y, b.scale.y, c.scale.y, d.scale.y),
        vec4<f32>(a.offset.x, b.offset.x, c.offset.x, d.offset.x),
        vec4<f32>(a.offset.y, b.offset.y, c.offset.y, d.offset.y),
    );
}
#endif

// One scale and offset for each of four groups.
fn one_quad_scale(scale: vec4<f32>, offset: vec4<f32>) -> QuadScales {
    return QuadScales(scale, scale, offset, offset);
}

// A group of codes decoded.
fn decode_group(group: u32) -> Group {
    let c = codes(group);
    let s = scales(group);
    let low_scale = vec4<f32>(s.scale.x);
    let low_offset = vec4<f32>(s.offset.x);
    let high_scale = vec4<f32>(s.scale.y);
    let high_offset = vec4<f32>(s.offset.y);
    return Group(
        fma(codes_to_floats(c.low.x), low_scale, low_offset), fma(codes_to_floats(c.low.y), low_scale, low_offset),
        fma(codes_to_floats(c.low.z), low_scale, low_offset), fma(codes_to_floats(c.low.w), low_scale, low_offset),
        fma(codes_to_floats(c.high.x), high_scale, high_offset), fma(codes_to_floats(c.high.y), high_scale, high_offset),
        fma(codes_to_floats(c.high.z), high_scale, high_offset), fma(codes_to_floats(c.high.w), high_scale, high_offset),
    );
}
