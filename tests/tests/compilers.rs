//! What vendors' compilers say of every kernel that plans ask for by default: AMD's and Intel's by Mesa's drivers, which compile
//! for any chip without a card, and browsers' by Tint.
//!
//! The bounds of vector instructions a weight lie in `tests/data/slots.tsv`; after a change of kernels that they should
//! follow, `ENGINE_TEST_WRITE_SLOTS=1 cargo test --release -p engine-tests --test compilers` writes them and the table of
//! `docs/kernels.md` anew. Read the difference before it is committed: a number that grew needs a reason.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::KvType;
use engine::internals::check::tune;
use engine::internals::gpu::choice::{Kernels, ProductKernel};
use engine::internals::plan::Plan;
use engine_tests::compilers::slots::{Slots, measure};
use engine_tests::compilers::{
    CHIPS, Compiled, Driver, INTELS_CHIPS, NEWER_CHIPS, browsers, plans,
};
use shaders::{Kernel, Variant};

fn is_full() -> bool {
    std::env::var_os("ENGINE_TEST_FULL").is_some()
}

/// Whether the full tier is asked for; says so if it is not.
fn only_in_full(what: &str) -> bool {
    if !is_full() {
        println!("SKIPPED {what}: only in the full tier (tests/run --full)");
    }
    is_full()
}

fn built(variants: impl IntoIterator<Item = Variant>) -> Vec<Kernel> {
    let build = |variant: Variant| variant.build().unwrap_or_else(|error| panic!("{error}"));
    variants.into_iter().map(build).collect()
}

/// The kernels that plans ask for by default on AMD's cards.
fn amd_kernels() -> Vec<Kernel> {
    built(plans::default_variants(&plans::amd()))
}

/// Compiles kernels for chips, each chip on a thread.
fn compile(driver: &Driver, chips: &[&str], kernels: &[Kernel]) -> Vec<Vec<Compiled>> {
    let isa = Path::new(env!("CARGO_BIN_EXE_isa"));
    std::thread::scope(|scope| {
        let threads: Vec<_> = chips
            .iter()
            .map(|chip| scope.spawn(move || driver.compile(isa, chip, driver.assembly(), kernels)))
            .collect();
        let compiled = threads.into_iter().zip(chips);
        compiled
            .map(|(thread, chip)| {
                thread.join().unwrap().unwrap_or_else(|why| panic!("{chip}: {why}"))
            })
            .collect()
    })
}

/// Every kernel that keeps something outside registers.
fn spills(chip: &str, kernels: &[Kernel], compiled: &[Compiled]) -> Vec<String> {
    let told = |(kernel, compiled): (&Kernel, &Compiled)| {
        let (variant, spills) = (&kernel.variant, compiled.spills());
        (!spills.is_empty()).then(|| format!("{chip}: {variant}: {}", spills.join(", ")))
    };
    kernels.iter().zip(compiled).filter_map(told).collect()
}

