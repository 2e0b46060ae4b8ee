//! Arguments: numbers with a meaning of their own, texts that begin with a dash, names that are no UTF-8, nonsense.

mod common;

use common::{engine, fails, json, run, text, tiny};
use proptest::prelude::*;
use serde_json::Value as Json;

/// Runs a command whose line cannot be read: exit code 2, these words on stderr.
#[track_caller]
fn misread(arguments: &[&str], words: &[&str]) {
    let output = run(arguments);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty());
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

fn ids(output: &Json) -> Vec<u64> {
    output["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

#[test]
fn minus_one_is_no_limit_and_zero_the_models_own() {
    let model = tiny("llama.gguf");
    let answer = |more: &[&str]| {
        json(&[&["run", &model, "Hello", "--raw", "--json", "-n", "6"][..], more].concat())
    };
    let greedy = answer(&["--temp", "0"]);
    for more in [
        &["--temp", "0", "--top-k", "-1"][..],
        &["--temp", "0", "--top-k", "0"],
        &["--temp", "0", "--top-k", "-5"],
        &["--temperature", "0", "--seed", "-1"],
        &["--temp", "0", "-s", "4294967295", "-t", "-1"],
        &["--temp", "0", "-c", "0", "-b", "64", "-ub", "2"],
        &["--temp", "0", "--ctx-size=0", "-ngl", "-1", "-fa", "on"],
        &["--temp", "0", "--no-mmap", "--repeat-last-n", "-1"],
        // The last of a repeated option counts.
        &["--temp", "1.5", "--temp", "0"],
    ] {
        assert_eq!(ids(&answer(more)), ids(&greedy), "{more:?}");
    }
    // Without a limit the context's end is the answer's: 512 positions are the model's own.
    for limit in ["-1", "-2"] {
        let full =
            json(&["run", &model, "a", "--raw", "--json", "-n", limit, "-c", "0", "--temp", "0"]);
        assert!(ids(&full).len() <= 512);
    }
    assert_eq!(ids(&answer(&["-n", "0"])).len(), 0);
    // -1 is another seed each time, a number the same.
    let sampled = |seed: &str| {
        ids(&answer(&[
            "--temp", "3", "-n", "24", "--top-k", "-1", "--top-p", "1", "--min-p", "0", "--seed",
            seed,
        ]))
    };
    assert_ne!(sampled("-1"), sampled("-1"));
    assert_eq!(sampled("18446744073709551615"), sampled("18446744073709551615"));

    let book = common::scratch("book.txt", "hello world ".repeat(40).as_bytes());
    let measured = |more: &[&str]| {
        json(&[&["perplexity", &model, &book, "-c", "16", "--json"][..], more].concat())
    };
    let all = measured(&[]);
    assert_eq!(measured(&["--chunks", "-1"])["perplexity"], all["perplexity"]);
    assert_eq!(measured(&["--chunks", "2"])["chunks"], 2);
    let long = common::scratch("long.txt", "hello world ".repeat(800).as_bytes());
    let whole = json(&["perplexity", &model, &long, "-c", "0", "--chunks", "1", "--json"]);
    assert_eq!(whole["n_ctx"], 512);
    let top = json(&["logits", &model, "--tokens", "1,2", "--top", "-1"]);
    assert_eq!(top["top"][0].as_array().unwrap().len(), 512);
    let sizes = json(&["inspect", &model, "--json", "-c", "0"]);
    assert_eq!(sizes["memory"]["context"], 512);
}

#[test]
fn what_is_out_of_range_is_told_what_to_write() {
    let model = tiny("llama.gguf");
    for (option, value, word) in [
        ("--seed", "-2", "-1: another each time"),
        ("--seed", "x", "-1: another each time"),
        ("-n", "-3", "-1: until the model ends"),
        ("-n", "many", "-1: until the model ends"),
        ("--top-k", "4.5", "0 or -1: all"),
        ("-c", "-1", "0: the model's own"),
        ("-t", "4096", "1 to 1024"),
        ("-b", "0", "from 1 on"),
        ("-ub", "-1", "from 1 on"),
        ("--temp", "NaN", "such as 0.7"),
        ("--top-p", "", "such as 0.7"),
        ("-ngl", "some", "-1, auto or all"),
        ("-fa", "off", "in one pass"),
        ("--repeat-last-n", "-2", "-1: all"),
    ] {
        misread(&["run", &model, "x", option, value], &[word, "error: invalid value"]);
    }
    let book = common::scratch("book.txt", b"text");
    misread(&["perplexity", &model, &book, "--chunks", "0"], &["-1: all"]);
    misread(&["tune", &model, "--seconds", "-1"], &["a number of seconds"]);
    fails(&["run", &model, "x", "--temp", "-1"], &["--temp -1", "0 (greedy) or more"]);
    fails(&["run", &model, "x", "--top-p", "1.5"], &["--top-p 1.5", "0 to 1"]);
    fails(&["run", "", "x"], &["name is empty"]);
    misread(&["run", &model, "x", "-n"], &["--predict"]);
}

/// Every option of every command that takes a number, with what is none: never a panic, never words of a parser.
#[test]
fn numbers_that_are_none() {
    let model = tiny("llama.gguf");
    let book = common::scratch("book.txt", b"text");
    let commands: [(&[&str], &[&str]); 6] = [
        (
            &["run", &model, "x", "--raw"],
            &[
                "-n",
                "-c",
                "-t",
                "-b",
                "-ub",
                "--top-k",
                "--seed",
                "--temp",
                "--top-p",
                "--min-p",
                "--repeat-penalty",
                "--repeat-last-n",
                "-ngl",
            ],
        ),
        (&["logits", &model, "--tokens", "1"], &["--top", "-c", "-t", "-ngl", "-ub"]),
        (&["perplexity", &model, &book], &["-c", "--chunks", "-t", "-ngl"]),
        (
            &["bench", &model],
            &["-p", "-n", "-pg", "-d", "-b", "-ub", "-t", "-r", "-ngl", "-mmp", "-fa", "--delay"],
        ),
        (&["inspect", &model], &["-c", "-t", "-ngl", "-b"]),
        (&["embed", &model, "x"], &["-c", "-t", "-ngl"]),
    ];
    for (command, options) in commands {
        for option in options {
            for value in ["", "x", "--raw", "1e3", "-99999999999999999999999", "٣"] {
                let line = [command, &[*option, value][..]].concat();
                let output = run(&line);
                let error = text(&output.stderr);
                let code = output.status.code();
                assert!(matches!(code, Some(0..=2)), "{line:?}: {code:?} {error}");
                assert!(code == Some(2) || !matches!(value, "" | "x" | "٣"), "{line:?}: {error}");
                for word in
                    ["invalid digit", "invalid float", "cannot parse", "number too", "panicked"]
                {
                    assert!(!error.contains(word), "{line:?}: {error}");
                }
            }
        }
    }
}

#[test]
fn prompts_may_begin_with_a_dash() {
    let model = tiny("llama.gguf");
    let rest = ["--raw", "--temp", "0", "-n", "3", "--json"];
    for prompt in
        ["- one", "-5 plus 3", "---", "-1", "--temp is an option", "-", "* -x", "-é", "--"]
    {
        // By stdin nothing is taken for an option.
        let mut child = engine(&[&["run", &model][..], &rest].concat());
        let mut child = child
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), prompt.as_bytes()).unwrap();
        let expected: Json =
            serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
        let expected = &expected["prompt_tokens"];
        let mut lines = vec![
            [&["run", &model][..], &rest, &["--", prompt]].concat(),
            [&["run", &model, "-p", prompt][..], &rest].concat(),
            [&["run", "-p", prompt, "-m", &model][..], &rest].concat(),
        ];
        if prompt != "--" {
            lines.push([&["run", &model, prompt][..], &rest].concat());
            lines.push([&["run", &model][..], &rest, &[prompt]].concat());
        }
        if prompt != "-" {
            for line in lines {
                assert_eq!(&json(&line)["prompt_tokens"], expected, "{line:?}");
            }
        }
    }
    let pieces =
        |text: &str| json(&["tokenize", &model, text, "--json", "--no-bos"])["tokens"].clone();
    assert_ne!(pieces("- one"), pieces("one"));
    let vectors = json(&["embed", &tiny("bert.gguf"), "- one", "--raw", "-5"]);
    assert_eq!(vectors["embeddings"][0]["text"], "- one");
    assert_eq!(vectors["embeddings"][1]["text"], "-5");
    assert_eq!(vectors["embeddings"].as_array().unwrap().len(), 2, "--raw is an option");
    // Texts that are values.
    json(&[
        "run",
        &model,
        "x",
        "--raw",
        "-n",
        "1",
        "--json",
        "--system",
        "- be brief",
        "--stop",
        "- ",
        "--stop",
        "--",
    ]);
    let file = common::scratch("prompt.txt", b"- from a file\n");
    let from_file = json(&[&["run", &model, "-f", &file][..], &rest].concat());
    assert_eq!(
        from_file["prompt_tokens"],
        json(&[&["run", &model, "- from a file"][..], &rest].concat())["prompt_tokens"]
    );
}

