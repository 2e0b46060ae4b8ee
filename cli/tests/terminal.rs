//! Where output goes: pipes whose reader has gone, full disks, terminals.

#![cfg(unix)]

mod common;

use std::process::{Command, Stdio};

use common::{changed, engine, fails, run, scratch, text, tiny};
use gguf::{Array, StringArray, Value};

/// Commands that say something on stderr, and the exit code each has.
fn talkative() -> Vec<(Vec<String>, i32)> {
    let model = tiny("llama.gguf");
    let book = scratch("book.txt", "hello world ".repeat(100).as_bytes());
    let line = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    vec![
        (line(&["perplexity", &model, &book, "-c", "16"]), 0),
        (line(&["run", &model, "x", "--raw", "-n", "2", "--verbose"]), 0),
        (line(&["run", &model, "x", "-n", "2"]), 0),
        (
            line(&[
                "bench",
                &model,
                "-p",
                "2",
                "-n",
                "1",
                "-r",
                "1",
                "--progress",
                "-v",
                "-oe",
                "json",
            ]),
            0,
        ),
        (line(&["devices"]), 0),
        (line(&["run", "/no/such/model.gguf", "x"]), 1),
        (line(&["run", &model, "--no-such-option"]), 2),
        (line(&["run", &model, "--mirostat", "1"]), 2),
        (line(&["tokenize", &model, "x", "-ngl", "1"]), 2),
        (line(&["run", "--help"]), 0),
        (line(&["--help"]), 0),
        (line(&["--version"]), 0),
        (line(&[]), 2),
    ]
}

#[test]
fn a_closed_or_full_stderr_changes_nothing() {
    for (line, code) in talkative() {
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        // A pipe whose reader has gone.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = engine(&line).stdout(Stdio::null()).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{line:?}");
        if let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") {
            let status = engine(&line).stdout(Stdio::null()).stderr(full).status().unwrap();
            assert_eq!(status.code(), Some(code), "{line:?}");
        }
        // None at all.
        let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
        let closed =
            format!("'{}' {} 2>&- >/dev/null", env!("CARGO_BIN_EXE_engine"), words.join(" "));
        let status =
            Command::new("sh").args(["-c", &closed]).env("ENGINE_DEVICE", "cpu").status().unwrap();
        assert_eq!(status.code(), Some(code), "{line:?}");
    }
}

#[test]
fn a_closed_stdout_ends_it_quietly_and_a_full_one_is_an_error() {
    let model = tiny("llama.gguf");
    let book = scratch("book.txt", "hello world ".repeat(100).as_bytes());
    let long = "word ".repeat(2000);
    for line in [
        &["run", &model, "x", "--raw", "-n", "50"][..],
        &["run", &model, "x", "--raw", "-n", "2", "--json"],
        &["logits", &model, "--tokens", "1"],
        &["tokenize", &model, &long],
        &["embed", &tiny("bert.gguf"), "x"],
        &["inspect", &model, "--tensors", "--metadata"],
        &["devices"],
        &["bench", &model, "-p", "2", "-n", "1", "-r", "1"],
        &["bench", &model, "-p", "2", "-n", "1", "-r", "1", "-o", "sql"],
        &["perplexity", &model, &book, "-c", "16"],
        &["synth", "x", "list"],
        &["quantize", "-", "-", "list"],
        &["--help"],
        &["run", "--help"],
        &["--version"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = engine(line).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line:?}: {error}");
        assert!(!error.contains("stdout") && !error.contains("panicked"), "{error}");
        if let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") {
            let output = engine(line).stdout(full).stderr(Stdio::piped()).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{line:?}");
            assert!(text(&output.stderr).contains("error: stdout: "), "{}", text(&output.stderr));
        }
    }
    // Only stdout's reader may leave quietly: a connection that breaks is an error (nobody listens there).
    let mut pull = engine(&["pull", "user/repo"]);
    let output = pull.env("HF_ENDPOINT", "http://127.0.0.1:9").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

