//! The keys or values of a layer in main memory.

use half::slice::HalfFloatSliceExt;

use crate::kv::KvType;

/// Keys or values of one layer, cell after cell.
pub(super) enum Cells {
    F32(Vec<f32>),
    F16(Vec<half::f16>),
}

impl Cells {
    pub fn new(kind: KvType, elements: usize) -> Self {
        match kind {
            KvType::F32 => Self::F32(vec![0.0; elements]),
            KvType::F16 => Self::F16(vec![half::f16::ZERO; elements]),
        }
    }

    pub fn store(&mut self, at: usize, row: &[f32]) {
        match self {
            Self::F32(cells) => cells[at..at + row.len()].copy_from_slice(row),
            Self::F16(cells) => cells[at..at + row.len()].convert_from_f32_slice(row),
        }
    }

    /// Elements from `at` on, as f32 in `out`.
    pub fn load(&self, at: usize, out: &mut [f32]) {
        match self {
            Self::F32(cells) => out.copy_from_slice(&cells[at..at + out.len()]),
            Self::F16(cells) => cells[at..at + out.len()].convert_to_f32_slice(out),
        }
    }

    pub fn copy(&mut self, from: usize, to: usize, elements: usize) {
        match self {
            Self::F32(cells) => cells.copy_within(from..from + elements, to),
            Self::F16(cells) => cells.copy_within(from..from + elements, to),
        }
    }

    pub fn bytes(&self, at: usize, elements: usize) -> &[u8] {
        match self {
            Self::F32(cells) => bytemuck::cast_slice(&cells[at..at + elements]),
            Self::F16(cells) => {
                let bits: &[u16] = cells[at..at + elements].reinterpret_cast();
                bytemuck::cast_slice(bits)
            }
        }
    }

    pub fn set_bytes(&mut self, at: usize, bytes: &[u8]) {
        match self {
            Self::F32(cells) => {
                for (cell, bytes) in cells[at..].iter_mut().zip(bytes.chunks_exact(4)) {
                    *cell = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
            }
            Self::F16(cells) => {
                for (cell, bytes) in cells[at..].iter_mut().zip(bytes.chunks_exact(2)) {
                    *cell = half::f16::from_le_bytes([bytes[0], bytes[1]]);
                }
            }
        }
    }

    pub fn element_bytes(&self) -> usize {
        match self {
            Self::F32(_) => 4,
            Self::F16(_) => 2,
        }
    }
}
