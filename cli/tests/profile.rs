//! `engine bench --profile` and `--roofline` where no GPU can be measured: refused at once, by a sentence.

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_engine"))
        .arg("bench")
        .args(arguments)
        .env_remove("ENGINE_DEVICE")
        .output()
        .unwrap()
}

#[test]
fn a_profile_of_the_cpu_is_refused() {
    for arguments in [
        &["--synthetic", "smollm2-135m/1:q4_0", "--profile", "--device", "cpu"][..],
        &["--synthetic", "gpt-oss-20b/1", "--profile", "--json", "--device", "cpu"],
        &["--roofline", "--device", "cpu"],
    ] {
        let output = bench(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains("measure a GPU") && error.contains("engine devices"), "{error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_bandwidth_is_a_number_above_0() {
    for wrong in ["0", "-5", "NaN", "inf", "fast", ""] {
        let bandwidth = format!("--bandwidth={wrong}");
        let output = bench(&["--synthetic", "smollm2-135m/1", "--profile", &bandwidth]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}: {error}");
        assert!(error.contains("GB/s above 0"), "{wrong}: {error}");
    }
    // Alone it means nothing.
    assert_eq!(
        bench(&["--synthetic", "smollm2-135m/1", "--bandwidth", "9"]).status.code(),
        Some(2)
    );
}
