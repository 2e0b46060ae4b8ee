//! Every kernel in every form that plans ask for: valid, within the portable limits, translatable for every API, and taken by
//! the compilers of Direct3D's and Metal's languages.

mod native_compilers;

use std::collections::HashSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use engine_tests::compilers::plans;
use shaders::{
    Kernel, MAX_INVOCATIONS, MAX_WORKGROUP_BYTES, METAL_VERSIONS, SHADER_MODELS, ShaderModel,
    Variant, names_in,
};

/// What lowering makes of every golden's plan on cards of all makers and on software drivers, and what is asked for without
/// a plan.
fn variants() -> Vec<Variant> {
    plans::every_variant().into_iter().chain(plans::without_a_plan()).collect()
}

/// Calls `check` with every variant, on all cores.
fn each(variants: &[Variant], check: impl Fn(&Variant) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(variant) = variants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(variant);
                }
            });
        }
    });
}

/// The shader models that a kernel may be asked for in.
fn models(kernel: &Kernel) -> Vec<ShaderModel> {
    let has_subgroups = kernel.uses_subgroups();
    SHADER_MODELS.into_iter().filter(|&model| model > ShaderModel::V5_1 || !has_subgroups).collect()
}

#[test]
fn every_kernel_has_its_variants_here() {
    let variants = variants();
    println!("{} variants", variants.len());
    for kernel in names_in("kernel") {
        assert!(variants.iter().any(|v| v.kernel == kernel), "{kernel} is asked for by no plan");
    }
}

#[test]
fn every_variant_is_valid_and_portable() {
    each(&variants(), |variant| {
        let kernel = variant.build().unwrap_or_else(|error| panic!("{error}"));
        let (size, bytes) = kernel.workgroup().unwrap();
        assert!(size.iter().product::<u32>() <= MAX_INVOCATIONS, "{variant}: {size:?}");
        if variant.kernel == "matmul_cooperative" {
            // More than is portable: the engine reckons so, and holds it against the adapter's limit.
            let (tokens, groups) = (variant.numbers["TOKENS"], variant.numbers["GROUPS"]);
            assert_eq!(bytes, (128 + tokens) * (64 * groups + 16) + 4096, "{variant}");
        } else {
            assert!(bytes <= MAX_WORKGROUP_BYTES, "{variant}: {bytes} bytes of workgroup memory");
        }
        assert!(kernel.bindings.iter().any(|binding| binding.name == "params"), "{variant}");
        assert!(!kernel.params.members.is_empty(), "{variant}");
        // Without one wgpu would not make it as it is asked to.
        assert!(!kernel.module.overrides.is_empty(), "{variant} has no override");
        if kernel.is_cooperative() {
            return;
        }
        for version in METAL_VERSIONS {
            let msl = kernel.msl(version).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(declared_twice(&msl.text), None, "{variant}");
        }
        for model in models(&kernel) {
            kernel.hlsl(model).unwrap_or_else(|error| panic!("{error}"));
        }
    });
}

/// What a trusted kernel reads out of a buffer to index with is clamped in its text: a driver that computed it wrongly must not
/// make the next kernel read elsewhere. No other trusted kernel reads such numbers.
#[test]
fn trusted_kernels_clamp_what_they_read() {
    let clamps = |variant: &Variant| -> &[&str] {
        match (variant.kernel, variant.defines.contains("EXPERTS")) {
            ("attention", _) => &[
                "min(tables[entry], params.blocks - 1u)",
                "min(table + (round / BLOCK) % params.table_blocks, params.table_entries - 1u);",
                "return min(tokens[token].position, LAST_POSITION);",
            ],
            ("norm", _) if variant.defines.contains("GATHER") => {
                &["min(outputs[workgroup.x], params.last_row)"]
            }
            ("matmul" | "matmul_cooperative", true) => &[
                "if expert >= params.experts {",
                "let tile_tokens = min(tiles[3u + workgroup.x * 3u], TILE_TOKENS);",
                "return min(tiles[params.order + min(tile_at + token, last)], last);",
            ],
            _ => &[],
        }
    };
    let mut seen = [0; 3];
    for variant in variants() {
        let kernel = variant.build().unwrap_or_else(|error| panic!("{error}"));
        let reads = ["tables[", "tiles[", "routes[", "outputs["]
            .iter()
            .any(|text| kernel.source.contains(text));
        let clamps = clamps(&variant);
        for clamp in clamps {
            assert!(kernel.source.contains(clamp), "{variant}: {clamp} is not in its text");
        }
        if variant.is_trusted() {
            assert!(!reads || !clamps.is_empty(), "{variant} is trusted, and reads indices");
            seen[usize::from(reads)] += 1;
        } else {
            seen[2] += 1;
        }
    }
    println!("{seen:?} trusted without and with indices, and not trusted");
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
}

