//! Every kernel in every form: valid, within the portable limits, and translatable for every API.

use std::io::Write as _;
use std::process::{Command, Stdio};

use shaders::{MAX_INVOCATIONS, MAX_WORKGROUP_BYTES, Variant, every_variant, names_in};

#[test]
fn every_kernel_has_its_variants_here() {
    for kernel in names_in("kernel") {
        assert!(
            every_variant().iter().any(|v| v.kernel == kernel),
            "{kernel} is not in shaders/src/every.rs"
        );
    }
}

#[test]
fn every_variant_is_valid_and_portable() {
    for variant in every_variant() {
        let kernel = variant.build().unwrap_or_else(|error| panic!("{error}"));
        let (size, bytes) = kernel.workgroup().unwrap();
        assert!(size.iter().product::<u32>() <= MAX_INVOCATIONS, "{variant}: {size:?}");
        assert!(bytes <= MAX_WORKGROUP_BYTES, "{variant}: {bytes} bytes of workgroup memory");
        assert!(kernel.bindings.iter().any(|binding| binding.name == "params"), "{variant}");
        assert!(!kernel.params.members.is_empty(), "{variant}");
        if kernel.is_cooperative() {
            continue;
        }
        kernel.msl().unwrap_or_else(|error| panic!("{error}"));
        kernel.hlsl().unwrap_or_else(|error| panic!("{error}"));
    }
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
    for variant in every_variant() {
        let kernel = variant.build().unwrap_or_else(|error| panic!("{error}"));
        let words = kernel.spirv().unwrap_or_else(|error| panic!("{error}"));
        if kernel.is_cooperative() {
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
