//! Lowering without a GPU: every dispatch names what its kernel binds, grids cover every row once, limits are
//! respected.

use std::collections::HashMap;

use engine::executor::Precision;
use engine::gpu::choice::{Caps, Family};
use engine::gpu::layout::{Layout, UNIFORM_BYTES};
use engine::gpu::lower::{Dispatch, Extent, Lowering, Resource, StepClass, lower_selection};
use engine::kv::KvType;
use engine::model::ModelFile;
use engine::plan::{Op, Plan};
use engine_tests::golden::{Tiny, tiny_names};
use shaders::{BindingKind, Kernel, Variant};

fn param(dispatch: &Dispatch, name: &str) -> u32 {
    dispatch.params.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name}")).1
}

/// Variants that were built.
type Kernels = HashMap<Variant, Kernel>;

fn check(dispatch: &Dispatch, plan: &Plan, caps: &Caps, kernels: &mut Kernels) {
    let kernel = kernels
        .entry(dispatch.variant.clone())
        .or_insert_with(|| dispatch.variant.build().unwrap());
    // Exactly what the kernel binds, each once.
    let mut given: Vec<&str> = dispatch.bindings.iter().map(|(name, _)| *name).collect();
    let mut wanted: Vec<&str> =
        kernel.bindings.iter().map(|b| b.name.as_str()).filter(|name| *name != "params").collect();
    given.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(given, wanted, "{}", dispatch.variant);
    // What is written is bound nowhere else in the dispatch.
    for binding in kernel.bindings.iter().filter(|b| b.kind == BindingKind::ReadWrite) {
        let written = dispatch.bindings.iter().find(|(name, _)| *name == binding.name).unwrap().1;
        let times = dispatch.bindings.iter().filter(|(_, resource)| *resource == written).count();
        assert_eq!(times, 1, "{}: {}", dispatch.variant, binding.name);
    }
    for (name, _) in &kernel.params.members {
        param(dispatch, name);
    }
    for binding in kernel.bindings.iter().filter(|b| b.kind == BindingKind::Uniform) {
        assert!(binding.bytes as usize <= UNIFORM_BYTES, "{}: {}", dispatch.variant, binding.name);
        let given = dispatch.bindings.iter().find(|(name, _)| *name == binding.name);
        let Some(&(_, Resource::Value(id))) = given else { continue };
        // The rows that a step of this kernel's tokens may have are all there.
        let tokens = if dispatch.variant.numbers["TOKENS"] > 1 { 2 } else { 1 };
        assert!(plan.value(id).width * 4 * tokens <= UNIFORM_BYTES, "{}", dispatch.variant);
    }
    for extent in dispatch.grid {
        if let Extent::Fixed(n) = extent {
            assert!(n >= 1 && n <= caps.max_workgroups, "{}: {n} workgroups", dispatch.variant);
        }
    }
}

/// The rows of `out` that a product's grid covers: from, to.
fn rows(dispatch: &Dispatch) -> Option<(u32, u32)> {
    if !matches!(dispatch.variant.kernel, "matvec" | "lanewise" | "matmul" | "matmul_cooperative") {
        return None;
    }
    let numbers = &dispatch.variant.numbers;
    let rows = param(dispatch, "rows");
    let (covered, tokens) = match (dispatch.variant.kernel, dispatch.grid) {
        ("matvec", [Extent::Fixed(x), Extent::Fixed(y), z]) => (x * y * numbers["ROWS"], z),
        ("lanewise", [Extent::Fixed(x), Extent::Fixed(y), z]) => {
            (x * y * numbers["ROWS"] * dispatch.variant.constants["LANES"], z)
        }
        ("matmul", [x, Extent::Fixed(y), Extent::Fixed(z)]) => (y * z * 64, x),
        ("matmul_cooperative", [x, Extent::Fixed(y), Extent::Fixed(z)]) => (y * z * 128, x),
        _ => return None,
    };
    assert!(matches!(tokens, Extent::Per(_, n) if n == numbers["TOKENS"]), "{}", dispatch.variant);
    assert!(covered >= rows, "{}: {covered} of {rows} rows", dispatch.variant);
    let first = param(dispatch, "out_offset");
    Some((first, first + rows))
}

