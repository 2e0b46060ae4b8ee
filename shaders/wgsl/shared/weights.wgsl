// A repacked tensor: all planes in one buffer, plane 0 at its start, the others at the offsets in `params`
// (in vec4s). A group is 32 neighbouring weights of a row; groups count through all rows.

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;

alias Group = array<vec4<f32>, 8>;

// Half number `index` of the plane at `plane`, in the low 16 bits.
fn plane_half(plane: u32, index: u32) -> u32 {
    return weights[plane + (index >> 3u)][(index >> 1u) & 3u] >> ((index & 1u) * 16u);
}

// Word number `index` of the plane at `plane`.
fn plane_word(plane: u32, index: u32) -> u32 {
    return weights[plane + (index >> 2u)][index & 3u];
}

// Four codes in four bytes as floats.
fn bytes_to_floats(bytes: u32) -> vec4<f32> {
    return vec4<f32>(f32(bytes & 255u), f32((bytes >> 8u) & 255u), f32((bytes >> 16u) & 255u), f32(bytes >> 24u));
}

// Four signed bytes as floats.
fn signed_bytes_to_floats(bytes: u32) -> vec4<f32> {
    let word = bitcast<i32>(bytes);
    return vec4<f32>(f32((word << 24u) >> 24u), f32((word << 16u) >> 24u), f32((word << 8u) >> 24u), f32(word >> 24u));
}

// 32 codes of a group in bytes: `low` holds weights 0 to 15, `high` 16 to 31.
struct Codes { low: vec4<u32>, high: vec4<u32> }

// Codes of four bits, in the order of all planes: byte j holds weight j low, weight j + 16 high.
fn nibbles(codes: vec4<u32>) -> Codes {
    return Codes(codes & vec4<u32>(0x0f0f0f0fu), (codes >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu));
}

// The same with a fifth bit: bit 8b + 2w + s of `bits` belongs to weight 16s + 4w + b.
fn nibbles_and_bits(codes: vec4<u32>, bits: u32) -> Codes {
    let spread = vec4<u32>(bits, bits >> 2u, bits >> 4u, bits >> 6u);
    let four = nibbles(codes);
    return Codes(
        four.low | ((spread & vec4<u32>(0x01010101u)) << vec4<u32>(4u)),
        four.high | (((spread >> vec4<u32>(1u)) & vec4<u32>(0x01010101u)) << vec4<u32>(4u)),
    );
}

// scale * code + offset.
fn affine(codes: Codes, scale: f32, offset: f32) -> Group {
    let s = vec4<f32>(scale);
    let o = vec4<f32>(offset);
    return Group(
        fma(bytes_to_floats(codes.low.x), s, o), fma(bytes_to_floats(codes.low.y), s, o),
        fma(bytes_to_floats(codes.low.z), s, o), fma(bytes_to_floats(codes.low.w), s, o),
        fma(bytes_to_floats(codes.high.x), s, o), fma(bytes_to_floats(codes.high.y), s, o),
        fma(bytes_to_floats(codes.high.z), s, o), fma(bytes_to_floats(codes.high.w), s, o),
    );
}

// scale * (code - center), with one scale for the first 16 weights and one for the rest. The difference is
// exact, so that the only rounding is the product's.
fn centered(codes: Codes, center: f32, low_scale: f32, high_scale: f32) -> Group {
    let c = vec4<f32>(center);
    return Group(
        (bytes_to_floats(codes.low.x) - c) * low_scale, (bytes_to_floats(codes.low.y) - c) * low_scale,
        (bytes_to_floats(codes.low.z) - c) * low_scale, (bytes_to_floats(codes.low.w) - c) * low_scale,
        (bytes_to_floats(codes.high.x) - c) * high_scale, (bytes_to_floats(codes.high.y) - c) * high_scale,
        (bytes_to_floats(codes.high.z) - c) * high_scale, (bytes_to_floats(codes.high.w) - c) * high_scale,
    );
}
