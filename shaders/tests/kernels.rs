//! What kernels are made of: the texts for other APIs, and faults. That every variant is valid is a test of the whole
//! program's (tests/tests/kernels.rs), since plans say which there are.

use shaders::{BindingKind, ShaderModel, Variant};

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
    // What it reads of a list is clamped in its text.
    let (hlsl, msl) = texts(&tiles.define("EXPERTS"));
    assert!(!hlsl.contains("loop_bound") && !msl.contains("loop_bound"));
    let (hlsl, msl) = texts(&Variant::new("route").define("SOFTMAX"));
    assert!(hlsl.contains("loop_bound") && msl.contains("loop_bound"));
    let norm = Variant::new("norm").number("VECTORS", 4);
    assert!(!norm.build().unwrap().uses_subgroups());
    assert!(norm.define("SUBGROUP").build().unwrap().uses_subgroups());
}

#[test]
fn faults_are_errors_that_name_the_variant() {
    let error = |variant: Variant| variant.build().map(|_| ()).unwrap_err().to_string();
    assert!(error(Variant::new("nonsense")).contains("nonsense"));
    assert!(error(Variant::new("matvec")).contains("names no format"));
    assert!(error(Variant::new("gate").constant("HEIGHT", 3)).contains("HEIGHT"));
}
