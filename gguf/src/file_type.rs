//! The table of file types: the mixes of formats that llama.cpp numbers and names.

use crate::Format;

/// One file type (`llama_ftype` in llama.h).
#[derive(Debug, PartialEq, Eq)]
pub struct FileType {
    /// `general.file_type` of such a file.
    pub id: u32,
    /// The name that users know, in capitals: `Q4_K_M`.
    pub name: &'static str,
    /// The words that llama.cpp shows (`llama_model_ftype_name`): `Q4_K - Medium`.
    pub words: &'static str,
    /// The format of most tensors, where such a file can be made here ([`crate::quantize::Mix`]). The others are only read.
    pub format: Option<Format>,
}

impl FileType {
    /// The file type of a number; none where llama.cpp has none, or no longer.
    pub fn of(id: u32) -> Option<&'static Self> {
        FILE_TYPES.iter().find(|file_type| file_type.id == id)
    }
}

/// Shorthand for a row of a type that can be made.
const fn made(id: u32, name: &'static str, words: &'static str, format: Format) -> FileType {
    FileType { id, name, words, format: Some(format) }
}

/// Shorthand for a row of a type that is only read.
const fn read(id: u32, name: &'static str, words: &'static str) -> FileType {
    FileType { id, name, words, format: None }
}

/// Every file type, from large to small; of a format's mixes the purest is the last.
pub static FILE_TYPES: &[FileType] = &[
    made(0, "F32", "all F32", Format::F32),
    made(1, "F16", "F16", Format::F16),
    made(32, "BF16", "BF16", Format::BF16),
    made(7, "Q8_0", "Q8_0", Format::Q8_0),
    made(18, "Q6_K", "Q6_K", Format::Q6_K),
    made(17, "Q5_K_M", "Q5_K - Medium", Format::Q5_K),
    made(16, "Q5_K_S", "Q5_K - Small", Format::Q5_K),
    made(9, "Q5_1", "Q5_1", Format::Q5_1),
    made(8, "Q5_0", "Q5_0", Format::Q5_0),
    made(15, "Q4_K_M", "Q4_K - Medium", Format::Q4_K),
    made(14, "Q4_K_S", "Q4_K - Small", Format::Q4_K),
    made(3, "Q4_1", "Q4_1", Format::Q4_1),
    made(2, "Q4_0", "Q4_0", Format::Q4_0),
    read(39, "NVFP4", "NVFP4"),
    made(25, "IQ4_NL", "IQ4_NL - 4.5 bpw", Format::IQ4_NL),
    made(30, "IQ4_XS", "IQ4_XS - 4.25 bpw", Format::IQ4_XS),
    made(38, "MXFP4_MOE", "MXFP4 MoE", Format::MXFP4),
    made(13, "Q3_K_L", "Q3_K - Large", Format::Q3_K),
    made(12, "Q3_K_M", "Q3_K - Medium", Format::Q3_K),
    read(27, "IQ3_M", "IQ3_S mix - 3.66 bpw"),
    made(11, "Q3_K_S", "Q3_K - Small", Format::Q3_K),
    read(26, "IQ3_S", "IQ3_S - 3.4375 bpw"),
    read(22, "IQ3_XS", "IQ3_XS - 3.3 bpw"),
    read(23, "IQ3_XXS", "IQ3_XXS - 3.0625 bpw"),
    made(10, "Q2_K", "Q2_K - Medium", Format::Q2_K),
    read(21, "Q2_K_S", "Q2_K - Small"),
    read(29, "IQ2_M", "IQ2_M - 2.7 bpw"),
    read(28, "IQ2_S", "IQ2_S - 2.5 bpw"),
    read(20, "IQ2_XS", "IQ2_XS - 2.3125 bpw"),
    made(41, "Q2_0", "Q2_0", Format::Q2_0),
    made(37, "TQ2_0", "TQ2_0 - 2.06 bpw ternary", Format::TQ2_0),
    read(19, "IQ2_XXS", "IQ2_XXS - 2.0625 bpw"),
    read(31, "IQ1_M", "IQ1_M - 1.75 bpw"),
    made(36, "TQ1_0", "TQ1_0 - 1.69 bpw ternary", Format::TQ1_0),
    read(24, "IQ1_S", "IQ1_S - 1.5625 bpw"),
    made(40, "Q1_0", "Q1_0", Format::Q1_0),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_differ_and_made_ones_can_be_made() {
        let ids: HashSet<_> = FILE_TYPES.iter().map(|row| row.id).collect();
        let names: HashSet<_> = FILE_TYPES.iter().map(|row| row.name).collect();
        let words: HashSet<_> = FILE_TYPES.iter().map(|row| row.words).collect();
        for different in [ids.len(), names.len(), words.len()] {
            assert_eq!(different, FILE_TYPES.len());
        }
        // Numbers that llama.cpp has given up: Q4_1 with F16, Q4_2, Q4_3, and three repacked Q4_0.
        let given_up = [4, 5, 6, 33, 34, 35];
        assert!((0..=41).all(|id| FileType::of(id).is_none() == given_up.contains(&id)));
        for format in FILE_TYPES.iter().filter_map(|row| row.format) {
            assert!(format.can_quantize(), "{format:?}");
        }
    }
}