/// A model whose names and pieces hold what steers a terminal.
fn hostile() -> String {
    let bytes = changed(
        |writer| {
            let tokens: Vec<String> = (0..512)
                .map(|id| match id {
                    0..3 => format!("<{id}>"),
                    3..259 => format!("<0x{:02X}>", id - 3),
                    _ => format!("\u{1b}[31m{id}\u{9b}2J\u{202e}\r\u{7}"),
                })
                .collect();
            let tokens: StringArray = tokens.iter().map(String::as_str).collect();
            writer.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
            writer.set("general.name", Value::from("\u{1b}]0;owned\u{7}"));
            writer.set("general.license", Value::from("\u{1b}[2Jmit"));
            writer.set("general.size_label", Value::from("\u{1b}[1m1B"));
            writer.set("odd.\u{1b}[5mkey", Value::from("x"));
            _ = writer
                .set("tokenizer.chat_template", Value::from("\u{1b}[7m{{ messages[0].content }}"));
        },
        &[],
    );
    scratch("hostile\u{1b}[31m.gguf", &bytes)
}

/// What would steer a terminal; the line ends that a terminal itself makes are none of it.
fn steering(shown: &str) -> Option<char> {
    shown.replace("\r\n", "\n").chars().find(|&c| {
        c.is_control() && !matches!(c, '\n' | '\t') || ('\u{202a}'..='\u{202e}').contains(&c)
    })
}

/// Runs the program in a pseudo-terminal that Python opens; nothing where there is no Python.
fn in_a_terminal(line: &[&str]) -> Option<String> {
    let spawn = "import pty, sys; pty.spawn(sys.argv[1:])";
    let output = Command::new("python3")
        .args(["-c", spawn, env!("CARGO_BIN_EXE_engine")])
        .args(line)
        .env("ENGINE_DEVICE", "cpu")
        .env("TERM", "dumb")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success());
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn files_and_answers_do_not_steer_the_terminal() {
    let model = hostile();
    let request = scratch(
        "request.json",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\u001b[31mHi\"}]}",
    );
    let lines: [(&[&str], &str); 10] = [
        (&["run", &model, "x", "--raw", "--temp", "0", "-n", "8"], "\\x1b[31m"),
        (&["run", &model, "x", "--raw", "--temp", "0", "-n", "8", "--json"], "\\u009b2J"),
        (&["inspect", &model, "--metadata"], "\\x1b[2Jmit"),
        (&["inspect", &model, "--json"], "\\u001b[2Jmit"),
        (&["tokenize", &model, "\u{1b}[31m300"], "u{1b}"),
        (&["template", &model, &request], "\\x1b[7m\\x1b[31mHi"),
        (&["bench", &model, "-p", "2", "-n", "0", "-r", "1"], "\\x1b[1m1B"),
        (&["bench", &model, "-p", "2", "-n", "0", "-r", "1", "-o", "jsonl"], "u001b[1m1B"),
        (&["quantize", &model, "/no/such\u{1b}[31m/x", "Q8_0", "--allow-requantize"], "\\x1b[31m"),
        (&["run", &model, "x", "--\u{1b}[31m"], "prompts"),
    ];
    for (line, shown) in lines {
        let Some(screen) = in_a_terminal(line) else {
            println!("SKIPPED: python3, which opens a pseudo-terminal, is not there");
            return;
        };
        assert_eq!(steering(&screen), None, "{line:?}: {screen:?}");
        if !line.contains(&"--\u{1b}[31m") {
            assert!(screen.contains(shown), "{line:?}: {screen:?}");
        }
    }
    // Piped, every byte is the model's.
    let piped = text(&run(&["run", &model, "x", "--raw", "--temp", "0", "-n", "8"]).stdout);
    assert!(
        piped.contains("\u{1b}[31m") && piped.contains('\u{9b}') && piped.contains('\u{202e}'),
        "{piped:?}"
    );
    assert!(text(&run(&["inspect", &model]).stdout).contains("\u{1b}[2Jmit"));
    fails(&["template", &model, "/no/\u{1b}x"], &["/no/\u{1b}x"]);
}
