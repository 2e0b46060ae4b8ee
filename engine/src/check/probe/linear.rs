//! Probes of products.

use gguf::Format;

use super::{Probe, Weights, floats, sizes, value};
use crate::Result;
use crate::executor::Precision;
use crate::kv::KvType;
use crate::plan::{Epilogue, Op, Parts, Plan, ValueId, op};
use crate::spec::NormKind;
use crate::spec::weights::read_f32;

/// The products of a linear op.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearCase {
    /// Format and rows of each weight.
    pub weights: Vec<(Format, usize)>,
    /// Columns of all weights.
    pub columns: usize,
    /// Rows of the input.
    pub tokens: usize,
    /// Whether each product gets a bias.
    pub bias: bool,
    /// What happens to the products; the value in `Gated` is ignored.
    pub epilogue: Epilogue,
    /// Whether the input is normed first, which the product may do itself.
    pub norm: bool,
    /// How exactly products are to be computed: widens the bound.
    pub precision: Precision,
}

/// How far a product may be off after its inputs were rounded to bytes: half a step of each, 16 with the scale of
/// the largest.
fn rounding_to_bytes(row: &[f32], x: &[f32]) -> f64 {
    let of_group = |(w, x): (&[f32], &[f32])| {
        let largest = x.iter().fold(0f32, |most, x| most.max(x.abs()));
        w.iter().map(|w| f64::from(w.abs())).sum::<f64>() * f64::from(largest) / 127.0 * 0.501
    };
    row.chunks(16).zip(x.chunks(16)).map(of_group).sum()
}

/// The same for operands rounded to halves: 2^-11 of each, or a subnormal's 2^-25 of their group's largest.
fn rounding_to_halves(row: &[f32], x: &[f32], sum: f64) -> f64 {
    let largest = |v: &[f32]| f64::from(v.iter().fold(0f32, |most, x| most.max(x.abs())));
    let pairs = row.chunks(32).zip(x.chunks(32));
    let subnormal: f64 = pairs.map(|(w, x)| 64.0 * largest(w) * largest(x)).sum();
    sum / f64::from(1 << 10) + subnormal / f64::from(1 << 25)
}

impl Probe {
    /// A linear op. Bound: 2^-20 of the sum of absolute products for f32 sums in any order, and a few
    /// roundings of what follows.
    pub fn linear(case: &LinearCase) -> Result<Self> {
        let mut weights = Weights::new();
        let rows: usize = case.weights.iter().map(|(_, rows)| rows).sum();
        let mut ids = Vec::new();
        let mut biases = Vec::new();
        for &(format, rows) in &case.weights {
            ids.push(weights.add(format, case.columns, rows)?);
        }
        for &(_, rows) in &case.weights {
            biases.push(if case.bias { Some(weights.add(Format::F32, rows, 1)?) } else { None });
        }
        let factors =
            if case.norm { Some(weights.add(Format::F32, case.columns, 1)?) } else { None };
        let (file, list) = weights.finish()?;
        let gated = matches!(case.epilogue, Epilogue::Gated { .. });
        let out_width = if gated { rows / 2 } else { rows };
        let values = vec![
            value("input", case.columns),
            value("out", out_width),
            value("both", rows),
            value("normed", case.columns),
            value("before", out_width),
        ];
        let epilogue = match case.epilogue {
            Epilogue::Gated { activation, .. } => Epilogue::Gated { activation, both: ValueId(2) },
            other => other,
        };
        let (read, out) = (ValueId(if case.norm { 3 } else { 0 }), ValueId(1));
        let before = (case.epilogue == Epilogue::AddTo).then_some(ValueId(4));
        let linear = Op::Linear(op::Linear {
            input: read,
            weights: ids,
            biases,
            factor: 1.0,
            epilogue,
            before,
            offset: 0,
            out,
        });
        let epsilon = 1e-5;
        let norm = factors.map(|weight| {
            Op::Norm(op::Norm {
                input: ValueId(0),
                kind: NormKind::Rms,
                weight,
                bias: None,
                epsilon,
                count: case.columns,
                add_to: None,
                out: ValueId(3),
            })
        });
        let input = floats(7, case.columns * case.tokens);
        let mut bound = Vec::new();
        let decoded: Vec<Vec<f32>> = list[..case.weights.len()]
            .iter()
            .map(|weight| read_f32(&file, &weight.name))
            .collect::<Result<_>>()?;
        let factors = match factors {
            Some(id) => read_f32(&file, &list[id.0].name)?,
            None => vec![1.0; case.columns],
        };
        let rounded = case.precision != Precision::F32;
        let to_bytes = case.weights.iter().any(|&(format, _)| case.precision.rounds_inputs(format));
        for x in input.chunks_exact(case.columns) {
            let mean = x.iter().map(|x| x * x).sum::<f32>() / case.columns as f32;
            // The norm's own roundings are as many again.
            let norm = if case.norm { 2.0 / f64::from(mean + epsilon).sqrt() } else { 1.0 };
            let x: Vec<f32> = x.iter().zip(&factors).map(|(x, factor)| x * factor).collect();
            let sums: Vec<f64> = decoded
                .iter()
                .flat_map(|matrix| matrix.chunks_exact(case.columns))
                .map(|row| {
                    let sum = row.iter().zip(&x).map(|(w, x)| f64::from(w * x).abs()).sum::<f64>();
                    let rounded = match case.precision {
                        Precision::F16Tiles => rounding_to_halves(row, &x, sum),
                        Precision::Int8 if to_bytes => rounding_to_bytes(row, &x),
                        Precision::F32 | Precision::Int8 => 0.0,
                    };
                    let exact = (sum * norm + 2.0) / f64::from(1 << 20);
                    exact + rounded * if case.norm { norm / 2.0 } else { 1.0 }
                })
                .collect();
            if gated {
                // The product of two numbers, each of them off by its own bound.
                let (gate, up) = sums.split_at(rows / 2);
                let scale = if rounded { 4.0 * case.columns as f64 } else { f64::from(1 << 20) };
                bound.extend(gate.iter().zip(up).map(|(g, u)| 2.0 * (g * u * scale + g + u)));
            } else {
                bound.extend(sums);
            }
        }
        let plan = Plan {
            ops: norm.into_iter().chain([linear]).collect(),
            values,
            weights: list,
            logits: ValueId(1),
            ..Plan::default()
        };
        let mut inputs = vec![(ValueId(0), input)];
        inputs.extend(before.map(|id| (id, floats(8, out_width * case.tokens))));
        let sizes = sizes(case.tokens, KvType::F32, KvType::F32);
        let probe = Self::new(plan, file, case.tokens, sizes, inputs, bound)?;
        Ok(Self { precision: case.precision, ..probe })
    }

