//! The ops: each a struct that says what it computes, over ids of values, weights, states and rotations.
//!
//! Every value is written by one op. An op that changes a value reads it as it was before, and writes another, `out`:
//! whether both are one piece of memory is for [`place`](super::place) to say.

use crate::spec::weights::WeightId;
use crate::spec::{
    Activation, DeltaNet as DeltaNetShape, Mamba2 as Mamba2Shape, NormKind, Routing, Temperature,
};

/// A value's number in its plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A rotation's number in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RopeId(pub usize);

/// A layer's number among those that have keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvLayerId(pub usize);

/// A state's number in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub usize);

/// Parts of a value's rows: part p starts at column offset + p * stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The value.
    pub value: ValueId,
    /// The first column of the first part.
    pub offset: usize,
    /// From one part to the next.
    pub stride: usize,
}

/// Which row of a table a token takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOf {
    /// That of its id; of a token that is given as a row, that of id 0, the padding.
    Id,
    /// That of its position.
    Position,
    /// The first.
    First,
}

/// What happens to a linear op's product before it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Epilogue {
    /// It is stored.
    Store,
    /// activation(product) is stored.
    Activated(Activation),
    /// It is added to what the op's `before` holds: the residual connection.
    AddTo,
    /// Two weights, gate and up: activation(gate) * up is stored. `both` has room for the two products,
    /// for executors that compute them first.
    Gated {
        /// The activation.
        activation: Activation,
        /// A value of twice the width.
        both: ValueId,
    },
}

/// out\[t\] = table\[id of token t\] * scale; of a token that is given as a row, that row.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// Rows of embeddings.
    pub table: WeightId,
    /// The factor.
    pub scale: f32,
    /// One row a token.
    pub out: ValueId,
}

/// Norm of each row, times a factor a column, plus a bias a column where there is one; and plus `add_to`, where that is
/// given. If `out` has a row per output, only those tokens' rows are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// The rows.
    pub input: ValueId,
    /// What it computes.
    pub kind: NormKind,
    /// One factor a column.
    pub weight: WeightId,
    /// One a column.
    pub bias: Option<WeightId>,
    /// Added to the mean square or the variance.
    pub epsilon: f32,
    /// How many columns are numbers; those behind them are zeros, and zeros in `weight` and `bias` keep them so.
    pub count: usize,
    /// What it is added to.
    pub add_to: Option<ValueId>,
    /// The result.
    pub out: ValueId,
}

/// out\[t\] = add_to\[t\] + scale * table\[row\], the row being the token's id or position, or always the first.
#[derive(Debug, Clone, PartialEq)]
pub struct AddRow {
    /// The rows.
    pub table: WeightId,
    /// Which of them.
    pub row: RowOf,
    /// The factor.
    pub scale: f32,
    /// What it is added to.
    pub add_to: ValueId,
    /// The sum.
    pub out: ValueId,
}

/// out = factor * input.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// The rows.
    pub input: ValueId,
    /// The factor.
    pub factor: f32,
    /// The result.
    pub out: ValueId,
}

/// A matrix for each head: part h of `out` is the product of matrix h with part h of `input`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadLinear {
    /// `[tokens, heads, columns]`.
    pub input: ValueId,
    /// How many heads.
    pub heads: usize,
    /// `[columns, rows, heads]`.
    pub weight: WeightId,
    /// `[tokens, heads, rows]`.
    pub out: ValueId,
}

/// Norms parts of each row; other columns stay.
#[derive(Debug, Clone, PartialEq)]
pub struct NormParts {
    /// The rows.
    pub input: ValueId,
    /// The first column of the first part.
    pub offset: usize,
    /// How many parts.
    pub parts: usize,
    /// Columns of a part.
    pub width: usize,
    /// From one part to the next.
    pub stride: usize,
    /// What it computes.
    pub kind: NormKind,
    /// A factor a column: `width` of them, for every part, or each part its own.
    pub weight: Option<WeightId>,
    /// Added to the mean square, the variance or the sum.
    pub epsilon: f32,
    /// How many columns of a part are numbers, the others zeros: what a mean square is a mean of. All of them, where a
    /// mean is taken away.
    pub count: usize,
    /// The rows with those parts normed.
    pub out: ValueId,
}

/// Matrix products of each row with one to three weights, side by side in `out`: all of it, or so many of its columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// The rows.
    pub input: ValueId,
    /// The matrices, `[columns, rows]` each; columns are the input's width.
    pub weights: Vec<WeightId>,
    /// A bias of each matrix, where the file has one.
    pub biases: Vec<Option<WeightId>>,
    /// What products with their biases are multiplied by.
    pub factor: f32,
    /// What happens to the products.
    pub epilogue: Epilogue,
    /// What `out` is but for the products' columns, which with [`Epilogue::AddTo`] are added to it. Without it other
    /// columns of `out` are of no meaning.
    pub before: Option<ValueId>,
    /// The first column of the products; 0 where they are gated.
    pub offset: usize,
    /// The result.
    pub out: ValueId,
}

