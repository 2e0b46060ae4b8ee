//! A model in numbers and choices: what an architecture's file reads out of the metadata, and all that
//! the decoder needs to know. No architecture's name decides anything after this.

mod arch;
mod file;
mod keys;
mod pad;
pub(crate) mod projection;
pub mod rope;
pub mod weights;

use self::rope::RopeSpec;
pub use arch::known as known_architectures;
pub use file::ModelFile;
pub use keys::Keys;

/// The numbers and choices of one model.
#[allow(clippy::struct_excessive_bools, reason = "independent choices, each its own")]
#[derive(Debug, Clone)]
pub struct Spec {
    /// `general.architecture`, for display.
    pub architecture: &'static str,
    /// Tokens in the vocabulary: rows of the embedding and of the output matrix.
    pub vocabulary: usize,
    /// Positions that the model was trained for.
    pub context_length: usize,
    /// Width of the residual stream, a multiple of 32.
    pub embedding: usize,
    /// How many numbers of the stream there are (`n_embd`); zeros fill its width.
    pub embedding_numbers: usize,
    /// What a token's embedding is multiplied by.
    pub embedding_scale: f32,
    /// What norms between branches compute.
    pub norm: NormKind,
    /// Added to the mean square, or to the variance, in every norm.
    pub norm_epsilon: f32,
    /// Whether each branch reads the normed stream (`attn_norm` and [`Spec::ffn_norm`]), or the stream as it is.
    pub pre_norms: bool,
    /// Whether each branch's output is normed before it is added (`post_attention_norm`,
    /// `post_ffw_norm`), as in gemma3.
    pub post_norms: bool,
    /// Whether the feed-forward network reads what attention reads, rather than what comes after it.
    pub parallel: bool,
    /// The name of the norm before the feed-forward network.
    pub ffn_norm: &'static str,
    /// The name of the norm before the output matrix.
    pub output_norm: &'static str,
    /// How q and k are normed before rope (`attn_q_norm`, `attn_k_norm`).
    pub qk_norm: QkNorm,
    /// What each branch's output is multiplied by before it is added.
    pub residual_scale: f32,
    /// What logits are multiplied by.
    pub logit_scale: f32,
    /// Logits become cap * tanh(logit / cap).
    pub logit_softcap: Option<f32>,
    /// Whether each branch's sum with the stream is normed, and nothing else (`attn_output_norm`, `layer_output_norm`), as
    /// in BERT; embeddings then are too.
    pub norm_sums: bool,
    /// Whether each head of v is RMS-normed, without factors.
    pub value_norm: bool,
    /// Positions that the file has rows for, where positions are looked up; none: any.
    pub positions: Option<usize>,
    /// How the states of a text's tokens become its embedding; none: the model gives logits.
    pub pooling: Option<Pooling>,
    /// What each layer is given of the token besides the stream.
    pub per_layer: Option<PerLayerInput>,
    /// The activation of feed-forward networks.
    pub activation: Activation,
    /// The rotations that layers refer to.
    pub ropes: Vec<RopeSpec>,
    /// The layers in order.
    pub layers: Vec<LayerSpec>,
}

impl Spec {
    /// Whether some tokens see later ones, so that a text must be computed in one step.
    pub fn sees_ahead(&self) -> bool {
        self.layers.iter().any(|layer| layer.attention && !layer.causal)
    }

    /// The most tokens of a text whose tokens see each other: those of a step, and the positions known.
    pub fn most_positions(&self) -> usize {
        let step = if self.sees_ahead() { MOST_IN_A_STEP } else { usize::MAX };
        self.positions.unwrap_or(usize::MAX).min(step)
    }

    /// Whether some layers carry a state from token to token, which cannot be taken back.
    pub fn is_recurrent(&self) -> bool {
        self.layers.iter().any(|layer| layer.recurrent.is_some())
    }
}

/// The most tokens of a step.
pub const MOST_IN_A_STEP: usize = 8192;

/// How the states of a text's tokens become its embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first.
    First,
    /// The last.
    Last,
}

/// A vector for each layer, made of the token's id and its embedding: gemma4's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerLayerInput {
    /// Its width in the file.
    pub width: usize,
    /// Its width with the zeros that make it a multiple of 32.
    pub padded: usize,
}

