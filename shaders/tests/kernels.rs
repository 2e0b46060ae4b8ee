//! Every kernel in every form: valid, within the portable limits, and translatable for every API.

mod compilers;

use std::collections::HashSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use shaders::{
    BindingKind, Kernel, MAX_INVOCATIONS, MAX_WORKGROUP_BYTES, METAL_VERSIONS, SHADER_MODELS,
    ShaderModel, Variant, names_in,
};

/// Every variant that the engine can ask for: each kernel with each format and set of defines.
fn variants() -> Vec<Variant> {
    let both = |variants: Vec<Variant>, name: &'static str| -> Vec<Variant> {
        variants.into_iter().flat_map(|v| [v.clone(), v.define(name)]).collect()
    };
    let formats = |kernel| names_in("format").map(move |f| Variant::new(kernel).format(f));
    let tiled = |format, tokens: &[u32]| -> Vec<Variant> {
        let matmul = Variant::new("matmul").format(format);
        tokens.iter().map(|&tokens| matmul.clone().number("TOKENS", tokens)).collect()
    };
    let mut all = Vec::new();
    all.extend(formats("embed"));
    for row in ["ADD", "POSITION", "FIRST"] {
        all.push(Variant::new("embed").format("f16").define("ADD").define(row));
    }
    all.push(Variant::new("softcap").define("SCALE"));
    // Vec4s of a row that a lane keeps.
    for vectors in [1, 4] {
        let norm = Variant::new("norm").number("VECTORS", vectors);
        let padded = norm.clone().define("LAYER").define("PADDED");
        let kinds = vec![norm.clone(), norm.define("LAYER"), padded];
        all.extend(both(both(both(both(kinds, "SUBGROUP"), "ADD"), "GATHER"), "BIAS"));
    }
    let parts = [None, Some("LAYER"), Some("L2")].map(|kind| {
        let variant = Variant::new("norm_parts").number("COLUMNS", 3);
        match kind {
            Some(kind) => variant.define(kind),
            None => variant,
        }
    });
    all.extend(both(both(parts.to_vec(), "SUBGROUP"), "FACTORS"));
    // Each format with each use, and a few shapes of tiles.
    let uses = |variant: Variant| {
        let gated = |v: Variant| v.define("GATED").number("MATRICES", 2);
        let plain = variant.number("MATRICES", 1);
        vec![
            plain.clone(),
            plain.clone().define("BIAS").define("NORM"),
            plain.clone().define("ADD").define("NORM"),
            gated(plain.clone()).define("NORM"),
            gated(plain.clone()).define("GELU").define("BIAS"),
            plain.define("ACTIVATED").define("GELU").define("BIAS"),
        ]
    };
    let shaped =
        |v: &Variant, rows, tokens| v.clone().number("ROWS", rows).number("TOKENS", tokens);
    for format in names_in("format") {
        let floats = matches!(format, "f32" | "f16" | "bf16");
        for subgroup in [false, true] {
            let matvec = Variant::new("matvec").format(format).define_if(subgroup, "SUBGROUP");
            all.extend(uses(shaped(&matvec, 2, 1)));
            all.extend(uses(shaped(&matvec, 2, 4).define("SEVERAL")));
            if floats {
                continue;
            }
            all.extend(uses(shaped(&matvec, 4, 1).define("INT8")));
            let int8 = |v: Variant| v.number("MATRICES", 1).define("INT8");
            let several = int8(shaped(&matvec, 2, 4)).define("SEVERAL");
            all.extend(both(vec![int8(shaped(&matvec, 2, 1)), several], "ROUNDED"));
            for halves in [false, true] {
                let matvec = matvec.clone().define_if(halves, "NATIVE_HALVES");
                all.extend(uses(shaped(&matvec.clone().define("SPLIT"), 2, 1)));
                all.extend(uses(shaped(&matvec.clone().define("QUADS"), 2, 1)));
            }
            all.extend(uses(shaped(&matvec.define("SPLIT"), 2, 4).define("SEVERAL")));
        }
        let lanewise = Variant::new("lanewise").format(format);
        all.extend(uses(shaped(&lanewise, 4, 1)));
        all.extend(uses(shaped(&lanewise, 2, 4)));
        if !floats {
            all.extend(uses(shaped(&lanewise, 2, 2).define("INT8")));
            all.extend(
                both(tiled(format, &[32, 64]), "BIAS").into_iter().map(|v| v.define("INT8")),
            );
        }
        let experts =
            Variant::new("expert_matvec").format(format).number("ROWS", 2).number("TOKENS", 1);
        let plain = experts.clone().number("MATRICES", 1);
        all.push(plain.clone().define("BIAS"));
        all.push(plain.clone().define("HEADS"));
        all.push(plain.define("DOWN").define("ADD").define("BIAS").define("SUBGROUP"));
        let gated = experts.number("MATRICES", 2).define("GATED").define("CLAMPED_SWIGLU");
        all.push(gated.clone());
        if !floats {
            let halves = gated.define("NATIVE_HALVES");
            all.extend(["SPLIT", "QUADS"].map(|take| halves.clone().define(take)));
        }
        all.extend(tiled(format, &[32]).into_iter().map(|v| v.define("EXPERTS").define("BIAS")));
        all.extend(both(both(tiled(format, &[32, 64]), "BIAS"), "ADD"));
        for groups in [1, 2] {
            let shapes = [(64, 1), (128, 1), (128, 2)].map(|(tokens, blocks)| {
                Variant::new("matmul_cooperative")
                    .format(format)
                    .number("TOKENS", tokens)
                    .number("BLOCKS", blocks)
                    .number("PARTS", 128 / tokens)
                    .number("GROUPS", groups)
                    .number("HALF_GROUPS", 2 * groups)
                    .number("QUARTERS", 2 * groups)
                    .number("INPUT_VECTORS", 4 * groups)
            });
            // Experts have the smaller tiles.
            let experts = [1, 2].map(|b| shapes[0].clone().number("BLOCKS", b).define("EXPERTS"));
            all.extend(both(experts.to_vec(), "BIAS"));
            all.extend(both(both(shapes.to_vec(), "BIAS"), "ADD"));
        }
    }
    for activation in ["SILU", "GELU", "CLAMPED_SWIGLU", "SIGMOID"] {
        all.extend(["gate", "add_gated"].map(|kernel| Variant::new(kernel).define(activation)));
    }
    for gating in ["SOFTMAX", "SIGMOID", "OF_CHOSEN"] {
        let route = vec![Variant::new("route").define(gating)];
        all.extend(both(both(both(both(route, "BIAS"), "GROUPS"), "NORMALIZE"), "SCALES"));
    }
    let gate = vec![Variant::new("gate_parts").define("SIGMOID")];
    all.extend(both(both(both(gate, "GATE_IN_OUT"), "INPUT_IN_OUT"), "PLAIN"));
    all.push(Variant::new("gate_parts").define("COPY"));
    for taps in [2, 4] {
        let conv = Variant::new("conv").number("TAPS", taps).number("BEFORE", taps - 1);
        all.extend(both(both(vec![conv.clone()], "BIAS"), "ACTIVATED"));
        all.push(conv.define("SEES_AHEAD").number("AHEAD", 1));
    }
    all.push(Variant::new("mamba2"));
    all.extend(both(both(vec![Variant::new("delta_net")], "GROUPED"), "BY_KEY_HEAD"));
    all.extend(["expert_sum", "softcap"].map(Variant::new));
    all.extend([32, 64].map(|tokens| Variant::new("expert_lists").number("TOKENS", tokens)));
    let kv = |kernel| -> Vec<Variant> {
        let plain = both(both(vec![Variant::new(kernel)], "KEYS_F32"), "VALUES_F32");
        let bf16 = Variant::new(kernel).define("KEYS_BF16").define("VALUES_BF16");
        let scaled = Variant::new(kernel).define("KEYS_SCALED").define("VALUES_SCALED");
        let q8_0 = scaled.clone().define("KEYS_Q8_0").define("VALUES_Q8_0");
        let q4_0 = scaled.define("KEYS_Q4_0").define("VALUES_Q4_0");
        plain.into_iter().chain([bf16, q8_0, q4_0]).collect()
    };
    // ggml's ids of F32, F16, Q4_0, Q8_0, BF16.
    for kind in [0, 1, 2, 8, 30] {
        let store = Variant::new("qk_rope_store").constant("KEYS", kind).constant("VALUES", kind);
        all.extend(both(both(both(vec![store.clone()], "SUBGROUP"), "QK_NORM"), "ROPE"));
        all.extend(both(vec![store.define("ROPE").define("TEMPERATURE")], "HALVES"));
    }
    // Heads and tokens of a tile, vectors of eight of a key and a value.
    for (heads, tokens, key, value) in [(3, 2, 10, 16_u32), (2, 1, 72, 64), (1, 1, 4, 130)] {
        let queries = heads * tokens;
        let share = if queries > 4 { 2 } else { 4 };
        let (turns, vectors) = (u32::div_ceil(key, share), u32::min(64, value.next_power_of_two()));
        let shaped = |v: Variant| {
            v.number("HEADS", heads)
                .number("TOKENS", tokens)
                .number("KEY_LENGTH8", key)
                .number("VALUE_LENGTH8", value)
                .number("SHARE", share)
                .number("KEYS_AT_ONCE", 2)
                .number("MOST_UNROLLED", 128)
                .number("KEY_TURNS", key / share / 2)
                .number("KEYS_LEFT", turns - key / share / 2 * 2)
                .number("CELLS_AT_ONCE", u32::min(8, vectors))
                .number("QUERY_TURNS", (queries * turns * share * 2).div_ceil(64))
                .number("VECTORS", vectors)
                .number("SLICES", value.div_ceil(64))
                .number("OUT_TURNS", u32::max(1, vectors / 32))
        };
        let parts = kv("attention").into_iter().map(|v| v.define("PARTS"));
        let all_of = both(kv("attention"), "SINKS").into_iter().chain(parts).collect();
        all.extend(both(all_of, "SOFTCAP").into_iter().map(shaped));
        all.push(shaped(Variant::new("attention").define("ALL")));
    }
    for parts in [2, 64] {
        let merge = Variant::new("attention_merge").number("PARTS", parts);
        all.extend(both(vec![merge], "SINKS"));
    }
    all.extend(["select_penalty", "halves"].map(Variant::new));
    all.extend(both(both(vec![Variant::new("round_input")], "NORM"), "SUBGROUP"));
    let rounding = Variant::new("round_halves").number("VECTORS", 3).constant("LANES", 256);
    all.extend(both(both(vec![rounding], "GATED"), "RAGGED"));
    let norms = vec![Variant::new("norm").define("HALVES").number("VECTORS", 3)];
    all.extend(both(both(norms, "BIAS"), "RAGGED"));
    let searches = ["select_top", "select_largest"].map(Variant::new);
    all.extend(both(searches.to_vec(), "FIRST"));
    all.push(Variant::new("select_pick"));
    for (kernel, form) in
        [("roofline_memory", "COPY"), ("roofline_multiply", "INT8"), ("roofline_empty", "WRITES")]
    {
        all.extend(both(vec![Variant::new(kernel)], form));
    }
    all.push(Variant::new("roofline_multiply").define("HALVES"));
    all.push(Variant::new("roofline_matrices"));
    all
}

