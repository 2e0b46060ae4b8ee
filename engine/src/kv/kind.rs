//! The types that keys and values are kept in, and how a head lies in memory.

use gguf::{Halves as _, PlainHalves};

/// The type that keys or values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit halves.
    F16,
    /// The upper halves of floats.
    Bf16,
    /// Signed bytes, 32 with a half as their scale.
    Q8_0,
    /// Four bits, 32 with a half as their scale.
    Q4_0,
}

/// Elements that share a scale.
const BLOCK: usize = 32;

impl KvType {
    /// All types.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0];

    /// The type of a name as llama.cpp spells it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// llama.cpp's name.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Bf16 => "bf16",
            KvType::Q8_0 => "q8_0",
            KvType::Q4_0 => "q4_0",
        }
    }

    /// Whether elements share scales, so that heads must be multiples of 32.
    pub fn has_scales(self) -> bool {
        matches!(self, KvType::Q8_0 | KvType::Q4_0)
    }

    /// Words of a head of `length` elements: its codes, then its scales, two a word.
    pub fn head_words(self, length: usize) -> usize {
        let scales = length.div_ceil(2 * BLOCK);
        match self {
            KvType::F32 => length,
            KvType::F16 | KvType::Bf16 => length.div_ceil(2),
            KvType::Q8_0 => length / 4 + scales,
            KvType::Q4_0 => length / 8 + scales,
        }
    }

    /// Writes a head's elements to its words, as ggml rounds them (`quantize_row_q8_0_ref`, `quantize_row_q4_0_ref`).
    pub fn store(self, head: &[f32], words: &mut [u32]) {
        match self {
            KvType::F32 => words.copy_from_slice(bytemuck::cast_slice(head)),
            KvType::F16 => {
                use half::slice::HalfFloatSliceExt as _;
                let halves: &mut [half::f16] = half::slice::HalfBitsSliceExt::reinterpret_cast_mut(
                    bytemuck::cast_slice_mut::<_, u16>(words),
                );
                halves[..head.len()].convert_from_f32_slice(head);
            }
            KvType::Bf16 => {
                let halves: &mut [u16] = bytemuck::cast_slice_mut(words);
                for (out, &x) in halves.iter_mut().zip(head) {
                    *out = half::bf16::from_f32(x).to_bits();
                }
            }
            KvType::Q8_0 | KvType::Q4_0 => {
                let (codes, scales) = words.split_at_mut(self.code_words(head.len()));
                let codes: &mut [u8] = bytemuck::cast_slice_mut(codes);
                let scales: &mut [[u8; 2]] = bytemuck::cast_slice_mut(scales);
                let bytes = codes.len() / (head.len() / BLOCK);
                for ((block, codes), scale) in
                    head.chunks_exact(BLOCK).zip(codes.chunks_exact_mut(bytes)).zip(scales)
                {
                    *scale = self.store_block(block, codes);
                }
            }
        }
    }

    fn code_words(self, length: usize) -> usize {
        if self == KvType::Q8_0 { length / 4 } else { length / 8 }
    }

    /// The codes of 32 elements; answers their scale.
    fn store_block(self, block: &[f32], codes: &mut [u8]) -> [u8; 2] {
        let signed =
            block.iter().fold(0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
        let scale = if self == KvType::Q8_0 { signed.abs() / 127.0 } else { signed / -8.0 };
        let factor = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        if self == KvType::Q8_0 {
            for (code, &x) in codes.iter_mut().zip(block) {
                *code = (x * factor).round() as i8 as u8;
            }
        } else {
            let code = |x: f32| ((x * factor + 8.5) as u8).min(15);
            for (j, byte) in codes.iter_mut().enumerate() {
                *byte = code(block[j]) | code(block[j + 16]) << 4;
            }
        }
        half::f16::from_f32(scale).to_le_bytes()
    }

    /// Reads a head's elements from its words.
    pub fn load(self, words: &[u32], head: &mut [f32]) {
        match self {
            KvType::F32 => head.copy_from_slice(bytemuck::cast_slice(words)),
            KvType::F16 => {
                use half::slice::HalfFloatSliceExt as _;
                let halves: &[half::f16] = half::slice::HalfBitsSliceExt::reinterpret_cast(
                    bytemuck::cast_slice::<_, u16>(words),
                );
                halves[..head.len()].convert_to_f32_slice(head);
            }
            KvType::Bf16 => {
                let halves: &[u16] = bytemuck::cast_slice(words);
                for (out, &bits) in head.iter_mut().zip(halves) {
                    *out = f32::from_bits(u32::from(bits) << 16);
                }
            }
            KvType::Q8_0 | KvType::Q4_0 => {
                let (codes, scales) = words.split_at(self.code_words(head.len()));
                let codes: &[u8] = bytemuck::cast_slice(codes);
                let scales: &[[u8; 2]] = bytemuck::cast_slice(scales);
                let bytes = codes.len() / (head.len() / BLOCK);
                for ((block, codes), &scale) in
                    head.chunks_exact_mut(BLOCK).zip(codes.chunks_exact(bytes)).zip(scales)
                {
                    let scale = PlainHalves::half(scale);
                    if self == KvType::Q8_0 {
                        for (x, &code) in block.iter_mut().zip(codes) {
                            *x = f32::from(code as i8) * scale;
                        }
                    } else {
                        for (j, &byte) in codes.iter().enumerate() {
                            block[j] = f32::from((byte & 15) as i8 - 8) * scale;
                            block[j + 16] = f32::from((byte >> 4) as i8 - 8) * scale;
                        }
                    }
                }
            }
        }
    }

    /// A head's elements as they come back from the cache.
    pub fn round(self, head: &mut [f64]) {
        let mut floats: Vec<f32> = head.iter().map(|&x| x as f32).collect();
        let mut words = vec![0; self.head_words(head.len())];
        self.store(&floats, &mut words);
        self.load(&words, &mut floats);
        for (x, float) in head.iter_mut().zip(floats) {
            *x = f64::from(float);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        for kind in KvType::ALL {
            for length in [32, 64, 96, 128, 256] {
                let head: Vec<f64> =
                    (0..length).map(|i| ((i * 37 % 101) as f64 - 50.0) / 25.0).collect();
                let mut back = head.clone();
                kind.round(&mut back);
                let step = match kind {
                    KvType::F32 => 1e-7,
                    KvType::F16 => 1e-3,
                    KvType::Bf16 => 8e-3,
                    KvType::Q8_0 => 2.0 / 127.0 * 0.51,
                    KvType::Q4_0 => 2.0 / 8.0 * 1.01,
                };
                for (a, b) in head.iter().zip(&back) {
                    assert!((a - b).abs() <= step, "{kind:?} {length}: {a} {b}");
                }
            }
        }
    }

    /// As many bits as ggml's blocks take.
    #[test]
    fn sizes_are_those_of_ggml() {
        assert_eq!(KvType::Q8_0.head_words(128) * 32, 128 * 17 / 2);
        assert_eq!(KvType::Q4_0.head_words(64) * 32, 64 * 9 / 2);
        assert_eq!(KvType::F16.head_words(80) * 2, 80);
    }
}
