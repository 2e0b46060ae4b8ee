//! Registers of AVX2 and AVX-512 as vectors.

#[allow(clippy::wildcard_imports, reason = "the instructions' own names")]
use std::arch::x86_64::*;

use super::{ByteVector, Instructions, Vector};

/// The bytes of a register.
#[inline(always)]
fn bytes_of(register: __m256i) -> [i8; 32] {
    let mut bytes = [0; 32];
    // SAFETY: only code with AVX2 enabled has such a register; there is room for 32 bytes.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), register) };
    bytes
}

/// A register of bytes.
#[inline(always)]
fn register_of(bytes: [i8; 32]) -> __m256i {
    // SAFETY: only code with AVX2 enabled asks for such a register; 32 bytes are there.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// A register as a [`Vector`]: its type, lanes and tile rows, the instructions for what all registers do alike, and
/// the methods that differ.
macro_rules! vector {
    (
        $(#[$doc:meta])* $name:ident($register:ty), $lanes:literal lanes, $rows:literal rows,
        $set:ident, $load:ident, $store:ident, $multiply_add:ident, $multiply:ident;
        $($differs:tt)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(in crate::cpu) struct $name($register);

        impl Instructions for $name {
            #[inline(always)]
            fn half(bytes: [u8; 2]) -> f32 {
                let bits = i32::from(u16::from_le_bytes(bytes));
                // SAFETY: the caller runs with the set's features enabled (see Vector), F16C and AVX2
                // among them; so in all below.
                unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))) }
            }

            #[inline(always)]
            fn halves(halves: &[[u8; 2]; 8]) -> [f32; 8] {
                let mut floats = [0.0; 8];
                // SAFETY: as above; sixteen bytes are there, and room for eight floats.
                unsafe {
                    let halves = _mm_loadu_si128(halves.as_ptr().cast());
                    _mm256_storeu_ps(floats.as_mut_ptr(), _mm256_cvtph_ps(halves));
                }
                floats
            }

            #[inline(always)]
            fn masks(bits: u32) -> [i8; 32] {
                // SAFETY: as above.
                unsafe {
                    let all = _mm256_set1_epi32(bits.cast_signed());
                    // Byte i / 8 in byte i.
                    let spread = _mm256_shuffle_epi8(all, _mm256_setr_epi64x(
                        0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303,
                    ));
                    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
                    bytes_of(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit))
                }
            }

            #[inline(always)]
            fn signed(magnitudes: [i8; 32], signs: u32) -> [i8; 32] {
                // SAFETY: as above.
                unsafe {
                    let (x, mask) = (register_of(magnitudes), register_of(Self::masks(signs)));
                    bytes_of(_mm256_sub_epi8(_mm256_xor_si256(x, mask), mask))
                }
            }

            #[inline(always)]
            fn sums(codes: [i8; 32], others: [i8; 32]) -> [i8; 32] {
                // SAFETY: as above.
                unsafe {
                    bytes_of(_mm256_add_epi8(register_of(codes), register_of(others)))
                }
            }

            #[inline(always)]
            fn chosen(codes: [i8; 32], values: &[i8; 16]) -> [i8; 32] {
                // SAFETY: as above; sixteen values are there.
                unsafe {
                    let codes = register_of(codes);
                    let values = _mm_loadu_si128(values.as_ptr().cast());
                    bytes_of(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), codes))
                }
            }
        }

        impl Vector for $name {
            const LANES: usize = $lanes;
            const TILE_ROWS: usize = $rows;

            #[inline(always)]
            fn splat(value: f32) -> Self {
                // SAFETY: as above.
                Self(unsafe { $set(value) })
            }

            #[inline(always)]
            fn load(floats: &[f32]) -> Self {
                let floats = &floats[..$lanes];
                // SAFETY: as above; the floats are there, and the load asks for no alignment.
                Self(unsafe { $load(floats.as_ptr()) })
            }

            #[inline(always)]
            fn store(self, floats: &mut [f32]) {
                let floats = &mut floats[..$lanes];
                // SAFETY: as above; there is room, and the store asks for no alignment.
                unsafe { $store(floats.as_mut_ptr(), self.0) }
            }

            #[inline(always)]
            fn multiply_add(self, b: Self, c: Self) -> Self {
                // SAFETY: as above.
                Self(unsafe { $multiply_add(self.0, b.0, c.0) })
            }

            #[inline(always)]
            fn multiply(self, b: Self) -> Self {
                // SAFETY: as above.
                Self(unsafe { $multiply(self.0, b.0) })
            }

            $($differs)*
        }
    };
}

