//! A model on a device: its file, its tokenizer, its weights.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use gguf::Gguf;

use crate::blueprint::Blueprint;
use crate::check::{self_test, tune};
use crate::cpu::{self, CpuExecutor, CpuLoops, CpuWeights};
use crate::device::Device;
use crate::error::Advice;
use crate::executor::{Executor, Memory, Precision};
use crate::gpu::choice::Kernels;
use crate::gpu::{self, GpuExecutor, GpuWeights};
use crate::spec::projection::Projection;
use crate::spec::{ModelFile, Spec};
use crate::tokenizer::Tokenizer;
use crate::{Context, ContextOptions, Error, Result};

/// How a model is loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The context that is going to be used: the model is refused if both do not fit the device.
    pub context: ContextOptions,
    /// Whether a GPU's kernels are tested on first use.
    pub self_test: SelfTest,
    /// How exactly products are computed.
    pub precision: Precision,
    /// Whether the CPU maps the file instead of reading it into memory of its own. A GPU's weights are read in any case.
    pub map: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            context: ContextOptions::default(),
            self_test: SelfTest::Once,
            precision: Precision::F32,
            map: true,
        }
    }
}

impl From<ContextOptions> for LoadOptions {
    fn from(context: ContextOptions) -> Self {
        Self { context, ..Self::default() }
    }
}

/// When a GPU's kernels are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelfTest {
    /// On the first use of adapter, driver, version and kernels; the verdict is kept in the cache folder.
    Once,
    /// Now, whatever an earlier verdict says.
    Always,
    /// Not at all.
    Never,
}

/// A model's weights where a device can use them.
enum Weights {
    Gpu(Arc<GpuWeights>),
    Cpu(Arc<CpuWeights>),
}

/// A model, loaded. Immutable and shared: contexts and sessions hold it by reference count.
pub struct Model {
    file: ModelFile,
    device: Device,
    weights: Weights,
    tokenizer: OnceLock<Arc<Tokenizer>>,
    projection: OnceLock<Projection>,
    warnings: Vec<String>,
    precision: Precision,
    /// The context that the model was loaded for.
    options: ContextOptions,
    /// Its blueprint, by whose plan all others number their weights.
    blueprint: Blueprint,
}

crate::opaque::opaque_debug!(Model { file, device, precision, warnings });

impl Model {
    /// Opens the file at `path` and loads it onto the first device (one is used so far).
    pub fn load(
        devices: &[Device],
        path: impl AsRef<Path>,
        options: &LoadOptions,
    ) -> Result<Arc<Self>> {
        let file = ModelFile::open(path)?;
        Self::load_file(devices, file, options, &mut |_, _| ())
    }

    /// Loads an opened file. `progress` is called with bytes done and bytes in all.
    pub fn load_file(
        devices: &[Device],
        file: ModelFile,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Arc<Self>> {
        let [device] = devices else {
            return Err(Error::unsupported(
                format!("{} devices given, one is needed", devices.len()),
                None,
            ));
        };
        let mapped = device.is_cpu() && options.map;
        let blueprint = Blueprint::new(&file, &options.context)?;
        if matches!(device, Device::Gpu(_)) {
            gpu::check_limits(&blueprint.plan)?;
        }
        let mut precision = effective(options.precision, &file, device);
        check_fit(&blueprint, &options.context, &file.spec, (device, precision), mapped)?;
        let mut warnings = Vec::new();
        let weights = match device {
            Device::Gpu(gpu) => {
                let tuned = tune::read(gpu, precision);
                let mut kernels = Kernels { precision, tuned, ..gpu.kernels.clone() };
                if options.self_test != SelfTest::Never {
                    let remember = options.self_test == SelfTest::Once;
                    let verdict = self_test::run(gpu, &blueprint, &kernels, remember)?;
                    kernels = verdict.kernels;
                    // Its matrix units may have been found wrong.
                    precision = kernels.possible(precision);
                    kernels.precision = precision;
                    warnings = verdict.warnings;
                }
                let weights = std::thread::scope(|scope| {
                    let ahead = scope.spawn(|| gpu::compile_ahead(gpu, &blueprint, &kernels));
                    let plan = &blueprint.plan;
                    let weights =
                        GpuWeights::load(gpu.clone(), &file.gguf, plan, kernels.clone(), progress);
                    // A kernel that does not compile says so again where it is used.
                    let _ = ahead.join();
                    weights
                })?;
                Weights::Gpu(Arc::new(weights))
            }
            Device::Cpu { .. } => {
                Weights::Cpu(CpuWeights::load_by(&file.gguf, &blueprint.plan, options.map)?)
            }
        };
        Ok(Arc::new(Self {
            file,
            device: device.clone(),
            weights,
            tokenizer: OnceLock::new(),
            projection: OnceLock::new(),
            warnings,
            precision,
            options: options.context.clone(),
            blueprint,
        }))
    }

    /// The file.
    pub fn file(&self) -> &ModelFile {
        &self.file
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How exactly products are computed: what was asked for, or what [`Precision::in_model`] and the device make of it.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What the self-test found wrong with the device, for stderr.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The layers behind an embedding model's pooling, read on first use.
    pub(crate) fn projection(&self) -> Result<&Projection> {
        if let Some(projection) = self.projection.get() {
            return Ok(projection);
        }
        let projection = Projection::read(&self.file)?;
        Ok(self.projection.get_or_init(|| projection))
    }

    /// The tokenizer that the file describes, built on first use.
    pub fn tokenizer(&self) -> Result<Arc<Tokenizer>> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer.clone());
        }
        let tokenizer = Arc::new(Tokenizer::from_metadata(&self.file.gguf.metadata)?);
        Ok(self.tokenizer.get_or_init(|| tokenizer).clone())
    }

    /// A context of this model on its device.
    pub fn context(&self, options: &ContextOptions) -> Result<Context> {
        let blueprint = self.blueprint(options)?;
        let on = (&self.device, self.precision);
        check_fit(&blueprint, options, &self.file.spec, on, true)?;
        let executor: Box<dyn Executor> = match (&self.device, &self.weights) {
            (Device::Cpu { threads, set, .. }, Weights::Cpu(weights)) => {
                let loops = CpuLoops { threads: *threads, set: *set, precision: self.precision };
                Box::new(CpuExecutor::new(weights.clone(), blueprint.clone(), loops))
            }
            (_, Weights::Gpu(weights)) => {
                Box::new(GpuExecutor::new(weights.clone(), blueprint.clone())?)
            }
            _ => {
                return Err(Error::Internal("the model's weights are on another device".into()));
            }
        };
        Ok(Context::new(&self.file.spec, &blueprint, executor))
    }

    /// The blueprint of a context: the one that the model was loaded for, or another with its weights.
    fn blueprint(&self, options: &ContextOptions) -> Result<Blueprint> {
        if *options == self.options {
            return Ok(self.blueprint.clone());
        }
        Blueprint::with_weights(&self.file, options, self.blueprint.plan.weights.clone())
    }
}