#[test]
fn a_mistyped_option_is_no_prompt() {
    let model = tiny("llama.gguf");
    misread(&["run", &model, "--tmp", "0"], &["'--tmp'", "--temp"]);
    misread(&["run", &model, "--tmp=0", "hi"], &["'--tmp'"]);
    misread(&["run", &model, "-item"], &["no option -item"]);
    misread(&["run", &model, "-temp", "0"], &["no -temp", "--temp"]);
    misread(&["run", &model, "--raw", "-n", "1", "-pps"], &["-pps"]);
    fails(&["run"], &["no prompt"]);
    misread(&["embed", &model, "text", "--rew"], &["'--rew'", "--raw"]);
    misread(&["tokenize", &model, "--jsn"], &["'--jsn'", "--json"]);
    fails(&["run", &model, "one", "-p", "two"], &["2 prompts", "one", "two"]);
    // What only llama.cpp has is refused by name, or taken where it asks for what is done here.
    misread(&["run", &model, "x", "--mirostat", "2"], &["--mirostat 2", "--top-k"]);
    misread(&["run", &model, "x", "-sm", "row"], &["-sm row", "divided"]);
    misread(&["run", &model, "x", "-cmoe"], &["-cmoe", "--device"]);
    misread(&["tokenize", &model, "x", "-ngl", "9"], &["-ngl", "no such option"]);
    misread(&["bench", &model, "--numa", "distribute"], &["--numa distribute", "numactl"]);
    json(&[
        "run",
        &model,
        "x",
        "--raw",
        "-n",
        "1",
        "--json",
        "--jinja",
        "-sm",
        "layer",
        "--no-warmup",
    ]);
    misread(&["nonsense"], &["nonsense", "subcommand"]);
}

