//! `engine bench`: llama-bench's command lines, and what they print.

mod common;

use std::collections::BTreeMap;

use common::{engine, fails, run, text, tiny};
use proptest::prelude::*;
use serde_json::Value as Json;

/// Runs `bench` on a tiny model with short tests; the rows as JSON lines.
fn rows(options: &[&str]) -> Vec<Json> {
    let model = tiny("llama.gguf");
    let output = run(&[&["bench", &model, "-r", "1", "-o", "jsonl"][..], options].concat());
    assert!(output.status.success(), "{options:?}: {}", text(&output.stderr));
    let lines = text(&output.stdout);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn table(options: &[&str]) -> String {
    let model = tiny("llama.gguf");
    let output = run(&[&["bench", &model, "-r", "1"][..], options].concat());
    assert!(output.status.success(), "{options:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_options_of_llama_bench_are_taken() {
    let short = ["-p", "4", "-n", "2"];
    for (options, key, values) in [
        (&["-ngl", "99"][..], "n_gpu_layers", &["99", "99"][..]),
        (&["-ngl", "0,-1"], "n_gpu_layers", &["0", "0", "-1", "-1"]),
        (&["--n-gpu-layers", "all"], "n_gpu_layers", &["-2", "-2"]),
        (&["-fa", "1"], "flash_attn", &["1", "1"]),
        (&["--flash-attn", "auto"], "flash_attn", &["1", "1"]),
        (&["-b", "64"], "n_batch", &["64", "64"]),
        (&["-b", "2,8"], "n_batch", &["2", "2", "8", "8"]),
        (&["-ub", "1-2"], "n_ubatch", &["1", "1", "2", "2"]),
        (&["--ubatch_size", "32"], "n_ubatch", &["32", "32"]),
        (&["-mmp", "0"], "load_mode", &["\"none\"", "\"none\""]),
        (&["-mmp", "0,1"], "load_mode", &["\"none\"", "\"none\"", "\"mmap\"", "\"mmap\""]),
        (&["-lm", "none"], "load_mode", &["\"none\"", "\"none\""]),
        (&["-d", "0,16"], "n_depth", &["0", "0", "16", "16"]),
        (&["--n-depth", "8-16*2"], "n_depth", &["8", "8", "16", "16"]),
        (&["-ctk", "f16,q8_0"], "type_k", &["\"f16\"", "\"f16\"", "\"q8_0\"", "\"q8_0\""]),
        (&["-ctv", "f32"], "type_v", &["\"f32\"", "\"f32\""]),
        (&["-t", "1", "-t", "2"], "n_threads", &["1", "1", "2", "2"]),
        (&["-pg", "8,4"], "n_gen", &["0", "2", "4"]),
        (&["-pg", "8,4", "-pg", "3,1"], "n_prompt", &["4", "0", "8", "3"]),
        (&["-p", "5"], "n_prompt", &["4", "5", "0"]),
        (&["-n", "1-3+2"], "n_gen", &["0", "2", "1", "3"]),
        (&["-dev", "cpu,none"], "devices", &["\"cpu\"", "\"cpu\"", "\"cpu\"", "\"cpu\""]),
        (&["-dev", "cpu", "-dev", "cpu"], "devices", &["\"cpu\"", "\"cpu\"", "\"cpu\"", "\"cpu\""]),
        // What asks for what is done in any case.
        (
            &["-sm", "layer", "-mg", "0", "-nkvo", "0", "--poll", "50", "-C", "0x0"],
            "n_prompt",
            &["4", "0"],
        ),
        (
            &["-embd", "0", "-nopo", "1", "--prio", "0", "-ts", "1", "-ncmoe", "0"],
            "n_prompt",
            &["4", "0"],
        ),
        (
            &["--repack", "1", "-lzm", "auto", "-fitt", "0", "--no-host", "0", "--cpu-strict=0"],
            "n_prompt",
            &["4", "0"],
        ),
    ] {
        let found: Vec<String> =
            rows(&[&short[..], options].concat()).iter().map(|row| row[key].to_string()).collect();
        assert_eq!(found, values, "{options:?}");
    }
    // Two models by one option.
    let model = tiny("llama.gguf");
    let both = format!("{model},{model}");
    let output = run(&["bench", "-m", &both, "-p", "2", "-n", "0", "-r", "1", "-o", "jsonl"]);
    assert_eq!(text(&output.stdout).lines().count(), 2);
}

#[test]
fn what_is_not_done_is_refused() {
    let model = tiny("llama.gguf");
    for (options, words) in [
        (&["-fa", "0"][..], &["in one pass"][..]),
        (&["-fa", "0,1"], &["in one pass"]),
        (&["-nkvo", "1"], &["-nkvo 1"]),
        (&["-sm", "row"], &["-sm row", "divided"]),
        (&["-ts", "1/1"], &["-ts 1/1"]),
        (&["-mg", "1"], &["-mg 1", "--device"]),
        (&["-embd", "1"], &["-embd 1", "engine embed"]),
        (&["-C", "0xff"], &["-C 0xff", "taskset"]),
        (&["--poll", "0"], &["--poll 0"]),
        (&["--prio", "2"], &["--prio 2"]),
        (&["--numa", "isolate"], &["--numa isolate"]),
        (&["-lm", "mlock"], &["mmap or none"]),
        (&["-ot", "exps=CPU"], &["-ot exps=CPU"]),
        (&["-p", "8-4"], &["runs backwards"]),
        (&["-p", "1-8+0"], &["never grows"]),
        (&["-pg", "8"], &["512,128"]),
        (&["-r", "0"], &["from 1 on"]),
        (&["-o", "xml"], &["csv", "jsonl", "sql"]),
    ] {
        let output = run(&[&["bench", &model][..], options].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {error}");
        for word in words {
            assert!(error.contains(word), "{options:?}: {error}");
        }
    }
    fails(&["bench", &model, "-ngl", "1"], &["-ngl 1", "2 layers"]);
    fails(&["bench", &model, "-ngl", "0-2"], &["-ngl 1", "2 layers"]);
    fails(&["bench", &model, "-dev", "cpu/cpu"], &["cpu/cpu", "one after another"]);
    fails(&["bench", &model, "-d", "16777216"], &["out of range"]);
    fails(&["bench", &model, "-dev", ","], &["--device is empty"]);
    for (bad, why) in [("-p", "-1 is no number of tokens"), ("-d", "-1 is no number of tokens")] {
        let output = run(&["bench", &model, bad, "-1"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(why), "{bad}");
    }
    // A test that is too large takes no other with it.
    let output =
        run(&["bench", &model, "-p", "2", "-n", "0", "-r", "1", "-d", "0,16777216", "-o", "jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    assert!(text(&output.stderr).contains("pp2 @ d16777216: "), "{}", text(&output.stderr));
    let bert = tiny("bert.gguf");
    let output = run(&["bench", &bert, "-p", "64,512", "-n", "0", "-r", "1", "-o", "jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout).lines().count(), 1, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("pp512: "), "{}", text(&output.stderr));
    // Where none is measured there is an empty list.
    let none = |how: &[&str]| {
        let output = run(&[&["bench", &bert, "-p", "0", "-n", "2", "-r", "1"][..], how].concat());
        text(&output.stdout).trim().to_string()
    };
    assert_eq!(none(&["-o", "json"]), "[]");
    assert_eq!(none(&["--json"]), r#"{"results":[]}"#);
    // The others are still measured.
    let output = run(&[
        "bench",
        &model,
        "-p",
        "2",
        "-n",
        "0",
        "-r",
        "1",
        "-ctk",
        "q8_0,f16",
        &tiny("deepseek2-lite.gguf"),
    ]);
    assert!(text(&output.stdout).contains("pp2"));
}

#[test]
fn formats_are_those_of_llama_bench() {
    let short = ["-p", "4", "-n", "2"];
    let with = |more: &[&str]| table(&[&short[..], more].concat());
    // Markdown: the columns that are not as by default, tests by their names.
    let markdown = with(&["-pg", "8,4", "-d", "0,16", "-b", "64", "-fa", "1", "-mmp", "0"]);
    let headings: Vec<&str> = markdown.lines().next().unwrap().split('|').map(str::trim).collect();
    for column in
        ["model", "size", "params", "backend", "threads", "n_batch", "fa", "lm", "test", "t/s"]
    {
        assert!(headings.contains(&column), "{column}: {headings:?}");
    }
    for column in ["n_ubatch", "type_k", "dev", "ngl"] {
        assert!(!headings.contains(&column), "{column}: {headings:?}");
    }
    for test in ["pp4", "tg2", "pp8+tg4", "pp4 @ d16", "tg2 @ d16", "pp8+tg4 @ d16"] {
        assert!(markdown.contains(&format!(" {test} |")), "{test}: {markdown}");
    }
    let widths: Vec<usize> = markdown.lines().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{markdown}");

    let json: Json = serde_json::from_str(&with(&["-o", "json"])).unwrap();
    let objects: Vec<Json> =
        with(&["-o", "jsonl"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys = |row: &Json| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(json.as_array().unwrap().len(), 2);
    assert_eq!(keys(&json[0]), keys(&objects[1]));
    // llama-bench's, in its order, then ours.
    let expected = "build_commit,build_number,cpu_info,gpu_info,backends,model_filename,model_type,model_size,model_n_params,n_batch,n_ubatch,n_threads,type_k,type_v,n_gpu_layers,flash_attn,devices,load_mode,n_prompt,n_gen,n_depth,test_time,avg_ns,stddev_ns,avg_ts,stddev_ts,load_ns,device_memory,device,precision";
    assert_eq!(keys(&json[0]).join(","), format!("{expected},samples_ns,samples_ts"));

    let csv = with(&["-o", "csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, expected));
    assert!(lines[1].starts_with('"') && lines[1].ends_with('"'));
    assert_eq!(lines[1].matches("\",\"").count() + 1, expected.split(',').count());

    let sql = with(&["-o", "sql"]);
    assert!(
        sql.starts_with("CREATE TABLE IF NOT EXISTS llama_bench (\n  build_commit TEXT,\n"),
        "{sql}"
    );
    assert!(sql.contains("  avg_ts REAL,\n") && sql.contains("  n_depth INTEGER,\n"), "{sql}");
    assert_eq!(sql.matches("\nINSERT INTO llama_bench (").count(), 2);

    assert_eq!(with(&["-o", "none"]), "");
    let model = tiny("llama.gguf");
    let output =
        run(&["bench", &model, "-p", "2", "-n", "0", "-r", "2", "-oe", "csv", "--progress", "-v"]);
    let error = text(&output.stderr);
    for word in ["build_commit,", "test 1 of 1, pp2: repetition 2 of 2", "warm-up", "context 2"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let listed = text(&run(&["bench", "--list-devices"]).stdout);
    assert!(listed.contains("cpu") && listed.contains("threads"));
}

#[test]
fn a_depth_fills_the_cache() {
    // Reading so many keys takes longer: the time of a token tells that they are there.
    let model = tiny("llama.gguf");
    let measured = |depth: &str| {
        let output = run(&[
            "bench", &model, "-p", "0", "-n", "16", "-r", "5", "-t", "1", "-o", "jsonl", "-v",
            "-d", depth,
        ]);
        assert!(
            text(&output.stderr)
                .contains(&format!("context {}", depth.parse::<usize>().unwrap() + 16))
        );
        let row: Json = serde_json::from_str(&text(&output.stdout)).unwrap();
        row["samples_ns"].as_array().unwrap().iter().map(|ns| ns.as_u64().unwrap()).min().unwrap()
    };
    let (empty, deep) = (measured("0"), measured("12000"));
    assert!(deep > empty * 2, "{empty} ns at depth 0, {deep} at 12000");
    // A model whose layers carry a state is filled again each time.
    let output = run(&[
        "bench",
        &tiny("mamba2.gguf"),
        "-p",
        "2",
        "-n",
        "1",
        "-d",
        "8",
        "-r",
        "2",
        "-o",
        "jsonl",
    ]);
    assert_eq!(text(&output.stdout).lines().count(), 2, "{}", text(&output.stderr));
}

/// Some of the values, as lists and repetitions of an option.
fn option(name: &'static str, most: usize) -> impl Strategy<Value = (Vec<String>, Vec<usize>)> {
    prop::collection::vec(prop::collection::vec(1..most, 1..3), 0..3).prop_map(move |lists| {
        let words = lists.iter().flat_map(|list| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            [name.to_string(), list.join(",")]
        });
        (words.collect(), lists.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any combination of lists gives each row that llama-bench's loops give, in their order.
    #[test]
    fn every_combination_has_its_row(
        prompts in option("-p", 6),
        generates in option("-n", 4),
        depths in option("-d", 20),
        batches in option("-b", 9),
        ubatches in option("-ub", 9),
        both in prop::collection::vec((1usize..5, 1usize..4), 0..2),
    ) {
        let mut words: Vec<String> = [&prompts, &generates, &depths, &batches, &ubatches].iter().flat_map(|option| option.0.clone()).collect();
        for (prompt, generate) in &both {
            words.extend(["-pg".to_string(), format!("{prompt},{generate}")]);
        }
        let or = |option: &(Vec<String>, Vec<usize>), default: usize| match option.1.as_slice() {
            [] => vec![default],
            values => values.to_vec(),
        };
        let mut expected = Vec::new();
        for batch in or(&batches, 2048) {
            for ubatch in or(&ubatches, 512) {
                for depth in or(&depths, 0) {
                    let tests = or(&prompts, 512).into_iter().map(|n| (n, 0)).chain(or(&generates, 128).into_iter().map(|n| (0, n)));
                    for (prompt, generate) in tests.chain(both.iter().copied()) {
                        expected.push([batch, ubatch, depth, prompt, generate]);
                    }
                }
            }
        }
        let model = tiny("llama.gguf");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = engine(&[&["bench", &model, "-r", "1", "--no-warmup", "-o", "jsonl"][..], &words].concat()).output().unwrap();
        prop_assert!(output.status.success(), "{}", text(&output.stderr));
        let rows = text(&output.stdout);
        let found: Vec<[usize; 5]> = rows.lines().map(|line| {
            let row: BTreeMap<String, Json> = serde_json::from_str(line).unwrap();
            ["n_batch", "n_ubatch", "n_depth", "n_prompt", "n_gen"].map(|key| row[key].as_u64().unwrap() as usize)
        }).collect();
        prop_assert_eq!(found, expected);
    }
}