/// For each token: norms the heads of q and k (if weights are given), turns them by rope, stores k and
/// v in the layer's cache.
#[derive(Debug, Clone, PartialEq)]
pub struct QkRopeStore {
    /// `[q | k | v]`, or without v where that is a value of its own.
    pub qkv: ValueId,
    /// v, where it does not lie behind k.
    pub v: Option<ValueId>,
    /// The cache and the shapes.
    pub layer: KvLayerId,
    /// One factor an element of a query head.
    pub q_norm: Option<WeightId>,
    /// One factor an element of a key head.
    pub k_norm: Option<WeightId>,
    /// Added to the mean square of a head.
    pub epsilon: f32,
    /// How many elements of a head are numbers, the others zeros.
    pub count: usize,
    /// The rotation, if there is one.
    pub rope: Option<RopeId>,
    /// The first element of a head that turns.
    pub turn_from: usize,
    /// Whether k and v are stored; if not, q alone is worked on.
    pub store: bool,
    /// What q is multiplied by as positions grow.
    pub temperature: Option<Temperature>,
    /// `[q | ...]`, q normed and turned, what lies behind it of no meaning.
    pub out: ValueId,
}

/// out = softmax(scale * q·k over the visible keys) v, per head. With a softcap scores are cap * tanh(score / cap);
/// with sinks each head has one more logit, which takes its share of the sum and adds nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// `[q | ...]`.
    pub qkv: ValueId,
    /// The cache and the shapes.
    pub layer: KvLayerId,
    /// The factor of the scores.
    pub scale: f32,
    /// The cap of the scores.
    pub softcap: Option<f32>,
    /// A logit a head.
    pub sinks: Option<WeightId>,
    /// Whether a token sees those before it only; if not, it sees all of the step.
    pub causal: bool,
    /// The heads' results side by side.
    pub out: ValueId,
}

/// Chooses experts for each token: `out` holds `used` pairs of the expert's number (its bits) and its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// A logit for each expert.
    pub logits: ValueId,
    /// Added to the weights for the choice alone.
    pub bias: Option<WeightId>,
    /// How.
    pub routing: Routing,
    /// What an expert's weight is multiplied by, one each.
    pub scales: Option<WeightId>,
    /// `[tokens, used, 2]`.
    pub out: ValueId,
}

/// The first half of the chosen experts' networks: activation(gate) * up of each token's chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsGated {
    /// The rows.
    pub input: ValueId,
    /// The chosen.
    pub routes: ValueId,
    /// How many experts there are and are chosen.
    pub routing: Routing,
    /// Gate and up, `[columns, width, experts]` each, or one with both, `[columns, 2 width, experts]`.
    pub weights: Vec<WeightId>,
    /// Biases of each, `[width, experts]`.
    pub biases: Vec<Option<WeightId>>,
    /// The activation.
    pub activation: Activation,
    /// Room for gate and up of each chosen: `[tokens, used, 2, width]`.
    pub both: ValueId,
    /// `[tokens, used, width]`.
    pub out: ValueId,
}

/// The second half: the sum of `down` of each token's chosen times their weights, plus `add_to` where that is given.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsDown {
    /// `[tokens, used, width]`.
    pub input: ValueId,
    /// The chosen with their weights.
    pub routes: ValueId,
    /// How many experts there are and are chosen.
    pub routing: Routing,
    /// `[width, columns, experts]`.
    pub weight: WeightId,
    /// `[columns, experts]`.
    pub bias: Option<WeightId>,
    /// What the sum is multiplied by.
    pub factor: f32,
    /// Room for the products: `[tokens, used, columns]`.
    pub parts: ValueId,
    /// What the sum is added to.
    pub add_to: Option<ValueId>,
    /// The result.
    pub out: ValueId,
}

/// out = add_to + factor * activation(gate) * input, `gate` one number a row.
#[derive(Debug, Clone, PartialEq)]
pub struct AddGated {
    /// `[tokens, 1]`.
    pub gate: ValueId,
    /// Its activation.
    pub activation: Activation,
    /// The rows.
    pub input: ValueId,
    /// What the product is multiplied by.
    pub factor: f32,
    /// What it is added to.
    pub add_to: ValueId,
    /// The sum.
    pub out: ValueId,
}

/// out = activation(gate) * input, part by part; without an input a copy.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// What the activation is of.
    pub gate: Parts,
    /// The activation; none: the number itself.
    pub activation: Option<Activation>,
    /// What it is multiplied with.
    pub input: Option<Parts>,
    /// How many parts, each of how many columns.
    pub shape: (usize, usize),
    /// What `out` is but for the parts; where they are all of it, an input that it may be written over. Without it other
    /// columns of `out` are of no meaning.
    pub before: Option<ValueId>,
    /// The result.
    pub out: Parts,
}

