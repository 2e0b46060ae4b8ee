// The scales of Q4_K and Q5_K, 16 bytes a superblock: the halves d and dmin; the low four bits of the scales, of groups
// b and b + 4 in byte b; of the minima; the high two bits, of group b at bit 0 of byte b, of group b + 4 at bit 2, of their
// minima at bits 4 and 6. So the scales of four groups are four bytes by a few instructions.

// d * scale and -dmin * minimum of group `group`, from the plane at `plane`.
fn k_scales(plane: u32, group: u32) -> Scales {
    let words = words_at(plane + (group >> 3u));
    let half = (group >> 2u) & 1u;
    let byte = 8u * (group & 3u);
    let scale = ((words.y >> (byte + 4u * half)) & 15u) | (((words.w >> (byte + 2u * half)) & 3u) << 4u);
    let minimum = ((words.z >> (byte + 4u * half)) & 15u) | ((words.w >> (byte + 2u * half)) & 48u);
    let d = halves_to_floats(words.x);
    return one_scale(d.x * f32(scale), -d.y * f32(minimum));
}

// The same for groups 4 * quad to 4 * quad + 3, which share a superblock.
fn k_quad_scales(plane: u32, quad: u32) -> QuadScales {
    let words = words_at(plane + (quad >> 1u));
    let half = quad & 1u;
    let high = words.w >> (2u * half);
    let scales = ((words.y >> (4u * half)) & 0x0f0f0f0fu) | ((high & 0x03030303u) << 4u);
    let minima = ((words.z >> (4u * half)) & 0x0f0f0f0fu) | (high & 0x30303030u);
    let d = halves_to_floats(words.x);
    return one_quad_scale(d.x * codes_to_floats(scales), -d.y * codes_to_floats(minima));
}
