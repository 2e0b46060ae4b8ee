//! The table of tensor types, and the formats whose blocks this engine decodes.
//!
//! A format is added by its file in `format/`, one line in `formats!` and `Some` in its row of
//! [`TYPES`]; kernels, tests and benchmarks iterate the table.

use bytemuck::Pod;

mod grids;
mod instructions;

pub use instructions::{Instructions, PlainInstructions};

/// One type of ggml's numbering (`enum ggml_type` in ggml.h).
#[derive(Debug, PartialEq, Eq)]
pub struct TypeInfo {
    /// The id in the file.
    pub id: u32,
    /// ggml's name, in capitals.
    pub name: &'static str,
    /// Elements per block; 0 for types that ggml has removed.
    pub block_size: u32,
    /// Bytes per block.
    pub block_bytes: u32,
    /// The decodable format, where this engine has it.
    pub format: Option<Format>,
}

impl TypeInfo {
    /// Average bits per weight.
    pub fn bits_per_weight(&self) -> f64 {
        f64::from(self.block_bytes) * 8.0 / f64::from(self.block_size.max(1))
    }
}

/// One plane of a repacked tensor: the same part of every block, contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    /// What it holds, for readers.
    pub name: &'static str,
    /// Bytes per block.
    pub block_bytes: usize,
}

/// 32 weights as codes: each is `scale * code + offset`, with a scale and an offset for each half of them.
#[derive(Debug, Clone, Copy)]
pub struct Codes {
    /// Signed codes.
    pub codes: [i8; 32],
    /// Scales of weights 0 to 15 and 16 to 31.
    pub scale: [f32; 2],
    /// Offsets of the same; 0 where [`Block::OFFSETS`] is false.
    pub offset: [f32; 2],
}

impl Codes {
    /// Codes that share a scale and an offset.
    #[inline(always)]
    pub(crate) fn uniform(codes: [i8; 32], scale: f32, offset: f32) -> Self {
        Self { codes, scale: [scale; 2], offset: [offset; 2] }
    }
}

/// A block as it lies in a file: bytes only, so any alignment will do.
pub trait Block: Pod + Send + Sync {
    /// Weights per block: 1 for formats of floats, else a multiple of 32.
    const WEIGHTS: usize;
    /// Where in the block halves lie (scales, minima), in bytes.
    const HALVES: &'static [usize];
    /// The planes that [`Block::repack`] fills, at most four.
    const PLANES: &'static [Plane];
    /// What kernels look codes up in, behind the planes.
    const TABLE: &'static [u32] = &[];
    /// Whether [`Codes::offset`] is ever other than 0.
    const OFFSETS: bool = false;

    /// Weights 32 `group` to 32 `group` + 31 as codes. Formats of floats have none.
    fn codes<I: Instructions>(&self, group: usize) -> Codes;

    /// Eight weights of a format of floats. Other formats have none.
    #[inline(always)]
    fn floats<I: Instructions>(_blocks: &[Self; 8]) -> [f32; 8] {
        [0.0; 8]
    }

    /// Writes the block's weights to `out`, which holds [`Block::WEIGHTS`] of them.
    #[inline(always)]
    fn decode(&self, out: &mut [f32]) {
        if Self::WEIGHTS == 1 {
            out[0] = Self::floats::<PlainInstructions>(&[*self; 8])[0];
            return;
        }
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let Codes { codes, scale, offset } = self.codes::<PlainInstructions>(group);
            for (half, (out, codes)) in
                out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0).enumerate()
            {
                for (out, &code) in out.iter_mut().zip(codes) {
                    let weight = f32::from(code) * scale[half];
                    // Adding 0 would turn -0 into 0.
                    *out = if Self::OFFSETS { weight + offset[half] } else { weight };
                }
            }
        }
    }

    /// Sets scales and minima, for making plausible blocks: `scale` gives numbers between -0.01 and 0.01.
    fn set_scales(&mut self, scale: &mut dyn FnMut() -> f32) {
        let bytes = bytemuck::bytes_of_mut(self);
        for &at in Self::HALVES {
            bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(scale()).to_le_bytes());
        }
    }

    /// Writes the block's part of each plane: `planes[i]` holds `PLANES[i].block_bytes`.
    ///
    /// In planes, 4-bit codes of 32 weights take 16 bytes, byte j holding weight j in its low half and
    /// weight j + 16 in its high half, whatever the order in the block: one kernel fits all. So do two bits
    /// (`pack_two_bits`) and one (`spread_high_bits`).
    fn repack(&self, planes: &mut [&mut [u8]]);
}

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

