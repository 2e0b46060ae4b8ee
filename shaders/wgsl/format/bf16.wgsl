// BF16: one plane of the upper halves of floats.
fn bfloats(x: u32, y: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(x << 16u, x & 0xffff0000u, y << 16u, y & 0xffff0000u));
}

fn decode_group(group: u32) -> Group {
    let at = group * 4u;
    let a = words_at(at);
    let b = words_at(at + 1u);
    let c = words_at(at + 2u);
    let d = words_at(at + 3u);
    return Group(
        bfloats(a.x, a.y), bfloats(a.z, a.w), bfloats(b.x, b.y), bfloats(b.z, b.w),
        bfloats(c.x, c.y), bfloats(c.z, c.w), bfloats(d.x, d.y), bfloats(d.z, d.w),
    );
}
