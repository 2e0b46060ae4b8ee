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