/// A name that a block of Metal's text declares twice for an operand of a packed product, as naga does where two
/// products of the block share it; Metal's compiler refuses that. No other name of naga's depends on its use.
fn declared_twice(msl: &str) -> Option<&str> {
    let mut blocks = vec![HashSet::new()];
    for line in msl.lines().map(str::trim) {
        if line.starts_with('}') {
            blocks.pop();
        }
        let declared = line.strip_prefix("packed_").and_then(|rest| rest.split_once(" = "));
        let name = declared.and_then(|(declared, _)| Some(declared.split_once(' ')?.1));
        if let (Some(name), Some(block)) = (name, blocks.last_mut())
            && !block.insert(name)
        {
            return Some(name);
        }
        if line.ends_with('{') {
            blocks.push(HashSet::new());
        }
    }
    None
}

/// The check above finds what it is for.
#[test]
fn a_shared_operand_of_packed_products_is_noticed() {
    let module = naga::front::wgsl::parse_str(
        "@group(0) @binding(0) var<storage, read_write> x: array<u32>;
        @compute @workgroup_size(1) fn main() {
            let a = x[0];
            x[1] = u32(dot4I8Packed(a, x[2])) + u32(dot4I8Packed(a, x[3]));
        }",
    )
    .unwrap();
    let flags = naga::valid::ValidationFlags::all();
    let info =
        naga::valid::Validator::new(flags, naga::valid::Capabilities::empty()).validate(&module);
    let options = naga::back::msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: true,
        ..naga::back::msl::Options::default()
    };
    let pipeline = naga::back::msl::PipelineOptions::default();
    let (text, _) =
        naga::back::msl::write_string(&module, &info.unwrap(), &options, &pipeline).unwrap();
    assert!(declared_twice(&text).is_some(), "{text}");
}

/// SPIR-V through spirv-val, where it is installed (`tests/run` installs it).
#[test]
fn every_variant_is_valid_spirv() {
    let missing = Command::new("spirv-val").arg("--version").output().is_err();
    let required = std::env::var_os("ENGINE_REQUIRE_SPIRV_VAL").is_some();
    assert!(
        !(missing && required),
        "spirv-val is required here and was not found: install spirv-tools"
    );
    each(&variants(), |variant| {
        let kernel = variant.build().unwrap_or_else(|error| panic!("{error}"));
        let words = kernel.spirv().unwrap_or_else(|error| panic!("{error}"));
        if kernel.source.contains("enable wgpu_cooperative_matrix;") {
            // Debian's spirv-val (2023) does not know SPV_KHR_cooperative_matrix; naga does.
            return;
        }
        if missing {
            return;
        }
        let mut validator = Command::new("spirv-val")
            .args(["--target-env", "vulkan1.1", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        validator.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = validator.wait_with_output().unwrap();
        assert!(output.status.success(), "{variant}: {}", String::from_utf8_lossy(&output.stderr));
    });
    if missing {
        println!("SKIPPED spirv-val: not installed");
    }
}
