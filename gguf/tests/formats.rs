//! Every format's decode against ggml's own bytes.

use std::fs;
use std::path::PathBuf;

use gguf::Format;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/quants").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("golden {}: {error}", path.display()))
}

/// Formats whose decode adds after multiplying: there a C compiler may fuse both into one rounding, so
/// ggml's result is one of two neighbouring floats.
fn order_is_ambiguous(format: Format) -> bool {
    matches!(format, Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K)
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
    let mut different = 0;
    for (index, (&ours, &ggml)) in decoded.iter().zip(&expected).enumerate() {
        if ours.to_bits() == ggml.to_bits() {
            continue;
        }
        different += 1;
        // One rounding of the product, where the sum may have cancelled most of it.
        let block = &decoded[index / 32 * 32..][..32];
        let largest = block.iter().fold(0f32, |max, v| max.max(v.abs()));
        let ulp = f32::from_bits(largest.to_bits() + 1) - largest;
        assert!(
            order_is_ambiguous(format) && (ours - ggml).abs() <= ulp,
            "{} weight {index}: {ours:e}, ggml has {ggml:e}",
            format.name()
        );
    }
    println!("{}: {different} of {} differ by one rounding", format.name(), expected.len());
}

#[test]
fn decode_equals_ggml() {
    for &format in Format::ALL {
        let name = format.name();
        check(format, &format!("{name}.bin"), &format!("{name}.f32"));
        if format.block_size() > 1 {
            check(format, &format!("{name}.bits.bin"), &format!("{name}.bits.f32"));
        }
    }
}
