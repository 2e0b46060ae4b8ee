// Codes of four bits that choose among 16 signed bytes, VALUES, four a word.

// The values that the low halves of four bytes choose.
fn chosen_word(word: u32) -> u32 {
    let n = vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(15u);
    let shift = (n & vec4<u32>(3u)) * 8u;
    // Selections instead of an index into a constant, which drivers keep in memory.
    let high = n >= vec4<u32>(8u);
    let odd = (n & vec4<u32>(4u)) != vec4<u32>(0u);
    let low_half = select(vec4<u32>(VALUES.x), vec4<u32>(VALUES.y), odd);
    let high_half = select(vec4<u32>(VALUES.z), vec4<u32>(VALUES.w), odd);
    let bytes = (select(low_half, high_half, high) >> shift) & vec4<u32>(255u);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

fn codes(group: u32) -> Codes {
    let c = words_at(group);
    return Codes(
        vec4<u32>(chosen_word(c.x), chosen_word(c.y), chosen_word(c.z), chosen_word(c.w)),
        vec4<u32>(chosen_word(c.x >> 4u), chosen_word(c.y >> 4u), chosen_word(c.z >> 4u), chosen_word(c.w >> 4u)),
    );
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    let word = plane_word(0u, group * 4u + q);
    return vec2<u32>(chosen_word(word), chosen_word(word >> 4u));
}

#ifdef PREPARES
#ifndef OWN_EIGHTS
#define OWN_EIGHTS
#define PREPARED
const CODE_UNIT: f32 = 1.0;
const HIGH_UNIT: f32 = 1.0;

// The values as floats: one read of workgroup memory takes the place of the selections. Sixteen neighbours lie in as
// many banks, so that lanes do not wait for each other.
var<workgroup> values: array<f32, 16>;

// Every invocation of a workgroup must call it before its first eight_codes.
fn prepare(lane: u32, lanes: u32) {
    for (var i = lane; i < 16u; i += lanes) {
        values[i] = signed_byte(VALUES[i / 4u] >> (8u * (i % 4u)));
    }
    workgroupBarrier();
}

fn eight_codes(group: u32, q: u32) -> Eight {
    let word = plane_word(0u, group * 4u + q);
    return Eight(
        vec4<f32>(values[word & 15u], values[(word >> 8u) & 15u], values[(word >> 16u) & 15u], values[(word >> 24u) & 15u]),
        vec4<f32>(values[(word >> 4u) & 15u], values[(word >> 12u) & 15u], values[(word >> 20u) & 15u], values[word >> 28u]),
    );
}
#endif
#endif
