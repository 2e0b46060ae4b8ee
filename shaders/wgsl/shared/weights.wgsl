// A repacked tensor: all planes in one buffer, plane 0 at its start, the others at the offsets in `params`
// (in vec4s), behind them the format's table, if it has one. A group is 32 neighbouring weights of a row; groups count through all rows.
// With TEXTURE the same vec4s are the texels of a texture, 2^TEXTURE_SHIFT a row: some drivers read those faster.
//
// A format of codes defines CODES and has three functions:
//   codes(group) -> Codes: the group's 32 codes, signed bytes.
//   code_words(group, q) -> vec2<u32>: the codes of weights 4q to 4q + 3, and of 16 + 4q to 16 + 4q + 3.
//   scales(group) -> Scales: weight = scale * code + offset, in each half of the group.
// Where no code is negative it defines UNSIGNED_CODES too.
// decode_group(group) -> Group, the weights as floats, follows from them (shared/codes); a format of floats
// has only that.

#ifdef TEXTURE
@group(0) @binding(0) var weights: texture_storage_2d<rgba32uint, read>;

// Vec4 number `index`.
fn words_at(index: u32) -> vec4<u32> {
    return textureLoad(weights, vec2<u32>(index & ((1u << {TEXTURE_SHIFT}u) - 1u), index >> {TEXTURE_SHIFT}u));
}
#else
@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;

// Vec4 number `index`.
fn words_at(index: u32) -> vec4<u32> {
    return weights[index];
}
#endif

alias Group = array<vec4<f32>, 8>;

// 32 codes in signed bytes: `low` holds weights 0 to 15, `high` 16 to 31.
struct Codes { low: vec4<u32>, high: vec4<u32> }

// Of weights 0 to 15 in x, 16 to 31 in y.
struct Scales { scale: vec2<f32>, offset: vec2<f32> }

// Half number `index` of the plane at `plane`, in the low 16 bits.
fn plane_half(plane: u32, index: u32) -> u32 {
    return plane_word(plane, index >> 1u) >> ((index & 1u) * 16u);
}

// Word number `index` of the plane at `plane`.
fn plane_word(plane: u32, index: u32) -> u32 {
    return words_at(plane + (index >> 2u))[index & 3u];
}

// Byte number `index` of the plane at `plane`.
fn plane_byte(plane: u32, index: u32) -> u32 {
    return (plane_word(plane, index >> 2u) >> ((index & 3u) * 8u)) & 255u;
}

// A byte as a signed number.
fn signed_byte(byte: u32) -> f32 {
    return f32(bitcast<i32>(byte << 24u) >> 24u);
}

// Word number `index` of the format's table.
fn table_word(index: u32) -> u32 {
    return plane_word(params.table, index);
}

// Four codes in signed bytes as floats.
fn codes_to_floats(bytes: u32) -> vec4<f32> {
    let word = bitcast<i32>(bytes);
    return vec4<f32>(f32((word << 24u) >> 24u), f32((word << 16u) >> 24u), f32((word << 8u) >> 24u), f32(word >> 24u));
}

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

// Codes of four bits, in the order of all planes: byte j holds weight j low, weight j + 16 high.
fn nibbles(codes: vec4<u32>) -> Codes {
    return Codes(codes & vec4<u32>(0x0f0f0f0fu), (codes >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu));
}

// The same for a word of the four.
fn nibble_words(word: u32) -> vec2<u32> {
    return vec2<u32>(word, word >> 4u) & vec2<u32>(0x0f0f0f0fu);
}

// Codes with a fifth bit: bit 8b + 2w + s of `bits` belongs to weight 16s + 4w + b.
fn nibbles_and_bits(codes: vec4<u32>, bits: u32) -> Codes {
    let fifth = one_bit(bits);
    let four = nibbles(codes);
    return Codes(four.low | (fifth.low << vec4<u32>(4u)), four.high | (fifth.high << vec4<u32>(4u)));
}

// The same for word q of the four.
fn nibble_and_bit_words(word: u32, bits: u32, q: u32) -> vec2<u32> {
    return nibble_words(word) | (one_bit_words(bits, q) << vec2<u32>(4u));
}

// Codes of two bits, a word for each half of the group: bits 8b + 2w and the next are weight 4w + b.
fn two_bits(first: u32, second: u32) -> Codes {
    let shifts = vec4<u32>(0u, 2u, 4u, 6u);
    return Codes((vec4<u32>(first) >> shifts) & vec4<u32>(0x03030303u), (vec4<u32>(second) >> shifts) & vec4<u32>(0x03030303u));
}

// The same for weights 4q to 4q + 3 and 16 + 4q to 16 + 4q + 3.
fn two_bit_words(first: u32, second: u32, q: u32) -> vec2<u32> {
    return (vec2<u32>(first, second) >> vec2<u32>(2u * q)) & vec2<u32>(0x03030303u);
}

// One bit a code: bit 8b + 2w + s of `bits` belongs to weight 16s + 4w + b.
fn one_bit(bits: u32) -> Codes {
    let spread = vec4<u32>(bits, bits >> 2u, bits >> 4u, bits >> 6u);
    return Codes(spread & vec4<u32>(0x01010101u), (spread >> vec4<u32>(1u)) & vec4<u32>(0x01010101u));
}

// The same for word q of each half.
fn one_bit_words(bits: u32, q: u32) -> vec2<u32> {
    let spread = bits >> (2u * q);
    return vec2<u32>(spread, spread >> 1u) & vec2<u32>(0x01010101u);
}

// One scale and offset for the whole group.
fn one_scale(scale: f32, offset: f32) -> Scales {
    return Scales(vec2<f32>(scale), vec2<f32>(offset));
}
