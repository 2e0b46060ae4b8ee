//! Files that are no GGUF, and GGUF files of a strange but legal kind.

use std::sync::Arc;

use gguf::quantize::Mix;
use gguf::{Array, BytesSource, Error, Format, Gguf, Source, TensorType, Value, Writer};

fn open(bytes: Vec<u8>) -> Result<Gguf, Error> {
    Gguf::from_sources(vec![Arc::new(BytesSource::new("test.gguf", bytes)) as Arc<dyn Source>])
}

fn safetensors(header: &str) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes
}

/// What each common mistake is answered with: the first characters, what it is, what to do.
#[test]
fn a_file_that_is_no_gguf_is_named() {
    let mut tar = vec![0u8; 512];
    tar[..5].copy_from_slice(b"a.txt");
    tar[257..262].copy_from_slice(b"ustar");
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n".to_vec();
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (lfs, "'version https://git-lfs.'", "git lfs pull"),
        (b"<!doctype html><html>".to_vec(), "'<!doctype html><html>'", "web page"),
        (b"\n\n  <HTML><HEAD>".to_vec(), "'??  <HTML><HEAD>'", "web page"),
        (b"\xef\xbb\xbf<html>".to_vec(), "'???<html>'", "web page"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied".to_vec(), "'<?xml", "XML"),
        (b"<?xml version=\"1.0\"?><!DOCTYPE x><html xmlns=\"y\">".to_vec(), "'<?xml", "web page"),
        (b"{\"error\":\"Repository not found\"}".to_vec(), "'{\"error\":", "JSON"),
        (b"PK\x03\x04\x00\x00".to_vec(), "'PK????'", "PyTorch"),
        (b"\x80\x02}q\x00".to_vec(), "'??}q?'", "pickle"),
        (safetensors("{\"a\":1}"), "'????????{", "safetensors"),
        (safetensors("  {}   "), "'????????  {}", "safetensors"),
        (b"lmgg\x01\0\0\0".to_vec(), "'lmgg", "before GGUF"),
        (b"tjgg\x03\0\0\0".to_vec(), "'tjgg", "before GGUF"),
        (b"fmgg\x01\0\0\0".to_vec(), "'fmgg", "before GGUF"),
        (b"algg\x01\0\0\0".to_vec(), "'algg", "adapter"),
        (b"FUGG\x03\0\0\0".to_vec(), "'FUGG", "gguf_convert_endian"),
        (b"\x1f\x8b\x08\0".to_vec(), "'????'", "gunzip"),
        (b"\x28\xb5\x2f\xfd\x04".to_vec(), "'(?/??'", "zstd"),
        (b"\xfd7zXZ\0\0".to_vec(), "'?7zXZ??'", "xz"),
        (b"\x08\x08\x12\x07pytorch\x1a".to_vec(), "'????pytorch?'", "ONNX"),
        (tar, "'a.txt???", "tar archive"),
        (vec![], "''", "empty"),
        (vec![0; 9000], "'????????????????????????'", "zeros"),
        (b"GGUF".to_vec(), "'GGUF'", "broke off"),
        (b"GGU".to_vec(), "'GGU'", "a text"),
        ("für später".as_bytes().to_vec(), "'f??r sp??ter'", "a text"),
        (b"\x01\x02\x03\xff".to_vec(), "'????'", "none of the kinds"),
    ];
    for (bytes, shown, looks) in cases {
        let message = open(bytes).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("test.gguf: not a GGUF file"), "{message}");
        assert!(message.contains(shown) && message.contains(looks), "{message}");
    }
    let folder = gguf::FileSource::open(std::env::temp_dir()).unwrap_err().to_string();
    assert!(folder.contains("is a folder"), "{folder}");
}

