//! Layouts of small plans, by hand.

use super::*;
use crate::gpu::choice::{Adapter, Family};
use crate::plan::{Epilogue, Value, ValueId, op};

/// A plan with one product of weights of so many rows and 256 columns, with a bias where that is said.
fn plan(weights: &[(Format, usize)], biased: &[bool]) -> Plan {
    let weight =
        |name: String, format, columns, rows| Weight { name, format, columns, rows, scale: 1.0 };
    let mut list: Vec<Weight> = weights
        .iter()
        .enumerate()
        .map(|(index, &(format, rows))| weight(format!("w{index}"), format, 256, rows))
        .collect();
    let mut biases = Vec::new();
    for (&(_, rows), biased) in weights.iter().zip(biased) {
        biases.push(biased.then(|| {
            list.push(weight(format!("b{}", list.len()), Format::F32, rows, 1));
            WeightId(list.len() - 1)
        }));
    }
    let value = Value { name: "x", width: 256, rows: crate::plan::Rows::Tokens };
    let linear = op::Linear {
        input: ValueId(0),
        weights: (0..weights.len()).map(WeightId).collect(),
        biases,
        factor: 1.0,
        epilogue: Epilogue::Store,
        before: None,
        offset: 0,
        out: ValueId(1),
    };
    let values = vec![value; 2];
    Plan { ops: vec![linear.into()], values, weights: list, ..Plan::default() }
}

/// Kernels of a card that binds so many bytes.
fn kernels(most: u64) -> Kernels {
    let adapter = Adapter::new(Family::Nvidia, Some((32, 32)));
    Kernels::new(Adapter { max_binding_bytes: most, ..adapter })
}

fn ids(count: usize) -> Vec<WeightId> {
    (0..count).map(WeightId).collect()
}

#[test]
fn neighbours_of_one_format_share_a_buffer() {
    let plan = plan(&[(Format::Q4_K, 64), (Format::Q4_K, 32), (Format::Q6_K, 16)], &[]);
    let layout = Layout::new(&plan, &kernels(1 << 30)).unwrap();
    assert_eq!(
        layout.parts(&ids(3)),
        [Part { buffer: 0, first_row: 0, rows: 96 }, Part { buffer: 1, first_row: 96, rows: 16 }]
    );
    assert_eq!(layout.matrices[0].sources, [(WeightId(0), 0, 64), (WeightId(1), 0, 32)]);
    // Where all are too large for a binding together, each has its own.
    let one = layout.matrices[0].bytes as u64;
    let layout = Layout::new(&plan, &kernels(one - 1)).unwrap();
    let rows: Vec<_> = layout.parts(&ids(3)).iter().map(|part| part.rows).collect();
    assert_eq!(rows, [64, 32, 16]);
}

#[test]
fn a_matrix_larger_than_a_binding_lies_in_pieces() {
    let plan = plan(&[(Format::Q8_0, 1000)], &[]);
    let limit = 64 << 10;
    let layout = Layout::new(&plan, &kernels(limit)).unwrap();
    let parts = layout.parts(&ids(1));
    assert!(parts.len() > 4, "{parts:?}");
    let mut at = 0;
    for part in parts {
        let matrix = &layout.matrices[part.buffer];
        assert_eq!((part.first_row, part.rows), (at, matrix.rows));
        assert_eq!(matrix.sources, [(WeightId(0), at, part.rows)]);
        assert!(matrix.bytes as u64 <= limit && matrix.plane_starts.iter().all(|s| s % 16 == 0));
        assert!(at % PIECE_ROWS == 0);
        at += part.rows;
    }
    assert_eq!(at, 1000);
    // Not even 64 rows.
    let error = Layout::new(&plan, &kernels(1 << 10)).unwrap_err();
    assert!(matches!(error, Error::TooLargeToBind { most: 1024, .. }), "{error}");
}

#[test]
fn an_expert_is_never_parted() {
    let mut plan = plan(&[(Format::Q4_0, 8 * 40)], &[]);
    let (input, weight, out) = (ValueId(0), WeightId(0), ValueId(1));
    plan.ops = vec![op::HeadLinear { input, heads: 8, weight, out }.into()];
    let whole = Layout::new(&plan, &kernels(1 << 30)).unwrap().matrices[0].bytes;
    let layout = Layout::new(&plan, &kernels(whole as u64 / 2)).unwrap();
    let parts = layout.parts(&ids(1));
    assert!(parts.len() > 1 && parts.iter().all(|part| part.rows % 40 == 0), "{parts:?}");
    assert_eq!(parts.iter().map(|part| part.rows).sum::<usize>(), 320);
}

#[test]
fn missing_biases_are_zeros_and_vectors_are_aligned() {
    let plan = plan(&[(Format::F16, 48), (Format::F16, 80)], &[false, true]);
    let layout = Layout::new(&plan, &kernels(1 << 30)).unwrap();
    let biases = [None, Some(WeightId(2))];
    let id = layout.biases_of(&plan, &ids(2), &biases).unwrap();
    let vector = &layout.vectors[id.0];
    assert_eq!(vector.sources, [(None, 48), (Some(WeightId(2)), 80)]);
    assert_eq!((vector.start % VECTOR_ALIGNMENT, vector.length), (0, 128));
    assert_eq!(layout.vector_bytes % VECTOR_ALIGNMENT, 0);
    assert_eq!(layout.biases_of(&plan, &ids(2), &[None, None]), None);
}
