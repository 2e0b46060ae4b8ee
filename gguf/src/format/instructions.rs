//! What decoding asks of a processor beyond plain code.

/// Steps of decoding that many processors do by an instruction and that compilers do not find in plain code.
/// The methods that are given here are that plain code.
pub trait Instructions {
    /// A little-endian half as f32, exactly; subnormal halves too.
    #[inline(always)]
    fn half(bytes: [u8; 2]) -> f32 {
        // By whole-number arithmetic, without branches, so that loops over it become vector code.
        let bits = u32::from(u16::from_le_bytes(bytes));
        let magnitude = (bits & 0x7fff) << 13;
        // 2^112 moves the exponent's bias from 15 to 127, exactly, also from subnormal numbers.
        let finite = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
        let special = f32::from_bits(magnitude | 0x7f80_0000);
        let value = if bits & 0x7c00 == 0x7c00 { special } else { finite };
        f32::from_bits(value.to_bits() | (bits & 0x8000) << 16)
    }

    /// Eight halves.
    #[inline(always)]
    fn halves(halves: &[[u8; 2]; 8]) -> [f32; 8] {
        // Plain loops, here and below: array::map does not become vector code.
        let mut floats = [0.0; 8];
        for (out, &half) in floats.iter_mut().zip(halves) {
            *out = Self::half(half);
        }
        floats
    }

    /// -1 in byte i where bit i is set, else 0.
    #[inline(always)]
    fn masks(bits: u32) -> [i8; 32] {
        // Each byte eight times, by a multiplication; then an and and a comparison of all at once.
        let spread = |byte: u8| u64::from(byte) * 0x0101_0101_0101_0101;
        let [a, b, c, d] = bits.to_le_bytes();
        let words = [spread(a), spread(b), spread(c), spread(d)];
        let bytes: [u8; 32] = bytemuck::cast(words);
        let mut out = [0; 32];
        for (index, out) in out.iter_mut().enumerate() {
            let bit = 1 << (index % 8);
            *out = -i8::from(bytes[index] & bit == bit);
        }
        out
    }

    /// Magnitudes with signs: where bit i of `signs` is set, number i is negative.
    #[inline(always)]
    fn signed(mut magnitudes: [i8; 32], signs: u32) -> [i8; 32] {
        for (x, mask) in magnitudes.iter_mut().zip(Self::masks(signs)) {
            *x = (*x ^ mask) - mask;
        }
        magnitudes
    }

    /// Sums of codes, which do not overflow.
    #[inline(always)]
    fn sums(mut codes: [i8; 32], others: [i8; 32]) -> [i8; 32] {
        for (code, other) in codes.iter_mut().zip(others) {
            *code += other;
        }
        codes
    }

    /// The value that each code, 0 to 15, chooses.
    #[inline(always)]
    fn chosen(codes: [i8; 32], values: &[i8; 16]) -> [i8; 32] {
        let mut out = [0; 32];
        for (out, code) in out.iter_mut().zip(codes) {
            *out = values[(code & 15) as usize];
        }
        out
    }
}

/// No instructions of its own: plain code.
#[derive(Debug, Clone, Copy)]
pub struct PlainInstructions;

impl Instructions for PlainInstructions {}
