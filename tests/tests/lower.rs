//! Lowering without a GPU: every dispatch names what its kernel binds, grids cover every row once, limits are
//! respected.

use std::collections::HashMap;

use engine::ContextOptions;
use engine::GpuOptions;
use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::Sampling;
use engine::internals::check::tune::shapes;
use engine::internals::executor::{Executor as _, Selection};
use engine::internals::gpu::adapter::without_driver;
use engine::internals::gpu::choice::{
    Adapter, Count, Family, Kernels, ProductKernel, ProductShape,
};
use engine::internals::gpu::layout::Layout;
use engine::internals::gpu::lower::{
    Dispatch, Extent, Lowering, Resource, StepClass, lower_selection,
};
use engine::internals::gpu::{Gpu, GpuExecutor, GpuWeights, predict};
use engine::internals::plan::{Op, Rows, ValueId, op};
use engine::internals::{blueprint::Blueprint, synthetic};
use engine::{SequenceId, StepToken};
use engine_tests::golden::{Embedding, Tiny, embedding_names, tiny_names};
use gguf::Format;
use shaders::{BindingKind, Kernel, Multiplies, Variant};

fn param(dispatch: &Dispatch, name: &str) -> u32 {
    dispatch.params.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name}")).1
}

/// A context of 512 positions for one sequence, which takes all of them at once.
fn blueprint(model: &ModelFile) -> Blueprint {
    let options = ContextOptions { positions: Some(512), ..ContextOptions::default() };
    Blueprint::new(model, &options).unwrap()
}

/// The dispatches of a class of steps.
fn lower(
    blueprint: &Blueprint,
    layout: &Layout,
    kernels: &Kernels,
    class: StepClass,
) -> Vec<Dispatch> {
    Lowering { blueprint, layout, kernels, class }.lower().unwrap()
}

/// A card with matrix units, and the class of precision that uses them.
fn card_with_matrices() -> Kernels {
    Kernels {
        cooperative: true,
        precision: Precision::F16Tiles,
        ..Kernels::new(Adapter {
            max_workgroup_bytes: 48 << 10,
            ..Adapter::new(Family::Nvidia, Some((32, 32)))
        })
    }
}

/// Variants that were built.
type Built = HashMap<Variant, Kernel>;

fn check(dispatch: &Dispatch, kernels: &Kernels, built: &mut Built) {
    let kernel =
        built.entry(dispatch.variant.clone()).or_insert_with(|| dispatch.variant.build().unwrap());
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
    for extent in dispatch.grid {
        if let Extent::Fixed(n) = extent {
            assert!(
                n >= 1 && n <= kernels.adapter.max_workgroups,
                "{}: {n} workgroups",
                dispatch.variant
            );
        }
    }
}

