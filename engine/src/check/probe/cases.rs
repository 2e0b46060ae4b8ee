//! Probes of the ops that stand for most of a model's work, each in the shapes that a caller asks for.

use gguf::Format;

use super::{Probe, Weights, floats, sizes, value};
use crate::Result;
use crate::blueprint::Sizes;
use crate::executor::Precision;
use crate::kv::KvType;
use crate::plan::{KvLayer, KvLayerId, Op, Plan, RopeId, ValueId, op};
use crate::spec::rope::{Rope, RopeStyle};
use crate::spec::weights::WeightId;
use crate::spec::{Activation, NormKind, Routing};

/// Attention with the op before it, which fills the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionCase {
    /// The layer.
    pub layer: KvLayer,
    /// Positions computed in one step.
    pub tokens: usize,
    /// Positions before them, whose keys and values are given.
    pub history: usize,
    /// Which elements of a head form a pair.
    pub style: RopeStyle,
    /// Elements of a head that turn.
    pub turned: usize,
    /// Whether q and k are normed.
    pub qk_norm: bool,
    /// Whether v is a value of its own.
    pub v_apart: bool,
    /// The type of keys.
    pub key_type: KvType,
    /// The type of values.
    pub value_type: KvType,
    /// The factor of the scores.
    pub scale: f32,
    /// The cap of the scores.
    pub softcap: Option<f32>,
    /// Whether each head has a logit of its own in the sum.
    pub sinks: bool,
}

/// A mixture of experts, from the logits of the choice on.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsCase {
    /// The format of all matrices.
    pub format: Format,
    /// Width of the stream.
    pub columns: usize,
    /// Width of an expert.
    pub width: usize,
    /// Rows of the input.
    pub tokens: usize,
    /// How experts are chosen.
    pub routing: Routing,
    /// Whether every matrix has a bias, and the choice too.
    pub bias: bool,
    /// The activation.
    pub activation: Activation,
    /// Whether gate and up are one matrix.
    pub fused: bool,
    /// How exactly products are to be computed: widens the bound.
    pub precision: Precision,
}

impl Probe {
    /// A norm of rows of `width`, of which `count` are numbers and the others zeros, by mean and variance with a bias. Bound: 2^-20 of the largest result (about 4): half a
    /// rounding a term of the sum, in a tree of them, and four after it.
    pub fn norm(
        (width, count): (usize, usize),
        tokens: usize,
        kind: NormKind,
        add: bool,
    ) -> Result<Self> {
        let mut weights = Weights::new();
        let weight = weights.add(Format::F32, width, 1)?;
        let bias = match kind {
            NormKind::Layer => Some(weights.add(Format::F32, width, 1)?),
            NormKind::Rms | NormKind::L2 => None,
        };
        let (file, list) = weights.finish()?;
        let (input, out) = (ValueId(0), ValueId(1));
        let (epsilon, add_to) = (1e-5, add.then_some(ValueId(2)));
        let op = Op::Norm(op::Norm { input, kind, weight, bias, epsilon, count, add_to, out });
        let plan = Plan {
            ops: vec![op],
            values: vec![value("input", width), value("out", width), value("before", width)],
            weights: list,
            logits: ValueId(1),
            ..Plan::default()
        };
        let mut input = floats(7, width * tokens);
        input.chunks_exact_mut(width).for_each(|row| row[count..].fill(0.0));
        let mut inputs = vec![(ValueId(0), input)];
        inputs.extend(add_to.map(|id| (id, floats(8, width * tokens))));
        let bound = vec![4.0 / f64::from(1 << 20); width * tokens];
        Self::new(plan, file, tokens, sizes(tokens, KvType::F32, KvType::F32), inputs, bound)
    }

