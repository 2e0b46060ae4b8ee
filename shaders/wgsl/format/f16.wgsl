// F16: one plane of halves.

fn decode_group(group: u32) -> Group {
    let at = group * 4u;
    let a = words_at(at);
    let b = words_at(at + 1u);
    let c = words_at(at + 2u);
    let d = words_at(at + 3u);
    return Group(
        vec4<f32>(halves_to_floats(a.x), halves_to_floats(a.y)), vec4<f32>(halves_to_floats(a.z), halves_to_floats(a.w)),
        vec4<f32>(halves_to_floats(b.x), halves_to_floats(b.y)), vec4<f32>(halves_to_floats(b.z), halves_to_floats(b.w)),
        vec4<f32>(halves_to_floats(c.x), halves_to_floats(c.y)), vec4<f32>(halves_to_floats(c.z), halves_to_floats(c.w)),
        vec4<f32>(halves_to_floats(d.x), halves_to_floats(d.y)), vec4<f32>(halves_to_floats(d.z), halves_to_floats(d.w)),
    );
}
