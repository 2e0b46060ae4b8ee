//! The shapes of real models, and the mixes of formats that their weights may have.

use gguf::{Format, quantize};

/// A model's shape.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The name that users give.
    pub name: &'static str,
    /// What it is, for lists.
    pub what: &'static str,
    pub(super) architecture: &'static str,
    pub(super) layers: u32,
    pub(super) embedding: u32,
    pub(super) feed_forward: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) head_length: u32,
    pub(super) vocabulary: u32,
    pub(super) context: u32,
    pub(super) rope_base: f32,
    /// Whether the embeddings are the head too.
    pub(super) tied: bool,
    /// Experts, and how many of them a token uses; 0: a dense model.
    pub(super) experts: (u32, u32),
    /// The window of most layers; 0: none.
    pub(super) window: u32,
}

impl Shape {
    /// The shape of a name, in small letters or not; `NAME/LAYERS` is one cut to its first layers. None where
    /// there is no such shape, or where it has fewer layers or none are asked for.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let (name, layers) = match name.split_once('/') {
            Some((name, layers)) => (name, Some(layers.parse().ok()?)),
            None => (&*name, None),
        };
        let shape = SHAPES.iter().find(|shape| shape.name == name)?;
        let layers = layers.unwrap_or(shape.layers);
        (1..=shape.layers).contains(&layers).then_some(Self { layers, ..*shape })
    }

    /// The mix that the model is usually run in.
    pub(super) fn usual_mix(&self) -> &'static str {
        if self.is_gpt_oss() { "mxfp4_moe" } else { "q4_k_m" }
    }

    /// Whether it has gpt-oss's biases, sinks and scaled positions.
    pub(super) fn is_gpt_oss(&self) -> bool {
        self.architecture == "gpt-oss"
    }
}

/// The shapes there are, each as the model's own files give it.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "smollm2-135m",
        what: "SmolLM2 135M",
        architecture: "llama",
        layers: 30,
        embedding: 576,
        feed_forward: 1536,
        heads: 9,
        kv_heads: 3,
        head_length: 64,
        vocabulary: 49_152,
        context: 8192,
        rope_base: 100_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "llama-1b",
        what: "Llama 3.2 1B",
        architecture: "llama",
        layers: 16,
        embedding: 2048,
        feed_forward: 8192,
        heads: 32,
        kv_heads: 8,
        head_length: 64,
        vocabulary: 128_256,
        context: 131_072,
        rope_base: 500_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "llama-3b",
        what: "Llama 3.2 3B",
        architecture: "llama",
        layers: 28,
        embedding: 3072,
        feed_forward: 8192,
        heads: 24,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 128_256,
        context: 131_072,
        rope_base: 500_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "llama-8b",
        what: "Llama 3.1 8B",
        architecture: "llama",
        layers: 32,
        embedding: 4096,
        feed_forward: 14_336,
        heads: 32,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 128_256,
        context: 131_072,
        rope_base: 500_000.0,
        tied: false,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "llama-70b",
        what: "Llama 3.1 70B",
        architecture: "llama",
        layers: 80,
        embedding: 8192,
        feed_forward: 28_672,
        heads: 64,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 128_256,
        context: 131_072,
        rope_base: 500_000.0,
        tied: false,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "qwen3-0.6b",
        what: "Qwen3 0.6B",
        architecture: "qwen3",
        layers: 28,
        embedding: 1024,
        feed_forward: 3072,
        heads: 16,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 151_936,
        context: 40_960,
        rope_base: 1_000_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "qwen3-4b",
        what: "Qwen3 4B",
        architecture: "qwen3",
        layers: 36,
        embedding: 2560,
        feed_forward: 9728,
        heads: 32,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 151_936,
        context: 40_960,
        rope_base: 1_000_000.0,
        tied: true,
        experts: (0, 0),
        window: 0,
    },
    Shape {
        name: "gemma3-4b",
        what: "Gemma 3 4B",
        architecture: "gemma3",
        layers: 34,
        embedding: 2560,
        feed_forward: 10_240,
        heads: 8,
        kv_heads: 4,
        head_length: 256,
        vocabulary: 262_208,
        context: 131_072,
        rope_base: 1_000_000.0,
        tied: true,
        experts: (0, 0),
        window: 1024,
    },
    Shape {
        name: "mixtral-8x7b",
        what: "Mixtral 8x7B, a mixture of experts",
        architecture: "llama",
        layers: 32,
        embedding: 4096,
        feed_forward: 14_336,
        heads: 32,
        kv_heads: 8,
        head_length: 128,
        vocabulary: 32_000,
        context: 32_768,
        rope_base: 1_000_000.0,
        tied: false,
        experts: (8, 2),
        window: 0,
    },
    Shape {
        name: "gpt-oss-20b",
        what: "gpt-oss 20B, a mixture of experts with windows and sinks",
        architecture: "gpt-oss",
        layers: 24,
        embedding: 2880,
        feed_forward: 2880,
        heads: 64,
        kv_heads: 8,
        head_length: 64,
        vocabulary: 201_088,
        context: 131_072,
        rope_base: 150_000.0,
        tied: false,
        experts: (32, 4),
        window: 128,
    },
];

/// A mix of formats: most matrices' format, that of the head, the values' projection and half of the down
/// projections, and that of experts where it is one of its own.
#[derive(Clone, Copy)]
pub(super) struct Mix {
    pub(super) most: Format,
    pub(super) better: Format,
    pub(super) experts: Option<Format>,
}

/// The mixes that a made-up file may have; any format's name is a mix of that one alone.
fn mixed() -> impl Iterator<Item = quantize::Mix> {
    quantize::Mix::all()
        .filter(|mix| matches!(mix.format, Format::Q4_K | Format::Q5_K | Format::MXFP4))
}

impl Mix {
    const fn of(most: Format, better: Format) -> Self {
        Self { most, better, experts: None }
    }

    /// By name, in capitals or not.
    pub(super) fn named(name: &str) -> Option<Self> {
        if let Some(mix) = mixed().find(|mix| mix.name.eq_ignore_ascii_case(name)) {
            return Some(match mix.format {
                // What is named MoE has experts alone in the format.
                Format::MXFP4 => {
                    Self { experts: Some(mix.format), ..Self::of(Format::Q8_0, Format::Q8_0) }
                }
                most if mix.name.ends_with("_M") => Self::of(most, Format::Q6_K),
                most => Self::of(most, most),
            });
        }
        let format =
            Format::ALL.iter().find(|format| format.file_stem().eq_ignore_ascii_case(name))?;
        Some(Self::of(*format, *format))
    }

    /// All names.
    pub(super) fn names() -> impl Iterator<Item = String> {
        let formats = Format::ALL.iter().map(|format| format.file_stem().to_string());
        mixed().map(|mix| mix.name.to_lowercase()).chain(formats)
    }

    /// What the file says of itself (`llama_ftype` in llama.h); none where no number fits.
    pub(super) fn file_type(self) -> Option<u32> {
        let named = |mix: &quantize::Mix| {
            mix.format == self.experts.unwrap_or(self.most)
                && mix.name.ends_with("_M") == (self.most != self.better)
        };
        // Of a format's mixes the purest is the last.
        quantize::Mix::all().rfind(named).map(|mix| mix.file_type)
    }
}
