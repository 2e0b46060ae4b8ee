//! The texts for Direct3D and Metal through compilers: Microsoft's FXC and DXC under Wine, clang with a stand-in of
//! Metal's library. Minutes, so that only the full tier (`ENGINE_TEST_FULL`) asks them; where a compiler is missing
//! the test says so.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use shaders::{Kernel, ShaderModel, Text, Variant};

use super::{models, variants};

/// Whoever compiles one text for longer hangs.
const PATIENCE: Duration = Duration::from_secs(600);
/// The version of Metal's language that clang is given: the stand-in knows none from another.
const METAL: (u8, u8) = (2, 4);

/// A text and where it comes from.
struct Job {
    variant: Variant,
    target: String,
    text: Text,
}

impl Job {
    fn name(&self) -> String {
        format!("{} [{}]", self.variant, self.target)
    }
}

/// What became of a text.
struct Outcome {
    refused: bool,
    /// How long it took: of the compiler's own time where it says it.
    milliseconds: u64,
    message: String,
}

/// Whether the full tier is asked for; says so if it is not.
fn full_tier(what: &str) -> bool {
    let full = std::env::var_os("ENGINE_TEST_FULL").is_some();
    if !full {
        println!("SKIPPED {what}: only in the full tier (tests/run --full)");
    }
    full
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dx12")
}

/// Kernels that show each kernel, each define of it and each format at least once, and with `formats` each kernel with
/// each format. Out of the order of the list, so that a define meets another format than the first.
fn chosen(formats: bool, is_wanted: impl Fn(&Kernel) -> bool) -> Vec<Kernel> {
    /// Prime, and more than there are variants.
    const STRIDE: usize = 7919;
    let all = variants();
    let mut seen = HashSet::new();
    let mut chosen = Vec::new();
    for index in 0..all.len() {
        let variant = &all[index * STRIDE % all.len()];
        let name = variant.kernel;
        let mut shows = vec![name.to_string()];
        shows.extend(variant.defines.iter().map(|define| format!("{name}+{define}")));
        if let Some(format) = variant.format {
            shows.push(if formats { format!("{name}.{format}") } else { format!(".{format}") });
        }
        if shows.iter().all(|what| seen.contains(what)) {
            continue;
        }
        let kernel = variant.build().unwrap_or_else(|error| panic!("{error}"));
        if is_wanted(&kernel) {
            seen.extend(shows);
            chosen.push(kernel);
        }
    }
    chosen
}

fn hlsl_jobs(kernels: &[Kernel], wanted: impl Fn(ShaderModel) -> bool) -> Vec<Job> {
    let job = |kernel: &Kernel, model: ShaderModel| Job {
        variant: kernel.variant.clone(),
        target: format!("cs_{}", model.to_str()),
        text: kernel.hlsl(model).unwrap_or_else(|error| panic!("{error}")),
    };
    kernels
        .iter()
        .flat_map(|kernel| {
            models(kernel).into_iter().filter(|&m| wanted(m)).map(move |model| job(kernel, model))
        })
        .collect()
}