    /// Embeddings of `columns` from a table of `rows`. Bound: 2^-20 of the row's largest, for the few roundings
    /// of scale, offset and factor, whose terms may cancel.
    pub fn embed(format: Format, columns: usize, rows: usize, tokens: usize) -> Result<Self> {
        let mut weights = Weights::new();
        let table = weights.add(format, columns, rows)?;
        let (file, list) = weights.finish()?;
        let op = Op::Embed(op::Embed { table, scale: 1.5, out: ValueId(0) });
        let plan = Plan {
            ops: vec![op],
            values: vec![value("out", columns)],
            weights: list,
            logits: ValueId(0),
            ..Plan::default()
        };
        let sizes = sizes(tokens, KvType::F32, KvType::F32);
        let mut probe = Self::new(plan, file, tokens, sizes, vec![], vec![])?;
        for row in probe.expected.chunks_exact(columns) {
            let largest = row.iter().fold(1e-30, |max: f64, x| max.max(x.abs()));
            probe.bound.extend(vec![largest / f64::from(1 << 20); columns]);
        }
        Ok(probe)
    }

    /// Norm, rope and store, then attention. Bound: with an F32 cache 2^-20 of the largest value (values are
    /// at most 1 and the weights of a softmax sum to 1); an F16 cache rounds keys and values, whose f32
    /// may lie on the other side of a rounding: 2^-11.
    pub fn attention(case: &AttentionCase) -> Result<Self> {
        let kv = case.layer;
        let mut weights = Weights::new();
        let norms = if case.qk_norm {
            let mut norm = || weights.add(Format::F32, kv.key_length, 1).map(Some);
            (norm()?, norm()?)
        } else {
            (None, None)
        };
        let sinks = if case.sinks { Some(weights.add(Format::F32, kv.heads, 1)?) } else { None };
        let (file, list) = weights.finish()?;
        let width = kv.heads * kv.value_length;
        let apart = if case.v_apart { kv.value_width() } else { 0 };
        let qkv_width = kv.qkv_width() - apart;
        let mut values =
            vec![value("qkv", qkv_width), value("out", width), value("turned", qkv_width)];
        let mut inputs = vec![(ValueId(0), floats(9, qkv_width * case.tokens))];
        let v = case.v_apart.then_some(ValueId(3));
        if let Some(v) = v {
            values.push(value("v", apart));
            inputs.push((v, floats(10, apart * case.tokens)));
        }
        let rope = Rope {
            style: case.style,
            frequencies: (0..case.turned / 2)
                .map(|pair| 10000f64.powf(-(pair as f64) / 8.0))
                .collect(),
            magnitude: 1.0,
        };
        let layer = KvLayerId(0);
        let plan = Plan {
            ops: vec![
                Op::QkRopeStore(op::QkRopeStore {
                    qkv: ValueId(0),
                    v,
                    layer,
                    q_norm: norms.0,
                    k_norm: norms.1,
                    epsilon: 1e-6,
                    count: kv.key_length,
                    rope: (case.turned > 0).then_some(RopeId(0)),
                    turn_from: 0,
                    store: true,
                    temperature: None,
                    out: ValueId(2),
                }),
                Op::Attention(op::Attention {
                    qkv: ValueId(2),
                    layer,
                    scale: case.scale,
                    softcap: case.softcap,
                    sinks,
                    causal: true,
                    out: ValueId(1),
                }),
            ],
            values,
            weights: list,
            ropes: vec![rope],
            kv_layers: vec![kv],
            logits: ValueId(1),
            ..Plan::default()
        };
        // A type's own step, of numbers up to about 2: keys and values near a rounding may go the other way.
        let step = |kind: KvType| match kind {
            KvType::F32 => 1 << 20,
            KvType::F16 => 1 << 11,
            KvType::Bf16 => 1 << 8,
            KvType::Q8_0 => 1 << 7,
            KvType::Q4_0 => 1 << 3,
        };
        let part = f64::from(step(case.key_type).min(step(case.value_type)));
        let bound = vec![1.0 / part; width * case.tokens];
        let positions = case.history + case.tokens;
        let sizes = Sizes {
            positions,
            pool: positions,
            ..sizes(case.tokens, case.key_type, case.value_type)
        };
        Self::with_steps(plan, file, (case.history, case.tokens, 1), sizes, inputs, bound)
    }

