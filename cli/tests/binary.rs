//! The binary itself: what it prints, where, and with which exit code.

use std::io::Write as _;
mod common;

use std::process::{Output, Stdio};

use common::{changed, engine, fails, fails_with, json, run, scratch, text, tiny};
use gguf::{Array, Gguf, StringArray, TensorType, Value, Writer};
use serde_json::Value as Json;

#[test]
fn run_prints_json_as_documented() {
    let model = tiny("llama.Q4_0.gguf");
    let answer = json(&[
        "run",
        &model,
        "Hello world",
        "--raw",
        "--temp",
        "0",
        "-n",
        "4",
        "--json",
        "--seed",
        "1",
    ]);
    let keys: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["model", "device", "prompt_tokens", "tokens", "text", "stop", "timings"]);
    assert_eq!(answer["prompt_tokens"][0], 1, "BOS first");
    assert_eq!(answer["tokens"].as_array().unwrap().len(), 4);
    assert_eq!(answer["stop"], "length");
    let timings: Vec<_> = answer["timings"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(timings, ["load_ms", "prompt_n", "prompt_ms", "predicted_n", "predicted_ms"]);
    assert_eq!(answer["timings"]["predicted_n"], 4);

    // Without JSON the text streams to stdout; stdin is a prompt too.
    let mut child = engine(&["run", &model, "--raw", "--temp", "0", "-n", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Hello world").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), format!("{}\n", answer["text"].as_str().unwrap()));
}

#[test]
fn seeds_repeat_and_stop_strings_stop() {
    let model = tiny("llama.gguf");
    let sample = |seed: &str| {
        json(&["run", &model, "a", "--raw", "-n", "12", "--json", "--seed", seed, "--temp", "1.5"])
            ["tokens"]
            .clone()
    };
    assert_eq!(sample("7"), sample("7"));
    assert_ne!(sample("7"), sample("8"));
    let whole = json(&["run", &model, "a", "--raw", "-n", "12", "--json", "--temp", "0"]);
    let whole_text = whole["text"].as_str().unwrap();
    let stop: String = whole_text.chars().skip(4).take(3).collect();
    let cut =
        json(&["run", &model, "a", "--raw", "-n", "12", "--json", "--temp", "0", "--stop", &stop]);
    assert_eq!(cut["stop"], "stop");
    assert_eq!(cut["text"].as_str().unwrap(), &whole_text[..whole_text.find(&stop).unwrap()]);
}

#[test]
fn logits_and_their_tops() {
    let model = tiny("llama.gguf");
    let last = json(&["logits", &model, "--tokens", "1,5,9", "-ctk", "f32", "-ctv", "f32"]);
    assert_eq!(last["n_vocab"], 512);
    assert_eq!(last["logits"].as_array().unwrap().len(), 1);
    assert_eq!(last["logits"][0].as_array().unwrap().len(), 512);
    let all = json(&["logits", &model, "--tokens", "1 5 9", "--all", "--top", "3"]);
    let tops = all["top"].as_array().unwrap();
    assert_eq!((tops.len(), tops[2].as_array().unwrap().len()), (3, 3));
    let best = tops[2][0][0].as_u64().unwrap() as usize;
    let logits: Vec<f64> =
        last["logits"][0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert!(logits.iter().all(|&x| x <= logits[best] + 1e-2));
    assert!(tops[2][0][1].as_f64().unwrap() < 0.0, "a log-probability");
    fails(&["logits", &model, "--tokens", "1,x"], &["\"x\" is no token id"]);
    fails(&["logits", &model, "--tokens", "999"], &["999", "vocabulary"]);
    fails(&["logits", &model, "--tokens", ""], &["no ids"]);
}

#[test]
fn tokenize_reads_stdin_to_its_last_byte_and_files_without_tensors() {
    let file = Gguf::open(tiny("llama.gguf")).unwrap();
    let mut writer = Writer::new();
    for (key, value) in file.metadata.iter() {
        writer.set(key, value.clone());
    }
    let path = scratch("vocabulary.gguf", &writer.to_bytes());
    let stdin = |bytes: &[u8], more: &[&str]| -> Output {
        let mut arguments = vec!["tokenize", path.as_str(), "-", "--json"];
        arguments.extend(more);
        let mut child = engine(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        child.wait_with_output().unwrap()
    };
    let ids = |bytes: &[u8], more: &[&str]| -> Json {
        serde_json::from_str(&text(&stdin(bytes, more).stdout)).unwrap()
    };
    let with = ids(b"Hello world\n", &[]);
    let without = ids(b"Hello world", &[]);
    assert_eq!(
        with["tokens"].as_array().unwrap().len(),
        without["tokens"].as_array().unwrap().len() + 1
    );
    assert_eq!(with["tokens"].as_array().unwrap().len(), with["pieces"].as_array().unwrap().len());
    assert_eq!(without["tokens"][0], 1);
    assert_ne!(ids(b"Hello world", &["--no-bos"])["tokens"][0], 1);
    assert_eq!(ids(b"</s>", &["--no-bos"])["tokens"], serde_json::json!([2]));
    assert_ne!(ids(b"</s>", &["--no-bos", "--no-special"])["tokens"], serde_json::json!([2]));
    let bad = stdin(b"\xff", &[]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("UTF-8"));
    // Such a file can be inspected, but not run.
    let shown = json(&["inspect", &path, "--json"]);
    assert_eq!(shown["parameters"], 0);
    fails(&["run", &path, "x"], &[&path, "no weights", "inspected"]);
}

/// wgpu's own variable chooses among the APIs, and is named where it leaves nothing.
#[test]
fn the_environment_chooses_the_apis() {
    for apis in ["gl", "cuda"] {
        let output = engine(&["devices"]).env("WGPU_BACKEND", apis).output().unwrap();
        assert!(output.status.success());
        assert!(text(&output.stdout).starts_with("cpu "), "{}", text(&output.stdout));
        let said = text(&output.stderr);
        assert!(said.contains(&format!("WGPU_BACKEND is {apis:?}")), "{said}");
        let model = tiny("llama.Q4_0.gguf");
        fails_with(
            engine(&["logits", &model, "--tokens", "1", "--device", "vulkan:0"])
                .env("WGPU_BACKEND", apis),
            &["there is no device \"vulkan:0\"; there are: cpu; or say auto"],
        );
    }
}

#[test]
fn inspect_devices_and_bench() {
    let model = tiny("llama-w256.Q4_K_M.gguf");
    let shown = json(&["show", &model, "--json", "--ctx", "128"]);
    assert_eq!(shown["architecture"], "llama");
    assert_eq!(shown["memory"]["context"], 128);
    assert!(shown["memory"]["total"].as_u64().unwrap() > 0);
    let table = text(&run(&["inspect", &model]).stdout);
    for word in ["Model", "architecture", "quantization", "Q4_K", "Memory", "cache"] {
        assert!(table.contains(word), "{table}");
    }
    let devices = json(&["devices", "--json"]);
    let list = devices["devices"].as_array().unwrap();
    assert_eq!(list.last().unwrap()["id"], "cpu");
    let output = run(&[
        "bench", &model, "-p", "8", "-n", "4", "-r", "2", "-o", "json", "-ctk", "f32", "-ctv=f32",
    ]);
    let rows: Json = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    for key in ["model_type", "n_prompt", "n_gen", "type_k", "avg_ts", "stddev_ts", "samples_ns"] {
        assert!(rows[0].get(key).is_some(), "{key}");
    }
    assert_eq!(rows[0]["type_k"], "f32");
    assert_eq!(rows[1]["samples_ts"].as_array().unwrap().len(), 2);
    let table = text(&run(&["bench", &model, "-p", "8,16", "-n", "0", "-r", "1"]).stdout);
    assert!(
        table.contains("| model") && table.contains("pp8") && table.contains("pp16"),
        "{table}"
    );
    assert!(table.contains('±') && !table.contains("tg"), "{table}");
    assert_eq!(
        json(&["bench", &model, "-p", "4", "-n", "0", "-r", "1", "--json"])["results"][0]["n_prompt"],
        4
    );
}

#[test]
fn made_up_models_are_measured_and_written() {
    let shape = "smollm2-135m:q4_k_m";
    let bench = |device: &str| {
        let arguments = [
            "bench",
            "--synthetic",
            shape,
            "-p",
            "4",
            "-n",
            "2",
            "-r",
            "1",
            "--device",
            device,
            "--json",
        ];
        json(&arguments)["results"].clone()
    };
    // In main memory, and made in the memory of a GPU.
    for device in ["cpu", "llvmpipe"] {
        let results = bench(device);
        assert_eq!(results.as_array().unwrap().len(), 2, "{device}");
        assert_eq!(results[0]["precision"], "f32");
        assert_eq!(results[0]["model_n_params"], 134_515_008);
        assert!(results[1]["avg_ts"].as_f64().unwrap() > 0.0);
    }
    let path = scratch("made-up.gguf", b"");
    let output = run(&["synth", &path, shape]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
    let file = Gguf::open(&path).unwrap();
    assert_eq!(file.tensors.len(), 272);
    assert_eq!(file.metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap().len(), 49_152);
    assert!(text(&run(&["synth", &path, "list"]).stdout).contains("llama-8b"));
    std::fs::remove_file(&path).unwrap();
    fails(&["bench", "--synthetic", "llama-9b"], &["llama-9b", "llama-8b"]);
    fails(&["synth", "/nonexistent/x.gguf", shape], &["/nonexistent/x.gguf", "cannot be created"]);
}

#[test]
fn precision_is_a_choice_with_a_name() {
    let model = tiny("llama.Q4_0.gguf");
    for class in ["f32", "f16-tiles", "int8"] {
        let arguments =
            ["bench", &model, "-p", "12", "-n", "2", "-r", "1", "--precision", class, "--json"];
        // Named is what ran: without matrix units, as here, prompts are no halves.
        let ran = if class == "f16-tiles" { "f32" } else { class };
        assert_eq!(json(&arguments)["results"][0]["precision"], ran);
    }
    let logits = |class: &str| {
        json(&["logits", &model, "--tokens", "1,2,3", "--precision", class, "--json"])
    };
    assert_ne!(logits("f32"), logits("int8"));
    assert_eq!(logits("f32"), json(&["logits", &model, "--tokens", "1,2,3", "--exact", "--json"]));
    // A model with recurrent layers computes in f32.
    let recurrent = tiny("qwen35.gguf");
    for class in ["f16-tiles", "int8"] {
        let arguments =
            ["bench", &recurrent, "-p", "4", "-n", "2", "-r", "1", "--precision", class, "--json"];
        assert_eq!(json(&arguments)["results"][0]["precision"], "f32");
    }
    for (model, ran) in [(&model, "precision int8"), (&recurrent, "precision f32")] {
        let arguments = ["run", model, "x", "--raw", "-n", "1", "--precision", "int8", "--verbose"];
        assert!(text(&run(&arguments).stderr).contains(ran), "{model}");
    }
    let refused = run(&["bench", &model, "--precision", "f8"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("f16-tiles"));
}

#[test]
fn tune_keeps_what_it_measured() {
    let home = std::env::temp_dir().join(format!("engine-tune-{}", std::process::id()));
    let model = tiny("llama.Q4_0.gguf");
    let mut command = engine(&["tune", &model, "--device", "llvmpipe", "--seconds", "4"]);
    let output = command.env("ENGINE_HOME", &home).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("x the default"), "{}", text(&output.stdout));
    let kept = std::fs::read_dir(home.join("tune")).unwrap().next().unwrap().unwrap().path();
    let kept: Json = serde_json::from_str(&std::fs::read_to_string(kept).unwrap()).unwrap();
    assert!(kept.as_array().is_some_and(|kept| !kept.is_empty()));
    assert_eq!(kept[0]["precision"], "f32");
    // What was kept is used, and checked first.
    let mut command = engine(&["bench", &model, "-p", "4", "-n", "2", "-r", "1", "--json"]);
    command.env("ENGINE_HOME", &home).env("ENGINE_DEVICE", "llvmpipe");
    assert!(command.output().unwrap().status.success());
    std::fs::remove_dir_all(&home).unwrap();
    fails(&["tune", &model, "--device", "cpu"], &["nothing to tune"]);
}

#[test]
fn bad_files_get_a_clear_error() {
    fails(&["run", "/no/such/model.gguf", "x"], &["/no/such/model.gguf", "no such file"]);
    fails(&["run", "nonsense", "x"], &["nonsense", "smollm2:135m"]);
    let path = scratch("text.gguf", b"this is no model");
    fails(&["inspect", &path], &[&path, "not a GGUF file"]);
    let path = scratch("empty.gguf", b"");
    fails(&["run", &path, "x"], &[&path, "not a GGUF file"]);
    let path = std::env::temp_dir().to_str().unwrap().to_string();
    fails(&["inspect", &path], &["a folder, not a model"]);

    let string = |text: &str| Value::from(text);
    let cases: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        (
            "architecture",
            changed(|w| _ = w.set("general.architecture", string("wonder")), &[]),
            vec!["wonder", "gemma3, gemma4"],
        ),
        (
            "no-architecture",
            changed(|_| (), &["general.architecture"]),
            vec!["general.architecture"],
        ),
        (
            "tokenizer",
            changed(|w| _ = w.set("tokenizer.ggml.model", string("odd")), &[]),
            vec!["odd", "known: gpt2, llama"],
        ),
        (
            "pre",
            changed(
                |w| {
                    w.set("tokenizer.ggml.model", string("gpt2"));
                    w.set("tokenizer.ggml.pre", string("odd"));
                    _ = w.set(
                        "tokenizer.ggml.merges",
                        Value::Array(Array::String(StringArray::new())),
                    );
                },
                &[],
            ),
            vec!["odd", "smollm"],
        ),
        (
            "no-key",
            changed(|_| (), &["llama.embedding_length"]),
            vec!["llama.embedding_length", "missing"],
        ),
        (
            "type",
            changed(|w| _ = w.set("llama.block_count", string("two")), &[]),
            vec!["llama.block_count", "\"two\"", "unsigned number"],
        ),
        (
            "layers",
            changed(|w| _ = w.set("llama.block_count", Value::U32(4_000_000_000)), &[]),
            vec!["llama.block_count", "4000000000"],
        ),
        (
            "more-layers",
            changed(|w| _ = w.set("llama.block_count", Value::U32(3)), &[]),
            vec!["blk.2.", "missing"],
        ),
        (
            "heads",
            changed(|w| _ = w.set("llama.attention.head_count", Value::U32(3)), &[]),
            vec!["heads"],
        ),
        (
            "many-heads",
            changed(
                |w| {
                    w.set("llama.attention.head_count", Value::U32(4_000_000_000));
                    w.set("llama.attention.key_length", Value::U32(16_000_000));
                    w.set("llama.rope.dimension_count", Value::U32(16_000_000));
                    w.set("llama.attention.value_length", Value::U32(64));
                    _ = w.set("llama.attention.head_count_kv", Value::U32(1));
                },
                &[],
            ),
            vec!["query width"],
        ),
        (
            "embedding",
            changed(
                |w| {
                    w.set("llama.attention.key_length", Value::U32(32));
                    _ = w.set("llama.embedding_length", Value::U32(256));
                },
                &[],
            ),
            vec!["token_embd.weight", "[128, 512]", "[256, 512]"],
        ),
        (
            "vocabulary",
            changed(
                |w| {
                    let tokens: StringArray = ["a", "b"].into_iter().collect();
                    w.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
                },
                &[],
            ),
            vec!["token_embd.weight", "[128, 2]"],
        ),
        (
            "tensor",
            changed(|_| (), &["blk.1.ffn_down.weight"]),
            vec!["blk.1.ffn_down.weight", "missing"],
        ),
        ("norm", changed(|_| (), &["output_norm.weight"]), vec!["output_norm.weight"]),
        (
            "scaling",
            changed(|w| _ = w.set("llama.rope.scaling.type", string("spiral")), &[]),
            vec!["spiral", "yarn"],
        ),
        (
            "experts",
            changed(|w| _ = w.set("llama.expert_count", Value::U32(8)), &[]),
            vec!["llama.expert_used_count", "missing"],
        ),
        (
            "epsilon",
            changed(
                |w| _ = w.set("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
                &[],
            ),
            vec!["epsilon", "finite"],
        ),
        (
            "token-types",
            changed(
                |w| _ = w.set("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1; 7]))),
                &[],
            ),
            vec!["7 token types for 512 tokens"],
        ),
        (
            "template",
            changed(|w| _ = w.set("tokenizer.chat_template", string("{% for %}")), &[]),
            vec!["chat template"],
        ),
        (
            "endless-template",
            changed(
                |w| {
                    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
                    w.set("tokenizer.chat_template", string(loops));
                },
                &[],
            ),
            vec!["chat template"],
        ),
    ];
    for (name, bytes, words) in cases {
        let path = scratch(&format!("{name}.gguf"), &bytes);
        let mut expected = words;
        if !name.contains("template") {
            expected.push(&path);
        }
        fails(&["run", &path, "x", "-n", "1"], &expected);
    }
    // As in llama.cpp, an id beyond the vocabulary is said and replaced.
    let bytes = changed(|w| _ = w.set("tokenizer.ggml.bos_token_id", Value::U32(9999)), &[]);
    let output = run(&["run", &scratch("bos.gguf", &bytes), "x", "-n", "1"]);
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("bos_token_id is 9999") && said.contains("is used"), "{said}");
    // A type that is known but not computed with.
    let mut writer = Writer::new();
    writer.set("general.architecture", string("llama"));
    writer.tensor("token_embd.weight", &[256, 2], TensorType(10), vec![0; 168]).unwrap();
    let path = scratch("q2k.gguf", &writer.to_bytes());
    assert_eq!(json(&["inspect", &path, "--json"])["tensor_types"]["Q2_K"]["tensors"], 1);
    // Cut off in the data: named, with what to do.
    let whole = std::fs::read(tiny("llama.gguf")).unwrap();
    let path = scratch("cut.gguf", &whole[..whole.len() / 2]);
    fails(&["run", &path, "x"], &[&path, "beyond the file", "fetch it again"]);
}

#[test]
fn what_does_not_fit_says_what_would() {
    let model = tiny("llama.gguf");
    let long = "word ".repeat(60);
    let words = ["the prompt has", "the context has 16", "--ctx", "made for 512"];
    fails(&["run", &model, &long, "--raw", "--ctx", "16"], &words);
    fails(&["run", &model, "x", "--device", "vulkan:77"], &["vulkan:77", "cpu"]);
    fails(&["run", &model, "x", "--temp", "-1"], &["--temp -1"]);
    fails(&["run", &model, "", "--raw", "--ctx", "16777217"], &["context"]);
    let mut command = engine(&["run", &model, "x", "--ctx", "65536"]);
    fails_with(command.env("ENGINE_MEMORY_LIMIT", "4000000"), &["bytes are missing", "--ctx"]);
    assert_eq!(run(&["run", &model, "--no-such-flag"]).status.code(), Some(2));
    let full = json(&["run", &model, "x", "--raw", "--ctx", "8", "--json", "--temp", "0"]);
    assert_eq!(full["stop"], "length");
}

#[test]
fn every_help_shows_an_example() {
    for command in [
        "run",
        "logits",
        "tokenize",
        "inspect",
        "devices",
        "bench",
        "tune",
        "synth",
        "pull",
        "embed",
        "template",
        "perplexity",
        "quantize",
    ] {
        let help = text(&run(&[command, "--help"]).stdout);
        assert!(help.contains("Example") && help.contains(&format!("engine {command}")), "{help}");
        // Tables for people alone (bench measures for programs too), or one form of output.
        let one_form = matches!(command, "tune" | "synth" | "quantize" | "template" | "embed");
        assert!(help.contains("--json") != one_form, "{help}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_stdout_is_a_quiet_exit() {
    use std::io::Read as _;

    let model = tiny("llama.gguf");
    let mut child = engine(&["run", &model, "x", "--raw", "-n", "400"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_answer() {
    use std::io::Read as _;

    // Its likeliest answer goes round in a circle and never ends by itself.
    let model = tiny("starcoder2.gguf");
    let mut child = engine(&["run", &model, "x", "--raw", "--ctx", "100000", "--temp", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(rest.last(), Some(&b'\n'));
}
