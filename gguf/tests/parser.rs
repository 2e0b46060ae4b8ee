//! The parser against the writer, against real headers, and against files that lie.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use gguf::{
    Array, BytesSource, Endian, Error, Format, Gguf, Header, Source, StringArray, TensorType,
    Value, Writer,
};
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Result<Header, Error> {
    Header::parse(&BytesSource::new("test.gguf", bytes.to_vec()))
}

fn tiny(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/tiny").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("golden {}: {error}", path.display()))
}

/// A file with every value type and two tensors.
fn everything(version: u32, endian: Endian) -> Writer {
    let mut writer = Writer::new().version(version, endian);
    writer
        .set("u8", Value::U8(200))
        .set("i8", Value::I8(-100))
        .set("u16", Value::U16(60000))
        .set("i16", Value::I16(-30000))
        .set("u32", Value::U32(4_000_000_000))
        .set("i32", Value::I32(-2_000_000_000))
        .set("f32", Value::F32(1.5e-39))
        .set("bool", Value::Bool(true))
        .set("string", Value::from("grün"))
        .set("u64", Value::U64(u64::MAX))
        .set("i64", Value::I64(i64::MIN))
        .set("f64", Value::F64(1e300))
        .set("strings", Value::Array(Array::String(StringArray::from_iter(["a", "", "日本"]))))
        .set(
            "nested",
            Value::Array(Array::Array(vec![
                Array::U16(vec![1, 2]),
                Array::Array(vec![Array::Bool(vec![true, false])]),
            ])),
        )
        .set("empty", Value::Array(Array::F32(vec![])));
    writer.tensor("a", &[32, 3], TensorType(Format::Q4_0.id()), vec![7; 54]).unwrap();
    writer.tensor("b", &[5], TensorType(Format::F32.id()), vec![1; 20]).unwrap();
    writer
}

#[test]
fn every_version_and_byte_order_round_trips() {
    for version in 1..=3 {
        for endian in [Endian::Little, Endian::Big] {
            let bytes = everything(version, endian).to_bytes();
            let header = parse(&bytes).unwrap();
            assert_eq!((header.version, header.endian), (version, endian));
            let expected = parse(&everything(3, Endian::Little).to_bytes()).unwrap();
            assert!(header.metadata.iter().eq(expected.metadata.iter()));
            assert_eq!(header.metadata.get("u64"), Some(&Value::U64(u64::MAX)));
            let nested = header.metadata.get("nested").unwrap().as_array().unwrap();
            assert_eq!(nested.get(0), Some(Value::Array(Array::U16(vec![1, 2]))));
            assert_eq!(header.tensors.len(), 2);
            assert_eq!(header.tensors[0].shape, [32, 3]);
            assert_eq!(header.tensors[1].start % 32, 0);
            assert_eq!(&bytes[header.tensors[1].start as usize..][..20], &[1; 20]);
        }
    }
}

#[test]
fn a_real_header_round_trips_through_the_writer() {
    let bytes = tiny("llama.Q4_0.gguf");
    let header = parse(&bytes).unwrap();
    let mut writer = Writer::new();
    for (key, value) in header.metadata.iter() {
        writer.set(key, value.clone());
    }
    for tensor in &header.tensors {
        let range = tensor.range().unwrap();
        let data = bytes[range.start as usize..range.end as usize].to_vec();
        writer.tensor(&tensor.name, &tensor.shape, tensor.tensor_type, data).unwrap();
    }
    assert_eq!(writer.to_bytes(), bytes);
}

#[test]
fn unknown_and_removed_types_are_kept_and_refused_when_needed() {
    for (id, words) in [(99, "unknown type id 99"), (4, "Q4_2"), (33, "Q4_0_8_8"), (28, "F64")] {
        let mut writer = Writer::new();
        writer.tensor("good", &[4], TensorType(0), vec![0; 16]).unwrap();
        let bytes = if id == 28 { 2048 } else { 64 };
        writer.tensor("strange", &[256], TensorType(id), vec![0; bytes]).unwrap();
        let source: Arc<dyn Source> = Arc::new(BytesSource::new("strange.gguf", writer.to_bytes()));
        let file = Gguf::from_sources(vec![source]).unwrap();
        assert_eq!(file.format(file.require("good").unwrap()).unwrap(), Format::F32);
        let message = file.format(file.require("strange").unwrap()).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("strange.gguf"), "{message}");
    }
}

