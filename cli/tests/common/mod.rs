//! What tests of the binary share.

// Every test file uses some of it.
#![allow(dead_code, missing_docs)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use gguf::{Gguf, Writer};
use serde_json::Value as Json;

pub fn tiny(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/tiny").join(name);
    path.to_str().unwrap().to_string()
}

pub fn engine(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engine"));
    command.args(arguments).env("ENGINE_DEVICE", "cpu").stdin(Stdio::null());
    command
}

pub fn run(arguments: &[&str]) -> Output {
    engine(arguments).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command that must succeed with one JSON object on stdout and nothing else there.
pub fn json(arguments: &[&str]) -> Json {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    let out = text(&output.stdout);
    assert_eq!(out.trim_end().lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// Runs a command that must fail with exit code 1, nothing on stdout and these words on stderr.
#[track_caller]
pub fn fails(arguments: &[&str], words: &[&str]) {
    fails_with(&mut engine(arguments), words);
}

#[track_caller]
pub fn fails_with(command: &mut Command, words: &[&str]) {
    let output = command.output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(text(&output.stdout), "");
    assert!(!error.contains("panicked"), "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

/// A file for a test, in a folder of its own.
pub fn scratch(name: &str, bytes: &[u8]) -> String {
    let folder = std::env::temp_dir().join(format!("engine-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_string()
}

/// A tiny model with its metadata or tensors changed.
pub fn changed(change: impl FnOnce(&mut Writer), without: &[&str]) -> Vec<u8> {
    let file = Gguf::open(tiny("llama.Q4_0.gguf")).unwrap();
    let mut writer = Writer::new();
    for (key, value) in file.metadata.iter().filter(|(key, _)| !without.contains(key)) {
        writer.set(key, value.clone());
    }
    change(&mut writer);
    for tensor in file.tensors.iter().filter(|tensor| !without.contains(&tensor.name.as_str())) {
        let mut data = vec![0; tensor.bytes.unwrap() as usize];
        file.read(tensor, 0, &mut data).unwrap();
        writer.tensor(&tensor.name, &tensor.shape, tensor.tensor_type, data).unwrap();
    }
    writer.to_bytes()
}