/// Attention over a compressed cache (DeepSeek-V2, arXiv 2405.04434).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latent {
    /// Width that q is compressed to, in the file and with the zeros that make it a multiple of 32; none: it is not.
    pub query_rank: Option<(usize, usize)>,
    /// Width that keys and values are compressed to.
    pub rank: usize,
    /// How many numbers of it there are; zeros fill the width.
    pub rank_numbers: usize,
    /// Elements of a head of q and k that do not turn, those that do come after them.
    pub plain: usize,
    /// Elements that turn.
    pub turned: usize,
    /// Elements of a head of v.
    pub value: usize,
    /// Whether the cache holds what is compressed; if not, whole keys and values.
    pub compressed: bool,
}

/// One layer's numbers.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each its own")]
pub struct LayerSpec {
    /// Whether the layer has attention; the numbers of heads say nothing else if not.
    pub attention: bool,
    /// Whether a token sees those before it only; if not, it sees all of its step.
    pub causal: bool,
    /// What the layer has in place of attention, or beside it, that goes through the sequence step by step.
    pub recurrent: Option<Recurrent>,
    /// The earlier layer whose keys and values it reads, having none of its own.
    pub reads_layer: Option<usize>,
    /// How its keys and values are compressed.
    pub latent: Option<Latent>,
    /// Whether q comes with a gate of the same width, whose sigmoid multiplies what attention gives.
    pub query_gate: bool,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head h reads head h / (heads / kv_heads).
    pub kv_heads: usize,
    /// Elements of a key (and query) head.
    pub key_length: usize,
    /// Elements of a value head.
    pub value_length: usize,
    /// How many numbers of a key head there are; zeros fill its length.
    pub key_numbers: usize,
    /// How many numbers of a value head there are; zeros fill its length.
    pub value_numbers: usize,
    /// The feed-forward network.
    pub feed_forward: FeedForward,
    /// A key is visible if it is fewer than this many positions back; none: all keys are.
    pub window: Option<usize>,
    /// Which of [`Spec::ropes`] turns q and k; none: they are not turned.
    pub rope: Option<usize>,
    /// What q·k is multiplied by.
    pub attention_scale: f32,
    /// Scores become cap * tanh(score / cap).
    pub softcap: Option<f32>,
    /// Whether each head has a logit of its own in the softmax's sum (`attn_sinks`).
    pub sinks: bool,
    /// What q is multiplied by as positions grow.
    pub temperature: Option<Temperature>,
}

/// q is multiplied by 1 + `scale` ln(1 + floor(position / `length`)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// The factor of the logarithm.
    pub scale: f32,
    /// Positions after which it grows.
    pub length: usize,
}

/// What a norm computes of x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// x / sqrt(mean(x^2) + epsilon).
    Rms,
    /// (x - mean) / sqrt(variance + epsilon).
    Layer,
    /// x / sqrt(sum(x^2) + epsilon).
    L2,
}

/// How q and k are normed before rope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QkNorm {
    /// Not at all.
    None,
    /// RMS of each head, with factors that heads share.
    Heads,
    /// RMS of all heads at once.
    Row,
    /// Mean and variance of each head, with factors of its own.
    LayerHeads,
}

/// A mixer of tokens with a state that grows with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recurrent {
    /// c * conv(b * x), [b | c | x] being one product: LFM2's short convolution.
    ShortConv {
        /// Taps of the convolution.
        taps: usize,
    },
    /// Mamba 2 (Dao and Gu 2024, arXiv 2405.21060).
    Mamba2(Mamba2),
    /// The gated delta rule (Yang et al. 2024, arXiv 2412.06464).
    DeltaNet(DeltaNet),
}

/// The numbers of a Mamba-2 mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mamba2 {
    /// Taps of the convolution.
    pub taps: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of a head.
    pub head_size: usize,
    /// State of an element.
    pub state: usize,
    /// Groups of heads that share B and C.
    pub groups: usize,
}

impl Mamba2 {
    /// Width of all heads.
    pub fn inner(&self) -> usize {
        self.heads * self.head_size
    }

    /// Channels of the convolution: x, B and C.
    pub fn channels(&self) -> usize {
        self.inner() + 2 * self.groups * self.state
    }
}

/// The numbers of a gated delta net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaNet {
    /// Taps of the convolution.
    pub taps: usize,
    /// Heads of q and k.
    pub key_heads: usize,
    /// Heads of v.
    pub value_heads: usize,
    /// Elements of every head.
    pub size: usize,
    /// Whether neighbouring value heads share a key head; if not, head h has key head h mod `key_heads`.
    pub grouped: bool,
}

