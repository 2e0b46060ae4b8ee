//! Codes out of packed bits, and into the order that kernels want.

use super::Instructions;

/// The 4-bit codes of 16 bytes, weight j in the low half of byte j and weight j + 16 in its high half, less
/// `center`.
#[inline(always)]
pub(crate) fn nibbles(bytes: &[u8; 16], center: i8) -> [i8; 32] {
    let mut codes = [0; 32];
    // Plain loops: array::map does not become vector code.
    for j in 0..16 {
        codes[j] = (bytes[j] & 15) as i8 - center;
        codes[j + 16] = (bytes[j] >> 4) as i8 - center;
    }
    codes
}

/// What 4-bit codes, weight j in the low half of byte j and weight j + 16 in its high half, choose among 16 values.
#[inline(always)]
pub(crate) fn chosen<I: Instructions>(bytes: &[u8; 16], values: &[i8; 16]) -> [i8; 32] {
    I::chosen(nibbles(bytes, 0), values)
}

/// The 2-bit codes of a group of 32 out of runs of 32 bytes, which hold four groups each.
#[inline(always)]
pub(crate) fn two_bits(bytes: &[u8; 64], group: usize) -> [i8; 32] {
    let run = &bytes.as_chunks::<32>().0[group / 4];
    let shift = 2 * (group % 4);
    let mut codes = [0; 32];
    for (code, byte) in codes.iter_mut().zip(run) {
        *code = (byte >> shift & 3) as i8;
    }
    codes
}

/// 32 codes of two bits as kernels want them: two words, one a half; bits 8b + 2w and the next of word s are
/// weight 16s + 4w + b.
pub(crate) fn pack_two_bits(codes: &[i8; 32]) -> [u8; 8] {
    let mut out = [0; 8];
    for (weight, &code) in codes.iter().enumerate() {
        let (s, w, b) = (weight / 16, weight / 4 % 4, weight % 4);
        out[4 * s + b] |= (code as u8) << (2 * w);
    }
    out
}

/// One bit of each of 32 codes in the order that kernels want: bit 8b + 2w + s is weight 16s + 4w + b, so
/// that shifting by 2w + s leaves the bits of four neighbouring weights in four bytes.
pub(crate) fn spread_high_bits(high: u32) -> [u8; 4] {
    let mut spread = 0;
    for weight in 0..32 {
        let (s, w, b) = (weight / 16, weight / 4 % 4, weight % 4);
        spread |= ((high >> weight) & 1) << (8 * b + 2 * w + s);
    }
    spread.to_le_bytes()
}

/// What a function gives for 0 and 1. (`array::map` is not always made one with its caller; nor in [`four`].)
#[inline(always)]
pub(crate) fn two<T>(f: impl Fn(usize) -> T) -> [T; 2] {
    [f(0), f(1)]
}

/// What a function gives for 0 to 3.
#[inline(always)]
pub(crate) fn four<T>(f: impl Fn(usize) -> T) -> [T; 4] {
    [f(0), f(1), f(2), f(3)]
}

/// All codes less one.
#[inline(always)]
pub(crate) fn less_one(mut codes: [i8; 32]) -> [i8; 32] {
    for code in &mut codes {
        *code -= 1;
    }
    codes
}

/// 32 codes made of four eights.
#[inline(always)]
pub(crate) fn eights(eight: impl Fn(usize) -> [i8; 8]) -> [i8; 32] {
    bytemuck::cast(four(eight))
}

/// Two fours of a grid side by side.
#[inline(always)]
pub(crate) fn joined<const N: usize>(grid: &[[i8; 4]; N], first: usize, second: usize) -> [i8; 8] {
    bytemuck::cast([grid[first], grid[second]])
}

/// Seven signs in each of four bytes, with the eighth, which makes their number even.
#[inline(always)]
pub(crate) fn with_parity(signs: u32) -> u32 {
    // Each byte's lowest bit becomes the parity of the byte; what comes out of neighbours stays above.
    let fours = signs ^ signs >> 4;
    let pairs = fours ^ fours >> 2;
    signs | ((pairs ^ pairs >> 1) & 0x0101_0101) << 7
}

/// Four times seven bits, the first lowest, each in a byte.
#[inline(always)]
pub(crate) fn sevens(bits: u32) -> u32 {
    bits & 0x7f | bits << 1 & 0x7f00 | bits << 2 & 0x007f_0000 | bits << 3 & 0x7f00_0000
}