/// The rows of `out` that a product's grid covers: from, to.
fn rows(dispatch: &Dispatch) -> Option<(u32, u32)> {
    if dispatch.variant.multiplies() == Multiplies::Nothing {
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
    let all = Kernels::new(Adapter::new(Family::Nvidia, Some((32, 32))));
    let small_bindings = Adapter { max_binding_bytes: 100 << 10, ..all.adapter };
    let mut count = 0;
    let mut built = Built::new();
    for name in tiny_names() {
        let model = ModelFile::open(Tiny::load(&name).path()).unwrap();
        let options = ContextOptions {
            positions: Some(512),
            sequences: 2,
            value_type: KvType::F32,
            ..ContextOptions::default()
        };
        let blueprint = Blueprint::new(&model, &options).unwrap();
        let plan = &*blueprint.plan;
        for kernels in [
            all.clone(),
            Kernels { subgroups: false, ..all.clone() },
            Kernels { tiles: false, ..all.clone() },
            Kernels::new(Adapter {
                max_workgroups: 20,
                ..Adapter::new(Family::Software, Some((8, 8)))
            }),
            Kernels::new(Adapter::new(Family::Intel, Some((8, 32)))),
            Kernels::new(Adapter::new(Family::Amd, Some((32, 64)))),
            Kernels::new(Adapter::new(Family::Other, None)),
            Kernels { precision: Precision::Int8, ..all.clone() },
            Kernels { precision: Precision::F16Tiles, ..all.clone() },
            Kernels { precision: Precision::F16Tiles, cooperative: true, ..all.clone() },
            Kernels { adapter: small_bindings, ..all.clone() },
        ] {
            let layout = Layout::new(plan, &kernels).unwrap();
            for matrix in &layout.matrices {
                assert!(matrix.bytes as u64 <= kernels.adapter.max_binding_bytes);
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
                let dispatches = lower(&blueprint, &layout, &kernels, class);
                for dispatch in &dispatches {
                    check(dispatch, &kernels, &mut built);
                }
                count += dispatches.len();
                for (index, op) in plan.ops.iter().enumerate() {
                    let of_op: Vec<_> = dispatches.iter().filter(|d| d.op == index).collect();
                    // A norm may be part of the products that follow.
                    let products =
                        plan.ops[index + 1..].iter().take_while(|after| after.reads(op.result()));
                    let products = index + 1..=index + products.count();
                    let fused = dispatches.iter().any(|d| {
                        products.contains(&d.op)
                            && d.bindings.iter().any(|(n, _)| *n == "norm_weight")
                    });
                    let may_fuse = matches!(op, Op::Norm(op::Norm { add_to: None, .. }));
                    let here = !of_op.is_empty();
                    assert!(here != (may_fuse && fused), "{name}: op {index}: {}", of_op.len());
                    let Op::Linear(op::Linear { weights, out, .. }) = op else { continue };
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
            for penalised in [false, true] {
                for dispatch in lower_selection(&blueprint, keep, penalised) {
                    check(&dispatch, &all, &mut built);
                }
            }
        }
    }
    println!("{count} dispatches, {} kernels", built.len());
    // A variant's name says all of it.
    for variant in built.keys() {
        assert_eq!(variant.to_string().parse::<Variant>().unwrap(), *variant);
    }
}

/// Each value is written by one op, before others read it; and what ops change of a model's they change in place.
#[test]
fn values_are_written_once_and_changed_in_place() {
    let generating = tiny_names().into_iter().map(|name| Tiny::load(&name).path());
    let embedding = embedding_names().into_iter().map(|name| Embedding::load(&name).path());
    for path in generating.chain(embedding) {
        let name = path.display();
        let model = ModelFile::open(&path).unwrap();
        let blueprint = Blueprint::new(&model, &ContextOptions::default()).unwrap();
        let Blueprint { plan, buffers, .. } = &blueprint;
        let mut written = vec![false; plan.values.len()];
        for (index, op) in plan.ops.iter().enumerate() {
            let (reads, writes) = op.uses();
            let unwritten = reads.iter().find(|value| !written[value.0]);
            assert_eq!(unwritten, None, "{name}: op {index}, {op:?}");
            for value in writes {
                let again = std::mem::replace(&mut written[value.0], true);
                assert!(!again, "{name}: op {index} writes {value:?} again: {op:?}");
            }
            if let Some(before) = op.before() {
                let [from, to] = [before, op.result()].map(|id| buffers.buffer_of[id.0]);
                assert_eq!(from, to, "{name}: op {index} needs a copy: {op:?}");
            }
        }
        assert!(written[plan.logits.0], "{name}");
    }
}

/// Every product that lowering makes is one that tuning measures, where tokens are its rows: q and k of one format lie side
/// by side where v has another, and no shape of theirs alone is multiplied.
#[test]
fn tuning_measures_what_lowering_makes() {
    let nvidia = Kernels::new(Adapter::new(Family::Nvidia, Some((32, 32))));
    let small_bindings = Adapter { max_binding_bytes: 100 << 10, ..nvidia.adapter };
    let mut seen = 0;
    for name in tiny_names() {
        let model = ModelFile::open(Tiny::load(&name).path()).unwrap();
        let blueprint = blueprint(&model);
        let plan = &*blueprint.plan;
        for kernels in [
            nvidia.clone(),
            Kernels::new(Adapter::new(Family::Software, Some((8, 8)))),
            Kernels { adapter: small_bindings, ..nvidia.clone() },
        ] {
            let layout = Layout::new(plan, &kernels).unwrap();
            let measured = shapes(plan, &kernels).unwrap();
            for class in [1, 4, 512].map(|tokens| StepClass::of(tokens, 1)) {
                for dispatch in lower(&blueprint, &layout, &kernels, class) {
                    let Op::Linear(op::Linear { out, .. }) = &plan.ops[dispatch.op] else {
                        continue;
                    };
                    let is_product = rows(&dispatch).is_some();
                    if !is_product || plan.value(*out).rows != Rows::Tokens {
                        continue;
                    }
                    let format = dispatch.variant.format.unwrap();
                    let format = Format::ALL.iter().find(|f| f.file_stem() == format).unwrap();
                    let gated = dispatch.variant.defines.contains("GATED");
                    let rows = param(&dispatch, "rows") as usize * if gated { 2 } else { 1 };
                    let shape = ProductShape {
                        format: *format,
                        rows,
                        columns: param(&dispatch, "groups") as usize * 32,
                        gated,
                        count: class.tokens,
                    };
                    assert!(measured.contains(&shape), "{name}: {shape:?} of {measured:?}");
                    seen += 1;
                }
            }
        }
    }
    println!("{seen} products");
    assert!(seen > 1000, "{seen}");
}

/// A decode step of a small llama model: six dispatches a layer, as the norms are part of the products that
/// follow them; and embed, norm, head.
#[test]
fn a_decode_step_is_few_dispatches() {
    let model = ModelFile::open(Tiny::load("llama.Q4_0").path()).unwrap();
    let blueprint = blueprint(&model);
    let plan = &*blueprint.plan;
    let kernels = Kernels::new(Adapter::new(Family::Nvidia, Some((32, 32))));
    let layout = Layout::new(plan, &kernels).unwrap();
    let one = StepClass::of(1, 1);
    let dispatches = lower(&blueprint, &layout, &kernels, one);
    assert_eq!(dispatches.len(), 2 * 6 + 3);
    // Over a long context attention is two dispatches.
    let long = lower(&blueprint, &layout, &kernels, StepClass { long: true, ..one });
    assert_eq!(long.len(), 2 * 7 + 3);
}

/// How many dispatches wait for all earlier ones: those that write a buffer that one before has used, or use one that it
/// has written. So wgpu sees it, whatever was waited for in between.
fn waits(dispatches: &[Dispatch], blueprint: &Blueprint) -> usize {
    let Blueprint { plan, buffers, .. } = blueprint;
    let apart = |id: &ValueId| {
        plan.ops.iter().any(|op| {
            matches!(op, Op::QkRopeStore(op::QkRopeStore { v: Some(v), .. })
                if plan.versions(*v).contains(id))
        })
    };
    // Whether each buffer was last written.
    let mut used: HashMap<String, bool> = HashMap::new();
    let mut built = Built::new();
    let mut count = 0;
    for dispatch in dispatches {
        let kernel = built
            .entry(dispatch.variant.clone())
            .or_insert_with(|| dispatch.variant.build().unwrap());
        let mut has_to_wait = false;
        for (name, resource) in &dispatch.bindings {
            let kind = kernel.bindings.iter().find(|b| b.name == *name).unwrap().kind;
            let writes = kind == BindingKind::ReadWrite;
            let buffer = match resource {
                Resource::Value(id) if !apart(id) => {
                    format!("value buffer {}", buffers.buffer_of[id.0])
                }
                other => format!("{other:?}"),
            };
            let before = used.insert(buffer, writes);
            has_to_wait |= before.is_some_and(|before| before || writes);
        }
        count += usize::from(has_to_wait);
    }
    count
}

/// A decode step of models that people run, with the choice of the likeliest id: every dispatch counts, and every wait.
/// q and k of Llama 8B in `Q4_K_M` are of another format than v in half of the layers, and nothing waits between the two.
#[test]
fn a_token_of_a_real_model_is_few_dispatches() {
    let kernels = Kernels::new(Adapter::new(Family::Nvidia, Some((32, 32))));
    for (name, dispatches, waiting) in
        [("llama-8b:q4_k_m", 278, 261), ("llama-1b:q4_0", 134, 133), ("gemma3-4b:q4_k_m", 363, 345)]
    {
        let model = synthetic::open(name).unwrap();
        let blueprint = blueprint(&model);
        let plan = &*blueprint.plan;
        let layout = Layout::new(plan, &kernels).unwrap();
        let mut all = lower(&blueprint, &layout, &kernels, StepClass::of(1, 1));
        all.extend(lower_selection(&blueprint, 1, false));
        let waits = waits(&all, &blueprint);
        println!("{name}: {} dispatches, {waits} of them wait", all.len());
        assert!(all.len() <= dispatches, "{name}: {} dispatches", all.len());
        assert!(waits <= waiting, "{name}: {waits} dispatches wait");
    }
}

/// A token with the choice of the next is one submission, and one write of all its numbers.
#[test]
fn a_token_is_one_write_and_one_submission() {
    let gpu = Gpu::open(&without_driver().unwrap(), &GpuOptions::default()).unwrap();
    let model = ModelFile::open(Tiny::load("llama.Q4_0").path()).unwrap();
    let blueprint = blueprint(&model);
    let (plan, kernels) = (&blueprint.plan, gpu.kernels.clone());
    let weights =
        GpuWeights::load(gpu.clone(), &model.gguf, plan, kernels, &mut |_, _| ()).unwrap();
    let mut table = blueprint.table(512);
    let mut executor = GpuExecutor::new(weights.into(), blueprint).unwrap();
    for position in 0..3 {
        let step = StepToken::run(SequenceId(0), position, &[position as u32], true);
        let prepared = table.prepare(&step).unwrap();
        let selection = Selection {
            sampling: Sampling::greedy(),
            row: 0,
            seat: 0,
            stream: 0,
            position: position as u32 + 1,
        };
        executor.step_and_select(&table, &prepared, &[selection]).unwrap();
        let counts = executor.counts();
        // The first writes the tables and the counts, which stay.
        assert_eq!(counts.writes, if position == 0 { 3 } else { 1 });
        assert_eq!(counts.submits, 1);
        executor.selected().unwrap();
    }
    // Where the host chooses, the logits come with the step.
    let step = StepToken::run(SequenceId(0), 3, &[3], true);
    let prepared = table.prepare(&step).unwrap();
    executor.step(&table, &prepared).unwrap();
    executor.logits().unwrap();
    assert_eq!((executor.counts().writes, executor.counts().submits), (1, 1));
}

/// With experts too: a layer's pairs are cut into tiles once, of the size that all its products take, whose inputs are
/// rounded before each of the two ops. The buffers of a context have room for them.
#[test]
fn experts_multiply_by_cooperative_matrices() {
    let model = synthetic::open("gpt-oss-20b:mxfp4").unwrap();
    let blueprint = blueprint(&model);
    let plan = &*blueprint.plan;
    let routing = plan.ops.iter().find_map(|op| match op {
        Op::Route(op::Route { routing, .. }) => Some(*routing),
        _ => None,
    });
    let (used, chunk) = (routing.unwrap().used, 512);
    let card = card_with_matrices();
    let with = |adapter| Kernels { adapter, ..card.clone() };
    let lower = |kernels: &Kernels, tokens: usize| -> Vec<Dispatch> {
        let layout = Layout::new(plan, kernels).unwrap();
        let mut dispatches = lower(&blueprint, &layout, kernels, StepClass::of(tokens, 1));
        dispatches.retain(|dispatch| {
            matches!(plan.ops[dispatch.op], Op::ExpertsGated(_) | Op::ExpertsDown(_))
        });
        dispatches
    };
    let kernels = |dispatches: &[Dispatch]| -> Vec<&'static str> {
        let first = dispatches[0].op;
        let of_layer = dispatches.iter().filter(|dispatch| dispatch.op <= first + 1);
        of_layer.map(|dispatch| dispatch.variant.kernel).collect()
    };
    let halves = lower(&card, chunk);
    let matmul = "matmul_cooperative";
    assert_eq!(
        kernels(&halves),
        [
            "expert_lists",
            "round_halves",
            matmul,
            matmul,
            // Of gate and up.
            "round_halves",
            matmul,
            "expert_sum"
        ]
    );
    let Dispatch { grid, .. } = &halves[1];
    assert_eq!(grid[0].count(chunk as u32, 1), chunk as u32);
    let Dispatch { grid, .. } = &halves[4];
    assert_eq!(grid[0].count(chunk as u32, 1), (chunk * used) as u32);
    for dispatch in &halves {
        let numbers = &dispatch.variant.numbers;
        if ["expert_lists", matmul].contains(&dispatch.variant.kernel) {
            assert_eq!(numbers["TOKENS"], 64, "{}", dispatch.variant);
        }
        // 90 groups of columns.
        let groups = if dispatch.variant.kernel == matmul { Some(&2) } else { None };
        assert_eq!(numbers.get("GROUPS"), groups, "{}", dispatch.variant);
    }
    let orders: Vec<_> = halves
        .iter()
        .filter(|dispatch| dispatch.params.iter().any(|(name, _)| *name == "order"))
        .map(|dispatch| param(dispatch, "order"))
        .collect();
    // A tile begun for each of 32 experts.
    assert!(orders.iter().all(|&order| order as usize == 1 + 3 * (chunk * used / 64 + 32)));
    // Workgroup memory for steps of one group alone.
    let small = lower(&with(Adapter { max_workgroup_bytes: 24 << 10, ..card.adapter }), chunk);
    assert_eq!((kernels(&small), small[2].variant.numbers["GROUPS"]), (kernels(&halves), 1));
    for (without, tokens) in [
        (Kernels { cooperative: false, ..card.clone() }, chunk),
        (Kernels { precision: Precision::F32, ..card.clone() }, chunk),
        (Kernels { precision: Precision::Int8, ..card.clone() }, chunk),
        (with(Adapter { subgroup_max: 128, ..card.adapter }), chunk),
        (with(Adapter { max_workgroup_bytes: 16 << 10, ..card.adapter }), chunk),
    ] {
        let dispatches = lower(&without, tokens);
        assert_eq!(
            kernels(&dispatches),
            ["expert_lists", "matmul", "matmul", "gate", "matmul", "expert_sum"],
            "{without:?}"
        );
        assert_eq!(dispatches[0].variant.numbers["TOKENS"], 32);
    }
    assert!(kernels(&lower(&card, 8)).iter().all(|kernel| *kernel == "expert_matvec"));
    // The widest rows of halves are those of all pairs of a token.
    let compute = |kernels: &Kernels| predict(&blueprint, kernels).unwrap().compute;
    let room = (chunk * used * (2880 * 2 + 4)) as u64;
    let tiles = [64, 32].map(|tile| (12 * (chunk * used / tile + 32)) as u64);
    let without = compute(&Kernels { cooperative: false, ..card.clone() }) - tiles[1];
    // Empty buffers have a few bytes too.
    let more = compute(&card) - tiles[0] - without;
    assert!(more.abs_diff(room) <= 64, "{more} bytes of {room}");
}

/// Cooperative matrices are for class f16-tiles, many rows, and subgroups of up to 64 lanes.
#[test]
fn cooperative_matrices_have_a_fallback() {
    let model = ModelFile::open(Tiny::load("llama.Q4_0").path()).unwrap();
    let blueprint = blueprint(&model);
    let plan = &*blueprint.plan;
    let card = Kernels {
        cooperative: true,
        precision: Precision::F16Tiles,
        ..Kernels::new(Adapter::new(Family::Nvidia, Some((32, 32))))
    };
    let with = |adapter| Kernels { adapter, ..card.clone() };
    let kernels = |chosen: &Kernels, tokens: usize| -> Vec<&'static str> {
        let layout = Layout::new(plan, chosen).unwrap();
        let dispatches = lower(&blueprint, &layout, chosen, StepClass::of(tokens, 1));
        dispatches.iter().map(|dispatch| dispatch.variant.kernel).collect()
    };
    let uses = |chosen: &Kernels, tokens| kernels(chosen, tokens).contains(&"matmul_cooperative");
    assert!(uses(&card, 64) && !uses(&card, 1) && !uses(&card, 8));
    let amd = with(Adapter { subgroup_max: 64, family: Family::Amd, ..card.adapter });
    assert!(uses(&amd, 64) && !uses(&amd, 8));
    for without in [
        Kernels { cooperative: false, ..card.clone() },
        Kernels { precision: Precision::F32, ..card.clone() },
        Kernels { precision: Precision::Int8, ..card.clone() },
        with(Adapter { subgroup_max: 128, ..card.adapter }),
        Kernels { subgroups: false, ..card.clone() },
    ] {
        assert!(!uses(&without, 64) && kernels(&without, 64).contains(&"matmul"), "{without:?}");
    }
}

/// What products with cooperative matrices read was rounded for their own op, whatever was measured to be fast: by a
/// dispatch of the op, or by the norm of its input, which then nobody reads as floats.
#[test]
fn halves_are_those_of_the_product_that_reads_them() {
    let card = card_with_matrices();
    let chunk = 512;
    let mut seen = [0; 3];
    for name in ["llama-1b/2:q4_k_m", "gemma3-4b/2:q4_k_m", "gpt-oss-20b/2:mxfp4"] {
        let model = synthetic::open(name).unwrap();
        let blueprint = blueprint(&model);
        let plan = &*blueprint.plan;
        // The default; tiles for what gates; tiles for all but that.
        for tiles in [None, Some(true), Some(false)] {
            let mut kernels = card.clone();
            for shape in shapes(plan, &card).unwrap() {
                if tiles == Some(shape.gated) && shape.count == Count::Many {
                    kernels.tuned.insert(shape, ProductKernel::Matmul { tokens: 64 });
                }
            }
            let layout = Layout::new(plan, &kernels).unwrap();
            let dispatches = lower(&blueprint, &layout, &kernels, StepClass::of(chunk, 1));
            let mut rounded: Option<&Dispatch> = None;
            for dispatch in &dispatches {
                if dispatch.variant.kernel == "matmul_cooperative" {
                    let by = rounded.unwrap_or_else(|| panic!("{name}: {}", dispatch.variant));
                    let of_norm = match (&plan.ops[by.op], &plan.ops[dispatch.op]) {
                        (Op::Norm(op::Norm { out, .. }), Op::Linear(op::Linear { input, .. })) => {
                            out == input
                        }
                        _ => false,
                    };
                    assert!(by.op == dispatch.op || of_norm, "{name}: {}", dispatch.variant);
                }
                if dispatch.bindings.iter().any(|(name, _)| *name == "halves") {
                    rounded = Some(dispatch);
                    seen[0] += usize::from(dispatch.variant.kernel == "norm");
                    seen[1] += usize::from(dispatch.variant.defines.contains("GATED"));
                    seen[2] += 1;
                }
                if let (true, Op::Norm(op::Norm { out, .. })) =
                    (dispatch.variant.defines.contains("HALVES"), &plan.ops[dispatch.op])
                {
                    let is_bound = |d: &Dispatch| {
                        d.bindings.iter().any(|(_, resource)| *resource == Resource::Value(*out))
                    };
                    assert!(!dispatches.iter().any(is_bound), "{name}: {}", dispatch.variant);
                }
            }
        }
    }
    // Norms, gates, and others.
    assert!(seen[0] > 0 && seen[1] > 0 && seen[2] > seen[0] + seen[1], "{seen:?}");
}
