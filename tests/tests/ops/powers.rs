//! Scales at the ends of what a format can say.

use std::sync::Arc;

use engine::internals::blueprint::{Blueprint, Sizes};
use engine::internals::executor::Executor as _;
use engine::internals::gpu::choice::Kernels;
use engine::internals::gpu::{GpuExecutor, GpuWeights};
use engine::internals::plan::{Epilogue, Op, Plan, Rows, Value, ValueId, op};
use engine::internals::spec::weights::{Weight, WeightId};
use engine::{GpuOptions, KvType, SequenceId, StepToken};
use engine_tests::devices::{card, gpu};
use gguf::{BytesSource, Format, Gguf, TensorType, Writer};

/// MXFP4's powers at both ends: by every kernel of one token and of many, in rows of whole quads and of others, what the
/// blocks decode to. Of the largest only codes whose weights are finite.
#[test]
fn the_smallest_and_the_largest_powers() {
    let gpu = gpu(&GpuOptions::default());
    let plain = Kernels { subgroups: false, native_halves: false, ..gpu.kernels.clone() };
    let exponents = [0, 1, 2, 254, 255];
    for (columns, tokens) in [(256, 1), (96, 1), (96, 12)] {
        let mut data = Format::MXFP4.sample(3, exponents.len() * columns);
        let rows = data.chunks_exact_mut(columns / 32 * 17);
        for (row, exponent) in rows.zip(exponents) {
            for block in row.chunks_exact_mut(17) {
                block[0] = exponent;
                if exponent >= 254 {
                    // 0, 0.5, and their negatives.
                    block[1..].iter_mut().for_each(|codes| *codes &= 0x99);
                }
            }
        }
        let mut weights = vec![0f32; exponents.len() * columns];
        Format::MXFP4.decode(&data, &mut weights);
        let mut writer = Writer::new();
        let shape = [columns as u64, exponents.len() as u64];
        writer.tensor("w", &shape, TensorType(Format::MXFP4.id()), data).unwrap();
        let file = Gguf::from_sources(vec![Arc::new(BytesSource::new("w", writer.to_bytes()))]);
        let file = file.unwrap();
        let value = |name, width| Value { name, width, rows: Rows::Tokens };
        let (input, out) = (ValueId(0), ValueId(1));
        let plan = Plan {
            ops: vec![Op::Linear(op::Linear {
                input,
                weights: vec![WeightId(0)],
                biases: vec![None],
                factor: 1.0,
                epilogue: Epilogue::Store,
                before: None,
                offset: 0,
                out,
            })],
            values: vec![value("input", columns), value("out", exponents.len())],
            weights: vec![Weight {
                name: "w".into(),
                format: Format::MXFP4,
                columns,
                rows: exponents.len(),
                scale: 1.0,
            }],
            logits: out,
            ..Plan::default()
        };
        let blueprint = Blueprint::of(
            plan,
            Sizes {
                positions: tokens,
                pool: tokens,
                sequences: 1,
                chunk: tokens,
                outputs: 1,
                key_type: KvType::F32,
                value_type: KvType::F32,
            },
        );
        // Small enough that sums of the largest are finite.
        let x: Vec<f32> =
            (0..columns * tokens).map(|i| (i * 7 % 13) as f32 / 64.0 - 0.09).collect();
        for kernels in [gpu.kernels.clone(), plain.clone(), card(&gpu.kernels)] {
            let load = GpuWeights::load(
                gpu.clone(),
                &file,
                &blueprint.plan,
                kernels.clone(),
                &mut |_, _| (),
            );
            let mut executor =
                GpuExecutor::new(Arc::new(load.unwrap()), blueprint.clone()).unwrap();
            let mut table = blueprint.table(tokens);
            executor.write_value(input, &x).unwrap();
            let step = StepToken::run(SequenceId(0), 0, &vec![0; tokens], false);
            let step: Vec<_> =
                step.into_iter().map(|token| StepToken { want_logits: false, ..token }).collect();
            let prepared = table.prepare(&step).unwrap();
            executor.step(&table, &prepared).unwrap();
            let got = executor.read_value(out, exponents.len() * tokens).unwrap();
            for (token, x) in x.chunks_exact(columns).enumerate() {
                for (row, weights) in weights.chunks_exact(columns).enumerate() {
                    let products =
                        weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                    let (sum, size) =
                        products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                    let error = (f64::from(got[token * exponents.len() + row]) - sum).abs();
                    // A device may take what is subnormal for zero.
                    let bound = size * 1e-6 + 1e-35;
                    let exponent = exponents[row];
                    assert!(
                        error <= bound,
                        "{exponent}, {columns}, {tokens}: {error:e} {kernels:?}"
                    );
                }
            }
        }
    }
}
