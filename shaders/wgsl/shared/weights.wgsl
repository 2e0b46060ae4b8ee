// A repacked tensor: all planes in one buffer, plane 0 at its start, the others at the offsets in `params`
// (in vec4s), behind them the format's table, if it has one. A group is 32 neighbouring weights of a row; groups count through all rows.
//
// A format of codes defines CODES and has three functions:
//   codes(group) -> Codes: the group's 32 codes, signed bytes.
//   code_words(group, q) -> vec2<u32>: the codes of weights 4q to 4q + 3, and of 16 + 4q to 16 + 4q + 3.
//   scales(group) -> Scales: weight = scale * code + offset, in each half of the group.
// It defines UNSIGNED_CODES where no code is negative, ONE_SCALE where both halves of a group have the same scale and offset,
// OFFSETS where an offset is other than 0; where that is -ZERO_POINT * scale, a constant, ZERO_POINT too.
// From these follow (shared/codes) what mat-vec kernels read, unless the format says it in fewer instructions:
//   eight_codes(group, q) -> Eight: the codes that code_words(group, q) holds, as floats in units of CODE_UNIT, the high
//     ones in units of HIGH_UNIT * CODE_UNIT (OWN_EIGHTS where the format has its own).
//     PREPARED: after prepare(lane, lanes), in kernels that define PREPARES.
//   quad_scales(quad) -> QuadScales: the scales of groups 4 * quad to 4 * quad + 3 (OWN_QUAD_SCALES).
//   SCALE_UNIT: what scales are in units of (OWN_SCALE_UNIT); other than 1 with SPLIT alone, and in no format with OFFSETS, since
//     kernels take offsets times CODE_UNIT alone into a sum.
// and decode_group(group) -> Group, the weights as floats; a format of floats has only that.

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;

// The same buffer word by word: what a lane wants of it is often less than a vec4.
@group(0) @binding(10) var<storage, read> weight_words: array<u32>;

// Vec4 number `index`.
fn words_at(index: u32) -> vec4<u32> {
    return weights[index];
}

#import shared/half

alias Group = array<vec4<f32>, 8>;

// 32 codes in signed bytes: `low` holds weights 0 to 15, `high` 16 to 31.
struct Codes { low: vec4<u32>, high: vec4<u32> }

// Of weights 0 to 15 in x, 16 to 31 in y.
struct Scales { scale: vec2<f32>, offset: vec2<f32> }

// Eight codes as floats: weights 4q to 4q + 3 of a group, and 16 + 4q to 16 + 4q + 3.
struct Eight { low: vec4<f32>, high: vec4<f32> }

// Of four neighbouring groups: of weights 0 to 15 in `low`, 16 to 31 in `high` (with ONE_SCALE not read).
struct QuadScales { low: vec4<f32>, high: vec4<f32>, low_offset: vec4<f32>, high_offset: vec4<f32> }

// Half number `index` of the plane at `plane`, in the low 16 bits.
fn plane_half(plane: u32, index: u32) -> u32 {
    return plane_word(plane, index >> 1u) >> ((index & 1u) * 16u);
}

// Word number `index` of the plane at `plane`.
fn plane_word(plane: u32, index: u32) -> u32 {
    return weight_words[plane * 4u + index];
}

// Byte number `index` of the plane at `plane`.
fn plane_byte(plane: u32, index: u32) -> u32 {
    return (plane_word(plane, index >> 2u) >> ((index & 3u) * 8u)) & 255u;
}

// Halves 4 * quad to 4 * quad + 3 of the plane at `plane`, as floats.
fn quad_halves(plane: u32, quad: u32) -> vec4<f32> {
    return vec4<f32>(halves_to_floats(plane_word(plane, quad * 2u)), halves_to_floats(plane_word(plane, quad * 2u + 1u)));
}

// A byte as a signed number.
fn signed_byte(byte: u32) -> f32 {
    return f32(bitcast<i32>(byte << 24u) >> 24u);
}

// Word number `index` of the format's table.
fn table_word(index: u32) -> u32 {
    return plane_word(params.table, index);
}

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
