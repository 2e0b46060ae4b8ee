//! What is to be computed: a list of [`Op`]s over named values, in the order of the mathematics.
//!
//! An op is a step at the coarsest grain that all executors share. The reference computes it naively in
//! f64, the CPU executor by loops, the GPU executor lowers it to dispatches.

mod decoder;
mod liveness;

pub use liveness::{Buffers, place};

use crate::Result;
use crate::kv::KvType;
use crate::spec::ModelFile;
use crate::spec::rope::Rope;
use crate::spec::weights::{Weight, WeightId};
use crate::spec::{Activation, DeltaNet, Mamba2, NormKind, Routing, Temperature};

/// A value's number in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// That of its id.
    Id,
    /// That of its position.
    Position,
    /// The first.
    First,
}

/// How many rows a value has in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// One a token of the step.
    Tokens,
    /// One a token whose logits are wanted.
    Outputs,
}

/// An activation: `rows` rows of `width` floats.
#[derive(Debug, Clone)]
pub struct Value {
    /// What it is, for readers and traces.
    pub name: &'static str,
    /// Floats per row.
    pub width: usize,
    /// Rows per step.
    pub rows: Rows,
}

/// What happens to a linear op's product before it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Epilogue {
    /// It is stored.
    Store,
    /// activation(product) is stored.
    Activated(Activation),
    /// It is added to what `out` holds: the residual connection.
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

/// The keys and values of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayer {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a key head.
    pub key_length: usize,
    /// Elements of a value head.
    pub value_length: usize,
    /// A key is visible if it is fewer than this many positions back.
    pub window: Option<usize>,
}

impl KvLayer {
    /// Elements of all key heads of a cell.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.key_length
    }

    /// Elements of all value heads of a cell.
    pub fn value_width(&self) -> usize {
        self.kv_heads * self.value_length
    }

    /// Elements of all query heads of a token.
    pub fn query_width(&self) -> usize {
        self.heads * self.key_length
    }

    /// Bytes of all key heads of a cell.
    pub fn key_bytes(&self, kind: KvType) -> usize {
        self.kv_heads * kind.head_words(self.key_length) * 4
    }

    /// Bytes of all value heads of a cell.
    pub fn value_bytes(&self, kind: KvType) -> usize {
        self.kv_heads * kind.head_words(self.value_length) * 4
    }

    /// Width of the value `[q | k | v]`.
    pub fn qkv_width(&self) -> usize {
        self.query_width() + self.key_width() + self.value_width()
    }
}

