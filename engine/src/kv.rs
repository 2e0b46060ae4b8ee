//! Keys and values: their type, and the table that finds a position's cell.

mod table;

pub use table::{BlockCopy, Group, KvTable, Placed, Prepared};

/// Positions per block: the unit in which cells are given out, shared and copied.
pub const BLOCK: usize = 64;

/// The type that keys or values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit halves.
    F16,
}

impl KvType {
    /// The type of a name as llama.cpp spells it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "f32" => Some(KvType::F32),
            "f16" => Some(KvType::F16),
            _ => None,
        }
    }

    /// llama.cpp's name.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
        }
    }

    /// Bytes per element.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
        }
    }

    /// A number as it comes back from the cache.
    pub fn round(self, x: f64) -> f64 {
        match self {
            KvType::F32 => f64::from(x as f32),
            KvType::F16 => half::f16::from_f64(x).to_f64(),
        }
    }
}
