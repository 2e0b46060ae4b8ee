// F32: one plane of floats.
fn decode_group(group: u32) -> Group {
    let at = group * 8u;
    return Group(
        bitcast<vec4<f32>>(words_at(at)), bitcast<vec4<f32>>(words_at(at + 1u)),
        bitcast<vec4<f32>>(words_at(at + 2u)), bitcast<vec4<f32>>(words_at(at + 3u)),
        bitcast<vec4<f32>>(words_at(at + 4u)), bitcast<vec4<f32>>(words_at(at + 5u)),
        bitcast<vec4<f32>>(words_at(at + 6u)), bitcast<vec4<f32>>(words_at(at + 7u)),
    );
}