/// The shader models that a kernel may be asked for in.
fn models(kernel: &Kernel) -> Vec<ShaderModel> {
    let has_subgroups = kernel.uses_subgroups();
    SHADER_MODELS.into_iter().filter(|&model| model > ShaderModel::V5_1 || !has_subgroups).collect()
}

#[test]
fn every_kernel_has_its_variants_here() {
    for kernel in names_in("kernel") {
        assert!(variants().iter().any(|v| v.kernel == kernel), "{kernel} is not in the list above");
    }
}

#[test]
fn every_variant_is_valid_and_portable() {
    for variant in variants() {
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
            continue;
        }
        for version in METAL_VERSIONS {
            let msl = kernel.msl(version).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(declared_twice(&msl.text), None, "{variant}");
        }
        for model in models(&kernel) {
            kernel.hlsl(model).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// The texts for Direct3D and Metal are those of wgpu-hal: registers counted by class, nothing zeroed, and checks where the
/// variant is not trusted.
#[test]
fn native_texts_are_as_wgpu_makes_them() {
    let texts = |variant: &Variant| {
        let kernel = variant.build().unwrap_or_else(|error| panic!("{error}"));
        let hlsl = kernel.hlsl(ShaderModel::V5_1).unwrap_or_else(|error| panic!("{error}"));
        let msl = kernel.msl((2, 4)).unwrap_or_else(|error| panic!("{error}"));
        assert!(hlsl.text.contains(&format!("void {}(", hlsl.entry)), "{variant}: {}", hlsl.entry);
        assert!(msl.text.contains(&format!("kernel void {}(", msl.entry)), "{variant}");
        // Zeroing is asked for by the invocation's number, and begins with a barrier.
        assert!(!hlsl.text.contains("__local_invocation_id"), "{variant}");
        assert!(!msl.text.contains("__local_invocation_id"), "{variant}");
        // Each class of registers is counted from 0 in the order of the bindings.
        let mut expected = Vec::new();
        for (class, kinds) in [
            ("b", &[BindingKind::Uniform][..]),
            ("t", &[BindingKind::ReadOnly]),
            ("u", &[BindingKind::ReadWrite]),
        ] {
            let of_class = kernel.bindings.iter().filter(|binding| kinds.contains(&binding.kind));
            expected.extend(
                of_class
                    .enumerate()
                    .map(|(n, binding)| (binding.name.clone(), format!("register({class}{n})"))),
            );
        }
        for (name, register) in expected {
            let lines: Vec<_> = hlsl.text.lines().filter(|line| line.contains(&register)).collect();
            assert!(
                lines.len() == 1 && lines[0].contains(&name),
                "{variant}: {name} at {register}: {lines:?}"
            );
        }
        (hlsl.text, msl.text)
    };
    let matvec = Variant::new("matvec").format("q4_0").number("MATRICES", 1);
    let matvec = matvec.number("ROWS", 2).number("TOKENS", 1);
    let (hlsl, msl) = texts(&matvec);
    assert!(!hlsl.contains("loop_bound") && !msl.contains("loop_bound"));
    let tiles = Variant::new("matmul").format("q4_0").number("TOKENS", 32);
    let (hlsl, msl) = texts(&tiles.define("EXPERTS"));
    assert!(hlsl.contains("loop_bound") && msl.contains("loop_bound"));
    let (hlsl, msl) = texts(&Variant::new("route").define("SOFTMAX"));
    assert!(hlsl.contains("loop_bound") && msl.contains("loop_bound"));
    let norm = Variant::new("norm").number("VECTORS", 4);
    assert!(!norm.build().unwrap().uses_subgroups());
    assert!(norm.define("SUBGROUP").build().unwrap().uses_subgroups());
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
    for variant in variants() {
        let kernel = variant.build().unwrap_or_else(|error| panic!("{error}"));
        let words = kernel.spirv().unwrap_or_else(|error| panic!("{error}"));
        if kernel.source.contains("enable wgpu_cooperative_matrix;") {
            // Debian's spirv-val (2023) does not know SPV_KHR_cooperative_matrix; naga does.
            continue;
        }
        if missing {
            continue;
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
    }
    if missing {
        println!("SKIPPED spirv-val: not installed");
    }
}

#[test]
fn faults_are_errors_that_name_the_variant() {
    let error = |variant: Variant| variant.build().map(|_| ()).unwrap_err().to_string();
    assert!(error(Variant::new("nonsense")).contains("nonsense"));
    assert!(error(Variant::new("matvec")).contains("names no format"));
    assert!(error(Variant::new("gate").constant("HEIGHT", 3)).contains("HEIGHT"));
}
