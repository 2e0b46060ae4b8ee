//! The GPU that tests run on: a software Vulkan, unless `ENGINE_TEST_DEVICE` names another.

use std::sync::Arc;

use engine::GpuOptions;
use engine::ModelFile;
use engine::Precision;
use engine::internals::blueprint::Blueprint;
use engine::internals::cpu::{CpuExecutor, CpuLoops, CpuWeights, InstructionSet};
use engine::internals::gpu::choice::{Adapter, Family, Kernels};
use engine::internals::gpu::{Gpu, GpuExecutor, GpuWeights, list_all};
use engine::{Context, ContextOptions};

/// Opens the tests' GPU.
///
/// # Panics
/// If there is none: every kernel must be tested. `tests/run` installs a software Vulkan.
pub fn gpu(options: &GpuOptions) -> Arc<Gpu> {
    let wanted = std::env::var("ENGINE_TEST_DEVICE").ok();
    let adapters = list_all();
    let adapter = adapters.iter().find(|adapter| match &wanted {
        Some(name) => adapter.id == *name || adapter.name.contains(name.as_str()),
        None => adapter.is_software(),
    });
    let names: Vec<_> = adapters.iter().map(|adapter| adapter.name.as_str()).collect();
    let adapter = adapter.unwrap_or_else(|| {
        panic!(
            "no device for the GPU tests (wanted: {}; found: {names:?}); run tests/run, which installs one",
            wanted.as_deref().unwrap_or("a software Vulkan")
        )
    });
    Gpu::open(adapter, options).unwrap_or_else(|error| panic!("{error}"))
}

/// What a maker's adapters would use of what another offers.
#[must_use]
pub fn with_family(offered: &Kernels, family: Family) -> Kernels {
    Kernels { adapter: Adapter { family, ..offered.adapter }, ..offered.clone() }
}

/// What a graphics card would use of what an adapter offers: tiles for prompts, no rows by lane.
#[must_use]
pub fn card(offered: &Kernels) -> Kernels {
    with_family(offered, Family::Nvidia)
}

/// A context of a model on a GPU.
///
/// # Panics
/// If it cannot be made.
pub fn gpu_context(gpu: &Arc<Gpu>, model: &ModelFile, options: &ContextOptions) -> Context {
    gpu_context_with(gpu, &gpu.kernels, model, options)
}

/// The same with these kernels.
///
/// # Panics
/// If it cannot be made.
pub fn gpu_context_with(
    gpu: &Arc<Gpu>,
    kernels: &Kernels,
    model: &ModelFile,
    options: &ContextOptions,
) -> Context {
    let blueprint = Blueprint::new(model, options).unwrap_or_else(|error| panic!("{error}"));
    let kernels = Kernels { precision: kernels.precision.in_model(&model.spec), ..kernels.clone() };
    let weights =
        GpuWeights::load(gpu.clone(), &model.gguf, &blueprint.plan, kernels, &mut |_, _| ())
            .unwrap_or_else(|error| panic!("{error}"));
    let executor = GpuExecutor::new(Arc::new(weights), blueprint.clone())
        .unwrap_or_else(|error| panic!("{error}"));
    Context::new(&model.spec, &blueprint, Box::new(executor))
}

/// A context of a model on the CPU.
///
/// # Panics
/// If it cannot be made.
pub fn cpu_context(
    model: &ModelFile,
    options: &ContextOptions,
    set: InstructionSet,
    precision: Precision,
) -> Context {
    let blueprint = Blueprint::new(model, options).unwrap_or_else(|error| panic!("{error}"));
    let weights =
        CpuWeights::load(&model.gguf, &blueprint.plan).unwrap_or_else(|error| panic!("{error}"));
    let threads = engine::internals::cpu::default_threads();
    let precision = precision.in_model(&model.spec);
    let loops = CpuLoops { threads, set, precision };
    let executor = CpuExecutor::new(weights, blueprint.clone(), loops);
    Context::new(&model.spec, &blueprint, Box::new(executor))
}

/// The CPU as a device, all its cores.
///
/// # Panics
/// If it cannot be opened.
pub fn cpu_device() -> engine::Device {
    let options = engine::DeviceOptions { name: Some("cpu".into()), ..Default::default() };
    engine::Device::open(&options).unwrap_or_else(|error| panic!("{error}"))
}
