//! The table of tensor types, and the formats whose blocks this engine decodes.
//!
//! A format is added by its file in `format/`, one line in `formats!` and `Some` in its row of
//! [`TYPES`]; kernels, tests and benchmarks iterate the table.

mod bits;
mod block;
mod grids;
mod instructions;

pub use block::{Block, Codes, Plane};
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

// Below the table: it is written with `with_block!`, which a crate's own modules see from there on.
mod sample;

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