/// Lists the formats: variant and block type, type id, module.
macro_rules! formats {
    ($d:tt $($name:ident $id:literal $module:ident;)*) => {
        $(pub mod $module;)*

        /// A format whose blocks this engine decodes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, missing_docs, reason = "ggml's names, as users know them")]
        pub enum Format { $($name),* }

        impl Format {
            /// All formats.
            pub const ALL: &[Format] = &[$(Format::$name),*];

            /// The type id in a file.
            pub fn id(self) -> u32 {
                match self { $(Format::$name => $id),* }
            }

            /// The name of the format's files, `q4_k` for example.
            pub fn file_stem(self) -> &'static str {
                match self { $(Format::$name => stringify!($module)),* }
            }
        }

        /// Evaluates an expression with a format's block type bound to a name.
        ///
        /// ```
        /// use gguf::{Block, Format, with_block};
        /// assert_eq!(with_block!(Format::Q4_K, B => B::WEIGHTS), 256);
        /// ```
        #[macro_export]
        macro_rules! with_block {
            ($d format:expr, $d block:ident => $d body:expr) => {
                match $d format {
                    $($crate::Format::$name => {
                        type $d block = $crate::format::$module::$name;
                        $d body
                    })*
                }
            };
        }
    };
}

formats! { $
    F32 0 f32;
    F16 1 f16;
    BF16 30 bf16;
    Q4_0 2 q4_0;
    Q4_1 3 q4_1;
    Q5_0 6 q5_0;
    Q5_1 7 q5_1;
    Q8_0 8 q8_0;
    Q4_K 12 q4_k;
    Q5_K 13 q5_k;
    Q6_K 14 q6_k;
    Q8_1 9 q8_1;
    Q2_K 10 q2_k;
    Q3_K 11 q3_k;
    Q8_K 15 q8_k;
    IQ2_XXS 16 iq2_xxs;
    IQ2_XS 17 iq2_xs;
    IQ3_XXS 18 iq3_xxs;
    IQ1_S 19 iq1_s;
    IQ4_NL 20 iq4_nl;
    IQ3_S 21 iq3_s;
    IQ2_S 22 iq2_s;
    IQ4_XS 23 iq4_xs;
    IQ1_M 29 iq1_m;
    TQ1_0 34 tq1_0;
    TQ2_0 35 tq2_0;
    MXFP4 39 mxfp4;
    NVFP4 40 nvfp4;
    Q1_0 41 q1_0;
    Q2_0 42 q2_0;
}

impl Format {
    /// The row of the type table.
    pub fn info(self) -> &'static TypeInfo {
        TYPES
            .iter()
            .find(|info| info.format == Some(self))
            .unwrap_or_else(|| unreachable!("a test checks that every format has its row"))
    }

    /// ggml's name.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// Weights per block.
    pub fn block_size(self) -> usize {
        with_block!(self, B => B::WEIGHTS)
    }

    /// Bytes per block in a file.
    pub fn block_bytes(self) -> usize {
        with_block!(self, B => size_of::<B>())
    }

    /// Whether weights are codes with scales, rather than floats.
    pub fn has_codes(self) -> bool {
        self.block_size() > 1
    }

    /// The planes of a repacked tensor.
    pub fn planes(self) -> &'static [Plane] {
        with_block!(self, B => B::PLANES)
    }

    /// What kernels look codes up in, behind the planes.
    pub fn table(self) -> &'static [u32] {
        with_block!(self, B => B::TABLE)
    }

    /// The bytes that `weights` weights take in a file.
    pub fn bytes(self, weights: usize) -> usize {
        weights / self.block_size() * self.block_bytes()
    }

    /// Decodes whole blocks: `out` holds as many weights as `blocks` does.
    pub fn decode(self, blocks: &[u8], out: &mut [f32]) {
        with_block!(self, B => {
            let blocks: &[B] = bytemuck::cast_slice(blocks);
            for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::WEIGHTS)) {
                block.decode(out);
            }
        });
    }

    /// Makes plausible blocks of `weights` weights for tests and measurements: random codes, scales of
    /// which one in eight is subnormal (as K-quants' often are), weights of about 0.1 at most a few.
    pub fn sample(self, seed: u64, weights: usize) -> Vec<u8> {
        let mut random = Random(seed);
        let mut bytes = vec![0; self.bytes(weights)];
        match self {
            Format::F32 => {
                for chunk in bytes.chunks_exact_mut(4) {
                    chunk.copy_from_slice(&random.weight().to_le_bytes());
                }
            }
            Format::F16 => {
                for chunk in bytes.chunks_exact_mut(2) {
                    chunk.copy_from_slice(&half::f16::from_f32(random.weight()).to_le_bytes());
                }
            }
            Format::BF16 => {
                for chunk in bytes.chunks_exact_mut(2) {
                    chunk.copy_from_slice(&half::bf16::from_f32(random.weight()).to_le_bytes());
                }
            }
            _ => {
                bytes.fill_with(|| (random.next() >> 32) as u8);
                let mut scale = || {
                    let size = if random.next().is_multiple_of(8) { 3e-5 } else { 0.01 };
                    random.weight() * size
                };
                with_block!(self, B => {
                    for block in bytemuck::cast_slice_mut::<u8, B>(&mut bytes) {
                        block.set_scales(&mut scale);
                    }
                });
            }
        }
        bytes
    }

    /// Repacks whole blocks into planes: `planes[i]` holds `self.planes()[i].block_bytes` per block.
    pub fn repack(self, blocks: &[u8], planes: &mut [&mut [u8]]) {
        with_block!(self, B => {
            let blocks: &[B] = bytemuck::cast_slice(blocks);
            for (index, block) in blocks.iter().enumerate() {
                let mut parts: [&mut [u8]; 4] = Default::default();
                for ((part, plane), layout) in parts.iter_mut().zip(planes.iter_mut()).zip(B::PLANES) {
                    *part = &mut plane[index * layout.block_bytes..][..layout.block_bytes];
                }
                block.repack(&mut parts[..B::PLANES.len()]);
            }
        });
    }
}

