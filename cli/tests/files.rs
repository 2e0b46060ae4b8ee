//! Files of every kind, through the binary: what is no model, what is an embedding model, what is strange but legal.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use gguf::{Gguf, TensorType, Value, Writer};

fn tiny(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/tiny").join(name)
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engine"));
    command.args(arguments).env("ENGINE_DEVICE", "cpu").stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn works(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn fails(arguments: &[&str], words: &[&str]) -> String {
    let output = run(arguments);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    assert!(!error.contains("panicked"), "{error}");
    for word in words {
        assert!(error.contains(word), "{arguments:?}: {word:?} is not in: {error}");
    }
    error
}

/// A file for a test, in a folder of its own.
fn scratch(name: &str, bytes: &[u8]) -> String {
    let folder = std::env::temp_dir().join(format!("engine-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_string()
}

/// A tiny model with its metadata or tensors changed.
fn changed(base: &str, change: impl FnOnce(&mut Writer), without: &[&str]) -> Vec<u8> {
    let file = Gguf::open(tiny(base)).unwrap();
    let mut writer = Writer::new();
    for (key, value) in file.metadata.iter().filter(|(key, _)| !without.contains(key)) {
        writer.set(key, value.clone());
    }
    change(&mut writer);
    for tensor in &file.tensors {
        let mut data = vec![0; tensor.bytes.unwrap() as usize];
        file.read(tensor, 0, &mut data).unwrap();
        writer.tensor(&tensor.name, &tensor.shape, tensor.tensor_type, data).unwrap();
    }
    writer.to_bytes()
}

#[test]
fn what_is_no_model_is_named_by_every_command() {
    let page = scratch("page.gguf", b"<!DOCTYPE html><html><body>Not found");
    let pointer = scratch("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\n");
    for (path, words) in [
        (&page, ["'<!DOCTYPE html>", "web page", "engine pull"]),
        (&pointer, ["'version", "LFS", "engine pull"]),
    ] {
        for command in [
            &["inspect", path][..],
            &["run", path, "x"],
            &["tokenize", path, "x"],
            &["embed", path, "x"],
        ] {
            fails(command, &words);
        }
    }
    let kinds = [
        ("general.type", "adapter", "LoRA adapter"),
        ("general.type", "mmproj", "projector"),
        ("general.architecture", "clip", "projector"),
        ("general.type", "imatrix", "importance matrix"),
        ("general.architecture", "controlvector", "control vector"),
    ];
    for (key, value, words) in kinds {
        let bytes = changed("llama.gguf", |w| _ = w.set(key, Value::from(value)), &[]);
        let path = scratch(&format!("{value}.gguf"), &bytes);
        fails(&["run", &path, "--raw", "x"], &[words]);
        fails(&["logits", &path, "--tokens", "1"], &[words]);
        assert!(works(&["inspect", &path]).contains(words));
    }
}

#[test]
fn markers_and_strings_that_are_no_utf8_stop_nothing() {
    let latin1 = |text: &str| Value::String(text.chars().map(|c| c as u8).collect());
    let bytes = changed(
        "llama.gguf",
        |writer| {
            for key in
                ["general.name", "general.description", "general.license", "general.size_label"]
            {
                writer.set(key, latin1("für alle"));
            }
            writer.tensor("__marker__", &[0], TensorType(0), vec![]).unwrap();
            writer.tensor("other", &[32, 0], TensorType(2), vec![]).unwrap();
        },
        &[],
    );
    let path = scratch("latin1.gguf", &bytes);
    let shown = works(&["inspect", &path, "--tensors", "--metadata"]);
    assert!(shown.contains("f\u{fffd}r alle") && shown.contains("__marker__"), "{shown}");
    assert!(works(&["inspect", &path, "--json", "--tensors"]).contains("f\u{fffd}r alle"));
    assert!(works(&["logits", &path, "--tokens", "1,2,3", "--top", "1"]).contains("top"));
    works(&["bench", &path, "-p", "4", "-n", "2", "-r", "1"]);
    let out = scratch("latin1-q8.gguf", b"");
    works(&["quantize", &path, &out, "Q8_0"]);
    let again = works(&["inspect", &out, "--tensors"]);
    assert!(again.contains("__marker__") && again.contains("Q8_0"), "{again}");
    let twice = scratch("latin1-q4.gguf", b"");
    fails(&["quantize", &out, &twice, "Q4_0"], &["it is Q8_0 already", "--allow-requantize"]);
    works(&["quantize", &out, &twice, "Q4_0", "--allow-requantize"]);
}

/// The key of the architecture's own norm counts, whatever the other says; without it the file is refused.
#[test]
fn each_norm_has_its_own_epsilon() {
    let (rms, layer) = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon");
    let models = [
        ("llama", rms, layer),
        ("qwen3", rms, layer),
        ("gemma3", rms, layer),
        ("gpt-oss", rms, layer),
        ("phi2", layer, rms),
        ("starcoder2", layer, rms),
        ("command-r", layer, rms),
    ];
    for (name, own, other) in models {
        let base = format!("{name}.gguf");
        let logits = |path: &str| works(&["logits", path, "--tokens", "1,2,3", "--top", "5"]);
        let as_it_is = logits(tiny(&base).to_str().unwrap());
        let key = |key: &str| format!("{name}.{key}");
        let with = changed(&base, |w| _ = w.set(key(other), Value::F32(0.3)), &[]);
        assert_eq!(logits(&scratch(&format!("{name}-both.gguf"), &with)), as_it_is, "{name}");
        let with = changed(&base, |w| _ = w.set(key(own), Value::F32(0.3)), &[]);
        assert_ne!(logits(&scratch(&format!("{name}-own.gguf"), &with)), as_it_is, "{name}");
        let with = changed(&base, |w| _ = w.set(key(other), Value::F32(1e-5)), &[&key(own)]);
        let path = scratch(&format!("{name}-other.gguf"), &with);
        fails(&["logits", &path, "--tokens", "1,2,3"], &[&key(own), "missing"]);
    }
}

#[test]
fn embedding_models_say_what_they_are_for() {
    for (name, architecture) in
        [("bert", "bert"), ("nomic-bert", "nomic-bert"), ("qwen3-embd", "qwen3")]
    {
        let path = tiny(&format!("{name}.gguf"));
        let path = path.to_str().unwrap();
        let words = [&format!("embedding model ({architecture})"), "engine embed"];
        let file = scratch("text.txt", "a few words of a text ".repeat(99).as_bytes());
        for command in [
            &["run", path, "--raw", "hello"][..],
            &["logits", path, "--tokens", "1,2"],
            &["perplexity", path, &file, "-c", "16"],
        ] {
            fails(command, &words);
        }
        let shown = works(&["inspect", path]);
        assert!(shown.contains("embedding\n"), "{shown}");
        assert!(works(&["inspect", path, "--json"]).contains("\"capabilities\":[\"embedding\"]"));
        // Prompts are measured, as by llama-bench; there is nothing to generate.
        let table = run(&["bench", path, "-p", "8", "-n", "4", "-r", "1"]);
        assert!(table.status.success(), "{}", text(&table.stderr));
        let (shown, said) = (text(&table.stdout), text(&table.stderr));
        assert!(shown.contains("pp8") && !shown.contains("tg4"), "{shown}");
        assert!(said.contains("tg4 is left out"), "{said}");
    }
    let reranker = changed("bert.gguf", |w| _ = w.set("bert.pooling_type", Value::U32(4)), &[]);
    let path = scratch("reranker.gguf", &reranker);
    fails(&["embed", &path, "x"], &["reranker"]);
    assert!(works(&["inspect", &path]).contains("reranking"));
}

/// Following the advice of an error helps, or the advice is to shorten the text.
#[test]
fn a_text_that_is_too_long_for_an_embedding_model() {
    let long = "hello ".repeat(300);
    let bert = tiny("bert.gguf");
    let bert = bert.to_str().unwrap();
    for more in [&[][..], &["-c", "128"], &["-c", "4096"]] {
        let command = [&["embed", bert, &long], more].concat();
        let error = fails(&command, &["the model takes 128 at most", "split it"]);
        assert!(!error.contains("--ctx"), "{error}");
    }
    // A decoder's context may grow up to its own: the advice helps.
    let path = tiny("qwen3-embd.gguf");
    let path = path.to_str().unwrap();
    let text = "hello ".repeat(20);
    let error = fails(&["embed", path, &text, "-c", "8"], &["use --ctx "]);
    let advised = error.split("--ctx ").nth(1).unwrap().split(' ').next().unwrap();
    works(&["embed", path, &text, "-c", advised]);
}

#[test]
fn perplexity_of_all_chunks_and_of_none() {
    let path = tiny("llama.gguf");
    let path = path.to_str().unwrap();
    let file = scratch("words.txt", "a few words of a text ".repeat(40).as_bytes());
    let measure = |more: &[&'static str]| -> Vec<&str> {
        let mut command = vec!["perplexity", path, &file, "-c", "32"];
        command.extend(more);
        command
    };
    let all = works(&measure(&[]));
    assert_eq!(works(&measure(&["--chunks", "-1"])), all);
    assert_eq!(works(&measure(&["--chunks", "9999"])), all);
    assert_ne!(works(&measure(&["--chunks", "1"])), all);
    for none in ["0", "-7"] {
        let refused = run(&measure(&["--chunks", none]));
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains("from 1 on (-1: all)"));
    }
}
