//! The types that keys and values are kept in, and how a head lies in memory.

use gguf::Format;

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
/// Bytes of a block of the larger type with scales: the scale, then codes.
const LARGEST_BLOCK: usize = 34;

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

    /// The format of weights that rounds alike.
    pub fn format(self) -> Format {
        match self {
            KvType::F32 => Format::F32,
            KvType::F16 => Format::F16,
            KvType::Bf16 => Format::BF16,
            KvType::Q8_0 => Format::Q8_0,
            KvType::Q4_0 => Format::Q4_0,
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

    /// Writes a head's elements to its words, rounded as weights of the format are.
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
                let (format, mut whole) = (self.format(), [0; LARGEST_BLOCK]);
                let whole = &mut whole[..format.block_bytes()];
                for ((block, codes), scale) in head
                    .chunks_exact(BLOCK)
                    .zip(codes.chunks_exact_mut(whole.len() - 2))
                    .zip(scales)
                {
                    let made = format.quantize_into(block, whole);
                    debug_assert!(made.is_some(), "both formats need no importance matrix");
                    scale.copy_from_slice(&whole[..2]);
                    codes.copy_from_slice(&whole[2..]);
                }
            }
        }
    }

    fn code_words(self, length: usize) -> usize {
        if self == KvType::Q8_0 { length / 4 } else { length / 8 }
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
                let (format, mut whole) = (self.format(), [0; LARGEST_BLOCK]);
                let whole = &mut whole[..format.block_bytes()];
                for ((block, codes), scale) in head
                    .chunks_exact_mut(BLOCK)
                    .zip(codes.chunks_exact(whole.len() - 2))
                    .zip(scales)
                {
                    whole[..2].copy_from_slice(scale);
                    whole[2..].copy_from_slice(codes);
                    format.decode(whole, block);
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