/// The same on several chips.
fn all_spills(driver: &Driver, chips: &[&str], kernels: &[Kernel]) -> Vec<String> {
    let compiled = compile(driver, chips, kernels);
    let of_chips = chips.iter().zip(&compiled);
    of_chips.flat_map(|(chip, compiled)| spills(chip, kernels, compiled)).collect()
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The version whose compiler the bounds were recorded with: another one's counts are its own.
const RECORDED: &str = "Mesa 22.3";

/// The start and the end of the table in `docs/kernels.md`.
const TABLE: [&str; 2] = ["<!-- slots -->\n", "<!-- end of slots -->"];

#[test]
fn amds_compiler_keeps_every_kernel_in_registers_and_within_its_bound() {
    let Some(driver) = Driver::installed() else {
        println!("SKIPPED: Mesa's Vulkan driver for AMD is not installed");
        return;
    };
    let kernels = amd_kernels();
    let compiled = compile(&driver, &CHIPS, &kernels);
    let mut faults: Vec<String> = CHIPS
        .iter()
        .zip(&compiled)
        .flat_map(|(chip, compiled)| spills(chip, &kernels, compiled))
        .collect();
    let mut measured = Slots::default();
    for (index, kernel) in kernels.iter().enumerate() {
        let variant = &kernel.variant;
        let slots: Result<Vec<_>, _> =
            compiled.iter().map(|chip| measure(kernel, &chip[index])).collect();
        match slots.map(|slots| slots.into_iter().collect::<Option<Vec<f64>>>()) {
            Ok(Some(slots)) => {
                measured.by_variant.insert(variant.to_string(), slots.try_into().unwrap());
            }
            Ok(None) => {}
            Err(why) => faults.push(format!("{variant}: {why}")),
        }
    }
    println!("{} kernels, {} with a bound", kernels.len(), measured.by_variant.len());
    let (bounds, page) = (file("data/slots.tsv"), file("../docs/kernels.md"));
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(TABLE[0]).unwrap();
    let (table, after) = rest.split_once(TABLE[1]).unwrap();
    if std::env::var_os("ENGINE_TEST_WRITE_SLOTS").is_some() {
        std::fs::write(bounds, measured.to_text()).unwrap();
        let [start, end] = TABLE;
        std::fs::write(page, format!("{before}{start}{}{end}{after}", measured.table())).unwrap();
        return none(&faults);
    }
    let recorded = Slots::parse(&std::fs::read_to_string(bounds).unwrap_or_default());
    let version = &compiled[0][0].driver;
    if version.starts_with(RECORDED) {
        faults.extend(recorded.faults(&measured));
    } else {
        println!("SKIPPED: the bounds are those of {RECORDED}, and this is {version}");
    }
    if table != recorded.table() {
        faults.push("docs/kernels.md has another table than tests/data/slots.tsv".into());
    }
    match recorded.better(&measured) {
        0 => {}
        count => println!("{count} kernels take fewer instructions than recorded: record them"),
    }
    if !faults.is_empty() {
        faults.push(
            "to record what is meant: ENGINE_TEST_WRITE_SLOTS=1 (see above in this file)".into(),
        );
    }
    none(&faults);
}

/// Newer chips, and the older ones by today's compiler.
#[test]
fn a_newer_compiler_keeps_every_kernel_in_registers() {
    if !only_in_full("a newer Mesa") {
        return;
    }
    let Some(driver) = Driver::newer() else {
        println!(
            "SKIPPED: ENGINE_TEST_MESA names no folder of a newer Mesa (tests/run unpacks one)"
        );
        return;
    };
    // Prompts are multiplied by matrix units there.
    let with_matrices = plans::default_variants(&plans::amd_with_matrices());
    let kernels = built(plans::default_variants(&plans::amd()).into_iter().chain(with_matrices));
    let cooperative = kernels.iter().filter(|kernel| kernel.is_cooperative()).count();
    println!("{} kernels, {cooperative} with cooperative matrices", kernels.len());
    assert!(cooperative > 10);
    none(&all_spills(&driver, &NEWER_CHIPS, &kernels));
}

#[test]
fn intels_compiler_keeps_every_kernel_in_registers() {
    if !only_in_full("Intel's compiler") {
        return;
    }
    let Some(driver) = Driver::intels() else {
        println!("SKIPPED: no stub of Intel's chips (tests/run builds one from Mesa's source)");
        return;
    };
    let kernels = built(plans::default_variants(&plans::intel()));
    none(&all_spills(&driver, &INTELS_CHIPS, &kernels));
}

/// What `engine tune` tries of a mat-vec kernel stays in registers, so that no time goes to what cannot win.
#[test]
fn what_tuning_tries_stays_in_registers() {
    if !only_in_full("tuning's candidates") {
        return;
    }
    let kernels_of = |kernels: &Kernels| {
        let mut variants = BTreeSet::new();
        for format in ["q4_k_m", "q4_0", "q8_0", "f16"] {
            let model = plans::open(&format!("synthetic llama-8b/1:{format}"));
            let plan = Plan::new(&model, 512).unwrap();
            for shape in tune::shapes(&plan, kernels).unwrap() {
                for kernel in kernels.candidates(&shape) {
                    if matches!(kernel, ProductKernel::Matvec { .. }) {
                        let tuned = [(shape, kernel)].into_iter().collect();
                        let kernels = Kernels { tuned, ..kernels.clone() };
                        variants.extend(plans::variants(&model, &kernels, KvType::F16));
                    }
                }
            }
        }
        variants.retain(|variant| variant.kernel == "matvec");
        built(variants)
    };
    let mut faults = Vec::new();
    let drivers = [
        (Driver::installed(), &["gfx1100"][..], plans::amd()),
        (Driver::intels(), &INTELS_CHIPS[..], plans::intel()),
    ];
    for (driver, chips, kernels) in drivers {
        let Some(driver) = driver else {
            println!("SKIPPED tuning's candidates for {chips:?}: no driver");
            continue;
        };
        let kernels = kernels_of(&kernels);
        println!("{} candidates for {chips:?}", kernels.len());
        faults.extend(all_spills(&driver, chips, &kernels));
    }
    none(&faults);
}

/// The default plans' kernels by default, every variant there is in the full tier.
#[test]
fn browsers_take_every_kernel() {
    let script = match browsers::script() {
        Ok(script) => script,
        Err(why) => return println!("SKIPPED: {why}"),
    };
    let kernels = if is_full() { built(plans::every_variant()) } else { amd_kernels() };
    let texts = browsers::texts(&kernels);
    let refused = browsers::refused(&script, &texts).unwrap();
    println!("Tint takes {} kernels of {}", texts.len() - refused.len(), texts.len());
    assert_eq!(refused, []);
    // That it would say so: naga takes subgroups without the line that browsers want.
    let mut text = texts.into_iter().find(|text| text.wgsl.starts_with("enable subgroups;"));
    let text = text.as_mut().unwrap();
    text.wgsl = text.wgsl.replace("enable subgroups;", "");
    assert_eq!(browsers::refused(&script, std::slice::from_ref(text)).unwrap().len(), 1);
}

/// SPIR-V read by another program than naga, for every variant there is: what spirv-cross cannot follow, a driver's compiler
/// may not either. Debian's of 2023 does not know cooperative matrices, nor products of packed bytes.
#[test]
fn spirv_cross_reads_every_kernel() {
    if !only_in_full("spirv-cross") {
        return;
    }
    if Command::new("spirv-cross").arg("--help").output().is_err() {
        return println!("SKIPPED: spirv-cross is not installed");
    }
    let folder = std::env::temp_dir().join(format!("engine-spirv-cross-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let kernels = built(plans::every_variant());
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            let (kernels, next, faults) = (&kernels, &next, &faults);
            let file = folder.join(format!("{thread}.spv"));
            scope.spawn(move || {
                while let Some(kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if kernel.is_cooperative() || kernel.source.contains("dot4I8Packed") {
                        continue;
                    }
                    let words = kernel.spirv().unwrap();
                    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
                    std::fs::write(&file, bytes).unwrap();
                    let read = Command::new("spirv-cross")
                        .args(["--msl", "--msl-version", "20400"])
                        .arg(&file)
                        .output()
                        .unwrap();
                    if !read.status.success() {
                        let why = String::from_utf8_lossy(&read.stderr).into_owned();
                        faults.lock().unwrap().push(format!("{}: {why}", kernel.variant));
                    }
                }
            });
        }
    });
    std::fs::remove_dir_all(folder).unwrap();
    none(&faults.into_inner().unwrap());
}