/// A step of the mathematics.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// out\[t\] = table\[id of token t\] * scale.
    Embed {
        /// Rows of embeddings.
        table: WeightId,
        /// The factor.
        scale: f32,
        /// One row a token.
        out: ValueId,
    },
    /// Norm of each row, times a factor a column, plus a bias a column where there is one. Stored, or with `add`
    /// added to `out`. If `out` has a row per output, only those tokens' rows are read.
    Norm {
        /// The rows.
        input: ValueId,
        /// What it computes.
        kind: NormKind,
        /// One factor a column.
        weight: WeightId,
        /// One a column.
        bias: Option<WeightId>,
        /// Added to the mean square or the variance.
        epsilon: f32,
        /// How many columns are numbers; those behind them are zeros, and zeros in `weight` and `bias` keep them so.
        count: usize,
        /// Whether the result is added to `out` or replaces it.
        add: bool,
        /// The result.
        out: ValueId,
    },
    /// out\[t\] += scale * table\[row\], the row being the token's id or position, or always the first.
    AddRow {
        /// The rows.
        table: WeightId,
        /// Which of them.
        row: RowOf,
        /// The factor.
        scale: f32,
        /// Where it is added.
        out: ValueId,
    },
    /// x = factor * x, in place.
    Scale {
        /// The rows.
        value: ValueId,
        /// The factor.
        factor: f32,
    },
    /// A matrix for each head: part h of `out` is the product of matrix h with part h of `input`.
    HeadLinear {
        /// `[tokens, heads, columns]`.
        input: ValueId,
        /// How many heads.
        heads: usize,
        /// `[columns, rows, heads]`.
        weight: WeightId,
        /// `[tokens, heads, rows]`.
        out: ValueId,
    },
    /// Norms parts of each row in place.
    NormParts {
        /// The rows.
        value: ValueId,
        /// The first column of the first part.
        offset: usize,
        /// How many parts.
        parts: usize,
        /// Columns of a part.
        width: usize,
        /// From one part to the next.
        stride: usize,
        /// What it computes.
        kind: NormKind,
        /// A factor a column: `width` of them, for every part, or each part its own.
        weight: Option<WeightId>,
        /// Added to the mean square, the variance or the sum.
        epsilon: f32,
        /// How many columns of a part are numbers, the others zeros: what a mean square is a mean of. All of them, where a
        /// mean is taken away.
        count: usize,
    },
    /// Matrix products of each row with one to three weights, side by side in `out`.
    Linear {
        /// The rows.
        input: ValueId,
        /// The matrices, `[columns, rows]` each; columns are the input's width.
        weights: Vec<WeightId>,
        /// A bias of each matrix, where the file has one.
        biases: Vec<Option<WeightId>>,
        /// What products with their biases are multiplied by.
        factor: f32,
        /// What happens to the products.
        epilogue: Epilogue,
        /// The result.
        out: ValueId,
    },
    /// For each token: norms the heads of q and k (if weights are given), turns them by rope, stores k and
    /// v in the layer's cache. q is left turned in `qkv`; its k and v parts are used up.
    QkRopeStore {
        /// `[q | k | v]`, or without v where that is a value of its own.
        qkv: ValueId,
        /// v, where it does not lie behind k.
        v: Option<ValueId>,
        /// The cache and the shapes.
        layer: KvLayerId,
        /// One factor an element of a query head.
        q_norm: Option<WeightId>,
        /// One factor an element of a key head.
        k_norm: Option<WeightId>,
        /// Added to the mean square of a head.
        epsilon: f32,
        /// How many elements of a head are numbers, the others zeros.
        count: usize,
        /// The rotation, if there is one.
        rope: Option<RopeId>,
        /// The first element of a head that turns.
        turn_from: usize,
        /// Whether k and v are stored; if not, q alone is worked on.
        store: bool,
        /// What q is multiplied by as positions grow.
        temperature: Option<Temperature>,
    },
    /// out = softmax(scale * q·k over the visible keys) v, per head. With a softcap scores are cap * tanh(score / cap);
    /// with sinks each head has one more logit, which takes its share of the sum and adds nothing.
    Attention {
        /// `[q | ...]`.
        qkv: ValueId,
        /// The cache and the shapes.
        layer: KvLayerId,
        /// The factor of the scores.
        scale: f32,
        /// The cap of the scores.
        softcap: Option<f32>,
        /// A logit a head.
        sinks: Option<WeightId>,
        /// Whether a token sees those before it only; if not, it sees all of the step.
        causal: bool,
        /// The heads' results side by side.
        out: ValueId,
    },
    /// Chooses experts for each token: `out` holds `used` pairs of the expert's number (its bits) and its weight.
    Route {
        /// A logit for each expert.
        logits: ValueId,
        /// Added to the weights for the choice alone.
        bias: Option<WeightId>,
        /// How.
        routing: Routing,
        /// What an expert's weight is multiplied by, one each.
        scales: Option<WeightId>,
        /// `[tokens, used, 2]`.
        out: ValueId,
    },
    /// The first half of the chosen experts' networks: activation(gate) * up of each token's chosen.
    ExpertsGated {
        /// The rows.
        input: ValueId,
        /// The chosen.
        routes: ValueId,
        /// How many experts there are and are chosen.
        routing: Routing,
        /// Gate and up, `[columns, width, experts]` each, or one with both, `[columns, 2 width, experts]`.
        weights: Vec<WeightId>,
        /// Biases of each, `[width, experts]`.
        biases: Vec<Option<WeightId>>,
        /// The activation.
        activation: Activation,
        /// Room for gate and up of each chosen: `[tokens, used, 2, width]`.
        both: ValueId,
        /// `[tokens, used, width]`.
        out: ValueId,
    },
    /// The second half, `down` of each token's chosen times their weights, added to `out`.
    ExpertsDown {
        /// `[tokens, used, width]`.
        input: ValueId,
        /// The chosen with their weights.
        routes: ValueId,
        /// How many experts there are and are chosen.
        routing: Routing,
        /// `[width, columns, experts]`.
        weight: WeightId,
        /// `[columns, experts]`.
        bias: Option<WeightId>,
        /// What the sum is multiplied by.
        factor: f32,
        /// Room for the products: `[tokens, used, columns]`.
        parts: ValueId,
        /// Where the sum is added.
        out: ValueId,
    },
    /// out += factor * activation(gate) * input, `gate` one number a row.
    AddGated {
        /// `[tokens, 1]`.
        gate: ValueId,
        /// Its activation.
        activation: Activation,
        /// The rows.
        input: ValueId,
        /// What the product is multiplied by.
        factor: f32,
        /// Where it is added.
        out: ValueId,
    },
    /// out = activation(gate) * input, part by part; without an input a copy.
    Gate {
        /// What the activation is of.
        gate: Parts,
        /// The activation; none: the number itself.
        activation: Option<Activation>,
        /// What it is multiplied with.
        input: Option<Parts>,
        /// How many parts, each of how many columns.
        shape: (usize, usize),
        /// The result, which may be one of the two.
        out: Parts,
    },
    /// A convolution over the tokens of each sequence, channel by channel, in place: out\[t\] = activation(sum over taps i of
    /// w\[i\] in\[t - taps + 1 + ahead + i\] + bias); what comes before a step lies in the state. Where taps see later tokens,
    /// a text is one step, and 0 comes after it.
    Conv {
        /// The rows.
        value: ValueId,
        /// The first channel's column.
        offset: usize,
        /// How many channels.
        channels: usize,
        /// How many taps.
        taps: usize,
        /// How many of them see later tokens.
        ahead: usize,
        /// `[taps, channels]`, the last tap for the newest token.
        weight: WeightId,
        /// One a channel.
        bias: Option<WeightId>,
        /// The activation.
        activation: Option<Activation>,
        /// The last taps - 1 inputs: `[taps - 1, channels]`.
        state: StateId,
    },
    /// Mamba 2's recurrence. Per head, with d = softplus(dt + bias): S = e^(d a) S + d x B; out = S C + D x.
    Mamba2 {
        /// `[z | x | B | C | dt]`.
        value: ValueId,
        /// The shapes.
        mamba: Mamba2,
        /// `ssm_a`, one a head, negative.
        a: WeightId,
        /// `ssm_d`, one a head.
        d: WeightId,
        /// One a head.
        dt_bias: WeightId,
        /// S: `[heads, state, head_size]`.
        state: StateId,
        /// The heads side by side.
        out: ValueId,
    },
    /// The gated delta rule. Per value head, with g = a softplus(alpha + bias): M = e^g M; M += k (sigmoid(beta) (v - M^T k))^T;
    /// out = M^T q / sqrt(size).
    DeltaNet {
        /// `[q | k | v]`, q and k normed.
        qkv: ValueId,
        /// `[beta | alpha]`, one each a value head; or, key head by key head, the betas of its value heads, then their
        /// alphas.
        gates: ValueId,
        /// Whether gates go key head by key head.
        gates_by_key_head: bool,
        /// The shapes.
        net: DeltaNet,
        /// `ssm_a`, one a value head, negative.
        a: WeightId,
        /// One a value head.
        dt_bias: WeightId,
        /// M: `[value heads, size of k, size of v]`.
        state: StateId,
        /// The heads side by side.
        out: ValueId,
    },
    /// x = cap * tanh(x / cap), in place.
    Softcap {
        /// The rows.
        value: ValueId,
        /// The cap.
        cap: f32,
    },
}

