//! Products against sums in f64, for each instruction set, way of rounding, and number of tokens.

use gguf::Format;

use super::super::panels::{Panels, Rounding};
use super::super::slots::Slots;
use super::super::team::Team;
use super::super::tile::Output;
use super::super::vector::InstructionSet;
use super::{Scratch, multiply};

const ROWS: usize = 29;
const COLUMNS: usize = 512;

/// Numbers from -1 to 1.
fn random(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Each 16 inputs rounded to 127ths of the largest of them.
fn rounded(inputs: &[f32]) -> Vec<f64> {
    let halves = inputs.chunks(16).flat_map(|half| {
        let largest = half.iter().fold(0.0, |most: f64, &x| most.max(f64::from(x).abs()));
        let step = if largest == 0.0 { 1.0 } else { largest / 127.0 };
        half.iter().map(move |&x| (f64::from(x) / step).round() * step)
    });
    halves.collect()
}

fn check(set: InstructionSet, format: Format, tokens: usize, rounding: Rounding) {
    let blocks = format.quantize(&random(ROWS * COLUMNS, 7)).unwrap();
    let mut weights = vec![0.0; ROWS * COLUMNS];
    format.decode(&blocks, &mut weights);
    let mut inputs = random(tokens * COLUMNS, 11);
    // Sixteen zeros, and a large one among small ones.
    inputs[..16].fill(0.0);
    inputs[40] = 100.0;
    let bias = random(ROWS, 13);
    let before = random(tokens * ROWS, 17);
    let mut outputs = before.clone();

    let mut panels = Panels::default();
    // What an earlier product left behind counts nothing.
    panels.fill(set, &Team::new(1), &vec![3.0; 40 * COLUMNS * 2], COLUMNS * 2, rounding);
    panels.fill(set, &Team::new(2), &inputs, COLUMNS, rounding);
    let output = Output {
        cells: Slots::new(&mut outputs, 1),
        stride: ROWS,
        offset: 0,
        scale: 0.5,
        bias: Some(&bias),
        factor: 3.0,
        add: true,
    };
    multiply(set, format, &blocks, 0, &panels, &mut Scratch::default(), &output);

    let inputs = match rounding {
        Rounding::None => inputs.iter().map(|&x| f64::from(x)).collect(),
        Rounding::Bytes | Rounding::BytesAsFloats => rounded(&inputs),
    };
    for token in 0..tokens {
        for row in 0..ROWS {
            let pairs = weights[row * COLUMNS..].iter().zip(&inputs[token * COLUMNS..]);
            let (mut product, mut size) = (0.0, 0.0);
            for (&w, &x) in pairs.take(COLUMNS) {
                product += f64::from(w) * x;
                size += (f64::from(w) * x).abs();
            }
            let index = token * ROWS + row;
            let exact = f64::from(before[index]) + (product * 0.5 + f64::from(bias[row])) * 3.0;
            let error = (f64::from(outputs[index]) - exact).abs();
            assert!(
                error < 2e-6 * size,
                "{set:?}, {format:?}, {tokens} tokens, {rounding:?}: row {row} of token {token} is {}, not {exact}",
                outputs[index]
            );
        }
    }
}

#[test]
fn products_are_those_of_the_decoded_weights() {
    use Format::{F16, Q2_K, Q4_0, Q4_1, Q4_K, Q5_1, Q6_K, Q8_0};
    for set in InstructionSet::available() {
        for format in [F16, Q2_K, Q4_0, Q4_1, Q4_K, Q5_1, Q6_K, Q8_0] {
            for tokens in [1, 2, 6, 7, 16, 19, 33] {
                check(set, format, tokens, Rounding::None);
                check(set, format, tokens, Rounding::BytesAsFloats);
                if format.has_codes() {
                    check(set, format, tokens, Rounding::Bytes);
                }
            }
        }
    }
}
