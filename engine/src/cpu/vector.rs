//! Vectors of floats in the registers of each instruction set. Loops are written once over [`Vector`] and
//! compiled once per set, inside a function that has the set's features enabled.

use gguf::Instructions;

/// The vector instructions that the loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// What every processor of the architecture has: SSE2 on x86-64, NEON on AArch64.
    Baseline,
    /// AVX2, FMA and F16C: 8 lanes.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 16 lanes.
    Avx512,
}

impl InstructionSet {
    /// The best one that this processor has.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Baseline)
    }

    /// All that this processor has, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures have no more")]
        let mut sets = vec![Self::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            if avx2 {
                sets.push(Self::Avx2);
            }
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                sets.push(Self::Avx512);
            }
        }
        sets
    }

    /// The set's name.
    pub fn name(self) -> &'static str {
        match self {
            InstructionSet::Baseline if cfg!(target_arch = "aarch64") => "NEON",
            InstructionSet::Baseline => "baseline",
            InstructionSet::Avx2 => "AVX2",
            InstructionSet::Avx512 => "AVX-512",
        }
    }
}

/// Calls a function over a [`Vector`] with the instructions of a set: `$body` for each type `$V`, inside a function that
/// has the set's features. The arguments are variables of the caller, and stay arguments: so the compiler knows that they
/// do not overlap (handed over in a struct, prompts took 4 % longer).
macro_rules! with_set {
    ($set:expr, |$V:ident, $($arg:ident: $type:ty),+| $body:expr) => {{
        use $crate::cpu::vector::{InstructionSet, Plain};
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn with_avx2($($arg: $type),+) {
            type $V = $crate::cpu::vector::V256;
            $body
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512($($arg: $type),+) {
            type $V = $crate::cpu::vector::V512;
            $body
        }
        fn with_none($($arg: $type),+) {
            type $V = Plain;
            $body
        }
        match $set {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a set is only chosen where `available` found its features.
            InstructionSet::Avx2 => unsafe { with_avx2($($arg),+) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a set is only chosen where `available` found its features.
            InstructionSet::Avx512 => unsafe { with_avx512($($arg),+) },
            _ => with_none($($arg),+),
        }
    }};
}
pub(super) use with_set;

/// A register of [`Vector::LANES`] floats.
///
/// All methods must be inlined into a function that has the features of the set enabled.
pub(super) trait Vector: Copy + Instructions {
    /// Floats of a register: divides 16.
    const LANES: usize;
    /// Rows of a tile of [`super::product`]: with two vectors of tokens each, as many sums as fit into the
    /// registers.
    const TILE_ROWS: usize;
    /// Whether a superblock's groups are decoded by code of their own each: faster, and slower to compile.
    const UNROLLED: bool = true;

    /// The same number in all lanes.
    fn splat(value: f32) -> Self;
    /// The first floats of a slice, which holds at least [`Vector::LANES`].
    fn load(floats: &[f32]) -> Self;
    /// Signed bytes as floats, at least [`Vector::LANES`] of them.
    fn load_codes(codes: &[i8]) -> Self;
    /// Writes the lanes to the start of a slice.
    fn store(self, floats: &mut [f32]);
    /// self * b + c.
    fn multiply_add(self, b: Self, c: Self) -> Self;
    /// The sum of the lanes.
    fn sum(self) -> f32;

    /// Adds the products of 32 codes with 32 bytes, those of each half times its scale, to some lanes of
    /// `total`.
    #[inline(always)]
    fn add_byte_products(
        codes: &[i8; 32],
        bytes: &[i8; 32],
        scale: [f32; 2],
        mut total: Self,
    ) -> Self {
        for (half, scale) in scale.into_iter().enumerate() {
            let mut part = Self::splat(0.0);
            for at in (half * 16..half * 16 + 16).step_by(Self::LANES) {
                // Products of bytes and their sums are whole numbers far below 2^24: exact.
                part = Self::load_codes(&codes[at..])
                    .multiply_add(Self::load_codes(&bytes[at..]), part);
            }
            total = Self::splat(scale).multiply_add(part, total);
        }
        total
    }

    /// self * b.
    #[inline(always)]
    fn multiply(self, b: Self) -> Self {
        self.multiply_add(b, Self::splat(0.0))
    }
}

/// Four floats by plain code, which compilers turn into SSE2 or NEON.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 4]);

impl Instructions for Plain {}

impl Vector for Plain {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 4;
    // On x86-64 for processors of before 2013 only.
    const UNROLLED: bool = cfg!(not(target_arch = "x86_64"));

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    fn load(floats: &[f32]) -> Self {
        Self([floats[0], floats[1], floats[2], floats[3]])
    }

    #[inline(always)]
    fn load_codes(codes: &[i8]) -> Self {
        Self([codes[0], codes[1], codes[2], codes[3]].map(f32::from))
    }

    #[inline(always)]
    fn store(self, floats: &mut [f32]) {
        floats[..4].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn multiply_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            if cfg!(target_arch = "aarch64") {
                self.0[lane].mul_add(b.0[lane], c.0[lane])
            } else {
                // Without the instruction, mul_add is a call into the C library.
                self.0[lane] * b.0[lane] + c.0[lane]
            }
        }))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{V256, V512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports, reason = "the instructions' own names")]
    use std::arch::x86_64::*;

    use super::{Instructions, Vector};

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
            pub struct $name($register);

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
}
