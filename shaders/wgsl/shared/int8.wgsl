// Inputs rounded to signed bytes, each half of a group (16) with its own scale: x = scale * byte.

// What the largest magnitude of a half is multiplied with, and what brings it back.
fn int8_factor(largest: f32) -> f32 {
    return select(127.0 / largest, 0.0, largest < 1e-30);
}

fn int8_scale(largest: f32) -> f32 {
    return largest / 127.0;
}

fn int8_bytes(x: vec4<f32>, factor: f32) -> u32 {
    return pack4xI8(vec4<i32>(round(x * factor)));
}

fn largest_of(x: vec4<f32>) -> f32 {
    let a = abs(x);
    return max(max(a.x, a.y), max(a.z, a.w));
}

// The sum of four bytes.
fn int8_sum(bytes: u32) -> i32 {
    return dot4I8Packed(bytes, 0x01010101u);
}

// A product of four pairs of bytes. A function of its own: naga's Metal text declares a copy of each operand beside each
// dot4I8Packed, so an operand used by two of them in one block would be declared twice.
fn int8_dot(a: u32, b: u32) -> i32 {
    return dot4I8Packed(a, b);
}