/// A small generator of reproducible numbers (SplitMix64; Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number between -1 and 1.
    fn weight(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }
}

/// Shorthand for a row of the table.
const fn row(
    id: u32,
    name: &'static str,
    block_size: u32,
    block_bytes: u32,
    format: Option<Format>,
) -> TypeInfo {
    TypeInfo { id, name, block_size, block_bytes, format }
}

/// Every type id that ggml has or had.
pub static TYPES: &[TypeInfo] = &[
    row(0, "F32", 1, 4, Some(Format::F32)),
    row(1, "F16", 1, 2, Some(Format::F16)),
    row(2, "Q4_0", 32, 18, Some(Format::Q4_0)),
    row(3, "Q4_1", 32, 20, Some(Format::Q4_1)),
    row(4, "Q4_2", 0, 0, None),
    row(5, "Q4_3", 0, 0, None),
    row(6, "Q5_0", 32, 22, Some(Format::Q5_0)),
    row(7, "Q5_1", 32, 24, Some(Format::Q5_1)),
    row(8, "Q8_0", 32, 34, Some(Format::Q8_0)),
    row(9, "Q8_1", 32, 36, Some(Format::Q8_1)),
    row(10, "Q2_K", 256, 84, Some(Format::Q2_K)),
    row(11, "Q3_K", 256, 110, Some(Format::Q3_K)),
    row(12, "Q4_K", 256, 144, Some(Format::Q4_K)),
    row(13, "Q5_K", 256, 176, Some(Format::Q5_K)),
    row(14, "Q6_K", 256, 210, Some(Format::Q6_K)),
    row(15, "Q8_K", 256, 292, Some(Format::Q8_K)),
    row(16, "IQ2_XXS", 256, 66, Some(Format::IQ2_XXS)),
    row(17, "IQ2_XS", 256, 74, Some(Format::IQ2_XS)),
    row(18, "IQ3_XXS", 256, 98, Some(Format::IQ3_XXS)),
    row(19, "IQ1_S", 256, 50, Some(Format::IQ1_S)),
    row(20, "IQ4_NL", 32, 18, Some(Format::IQ4_NL)),
    row(21, "IQ3_S", 256, 110, Some(Format::IQ3_S)),
    row(22, "IQ2_S", 256, 82, Some(Format::IQ2_S)),
    row(23, "IQ4_XS", 256, 136, Some(Format::IQ4_XS)),
    row(24, "I8", 1, 1, None),
    row(25, "I16", 1, 2, None),
    row(26, "I32", 1, 4, None),
    row(27, "I64", 1, 8, None),
    row(28, "F64", 1, 8, None),
    row(29, "IQ1_M", 256, 56, Some(Format::IQ1_M)),
    row(30, "BF16", 1, 2, Some(Format::BF16)),
    row(31, "Q4_0_4_4", 0, 0, None),
    row(32, "Q4_0_4_8", 0, 0, None),
    row(33, "Q4_0_8_8", 0, 0, None),
    row(34, "TQ1_0", 256, 54, Some(Format::TQ1_0)),
    row(35, "TQ2_0", 256, 66, Some(Format::TQ2_0)),
    row(36, "IQ4_NL_4_4", 0, 0, None),
    row(37, "IQ4_NL_4_8", 0, 0, None),
    row(38, "IQ4_NL_8_8", 0, 0, None),
    row(39, "MXFP4", 32, 17, Some(Format::MXFP4)),
    row(40, "NVFP4", 64, 36, Some(Format::NVFP4)),
    row(41, "Q1_0", 128, 18, Some(Format::Q1_0)),
    row(42, "Q2_0", 64, 18, Some(Format::Q2_0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_row() {
        for &format in Format::ALL {
            let info = format.info();
            assert_eq!(info.id, format.id());
            assert_eq!(info.block_size as usize, format.block_size());
            assert_eq!(info.block_bytes as usize, format.block_bytes());
            assert!(format.planes().len() <= 4);
        }
        let ids: std::collections::HashSet<_> = TYPES.iter().map(|info| info.id).collect();
        assert_eq!(ids.len(), TYPES.len());
    }
}