/// A new folder for a test's texts.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("engine-{name}-{}", std::process::id()));
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Wine and the compilers, made ready by `tests/dx12/compilers` in the build's folder; none where something is missing.
fn under_wine() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dx12");
    fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    // Both tests want it.
    let lock = fs::File::create(place.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let output = Command::new("bash")
        .arg(tools().join("compilers"))
        .arg(&place)
        .output()
        .map_err(|error| format!("bash: {error}"))?;
    match output.status.code() {
        Some(0) => Ok(place),
        Some(77) => Err(String::from_utf8_lossy(&output.stdout).trim().to_string()),
        _ => panic!(
            "tests/dx12/compilers: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// Compiles by hlslc.exe under Wine. A text that ends the compiler, or outlasts our patience, is refused, and another
/// compiler goes on behind it.
fn compile_under_wine(place: &Path, compiler: &str, jobs: &[Job], folder: &Path) -> Vec<Outcome> {
    for (number, job) in jobs.iter().enumerate() {
        fs::write(folder.join(format!("{number}.hlsl")), &job.text.text).unwrap();
    }
    let dll = if compiler == "dxc" { "dxcompiler.dll" } else { "d3dcompiler_47.dll" };
    let mut outcomes = Vec::new();
    while outcomes.len() < jobs.len() {
        let mut child = Command::new("wine")
            .arg(place.join("hlslc.exe"))
            .arg(compiler)
            .arg(format!("Z:{}", place.join(dll).display()))
            .arg(format!("Z:{}", folder.display()))
            .env("WINEPREFIX", place.join("prefix"))
            .env("WINEDEBUG", "-all")
            .env("WINEDLLOVERRIDES", "mscoree,mshtml=;d3dcompiler_47=n")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut list = child.stdin.take().unwrap();
        let (send, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in out.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_string();
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let begun = outcomes.len();
        for (number, job) in jobs.iter().enumerate().skip(begun) {
            let line = format!("{number}.hlsl\t{}\t{}\n", job.target, job.text.entry);
            let outcome = list.write_all(line.as_bytes()).ok().and_then(|()| outcome(&lines));
            let Some(outcome) = outcome else {
                // At the first text it is no text's fault.
                assert!(number > 0, "{compiler} under Wine does not begin");
                let message = "the compiler has ended, or did not end".to_string();
                outcomes.push(Outcome { refused: true, milliseconds: 0, message });
                break;
            };
            outcomes.push(outcome);
        }
        drop(list);
        _ = child.kill();
        _ = child.wait();
        _ = reader.join();
    }
    outcomes
}

/// What hlslc.exe says of one text.
fn outcome(lines: &mpsc::Receiver<String>) -> Option<Outcome> {
    let mut outcome = Outcome { refused: true, milliseconds: 0, message: String::new() };
    loop {
        let line = lines.recv_timeout(PATIENCE).ok()?;
        if line == "." {
            return Some(outcome);
        }
        if let Some(result) = line.strip_prefix("= ") {
            let mut words = result.split(' ');
            outcome.refused = words.next() != Some("00000000");
            outcome.milliseconds = words.next()?.parse().ok()?;
        } else if !line.starts_with("> ") {
            outcome.message += &line;
            outcome.message.push('\n');
        }
    }
}

/// Prints what took longest, and fails with what was refused.
fn report(compiler: &str, jobs: &[Job], outcomes: &[Outcome]) {
    let mut slowest: Vec<_> = jobs.iter().zip(outcomes).collect();
    slowest.sort_by_key(|(_, outcome)| std::cmp::Reverse(outcome.milliseconds));
    let whole: u64 = outcomes.iter().map(|outcome| outcome.milliseconds).sum();
    println!("{compiler}: {} texts in {:.1} s; the slowest:", jobs.len(), whole as f64 / 1e3);
    for (job, outcome) in slowest.iter().take(12) {
        println!("  {:7.2} s {}", outcome.milliseconds as f64 / 1e3, job.name());
    }
    let refused: Vec<String> = jobs
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| outcome.refused)
        .map(|(job, outcome)| format!("{}: {}", job.name(), first_error(&outcome.message)))
        .collect();
    let count = refused.len();
    assert!(count == 0, "{compiler} refuses {count} of {}:\n{}", jobs.len(), refused.join("\n"));
}

fn first_error(message: &str) -> &str {
    message.lines().find(|line| line.contains("error")).unwrap_or(message).trim()
}

/// What Windows' own compiler makes of shader model 5.1: what a user gets where no dxcompiler.dll lies beside the program.
#[test]
fn fxc_takes_every_kernel() {
    if !full_tier("FXC") {
        return;
    }
    let place = match under_wine() {
        Ok(place) => place,
        Err(why) => return println!("SKIPPED FXC: {why}"),
    };
    let kernels = chosen(false, |kernel| !kernel.is_cooperative() && !kernel.uses_subgroups());
    let jobs = hlsl_jobs(&kernels, |model| model == ShaderModel::V5_1);
    let folder = folder("fxc");
    let outcomes = compile_under_wine(&place, "fxc", &jobs, &folder);
    report("FXC", &jobs, &outcomes);
    fs::remove_dir_all(folder).unwrap();
}

/// Shader models 6.0 and 6.6, with subgroups. wgpu takes any word of DXC's, warnings left out, for a refusal.
#[test]
fn dxc_takes_every_kernel() {
    if !full_tier("DXC") {
        return;
    }
    let place = match under_wine() {
        Ok(place) => place,
        Err(why) => return println!("SKIPPED DXC: {why}"),
    };
    let kernels = chosen(true, |kernel| !kernel.is_cooperative());
    let jobs = hlsl_jobs(&kernels, |model| model > ShaderModel::V5_1);
    let folder = folder("dxc");
    let mut outcomes = compile_under_wine(&place, "dxc", &jobs, &folder);
    for outcome in &mut outcomes {
        outcome.refused |= !outcome.message.trim().is_empty();
    }
    report("DXC", &jobs, &outcomes);
    fs::remove_dir_all(folder).unwrap();
}

/// Metal's compiler runs on a Mac alone. clang, with a stand-in of Metal's library, sees names, types, ambiguities and what is
/// declared twice; nothing of address spaces, of Metal's limits, of its code.
#[test]
fn clang_takes_every_kernel_for_metal() {
    if !full_tier("Metal's texts by clang") {
        return;
    }
    if Command::new("clang++").arg("--version").output().is_err() {
        return println!("SKIPPED Metal's texts by clang: clang++ is not installed");
    }
    let folder = folder("metal");
    fs::copy(tools().join("metal_stdlib"), folder.join("metal_stdlib")).unwrap();
    fs::create_dir(folder.join("simd")).unwrap();
    fs::write(folder.join("simd/simd.h"), "").unwrap();
    let kernels = chosen(true, |kernel| !kernel.is_cooperative());
    let (mut jobs, mut outcomes) = (Vec::new(), Vec::new());
    for kernel in &kernels {
        let text = kernel.msl(METAL).unwrap_or_else(|error| panic!("{error}"));
        let file = folder.join("kernel.metal");
        fs::write(&file, &text.text).unwrap();
        let begun = std::time::Instant::now();
        let output = Command::new("clang++")
            .args(["-std=c++17", "-x", "c++", "-fsyntax-only", "-Wno-everything"])
            // As on a Mac, where clang has halves; Metal has no double: 1.0 is a float.
            .args([
                "--target=arm64-apple-macos12",
                "-Xclang",
                "-cl-single-precision-constant",
                "-I",
            ])
            .args([&folder, &file])
            .output()
            .unwrap();
        let target = format!("MSL {}.{}", METAL.0, METAL.1);
        jobs.push(Job { variant: kernel.variant.clone(), target, text });
        outcomes.push(Outcome {
            refused: !output.status.success(),
            milliseconds: begun.elapsed().as_millis() as u64,
            message: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    report("clang for Metal", &jobs, &outcomes);
    fs::remove_dir_all(folder).unwrap();
}
