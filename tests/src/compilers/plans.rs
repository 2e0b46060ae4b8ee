//! The kernels that models' plans ask for on a maker's cards, lowered without one.

use std::collections::BTreeSet;

use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::internals::blueprint::{Blueprint, Sizes};
use engine::internals::gpu::choice::{Adapter, Family, Kernels};
use engine::internals::gpu::layout::Layout;
use engine::internals::gpu::lower::{Lowering, StepClass, lower_selection};
use engine::internals::plan::Plan;
use shaders::Variant;

use crate::golden::{embedding_names, folder, tiny_names};

/// Eleven models that between them have the usual formats, shapes and kinds of layers: dense ones, experts, windows, recurrent
/// layers, latent attention, an encoder. Synthetic ones have the shapes of real models (`engine synth` lists them), the
/// others are goldens.
pub const MODELS: [&str; 11] = [
    "synthetic llama-8b:q4_k_m",
    "synthetic llama-8b:q8_0",
    "synthetic llama-70b/2:q4_k_m",
    "synthetic llama-1b:q4_0",
    "synthetic smollm2-135m",
    "synthetic gemma3-4b:q4_k_m",
    "synthetic gpt-oss-20b/2",
    "qwen3moe-w256.Q4_K_M",
    "deepseek2-v3",
    "qwen35-w256.Q4_K_M",
    "bert",
];

/// Opens a model of [`MODELS`], or a golden.
///
/// # Panics
/// If there is none of this name.
pub fn open(name: &str) -> ModelFile {
    match name.strip_prefix("synthetic ") {
        Some(name) => engine::internals::synthetic::open(name),
        None => ModelFile::open(folder().join("tiny").join(format!("{name}.gguf"))),
    }
    .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// An AMD card as Mesa's driver shows it.
pub fn amd() -> Kernels {
    Kernels::new(Adapter {
        max_binding_bytes: (2 << 30) - 4,
        ..Adapter::new(Family::Amd, Some((32, 64)))
    })
}

/// The same where its matrix units are to be had, which a newer Mesa shows.
pub fn amd_with_matrices() -> Kernels {
    Kernels { precision: Precision::F16Tiles, cooperative: true, ..amd() }
}

/// An Intel card, as Mesa's driver shows it.
pub fn intel() -> Kernels {
    Kernels::new(Adapter {
        max_binding_bytes: (4 << 30) - 4,
        ..Adapter::new(Family::Intel, Some((8, 32)))
    })
}

/// Every card, software driver and class of precision that changes what is asked for.
fn every_caps() -> Vec<Kernels> {
    let of = |family, subgroups| Kernels::new(Adapter::new(family, subgroups));
    let nvidia = of(Family::Nvidia, Some((32, 32)));
    let software = of(Family::Software, Some((8, 8)));
    vec![
        nvidia.clone(),
        Kernels { native_halves: false, ..nvidia.clone() },
        amd(),
        intel(),
        of(Family::Apple, Some((32, 32))),
        of(Family::Other, None),
        Kernels { precision: Precision::Int8, ..nvidia.clone() },
        Kernels { precision: Precision::F16Tiles, cooperative: true, ..nvidia },
        Kernels { precision: Precision::Int8, ..software.clone() },
        software,
        of(Family::Software, Some((4, 4))),
    ]
}

/// Every variant of a model's plan: one token at a short and at a long context, a few tokens, a prompt, the choice of ids.
///
/// # Panics
/// If the model has no plan.
pub fn variants(model: &ModelFile, kernels: &Kernels, kv_type: KvType) -> BTreeSet<Variant> {
    let cells = model.spec.context_length.min(4096);
    let plan = Plan::new(model, cells).unwrap();
    let layout = Layout::new(&plan, kernels).unwrap();
    let sizes = Sizes {
        positions: cells,
        pool: cells,
        sequences: 1,
        chunk: 512,
        outputs: 1,
        key_type: kv_type,
        value_type: kv_type,
    };
    let blueprint = Blueprint::of(plan, sizes);
    let class = StepClass::of;
    let mut variants = BTreeSet::new();
    for class in [
        class(1, 1),
        StepClass { long: true, ..class(1, 1) },
        StepClass { long: true, together: false, ..class(4, 4) },
        class(512, 1),
    ] {
        let lowering = Lowering { blueprint: &blueprint, layout: &layout, kernels, class };
        variants.extend(lowering.lower().unwrap().into_iter().map(|dispatch| dispatch.variant));
    }
    for keep in [1, 64] {
        let choice = lower_selection(&blueprint, keep, true);
        variants.extend(choice.into_iter().map(|dispatch| dispatch.variant));
    }
    variants
}

/// Every variant that a card is asked for by default: of the plans of [`MODELS`], and of the goldens that have the other block
/// formats.
pub fn default_variants(card: &Kernels) -> BTreeSet<Variant> {
    let goldens = tiny_names();
    let formats = goldens.iter().filter(|name| name.starts_with("llama") && name.contains('.'));
    let models = MODELS.iter().copied().chain(formats.map(String::as_str));
    models.flat_map(|name| variants(&open(name), card, KvType::F16)).collect()
}

/// Every variant of every golden's plan and of those of [`MODELS`], for cards of all makers, each precision, each type of
/// keys and values.
pub fn every_variant() -> BTreeSet<Variant> {
    let goldens: Vec<String> = tiny_names().into_iter().chain(embedding_names()).collect();
    let names: BTreeSet<&str> =
        MODELS.iter().copied().chain(goldens.iter().map(String::as_str)).collect();
    let mut all = BTreeSet::new();
    for model in names.into_iter().map(open) {
        for kernels in every_caps() {
            all.extend(variants(&model, &kernels, KvType::F16));
        }
        for kv_type in [KvType::F32, KvType::Bf16, KvType::Q8_0, KvType::Q4_0] {
            all.extend(variants(&model, &amd(), kv_type));
        }
    }
    all
}

/// Every variant that is asked for without a plan: what measures a device, and what a device is asked before it is used.
pub fn without_a_plan() -> Vec<Variant> {
    let named = Variant::new;
    vec![
        named("halves"),
        named("roofline_memory"),
        named("roofline_memory").define("COPY"),
        named("roofline_multiply"),
        named("roofline_multiply").define("INT8"),
        named("roofline_multiply").define("HALVES"),
        named("roofline_matrices"),
        named("roofline_empty"),
        named("roofline_empty").define("WRITES"),
    ]
}