    /// A product in some of the columns of a value that lives on, stored or added: the sum of that with what it becomes. What
    /// the op changes it must not write over, and other columns must stay. Bound: as of [`Probe::linear`], and of 1 besides.
    pub fn linear_in_part(
        (format, rows, columns): (Format, usize, usize),
        tokens: usize,
        epilogue: Epilogue,
    ) -> Result<Self> {
        let mut weights = Weights::new();
        let matrices = [weights.add(format, columns, rows)?, weights.add(format, columns, rows)?];
        let biases = [None, Some(weights.add(Format::F32, rows, 1)?)];
        let (file, list) = weights.finish()?;
        let (offset, width) = (32, 64 + 2 * rows);
        let [input, before, changed, out] = [0, 1, 2, 3].map(ValueId);
        let whole = |value| Parts { value, offset: 0, stride: width };
        let linear = op::Linear {
            input,
            weights: matrices.to_vec(),
            biases: biases.to_vec(),
            factor: 1.0,
            epilogue,
            before: Some(before),
            offset,
            out: changed,
        };
        let product = op::Gate {
            gate: whole(before),
            activation: None,
            input: Some(whole(changed)),
            shape: (1, width),
            before: None,
            out: whole(out),
        };
        let plan = Plan {
            ops: vec![linear.into(), product.into()],
            values: vec![
                value("input", columns),
                value("before", width),
                value("changed", width),
                value("out", width),
            ],
            weights: list,
            logits: out,
            ..Plan::default()
        };
        let x = floats(7, columns * tokens);
        let matrices = ["w0", "w1"].map(|name| read_f32(&file, name));
        let [first, second] = matrices;
        let matrix = [first?, second?].concat();
        let mut bound = Vec::new();
        for x in x.chunks_exact(columns) {
            let sums = matrix
                .chunks_exact(columns)
                .map(|row| row.iter().zip(x).map(|(w, x)| f64::from((w * x).abs())).sum::<f64>());
            let edge = std::iter::repeat_n(0.0, offset);
            let of_row = edge.clone().chain(sums).chain(edge);
            bound.extend(of_row.map(|sum| (sum + 2.0) / f64::from(1 << 20)));
        }
        let inputs = vec![(input, x), (before, floats(8, width * tokens))];
        Self::new(plan, file, tokens, sizes(tokens, KvType::F32, KvType::F32), inputs, bound)
    }
}