#[test]
fn big_endian_data_is_refused_and_says_what_to_do() {
    let bytes = everything(3, Endian::Big).to_bytes();
    let file = Gguf::from_sources(vec![Arc::new(BytesSource::new("big.gguf", bytes))]).unwrap();
    let message = file.format(&file.tensors[0]).unwrap_err().to_string();
    assert!(message.contains("gguf_convert_endian"), "{message}");
}

/// Parts of a split model in memory.
fn parts(change: impl Fn(usize, &mut Writer)) -> Result<Gguf, Error> {
    let sources = (0..2)
        .map(|part| {
            let mut writer = Writer::new();
            writer.set("split.no", Value::U16(part as u16)).set("split.count", Value::U16(2));
            writer.set("split.tensors.count", Value::I32(2));
            writer.tensor(format!("t{part}"), &[2], TensorType(0), vec![part as u8; 8]).unwrap();
            change(part, &mut writer);
            Arc::new(BytesSource::new(format!("part{part}.gguf"), writer.to_bytes()))
                as Arc<dyn Source>
        })
        .collect();
    Gguf::from_sources(sources)
}

#[test]
fn split_models_join_and_lies_are_refused() {
    let model = parts(|_, _| ()).unwrap();
    let mut data = [0; 4];
    model.read(model.require("t1").unwrap(), 4, &mut data).unwrap();
    assert_eq!(data, [1; 4]);
    assert!(model.read(model.require("t1").unwrap(), 6, &mut data).is_err());
    let refused = |change: fn(usize, &mut Writer), words: &str| {
        let message = parts(change).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    refused(|_, w| _ = w.set("split.no", Value::U16(0)), "stands as part 2");
    refused(|_, w| _ = w.set("split.count", Value::U16(3)), "part of 3 parts");
    refused(|_, w| _ = w.set("split.tensors.count", Value::I32(9)), "expected 9");
    refused(
        |_, w| _ = w.tensor("same", &[1], TensorType(0), vec![0; 4]).unwrap(),
        "also in an earlier part",
    );
}

/// What each lie must be answered with. The lie is told by writing over bytes of a good file.
#[test]
fn lies_get_a_clear_error() {
    let good = everything(3, Endian::Little).to_bytes();
    let find = |needle: &[u8]| good.windows(needle.len()).position(|w| w == needle).unwrap();
    let tensor_a = find(b"\x01\0\0\0\0\0\0\0a\x02\0\0\0") + 8;
    let cases: Vec<(&str, usize, Vec<u8>, &str)> = vec![
        ("magic", 0, b"GGML".to_vec(), "not a GGUF file"),
        ("version", 4, vec![9], "version 9 is unknown"),
        ("tensor count", 8, vec![255; 8], "the tensor count"),
        ("key count", 16, vec![255; 7], "the metadata count"),
        ("key length", 24, vec![255; 7], "needs"),
        ("value type", 24 + 8 + 2, vec![77], "unknown value type 77"),
        ("dimensions", tensor_a + 1, vec![5], "5 dimensions"),
        ("row", tensor_a + 5, vec![33], "no multiple of the 32"),
        ("overflow", tensor_a + 5, vec![0, 255, 255, 255, 255, 255, 255, 255], "impossible shape"),
        ("offset", tensor_a + 25, vec![3], "not aligned"),
        ("far offset", tensor_a + 25, vec![0, 0, 0, 0, 1], "beyond the file"),
        ("overlap", tensor_a + 25, vec![32], "overlaps"),
        (
            "far overlap",
            tensor_a + 25,
            vec![224, 255, 255, 255, 255, 255, 255, 255],
            "beyond the file",
        ),
    ];
    for (name, at, bytes, words) in cases {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(&bytes);
        let message = parse(&bad).map(|_| ()).expect_err(name).to_string();
        assert!(message.contains(words), "{name}: {message}");
        assert!(message.contains("test.gguf"), "{name}: {message}");
    }
    let mut twice = Writer::new();
    twice.tensor("t", &[1], TensorType(0), vec![0; 4]).unwrap();
    twice.tensor("t", &[1], TensorType(0), vec![0; 4]).unwrap();
    assert!(parse(&twice.to_bytes()).unwrap_err().to_string().contains("occurs twice"));
    let mut deep = Array::U8(vec![1]);
    for _ in 0..9 {
        deep = Array::Array(vec![deep]);
    }
    let mut writer = Writer::new();
    writer.set("deep", Value::Array(deep));
    assert!(parse(&writer.to_bytes()).unwrap_err().to_string().contains("deeper than 8"));
    let mut writer = Writer::new();
    writer.set("general.alignment", Value::U32(48));
    assert!(parse(&writer.to_bytes()).unwrap_err().to_string().contains("power of two"));
}

#[test]
fn every_truncation_is_an_error() {
    let good = everything(3, Endian::Little).to_bytes();
    // The last tensor ends 12 bytes before the padded end.
    for length in 0..good.len() - 12 {
        assert!(parse(&good[..length]).is_err(), "{length} of {} bytes", good.len());
    }
    assert!(parse(&good[..good.len() - 12]).is_ok());
}

/// A small generator of reproducible numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// 1,500 mutations of real headers: no panic, no hang, memory bounded by the file.
#[test]
fn mutated_headers_never_panic() {
    let mut random = Random(20_261_123);
    let (mut refused, mut accepted) = (0, 0);
    for name in ["llama.Q4_0.gguf", "gemma3.gguf", "llama-w256.Q4_K_M.gguf"] {
        let good = tiny(name);
        let header_bytes = parse(&good).unwrap().data_start as usize;
        for _ in 0..500 {
            let mut bad = good.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(header_bytes);
                match random.below(5) {
                    0 => bad[at] = random.next() as u8,
                    1 => bad[at] ^= 1 << random.below(8),
                    2 => {
                        let end = (at + 8).min(bad.len());
                        bad[at..end].fill(0xff);
                    }
                    3 => bad.truncate(at.max(1)),
                    _ => {
                        let from = random.below(header_bytes);
                        let n = random.below(64).min(bad.len().saturating_sub(from.max(at)));
                        bad.copy_within(from..from + n, at);
                    }
                }
                if bad.len() < header_bytes {
                    break;
                }
            }
            match parse(&bad) {
                Ok(_) => accepted += 1,
                Err(error) => {
                    assert!(error.to_string().contains("test.gguf"));
                    refused += 1;
                }
            }
        }
    }
    println!("{refused} refused, {accepted} harmless");
    assert!(refused > 300);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        any::<bool>().prop_map(Value::Bool),
        ".*".prop_map(|s| Value::String(s.into_bytes())),
        prop::collection::vec(any::<u64>(), 0..9).prop_map(|v| Value::Array(Array::U64(v))),
        prop::collection::vec(".{0,9}", 0..9)
            .prop_map(|v| Value::Array(Array::String(v.iter().map(String::as_str).collect()))),
    ];
    leaf
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(&bytes);
        let _ = parse(&file);
        let _ = parse(&bytes);
    }

    #[test]
    fn any_metadata_round_trips(
        values in prop::collection::vec(any_value(), 0..12),
        version in 1u32..=3,
        big in any::<bool>(),
    ) {
        let endian = if big { Endian::Big } else { Endian::Little };
        let mut writer = Writer::new().version(version, endian);
        for (index, value) in values.iter().enumerate() {
            writer.set(format!("key.{index}"), value.clone());
        }
        let header = parse(&writer.to_bytes()).unwrap();
        for (index, value) in values.iter().enumerate() {
            prop_assert_eq!(header.metadata.get(&format!("key.{index}")), Some(value));
        }
    }
}
