//! Prints what AMD's or Intel's compiler makes of kernels: registers, spills, the instructions of the inner loops; on a machine
//! without their cards, but with Mesa's drivers.
//!
//! ```text
//! cargo run -p engine-tests --bin isa -- gfx1100 "matvec.q4_k+SPLIT+SUBGROUP MATRICES=1 ROWS=2 TOKENS=1 LANES=64"
//! ```
//!
//! Variants are written as profiles and messages name them. `--text Assembly` before the chip prints the machine's code
//! too (`docs/kernels.md` tells how to read it), `--text "ACO IR"` or `--text "NIR Shader(s)"` what it was made from. With
//! `ENGINE_TEST_MESA` the driver in that folder is asked, for Intel's chips by their names in Mesa (`dg2`); theirs are counted
//! in lanes, and their text is `GEN Assembly`.
//!
//! `isa --files NAME... FILE.spv...` is how it calls itself in a driver's environment: JSON lines.

use std::path::Path;
use std::process::ExitCode;

use engine_tests::compilers::slots::measure;
use engine_tests::compilers::vulkan::Compiler;
use engine_tests::compilers::{Compiled, Driver};
use shaders::{Kernel, Variant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["--files", rest @ ..] => {
            let is_file = |word: &&str| Path::new(word).extension().is_some_and(|end| end == "spv");
            let names = rest.iter().position(is_file).unwrap_or(rest.len());
            compile_files(&rest[..names], &rest[names..])
        }
        ["--text", text, chip, variants @ ..] => print_variants(Some(text), chip, variants),
        [chip, variants @ ..] if !variants.is_empty() => print_variants(None, chip, variants),
        _ => Err("usage: isa [--text NAME] CHIP VARIANT...".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Compiles files of SPIR-V on the first Vulkan device. Of the compiler's texts those named are told: all of them are half a
/// megabyte a kernel.
fn compile_files(names: &[&str], files: &[&str]) -> Result<(), String> {
    let compiler = Compiler::open()?;
    eprintln!("{}", compiler.name);
    for file in files {
        let mut compiled = compiler.compile(Path::new(file))?;
        compiled.texts.retain(|name, _| names.contains(&name.as_str()));
        println!("{}", serde_json::to_string(&compiled).map_err(|why| why.to_string())?);
    }
    Ok(())
}

fn print_variants(text: Option<&str>, chip: &str, names: &[&str]) -> Result<(), String> {
    let driver = Driver::of(chip);
    let driver = driver.ok_or_else(|| format!("no driver of Mesa's for {chip} is installed"))?;
    let kernels: Result<Vec<Kernel>, _> = names
        .iter()
        .map(|name| name.parse::<Variant>().and_then(|variant| variant.build()))
        .collect();
    let kernels = kernels.map_err(|why| why.to_string())?;
    let program = std::env::current_exe().map_err(|why| why.to_string())?;
    let compiled = driver.compile(&program, chip, text.unwrap_or(driver.assembly()), &kernels)?;
    for (kernel, compiled) in kernels.iter().zip(&compiled) {
        print(chip, kernel, compiled);
        if let Some(name) = text {
            let text = compiled.texts.get(name);
            println!("{}", text.ok_or_else(|| format!("the compiler has no text {name}"))?);
        }
    }
    Ok(())
}

/// A kernel's registers and loops.
fn print(chip: &str, kernel: &Kernel, compiled: &Compiled) {
    println!("{}", kernel.variant);
    let names = ["VGPRs", "SGPRs", "LDS size", "Code size", "Subgroups per SIMD"];
    let intels =
        ["Max live registers", "Workgroup Memory Size", "Instruction Count", "Cycle Count"];
    let statistics: Vec<String> = names
        .into_iter()
        .chain(intels)
        .filter(|name| compiled.statistics.contains_key(*name))
        .map(|name| format!("{name} {}", compiled.statistic(name)))
        .chain(compiled.spills())
        .collect();
    println!("  {chip}, {} lanes a subgroup: {}", compiled.subgroup, statistics.join(", "));
    let program = compiled.program();
    for one in program.loops().iter().rev() {
        println!("  {}loop at {}: {}", "  ".repeat(one.depth), one.header, one.turn);
    }
    println!("  all: {}", program.whole());
    match (kernel.products_a_turn(), measure(kernel, compiled)) {
        (Some(products), Ok(Some(slots))) => {
            println!("  vector instructions a weight: {slots:.2} ({products} products a turn)");
        }
        (_, Err(why)) => println!("  {why}"),
        _ => {}
    }
}