    /// A mixture of experts from the logits of the choice to the sum. Bound: 2^-20 of the largest result for each of as
    /// many terms as a random walk over both halves' sums adds up (their root). Of rounded operands errors and terms add
    /// up alike, so that some four roundings of the largest result bound them; four times as many where an activation is
    /// clamped, as of large sums few are not, and those are as far off.
    pub fn experts(case: &ExpertsCase) -> Result<Self> {
        let (routing, columns, width) = (case.routing, case.columns, case.width);
        let (count, used) = (routing.count, routing.used);
        let mut weights = Weights::new();
        let halves = if case.fused { vec![2 * width] } else { vec![width; 2] };
        let mut ids = Vec::new();
        for &rows in &halves {
            ids.push(weights.add(case.format, columns, rows * count)?);
        }
        let down = weights.add(case.format, width, columns * count)?;
        let mut bias = |rows: usize| -> Result<Option<WeightId>> {
            if case.bias { weights.add(Format::F32, rows, 1).map(Some) } else { Ok(None) }
        };
        let biases = halves.iter().map(|rows| bias(rows * count)).collect::<Result<Vec<_>>>()?;
        let (down_bias, route_bias) = (bias(columns * count)?, bias(count)?);
        let (file, list) = weights.finish()?;
        let [input, logits, routes, both, hidden, parts, out, before] =
            [0, 1, 2, 3, 4, 5, 6, 7].map(ValueId);
        let plan = Plan {
            ops: vec![
                Op::Route(op::Route {
                    logits,
                    bias: route_bias,
                    routing,
                    scales: None,
                    out: routes,
                }),
                Op::ExpertsGated(op::ExpertsGated {
                    input,
                    routes,
                    routing,
                    weights: ids,
                    biases,
                    activation: case.activation,
                    both,
                    out: hidden,
                }),
                Op::ExpertsDown(op::ExpertsDown {
                    input: hidden,
                    routes,
                    routing,
                    weight: down,
                    bias: down_bias,
                    factor: 0.5,
                    parts,
                    add_to: Some(before),
                    out,
                }),
            ],
            values: vec![
                value("input", columns),
                value("logits", count),
                value("routes", 2 * used),
                value("both", used * 2 * width),
                value("hidden", used * width),
                value("parts", used * columns),
                value("out", columns),
                value("before", columns),
            ],
            weights: list,
            logits: out,
            ..Plan::default()
        };
        let tokens = case.tokens;
        let spread: Vec<f32> = floats(12, count * tokens).iter().map(|x| x * 8.0).collect();
        let inputs = vec![
            (input, floats(7, columns * tokens)),
            (logits, spread),
            (before, floats(8, columns * tokens)),
        ];
        let sizes = sizes(tokens, KvType::F32, KvType::F32);
        let mut probe = Self::new(plan, file, tokens, sizes, inputs, vec![])?;
        // Largest magnitudes: of a hidden number, a sum of products; of the result, a sum of those.
        let largest = probe.expected.iter().fold(1f64, |most, x| most.max(x.abs()));
        let terms = ((columns + width) as f64).sqrt();
        let roundings = if case.activation == Activation::ClampedSwiglu { 16.0 } else { 4.0 };
        let rounded = match case.precision {
            Precision::F16Tiles => roundings / f64::from(1 << 11),
            Precision::Int8 if case.precision.rounds_inputs(case.format) => roundings / 127.0,
            Precision::F32 | Precision::Int8 => 0.0,
        };
        probe.bound = vec![largest * (terms / f64::from(1 << 20) + rounded); columns * tokens];
        Ok(Self { precision: case.precision, ..probe })
    }
}