#[test]
fn every_dispatch_is_complete_and_within_limits() {
    let all = Caps::new(Family::Nvidia, Some((32, 32)), 1 << 30, 65_535);
    let mut count = 0;
    let mut kernels = Kernels::new();
    for name in tiny_names() {
        let model = ModelFile::open(Tiny::load(&name).path()).unwrap();
        let plan = Plan::new(&model, 512).unwrap();
        for caps in [
            all.clone(),
            Caps { subgroups: false, ..all.clone() },
            Caps { tiles: false, ..all.clone() },
            Caps::new(Family::Software, Some((8, 8)), 1 << 30, 20),
            Caps::new(Family::Intel, Some((8, 32)), 1 << 30, 65_535),
            Caps::new(Family::Amd, Some((32, 64)), 1 << 30, 65_535),
            Caps::new(Family::Other, None, 1 << 30, 65_535),
            Caps { precision: Precision::Int8, ..all.clone() },
            Caps { precision: Precision::F16Tiles, ..all.clone() },
            Caps { precision: Precision::F16Tiles, cooperative: true, ..all.clone() },
            Caps { max_binding_bytes: 100 << 10, ..all.clone() },
        ] {
            let layout = Layout::new(&plan, &caps).unwrap();
            for matrix in &layout.matrices {
                assert!(matrix.bytes as u64 <= caps.max_binding_bytes);
                assert!(matrix.plane_starts.iter().all(|start| start % 16 == 0));
            }
            let near = StepClass::of;
            for class in [
                near(1, 1),
                near(8, 8),
                near(9, 1),
                near(512, 64),
                StepClass { long: true, ..near(1, 1) },
                StepClass { long: true, together: false, ..near(8, 8) },
                StepClass { long: true, together: false, ..near(512, 1) },
            ] {
                let lowering = Lowering {
                    plan: &plan,
                    layout: &layout,
                    caps: &caps,
                    key_type: KvType::F16,
                    value_type: KvType::F32,
                    table_blocks: [8, 3],
                    blocks: [8, 3],
                    chunk: 512,
                    sequences: 2,
                    class,
                };
                let dispatches = lowering.lower().unwrap();
                for dispatch in &dispatches {
                    check(dispatch, &plan, &caps, &mut kernels);
                }
                count += dispatches.len();
                for (index, op) in plan.ops.iter().enumerate() {
                    let of_op: Vec<_> = dispatches.iter().filter(|d| d.op == index).collect();
                    // A norm may be part of the products that follow.
                    let fused = dispatches.iter().any(|d| {
                        d.op == index + 1 && d.bindings.iter().any(|(n, _)| *n == "norm_weight")
                    });
                    let may_fuse = matches!(op, Op::Norm { add: false, .. });
                    let here = !of_op.is_empty();
                    assert!(here != (may_fuse && fused), "{name}: op {index}: {}", of_op.len());
                    let Op::Linear { weights, out, .. } = op else { continue };
                    // Side by side, without gap or overlap.
                    let mut at = 0;
                    for (from, to) in of_op.iter().filter_map(|dispatch| rows(dispatch)) {
                        assert_eq!(from, at, "{name}: op {index}");
                        at = to;
                    }
                    let all: usize = weights.iter().map(|&w| plan.weight(w).rows).sum();
                    let width = plan.value(*out).width;
                    assert!(at as usize == all || at as usize == width, "{name}: {at} of {all}");
                }
            }
        }
        for keep in [1, 64, 256] {
            for dispatch in lower_selection(&plan, keep) {
                check(&dispatch, &plan, &all, &mut kernels);
            }
        }
    }
    println!("{count} dispatches, {} kernels", kernels.len());
    let inputs = |kernel: &&Kernel| kernel.variant.defines.contains("UNIFORM_INPUT");
    assert!(kernels.values().filter(inputs).count() > 10);
}

/// A decode step of a small llama model: six dispatches a layer, as the norms are part of the products that
/// follow them; and embed, norm, head.
#[test]
fn a_decode_step_is_few_dispatches() {
    let model = ModelFile::open(Tiny::load("llama.Q4_0").path()).unwrap();
    let plan = Plan::new(&model, 512).unwrap();
    let caps = Caps::new(Family::Nvidia, Some((32, 32)), 1 << 30, 65_535);
    let layout = Layout::new(&plan, &caps).unwrap();
    let lowering = Lowering {
        plan: &plan,
        layout: &layout,
        caps: &caps,
        key_type: KvType::F16,
        value_type: KvType::F16,
        table_blocks: [8, 1],
        blocks: [8, 1],
        chunk: 512,
        sequences: 2,
        class: StepClass::of(1, 1),
    };
    let dispatches = lowering.lower().unwrap();
    assert_eq!(dispatches.len(), 2 * 6 + 3);
    // Over a long context attention is two dispatches.
    let long = Lowering { class: StepClass { long: true, ..lowering.class }, ..lowering };
    assert_eq!(long.lower().unwrap().len(), 2 * 7 + 3);
}

/// Cooperative matrices are for class f16-tiles, many rows, and subgroups of up to 64 lanes.
#[test]
fn cooperative_matrices_have_a_fallback() {
    let model = ModelFile::open(Tiny::load("llama.Q4_0").path()).unwrap();
    let plan = Plan::new(&model, 512).unwrap();
    let card = Caps {
        cooperative: true,
        precision: Precision::F16Tiles,
        ..Caps::new(Family::Nvidia, Some((32, 32)), 1 << 30, 65_535)
    };
    let kernels = |caps: &Caps, tokens: usize| -> Vec<&'static str> {
        let layout = Layout::new(&plan, caps).unwrap();
        let lowering = Lowering {
            plan: &plan,
            layout: &layout,
            caps,
            key_type: KvType::F16,
            value_type: KvType::F16,
            table_blocks: [8, 1],
            blocks: [8, 1],
            chunk: 512,
            sequences: 2,
            class: StepClass::of(tokens, 1),
        };
        lowering.lower().unwrap().iter().map(|dispatch| dispatch.variant.kernel).collect()
    };
    let uses = |caps: &Caps, tokens| kernels(caps, tokens).contains(&"matmul_cooperative");
    assert!(uses(&card, 64) && !uses(&card, 1) && !uses(&card, 8));
    let amd = Caps { subgroup_max: 64, family: Family::Amd, ..card.clone() };
    assert!(uses(&amd, 64) && !uses(&amd, 8));
    for without in [
        Caps { cooperative: false, ..card.clone() },
        Caps { precision: Precision::F32, ..card.clone() },
        Caps { precision: Precision::Int8, ..card.clone() },
        Caps { subgroup_max: 128, ..card.clone() },
        Caps { subgroups: false, ..card.clone() },
    ] {
        assert!(!uses(&without, 64) && kernels(&without, 64).contains(&"matmul"), "{without:?}");
    }
}