impl Op {
    /// The op's name, for profiles and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::Norm { .. } => "norm",
            Op::AddRow { .. } => "add_row",
            Op::Scale { .. } => "scale",
            Op::HeadLinear { .. } => "head_linear",
            Op::NormParts { .. } => "norm_parts",
            Op::Linear { .. } => "linear",
            Op::QkRopeStore { .. } => "qk_rope_store",
            Op::Attention { .. } => "attention",
            Op::Route { .. } => "route",
            Op::ExpertsGated { .. } => "experts_gated",
            Op::ExpertsDown { .. } => "experts_down",
            Op::AddGated { .. } => "add_gated",
            Op::Gate { .. } => "gate",
            Op::Conv { .. } => "conv",
            Op::Mamba2 { .. } => "mamba2",
            Op::DeltaNet { .. } => "delta_net",
            Op::Softcap { .. } => "softcap",
        }
    }

    /// The values that the op reads, and those that it writes (in-place ones are in both).
    pub fn uses(&self) -> (Vec<ValueId>, Vec<ValueId>) {
        match *self {
            Op::Embed { out, .. } => (vec![], vec![out]),
            Op::Norm { input, add, out, .. } => {
                (if add { vec![input, out] } else { vec![input] }, vec![out])
            }
            Op::Linear { input, epilogue, out, .. } => match epilogue {
                Epilogue::Store | Epilogue::Activated(_) => (vec![input], vec![out]),
                Epilogue::AddTo => (vec![input, out], vec![out]),
                Epilogue::Gated { both, .. } => (vec![input], vec![both, out]),
            },
            Op::QkRopeStore { qkv, v, .. } => (std::iter::once(qkv).chain(v).collect(), vec![qkv]),
            Op::Attention { qkv, out, .. } => (vec![qkv], vec![out]),
            Op::NormParts { value, .. } | Op::Softcap { value, .. } | Op::Scale { value, .. } => {
                (vec![value], vec![value])
            }
            Op::AddRow { out, .. } => (vec![out], vec![out]),
            Op::HeadLinear { input, out, .. } => (vec![input], vec![out]),
            Op::Route { logits, out, .. } => (vec![logits], vec![out]),
            Op::ExpertsGated { input, routes, both, out, .. } => {
                (vec![input, routes], vec![both, out])
            }
            Op::ExpertsDown { input, routes, parts, out, .. } => {
                (vec![input, routes, out], vec![parts, out])
            }
            Op::AddGated { gate, input, out, .. } => (vec![gate, input, out], vec![out]),
            // Parts of `out` that are not written stay: it is read too.
            Op::Gate { gate, input, out, .. } => (
                [Some(gate), input, Some(out)].into_iter().flatten().map(|p| p.value).collect(),
                vec![out.value],
            ),
            Op::Conv { value, .. } => (vec![value], vec![value]),
            Op::Mamba2 { value, out, .. } => (vec![value], vec![out]),
            Op::DeltaNet { qkv, gates, out, .. } => (vec![qkv, gates], vec![out]),
        }
    }

    /// The matrices that rows are multiplied with, and how many experts' rows they are (else 1); those of a list
    /// should lie side by side.
    pub fn matrices(&self) -> Vec<(&[WeightId], usize)> {
        match self {
            Op::Embed { table, .. } | Op::AddRow { table, .. } => {
                vec![(std::slice::from_ref(table), 1)]
            }
            Op::HeadLinear { weight, heads, .. } => vec![(std::slice::from_ref(weight), *heads)],
            Op::Linear { weights, .. } => vec![(weights, 1)],
            Op::ExpertsGated { weights, routing, .. } => vec![(weights, routing.count)],
            Op::ExpertsDown { weight, routing, .. } => {
                vec![(std::slice::from_ref(weight), routing.count)]
            }
            _ => vec![],
        }
    }

    /// The weights used as vectors of floats, but for biases.
    pub fn vectors(&self) -> Vec<WeightId> {
        match *self {
            Op::Norm { weight, bias, .. } | Op::Conv { weight, bias, .. } => {
                std::iter::once(weight).chain(bias).collect()
            }
            Op::NormParts { weight, .. } => weight.into_iter().collect(),
            Op::QkRopeStore { q_norm, k_norm, .. } => q_norm.into_iter().chain(k_norm).collect(),
            Op::Attention { sinks, .. } => sinks.into_iter().collect(),
            Op::Route { bias, scales, .. } => bias.into_iter().chain(scales).collect(),
            Op::Mamba2 { a, d, dt_bias, .. } => vec![a, d, dt_bias],
            Op::DeltaNet { a, dt_bias, .. } => vec![a, dt_bias],
            _ => vec![],
        }
    }

    /// The matrices that have biases, and these, one for each matrix.
    pub fn biases(&self) -> (&[WeightId], &[Option<WeightId>]) {
        match self {
            Op::Linear { weights, biases, .. } | Op::ExpertsGated { weights, biases, .. } => {
                (weights, biases)
            }
            Op::ExpertsDown { weight, bias, .. } => {
                (std::slice::from_ref(weight), std::slice::from_ref(bias))
            }
            _ => (&[], &[]),
        }
    }
}

