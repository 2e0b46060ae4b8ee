// The scales of Q4_K and Q5_K, 16 bytes a superblock: the halves d and dmin; the low four bits of eight
// scales; of eight minima; the high two bits, scale j at bit 2j, minimum j at bit 16 + 2j.
#import shared/half

// d * scale and -dmin * minimum of group `group`, from the plane at `plane`.
fn k_scales(plane: u32, group: u32) -> Scales {
    let words = words_at(plane + (group >> 3u));
    let j = group & 7u;
    let scale = ((words.y >> (4u * j)) & 15u) | (((words.w >> (2u * j)) & 3u) << 4u);
    let minimum = ((words.z >> (4u * j)) & 15u) | (((words.w >> (16u + 2u * j)) & 3u) << 4u);
    let d = halves_to_floats(words.x);
    return one_scale(d.x * f32(scale), -d.y * f32(minimum));
}
