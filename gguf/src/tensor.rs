//! What a header says of one tensor.

use std::ops::Range;

use crate::format::{TYPES, TypeInfo};

/// A tensor's type id as the file has it: known or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType(pub u32);

impl TensorType {
    /// The row of the type table, if the id is known.
    pub fn info(self) -> Option<&'static TypeInfo> {
        TYPES.iter().find(|info| info.id == self.0)
    }

    /// The type of a name such as `Q4_K`.
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|info| info.name == name).map(|info| Self(info.id))
    }

    /// The type's name, or `unknown type id N`.
    pub fn name(self) -> String {
        self.info().map_or_else(|| format!("unknown type id {}", self.0), |info| info.name.into())
    }
}

/// One tensor of a file.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// The tensor's name, `blk.0.attn_q.weight` for example.
    pub name: String,
    /// Dimensions, innermost (contiguous) first; one to four of them, or none for a scalar.
    pub shape: Vec<u64>,
    /// The type of its blocks.
    pub tensor_type: TensorType,
    /// Which of the model's files holds it.
    pub file: usize,
    /// Where the data starts, in bytes from the start of that file.
    pub start: u64,
    /// How many bytes it takes; none if the type's layout is unknown.
    pub bytes: Option<u64>,
}

impl TensorInfo {
    /// The number of elements. The parser has checked that the product does not overflow.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The length of a row: the innermost dimension.
    pub fn row_length(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The number of rows: all dimensions but the innermost.
    pub fn rows(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    /// The bytes of the data in its file; none if the type's layout is unknown.
    pub fn range(&self) -> Option<Range<u64>> {
        Some(self.start..self.start + self.bytes?)
    }
}