#[cfg(unix)]
#[test]
fn names_need_be_no_utf8() {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::process::Output;

    let folder = std::env::temp_dir().join(format!("engine-names-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |bytes: &[u8]| folder.join(std::ffi::OsStr::from_bytes(bytes));
    let run = |words: &[OsString]| -> Output {
        let mut command = engine(&[]);
        command.args(words).current_dir(&folder).output().unwrap()
    };
    let request = path(b"request\xe8.json");
    std::fs::write(&request, r#"{"messages": [{"role": "user", "content": "Hi"}]}"#).unwrap();
    std::fs::write(path(b"chat\xff.jinja"), "{{ messages[0].content }}").unwrap();
    std::fs::write(path(b"book\xe8"), "hello world ".repeat(20)).unwrap();
    let chat = common::changed(
        |writer| {
            _ = writer
                .set("tokenizer.chat_template", gguf::Value::from("{{ messages[0].content }}"));
        },
        &[],
    );
    for name in [
        &b"mod\xe8le.gguf"[..],
        b"\xff\xfe",
        b"-\xe9",
        "modèle.gguf".as_bytes(),
        b"a\nb\x1b[31m.gguf",
    ] {
        std::fs::write(path(name), &chat).unwrap();
        let model = || OsString::from_vec(name.to_vec());
        let w = |word: &str| OsString::from(word);
        let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        for words in [
            vec![w("run"), model(), w("x"), w("--raw"), w("-n"), w("1"), w("--json")],
            vec![w("run"), w("-m"), model(), w("x"), w("-n"), w("1")],
            vec![w("logits"), model(), w("--tokens"), w("1,2"), w("--top"), w("1")],
            vec![w("tokenize"), model(), w("x"), w("--json")],
            vec![w("inspect"), model()],
            vec![w("inspect"), model(), w("--json")],
            vec![
                w("bench"),
                model(),
                w("-p"),
                w("2"),
                w("-n"),
                w("0"),
                w("-r"),
                w("1"),
                w("-o"),
                w("json"),
            ],
            vec![w("perplexity"), model(), bytes(b"book\xe8"), w("-c"), w("16"), w("--json")],
            vec![w("template"), model(), bytes(b"request\xe8.json")],
            vec![w("template"), w("--file"), bytes(b"chat\xff.jinja"), bytes(b"request\xe8.json")],
            vec![
                w("quantize"),
                model(),
                bytes(b"out\xe8.gguf"),
                w("Q8_0"),
                w("--allow-requantize"),
            ],
            vec![w("pull"), model(), w("--json")],
            vec![w("pull"), model()],
        ] {
            // A file that begins with a dash is given behind `--`, or with its folder.
            let words: Vec<OsString> = words
                .into_iter()
                .map(
                    |word| {
                        if word == model() && name[0] == b'-' { path(name).into() } else { word }
                    },
                )
                .collect();
            let output = run(&words);
            assert!(
                output.status.success(),
                "{words:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    assert!(path(b"out\xe8.gguf").exists());
    let missing =
        run(&[OsString::from("run"), OsString::from_vec(b"no\xe8.gguf".to_vec()), "x".into()]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("no\u{fffd}.gguf: no such file"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn layers_choose_the_device() {
    // Two layers.
    let model = tiny("llama.gguf");
    let device = |line: &[&str]| -> (Option<i32>, String) {
        let output = engine(line).env_remove("ENGINE_DEVICE").output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    for command in [
        &["run", &model, "x", "--raw", "-n", "1", "--json"][..],
        &["logits", &model, "--tokens", "1"],
        &["inspect", &model],
        &["bench", &model, "-p", "2", "-n", "0", "-r", "1"],
    ] {
        let with = |more: &[&str]| device(&[command, more].concat());
        for more in [
            &["-ngl", "0"][..],
            &["--gpu-layers", "0", "--device", "cpu"],
            &["--n-gpu-layers=0"],
            &["-dev", "none", "-ngl", "-1"],
        ] {
            assert_eq!(with(more).0, Some(0), "{command:?} {more:?}: {}", with(more).1);
            assert!(!with(more).1.contains("no GPU found"), "{more:?}");
        }
        for (more, words) in [
            (&["-ngl", "1"][..], &["-ngl 1", "2 layers"][..]),
            (&["-ngl", "1", "--device", "cpu"], &["2 layers"]),
            (&["-ngl", "99", "--device", "cpu"], &["-ngl 99", "--device cpu"]),
            (&["-ngl", "0", "--device", "vulkan:0"], &["--device vulkan:0"]),
            (&["--device", " "], &["--device is empty"]),
            (&["--device", "vulkan:77"], &["vulkan:77", "cpu"]),
        ] {
            let (code, said) = with(more);
            assert_eq!(code, Some(1), "{command:?} {more:?}: {said}");
            for word in words {
                assert!(said.contains(word), "{more:?}: {said}");
            }
        }
        // The environment is no contradiction, but is named.
        let output = engine(&[command, &["-ngl", "99"]].concat()).output().unwrap();
        assert!(output.status.success());
        assert!(text(&output.stderr).contains("ENGINE_DEVICE"));
    }
}

#[test]
fn odd_machines_and_files() {
    let model = tiny("llama.gguf");
    let directory = std::env::temp_dir().to_str().unwrap().to_string();
    fails(&["run", &directory, "x"], &["a folder, not a model"]);
    fails(&["run", "/dev/null", "x"], &["/dev/null", "not a GGUF file"]);
    fails(&["perplexity", &model, "/no/such/book"], &["/no/such/book"]);
    fails(&["perplexity", &model, &directory], &[&directory]);
    fails(&["template", &model, "/no/such/request"], &["template"]);
    fails(&["quantize", &model, "/no/such/folder/out.gguf", "Q8_0"], &["/no/such/folder"]);
    fails(&["quantize", &model, &directory, "Q8_0"], &[&directory, "no file"]);
    fails(&["bench", "/no/such/model.gguf"], &["no such file"]);
    fails(&["bench", &model, "-p", "0", "-n", "0"], &["nothing to measure"]);
    fails(&["logits", &model, "--tokens", "-1"], &["\"-1\" is no token id"]);
    fails(&["run", &model, "x", "-f", "/no/such/prompt"], &["/no/such/prompt"]);
    let no_home = engine(&["run", &model, "x", "--raw", "-n", "1"])
        .env_remove("HOME")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("PATH")
        .output()
        .unwrap();
    assert!(no_home.status.success(), "{}", text(&no_home.stderr));
}

/// Lines of words that an option, a value or a file may be. Their model is a copy, and no word is a device's file: a line
/// may well ask for it to be written over.
fn any_line() -> impl Strategy<Value = Vec<String>> {
    let model = common::scratch("any.gguf", &std::fs::read(tiny("llama.gguf")).unwrap());
    let command = prop::sample::select(vec![
        "run",
        "logits",
        "tokenize",
        "embed",
        "template",
        "inspect",
        "bench",
        "perplexity",
        "quantize",
        "synth",
        "devices",
    ]);
    let word = prop_oneof![
        Just(model.clone()),
        prop::sample::select(vec![
            "-n",
            "-p",
            "-c",
            "-t",
            "-b",
            "-ub",
            "-ngl",
            "-fa",
            "-pg",
            "-d",
            "-r",
            "-o",
            "-oe",
            "-dev",
            "-mmp",
            "-lm",
            "--temp",
            "--top-k",
            "--top-p",
            "--min-p",
            "--seed",
            "--stop",
            "--system",
            "--tokens",
            "--top",
            "--chunks",
            "--json",
            "--raw",
            "--all",
            "--tensors",
            "--metadata",
            "--precision",
            "--exact",
            "-ctk",
            "-ctv",
            "--override",
            "--",
            "-",
            "--help",
            "--list-devices",
            "--no-warmup",
            "--delay",
            "--mirostat",
            "-sm",
            "--file",
            "--now",
        ])
        .prop_map(String::from),
        prop::sample::select(vec![
            "0",
            "1",
            "2",
            "-1",
            "-2",
            "99999999999999999999",
            "NaN",
            "inf",
            "1e9",
            "",
            " ",
            "a,b",
            "4,2",
            "1-4*2",
            "f16",
            "q8_0",
            "int8",
            "cpu",
            "none",
            "json",
            "csv",
            "x=y",
            "Q8_0",
            "list",
            "{}",
            "\u{1b}[0m",
            "- x",
        ])
        .prop_map(String::from),
        "[^\u{0}]{0,8}",
    ];
    (command, any::<bool>(), prop::collection::vec(word, 0..6)).prop_map(
        move |(command, with, words)| {
            let mut line = vec![command.to_string()];
            line.extend(with.then(|| model.clone()));
            line.extend(words);
            line
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// Whatever the words, the program ends by itself with 0, 1 or 2.
    #[test]
    fn no_line_makes_it_panic(line in any_line()) {
        let folder = std::env::temp_dir().join(format!("engine-lines-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        // Short answers, whatever else is said; what is written lands in a folder of its own; no hub.
        let short: &[&str] = match words[0] {
            "run" => &["-n", "2", "-c", "64"],
            "bench" => &["-p", "2", "-n", "1", "-r", "1", "-d", "0", "--delay", "0"],
            _ => &[],
        };
        let output = engine(&[&words[..1], short, &words[1..]].concat())
            .current_dir(&folder)
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("ENGINE_HOME", &folder)
            .env("PATH", "")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        prop_assert!(matches!(output.status.code(), Some(0..=2)), "{:?}: {error}", output.status);
        prop_assert!(!error.contains("panicked"), "{error}");
        prop_assert!(output.status.success() || error.contains("error"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