/// All of a model's mathematics from token ids to logits.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The steps in order.
    pub ops: Vec<Op>,
    /// The activations.
    pub values: Vec<Value>,
    /// The tensors.
    pub weights: Vec<Weight>,
    /// The rotations.
    pub ropes: Vec<Rope>,
    /// The layers that have keys and values.
    pub kv_layers: Vec<KvLayer>,
    /// Floats of each state that a sequence has, zero at its start.
    pub states: Vec<usize>,
    /// The last op's result, one row an output: logits over the vocabulary.
    pub logits: ValueId,
}

impl Plan {
    /// Plans a model for a context of `cells` positions a sequence.
    pub fn new(model: &ModelFile, cells: usize) -> Result<Self> {
        Self::with_weights(model, cells, Vec::new())
    }

    /// The same, with the weights numbered as in `weights`; those that are not among them come after.
    pub fn with_weights(model: &ModelFile, cells: usize, weights: Vec<Weight>) -> Result<Self> {
        decoder::plan(model, cells, weights)
    }

    /// A weight by its id.
    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.0]
    }

    /// A value by its id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// A layer's cache by its id.
    pub fn kv_layer(&self, id: KvLayerId) -> &KvLayer {
        &self.kv_layers[id.0]
    }

    /// Tokens in the vocabulary: the width of the logits.
    pub fn vocabulary(&self) -> usize {
        self.value(self.logits).width
    }
}
