//! A model in numbers and choices: what an architecture's file reads out of the metadata, and all that
//! the decoder needs to know. No architecture's name decides anything after this.

use super::rope::RopeSpec;

/// The numbers and choices of one model.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `general.architecture`, for display.
    pub architecture: &'static str,
    /// Tokens in the vocabulary: rows of the embedding and of the output matrix.
    pub vocabulary: usize,
    /// Positions that the model was trained for.
    pub context_length: usize,
    /// Width of the residual stream (`n_embd`).
    pub embedding: usize,
    /// What a token's embedding is multiplied by.
    pub embedding_scale: f32,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f32,
    /// Whether each branch's output is normed before it is added (`post_attention_norm`,
    /// `post_ffw_norm`), as in gemma3.
    pub sandwich_norms: bool,
    /// Whether each head of q and k is RMS-normed before rope (`attn_q_norm`, `attn_k_norm`).
    pub qk_norm: bool,
    /// The activation of the gated feed-forward network.
    pub activation: Activation,
    /// The rotations that layers refer to.
    pub ropes: Vec<RopeSpec>,
    /// The layers in order.
    pub layers: Vec<LayerSpec>,
}

/// One layer's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head h reads head h / (heads / kv_heads).
    pub kv_heads: usize,
    /// Elements of a key (and query) head.
    pub key_length: usize,
    /// Elements of a value head.
    pub value_length: usize,
    /// Hidden width of the feed-forward network.
    pub feed_forward: usize,
    /// A key is visible if it is fewer than this many positions back; none: all keys are.
    pub window: Option<usize>,
    /// Which of [`Spec::ropes`] turns q and k.
    pub rope: usize,
    /// What q·k is multiplied by.
    pub attention_scale: f32,
}

/// The activation between the gate and up projections and the down projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x / (1 + e^-x).
    Silu,
    /// 0.5 x (1 + tanh(0.79788456 (x + 0.044715 x^3))), ggml's form of GELU.
    Gelu,
}

/// sqrt(2 / pi), the factor in ggml's GELU.
pub const GELU_FACTOR: f64 = 0.797_884_560_802_865_4;
/// The factor of the cube in ggml's GELU.
pub const GELU_CUBE: f64 = 0.044715;