/// How exactly a model's products are computed on a device where a class is asked for.
fn effective(asked: Precision, file: &ModelFile, device: &Device) -> Precision {
    let precision = asked.in_model(&file.spec);
    match device {
        Device::Gpu(gpu) => gpu.kernels.possible(precision),
        Device::Cpu { .. } if precision == Precision::F16Tiles => Precision::F32,
        Device::Cpu { .. } => precision,
    }
}

/// What a model and a context take on a device, with products of a precision, before anything is allocated.
pub fn predict(
    file: &ModelFile,
    device: &Device,
    options: &ContextOptions,
    precision: Precision,
) -> Result<Memory> {
    let blueprint = Blueprint::new(file, options)?;
    predict_for(&blueprint, device, effective(precision, file, device))
}

/// What weights and a context take on a device, with products of a precision that it has.
fn predict_for(blueprint: &Blueprint, device: &Device, precision: Precision) -> Result<Memory> {
    match device {
        Device::Gpu(gpu) => gpu::predict(blueprint, &Kernels { precision, ..gpu.kernels.clone() }),
        Device::Cpu { .. } => Ok(cpu::predict(blueprint)),
    }
}

/// Bytes that must be free. Weights count until they are `loaded`; those of a mapped file never do: they stay in the
/// file's pages, which the system may drop.
fn needed(memory: Memory, loaded: bool) -> u64 {
    if loaded { memory.total() - memory.weights } else { memory.total() }
}

/// Refuses a model and context that do not fit the device, saying what would.
fn check_fit(
    blueprint: &Blueprint,
    options: &ContextOptions,
    spec: &Spec,
    (device, precision): (&Device, Precision),
    loaded: bool,
) -> Result<()> {
    let Some(available) = device.free_bytes() else { return Ok(()) };
    let need = |blueprint: &Blueprint| -> Result<u64> {
        Ok(needed(predict_for(blueprint, device, precision)?, loaded))
    };
    let positions = blueprint.sizes.positions;
    let needed = need(blueprint)?;
    if needed <= available {
        return Ok(());
    }
    // The largest multiple of 256 positions that fits, by halving.
    let (mut fits, mut too_much) = (0, positions.div_ceil(256));
    while fits + 1 < too_much {
        let middle = usize::midpoint(fits, too_much);
        let options = ContextOptions { positions: Some(middle * 256), ..options.clone() };
        if need(&blueprint.resized(options.sizes(spec)?))? <= available {
            fits = middle;
        } else {
            too_much = middle;
        }
    }
    let advice = if fits > 0 {
        Advice::ContextOf { positions: fits * 256, refused: positions }
    } else if device.is_cpu() {
        Advice::SmallerModel
    } else {
        Advice::SmallerModelOrOtherDevice
    };
    Err(Error::DoesNotFit { device: device.name(), needed, available, advice })
}

/// The parameters of a file: the elements of all its tensors.
pub fn parameters(file: &Gguf) -> u64 {
    file.tensors.iter().map(gguf::TensorInfo::elements).sum()
}