/// Tensors without elements lie anywhere among others, take no bytes, and are kept when a file is rewritten.
#[test]
fn tensors_without_elements_are_kept() {
    let matrix: Vec<u8> = (0..64u32).flat_map(|n| (n as f32).to_le_bytes()).collect();
    let f32s = TensorType(Format::F32.id());
    for markers in 1..40usize {
        let mut writer = Writer::new();
        writer.set("general.architecture", Value::from("llama"));
        let shapes: [&[u64]; 5] = [&[0], &[32, 0], &[0, 5, 3], &[32, 2, 0, 7], &[0, 0]];
        for number in 0..markers {
            let kind = if number % 2 == 0 { f32s } else { TensorType(Format::Q4_0.id()) };
            let shape = shapes[number % shapes.len()];
            writer.tensor(format!("marker.{number}"), shape, kind, vec![]).unwrap();
            if number == markers / 2 {
                let data = matrix.clone();
                writer.tensor("blk.0.ffn_up.weight", &[32, 2], f32s, data).unwrap();
            }
        }
        let file = open(writer.to_bytes()).unwrap();
        assert_eq!(file.tensors.len(), markers + 1);
        let mut out = vec![0; 256];
        file.read(file.require("blk.0.ffn_up.weight").unwrap(), 0, &mut out).unwrap();
        assert_eq!(out, matrix);
        let marker = file.require("marker.0").unwrap();
        assert_eq!((marker.elements(), marker.bytes), (0, Some(0)));
        file.read(marker, 0, &mut []).unwrap();
        assert!(file.read(marker, 0, &mut [0]).is_err());

        let mix = Mix::from_name("Q8_0").unwrap();
        let rewrite = file.quantize(mix, false).unwrap();
        let mut written = Vec::new();
        rewrite.write("out.gguf", &mut written, &mut |_| ()).unwrap();
        let again = open(written).unwrap();
        assert_eq!(again.tensors.len(), markers + 1);
        let up = again.require("blk.0.ffn_up.weight").unwrap();
        assert_eq!(again.format(up).unwrap(), Format::Q8_0);
        assert_eq!(again.require("marker.0").unwrap().shape, [0]);
    }
    // A file of markers alone may end before its data section would begin.
    let mut writer = Writer::new();
    writer.tensor("marker", &[0], f32s, vec![]).unwrap();
    let mut bytes = writer.to_bytes();
    while bytes.last() == Some(&0) && bytes.len() > 60 {
        bytes.pop();
    }
    bytes.extend([0; 8]);
    assert_eq!(open(bytes).unwrap().tensors.len(), 1);
}

/// Bytes that are no UTF-8 stop nothing: in values, keys and names, which are shown with U+FFFD and stay apart.
#[test]
fn bytes_that_are_no_utf8_are_read() {
    let mut writer = Writer::new();
    writer
        .set("general.architecture", Value::from("llama"))
        .set("general.name", Value::String(b"Gr\xfcn".to_vec()))
        .set("key.A", Value::U8(1))
        .set("key.B", Value::U8(2));
    for name in ["name.A", "name.B"] {
        writer.tensor(name, &[1], TensorType(0), vec![0; 4]).unwrap();
    }
    let mut bytes = writer.to_bytes();
    // Names that differ in a byte that is no UTF-8 alone.
    for (from, to) in [(b"key.A", b"key.\xfe"), (b"key.B", b"key.\xff")] {
        let at = bytes.windows(5).position(|w| w == from).unwrap();
        bytes[at..at + 5].copy_from_slice(to);
    }
    for (from, to) in [(b"name.A", b"name.\xfe"), (b"name.B", b"name.\xff")] {
        let at = bytes.windows(6).position(|w| w == from).unwrap();
        bytes[at..at + 6].copy_from_slice(to);
    }
    let file = open(bytes).unwrap();
    assert_eq!(file.metadata.text("general.name").as_deref(), Some("Gr\u{fffd}n"));
    assert!(file.metadata.str("general.name").is_err());
    assert_eq!(file.metadata.get("key.\u{fffd}"), Some(&Value::U8(1)));
    assert_eq!(file.metadata.get("key.\u{fffd}\u{fffd}"), Some(&Value::U8(2)));
    assert!(
        file.tensor("name.\u{fffd}").is_some() && file.tensor("name.\u{fffd}\u{fffd}").is_some()
    );
}

/// Any byte but 0 is true, alone and in arrays, as for llama.cpp.
#[test]
fn truth_values_are_any_byte() {
    let mut writer = Writer::new();
    writer.set("flags", Value::Array(Array::Bool(vec![true, false, true])));
    writer.set("yes", Value::Bool(true));
    for byte in [2u8, 0x7f, 0xff] {
        let mut bytes = writer.to_bytes();
        for at in 0..bytes.len() - 3 {
            if bytes[at..at + 3] == [1, 0, 1] {
                bytes[at] = byte;
            }
        }
        let flags = open(bytes).unwrap().metadata.get("flags").cloned();
        assert_eq!(flags, Some(Value::Array(Array::Bool(vec![true, false, true]))));
    }
}