impl DeltaNet {
    /// Channels of the convolution: q, k and v.
    pub fn channels(&self) -> usize {
        (2 * self.key_heads + self.value_heads) * self.size
    }

    /// Width of all value heads.
    pub fn inner(&self) -> usize {
        self.value_heads * self.size
    }
}

/// A feed-forward network.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedForward {
    /// There is none.
    None,
    /// down(activation(gate) * up).
    Gated {
        /// Hidden width.
        width: usize,
    },
    /// down(activation(up)).
    Plain {
        /// Hidden width.
        width: usize,
    },
    /// A few of many networks, chosen for each token.
    Experts(Experts),
    /// Both: a gated network, and experts beside it, each with norms of its own, their sum normed again (gemma4).
    GatedAndExperts {
        /// Hidden width of the network.
        width: usize,
        /// The experts.
        experts: Experts,
    },
}

impl FeedForward {
    /// Its hidden width (an expert's).
    pub fn width(&self) -> usize {
        match self {
            FeedForward::None => 0,
            FeedForward::Gated { width }
            | FeedForward::Plain { width }
            | FeedForward::GatedAndExperts { width, .. } => *width,
            FeedForward::Experts(experts) => experts.width,
        }
    }

    /// Its experts.
    pub fn experts(&self) -> Option<&Experts> {
        match self {
            FeedForward::Experts(experts) | FeedForward::GatedAndExperts { experts, .. } => {
                Some(experts)
            }
            _ => None,
        }
    }
}

/// A mixture of experts, each gated.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// An expert's hidden width.
    pub width: usize,
    /// How they are chosen.
    pub routing: Routing,
    /// The network that every token passes too (`ffn_gate_shexp` and so on).
    pub shared: Option<SharedExpert>,
}

/// The expert that every token passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedExpert {
    /// Its hidden width.
    pub width: usize,
    /// Whether its output is multiplied by sigmoid(`ffn_gate_inp_shexp` · x).
    pub gated: bool,
}

/// How experts are chosen for a token, out of a logit for each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// Experts that there are.
    pub count: usize,
    /// Experts that a token passes.
    pub used: usize,
    /// What becomes of the logits.
    pub gating: Gating,
    /// Whether the weights of the chosen are divided by their sum (at least 2^-14).
    pub normalize: bool,
    /// What weights are multiplied by.
    pub scale: f32,
    /// Experts come in so many groups; only those of the best [`Routing::groups_used`] can be chosen.
    pub groups: usize,
    /// How many groups.
    pub groups_used: usize,
}

impl Routing {
    /// The same choice among few experts, for tests.
    #[must_use]
    pub fn in_small(&self) -> Self {
        let groups = if self.groups > 1 { 4 } else { 1 };
        let groups_used = if self.groups > 1 { 2 } else { 1 };
        Self { count: 16, used: self.used.min(4), groups, groups_used, ..*self }
    }
}

/// How an expert's logit becomes its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gating {
    /// Softmax over all experts.
    Softmax,
    /// The logistic function of each.
    Sigmoid,
    /// Softmax over the chosen.
    SoftmaxOfChosen,
}

/// The activation of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x / (1 + e^-x).
    Silu,
    /// 0.5 x (1 + tanh(0.79788456 (x + 0.044715 x^3))), ggml's form of GELU.
    Gelu,
    /// gpt-oss's: with g = min(gate, 7) and u = up between -7 and 7: g / (1 + e^(-1.702 g)) * (u + 1).
    ClampedSwiglu,
    /// 1 / (1 + e^-x).
    Sigmoid,
}

/// sqrt(2 / pi), the factor in ggml's GELU.
pub const GELU_FACTOR: f64 = 0.797_884_560_802_865_4;
/// The factor of the cube in ggml's GELU.
pub const GELU_CUBE: f64 = 0.044715;
/// The factor in the logistic function of [`Activation::ClampedSwiglu`].
pub const CLAMPED_FACTOR: f64 = 1.702;
/// What [`Activation::ClampedSwiglu`] clamps at.
pub const CLAMPED_LIMIT: f64 = 7.0;
/// What the sum of weights counts as at least when they are divided by it (`build_moe_ffn` in llama.cpp).
pub const LEAST_SUM: f64 = 1.0 / 16384.0;