/// A convolution over the tokens of each sequence, channel by channel: out\[t\] = activation(sum over taps i of
/// w\[i\] in\[t - taps + 1 + ahead + i\] + bias); what comes before a step lies in the state. Where taps see later tokens,
/// a text is one step, and 0 comes after it. Other columns stay.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    /// The rows.
    pub input: ValueId,
    /// The first channel's column.
    pub offset: usize,
    /// How many channels.
    pub channels: usize,
    /// How many taps.
    pub taps: usize,
    /// How many of them see later tokens.
    pub ahead: usize,
    /// `[taps, channels]`, the last tap for the newest token.
    pub weight: WeightId,
    /// One a channel.
    pub bias: Option<WeightId>,
    /// The activation.
    pub activation: Option<Activation>,
    /// The last taps - 1 inputs: `[taps - 1, channels]`.
    pub state: StateId,
    /// The rows with those channels convolved.
    pub out: ValueId,
}

/// Mamba 2's recurrence. Per head, with d = softplus(dt + bias): S = e^(d a) S + d x B; out = S C + D x.
#[derive(Debug, Clone, PartialEq)]
pub struct Mamba2 {
    /// `[z | x | B | C | dt]`.
    pub input: ValueId,
    /// The shapes.
    pub mamba: Mamba2Shape,
    /// `ssm_a`, one a head, negative.
    pub a: WeightId,
    /// `ssm_d`, one a head.
    pub d: WeightId,
    /// One a head.
    pub dt_bias: WeightId,
    /// S: `[heads, state, head_size]`.
    pub state: StateId,
    /// The heads side by side.
    pub out: ValueId,
}

/// The gated delta rule. Per value head, with g = a softplus(alpha + bias): M = e^g M; M += k (sigmoid(beta) (v - M^T k))^T;
/// out = M^T q / sqrt(size).
#[derive(Debug, Clone, PartialEq)]
pub struct DeltaNet {
    /// `[q | k | v]`, q and k normed.
    pub qkv: ValueId,
    /// `[beta | alpha]`, one each a value head; or, key head by key head, the betas of its value heads, then their
    /// alphas.
    pub gates: ValueId,
    /// Whether gates go key head by key head.
    pub gates_by_key_head: bool,
    /// The shapes.
    pub net: DeltaNetShape,
    /// `ssm_a`, one a value head, negative.
    pub a: WeightId,
    /// One a value head.
    pub dt_bias: WeightId,
    /// M: `[value heads, size of k, size of v]`.
    pub state: StateId,
    /// The heads side by side.
    pub out: ValueId,
}

/// out = cap * tanh(input / cap).
#[derive(Debug, Clone, PartialEq)]
pub struct Softcap {
    /// The rows.
    pub input: ValueId,
    /// The cap.
    pub cap: f32,
    /// The result.
    pub out: ValueId,
}

/// Makes [`Op`] of the ops and their names.
macro_rules! ops {
    ($($op:ident $name:literal,)*) => {
        /// A step of the mathematics.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Op {
            $(#[doc = concat!("See [`struct@", stringify!($op), "`].")] $op($op),)*
        }

        impl Op {
            /// The op's name, for profiles and messages.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Op::$op(_) => $name,)*
                }
            }
        }

        $(impl From<$op> for Op {
            fn from(op: $op) -> Self {
                Op::$op(op)
            }
        })*
    };
}

ops! {
    Embed "embed",
    Norm "norm",
    AddRow "add_row",
    Scale "scale",
    HeadLinear "head_linear",
    NormParts "norm_parts",
    Linear "linear",
    QkRopeStore "qk_rope_store",
    Attention "attention",
    Route "route",
    ExpertsGated "experts_gated",
    ExpertsDown "experts_down",
    AddGated "add_gated",
    Gate "gate",
    Conv "conv",
    Mamba2 "mamba2",
    DeltaNet "delta_net",
    Softcap "softcap",
}

impl Gate {
    /// Whether of what `out` was it reads each column where it writes it, or columns that it does not write.
    pub fn reads_what_it_writes_in_place(&self) -> bool {
        let (parts, width) = self.shape;
        let columns = |p: &Parts| p.offset..p.offset + parts.saturating_sub(1) * p.stride + width;
        let is_safe = |p: &Parts| {
            let (read, written) = (columns(p), columns(&self.out));
            let same = (p.offset, p.stride) == (self.out.offset, self.out.stride);
            same || read.end <= written.start || written.end <= read.start
        };
        let read = std::iter::once(&self.gate).chain(&self.input);
        read.filter(|p| Some(p.value) == self.before).all(is_safe)
    }
}
