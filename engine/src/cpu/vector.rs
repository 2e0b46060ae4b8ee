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

    /// Floats of a register.
    pub(super) fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => V256::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => V512::LANES,
            _ => Plain::LANES,
        }
    }

    /// Rows that are multiplied together: runs of rows are best multiples of this.
    pub(super) fn tile_rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => V256::TILE_ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => V512::TILE_ROWS,
            _ => Plain::TILE_ROWS,
        }
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
        use $crate::cpu::vector::Plain;
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
            $crate::cpu::vector::InstructionSet::Avx2 => unsafe { with_avx2($($arg),+) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a set is only chosen where `available` found its features.
            $crate::cpu::vector::InstructionSet::Avx512 => unsafe { with_avx512($($arg),+) },
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

    /// Inputs times a factor, rounded to bytes. The products must lie within them.
    #[inline(always)]
    fn to_bytes(inputs: &[f32; 16], factor: f32) -> [i8; 16] {
        // Adding 1.5 * 2^23 rounds to the nearest whole number, whose lowest byte then is the sum's.
        inputs.map(|x| (x * factor + 12_582_912.0).to_bits() as i8)
    }

    /// self * b.
    #[inline(always)]
    fn multiply(self, b: Self) -> Self {
        self.multiply_add(b, Self::splat(0.0))
    }
}

/// A [`Vector`] whose processor multiplies bytes. Methods must be inlined into a function that has the instructions for
/// that (AVX-VNNI, AVX-512 VNNI) enabled too.
pub(super) trait ByteVector: Vector {
    /// As many whole numbers of 32 bits.
    type Whole: Copy;

    /// The first numbers of a slice, which holds at least [`Vector::LANES`].
    fn load_whole(numbers: &[i32]) -> Self::Whole;
    /// Bytes, four to a lane, of a slice which holds that many.
    fn load_bytes(bytes: &[i8]) -> Self::Whole;
    /// Adds the products of four codes with the four bytes of each lane.
    fn add_products(sums: Self::Whole, codes: [u8; 4], bytes: Self::Whole) -> Self::Whole;
    /// Whole numbers as floats.
    fn from_whole(numbers: Self::Whole) -> Self;
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
mod x86;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{V256, V512};
