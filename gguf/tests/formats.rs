//! Every format's decode against ggml's own bytes, bit for bit.

use std::fs;
use std::path::PathBuf;

use gguf::Format;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/quants").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("golden {}: {error}", path.display()))
}

fn check(format: Format, blocks: &str, expected: &str) {
    let blocks = golden(blocks);
    let expected: Vec<f32> = golden(expected)
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let mut decoded = vec![f32::NAN; expected.len()];
    assert_eq!(blocks.len(), format.bytes(expected.len()), "{}", format.name());
    format.decode(&blocks, &mut decoded);
    for (index, (&ours, &ggml)) in decoded.iter().zip(&expected).enumerate() {
        // ggml multiplies, rounds and then adds, also where one instruction could do both: so does this.
        assert_eq!(
            ours.to_bits(),
            ggml.to_bits(),
            "{} weight {index}: {ours:e}, ggml has {ggml:e}",
            format.name()
        );
    }
}

#[test]
fn decode_equals_ggml() {
    for &format in Format::ALL {
        let name = format.name();
        if matches!(format, Format::Q8_1 | Format::Q8_K) {
            check_against_source(format);
            continue;
        }
        check(format, &format!("{name}.bin"), &format!("{name}.f32"));
        if format.block_size() > 1 {
            check(format, &format!("{name}.bits.bin"), &format!("{name}.bits.f32"));
        }
    }
}

/// ggml never decodes Q8_1 and Q8_K: their blocks against the numbers they were made of, which they are half a step from
/// (and a rounding of the scale, where it is a half).
fn check_against_source(format: Format) {
    let blocks = golden(&format!("{}.bin", format.name()));
    let source: Vec<f32> = golden("source.f32")
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let mut decoded = vec![f32::NAN; source.len()];
    format.decode(&blocks, &mut decoded);
    let size = format.block_size();
    for (index, (ours, source)) in decoded.chunks(size).zip(source.chunks(size)).enumerate() {
        let largest = source.iter().fold(0f32, |most, x| most.max(x.abs()));
        // Halves have steps of 2^-24 below 2^-14.
        let step = largest / 127.0 * 0.501 + largest / 2048.0 + 127.0 / f64::from(1 << 24) as f32;
        for (ours, source) in ours.iter().zip(source) {
            assert!(
                (ours - source).abs() <= step,
                "{} block {index}: {ours} {source}",
                format.name()
            );
        }
    }
}