vector! {
    /// Eight floats: AVX2 and FMA.
    V256(__m256), 8 lanes, 6 rows,
    _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_mul_ps;

    #[inline(always)]
    fn load_codes(codes: &[i8]) -> Self {
        let codes = &codes[..8];
        // SAFETY: as above; eight bytes are there, and the load asks for no alignment.
        Self(unsafe {
            let bytes = _mm_loadl_epi64(codes.as_ptr().cast());
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let four =
                _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps(self.0, 1));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)))
        }
    }

    #[inline(always)]
    fn to_bytes(inputs: &[f32; 16], factor: f32) -> [i8; 16] {
        // SAFETY: as above; sixteen floats are there, and room for sixteen bytes.
        unsafe {
            let rounded = |first: usize| {
                let x = _mm256_loadu_ps(inputs.as_ptr().add(first));
                _mm256_cvtps_epi32(_mm256_mul_ps(x, _mm256_set1_ps(factor)))
            };
            // Packing works on each half of the registers.
            let words = _mm256_packs_epi32(rounded(0), rounded(8));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
            let mut bytes = [0; 16];
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm_packs_epi16(low, high));
            bytes
        }
    }

    #[inline(always)]
    fn add_byte_products(
        codes: &[i8; 32],
        bytes: &[i8; 32],
        scale: [f32; 2],
        mut total: Self,
    ) -> Self {
        for (half, scale) in scale.into_iter().enumerate() {
            // SAFETY: as above; sixteen bytes are there from each half's start.
            unsafe {
                let words = |bytes: &[i8; 32]| {
                    let start = bytes.as_ptr().add(half * 16).cast();
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(start))
                };
                let sums = _mm256_madd_epi16(words(codes), words(bytes));
                let part = Self(_mm256_cvtepi32_ps(sums));
                total = Self::splat(scale).multiply_add(part, total);
            }
        }
        total
    }
}

vector! {
    /// Sixteen floats: AVX-512.
    V512(__m512), 16 lanes, 12 rows,
    _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_mul_ps;

    #[inline(always)]
    fn load_codes(codes: &[i8]) -> Self {
        let codes = &codes[..16];
        // SAFETY: as above; sixteen bytes are there, and the load asks for no alignment.
        Self(unsafe {
            let bytes = _mm_loadu_si128(codes.as_ptr().cast());
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    fn to_bytes(inputs: &[f32; 16], factor: f32) -> [i8; 16] {
        // SAFETY: as above; sixteen floats are there, and room for sixteen bytes.
        unsafe {
            let scaled = _mm512_mul_ps(_mm512_loadu_ps(inputs.as_ptr()), _mm512_set1_ps(factor));
            let mut bytes = [0; 16];
            let rounded = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(scaled));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), rounded);
            bytes
        }
    }

    #[inline(always)]
    fn add_byte_products(
        codes: &[i8; 32],
        bytes: &[i8; 32],
        scale: [f32; 2],
        total: Self,
    ) -> Self {
        // SAFETY: as above, with AVX-512 BW; 32 bytes are there.
        unsafe {
            let words = |bytes: &[i8; 32]| {
                _mm512_cvtepi8_epi16(_mm256_loadu_si256(bytes.as_ptr().cast()))
            };
            // Sums of pairs: the first half's in lanes 0 to 7, the second's above.
            let sums = _mm512_madd_epi16(words(codes), words(bytes));
            let high = _mm512_set1_ps(scale[1]);
            let scales = Self(_mm512_mask_blend_ps(0x00ff, high, _mm512_set1_ps(scale[0])));
            Self(_mm512_cvtepi32_ps(sums)).multiply_add(scales, total)
        }
    }
}

/// [`ByteVector`] of a register: its type for whole numbers, and the instructions.
macro_rules! byte_vector {
    ($name:ident, $whole:ty, $lanes:literal lanes, $load:ident, $set:ident, $dot:ident, $floats:ident) => {
        impl ByteVector for $name {
            type Whole = $whole;

            #[inline(always)]
            fn load_whole(numbers: &[i32]) -> $whole {
                let numbers = &numbers[..$lanes];
                // SAFETY: the caller runs with the features enabled (see ByteVector; so in all below); the numbers are
                // there, and the load asks for no alignment.
                unsafe { $load(numbers.as_ptr().cast()) }
            }

            #[inline(always)]
            fn load_bytes(bytes: &[i8]) -> $whole {
                let bytes = &bytes[..$lanes * 4];
                // SAFETY: as above.
                unsafe { $load(bytes.as_ptr().cast()) }
            }

            #[inline(always)]
            fn add_products(sums: $whole, codes: [u8; 4], bytes: $whole) -> $whole {
                // SAFETY: as above.
                unsafe { $dot(sums, $set(i32::from_le_bytes(codes)), bytes) }
            }

            #[inline(always)]
            fn from_whole(numbers: $whole) -> Self {
                // SAFETY: as above.
                Self(unsafe { $floats(numbers) })
            }
        }
    };
}

byte_vector!(
    V256, __m256i, 8 lanes, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_dpbusd_avx_epi32,
    _mm256_cvtepi32_ps
);
byte_vector!(
    V512, __m512i, 16 lanes, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_dpbusd_epi32,
    _mm512_cvtepi32_ps
);
