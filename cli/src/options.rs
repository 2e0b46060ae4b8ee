//! Options that several commands share: the device, the context.

use std::borrow::Cow;
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use engine::GpuOptions;
use engine::KvType;
use engine::Precision;
use engine::internals::spec::Spec;
use engine::{ContextOptions, Device, DeviceOptions};

use crate::output;
use crate::platform::Platform;
use crate::values::{self, Threads};

/// Which device.
#[derive(Args, Clone)]
pub struct DeviceArgs {
    /// auto, cpu, a stable name (vulkan:0, dx12:0) or a part of a device's name [default: auto] [env: ENGINE_DEVICE] (also -dev)
    #[arg(long)]
    device: Option<String>,
    /// Layers on the GPU: 0 is the CPU; all of the model's, -1, auto or all is the device (also -ngl)
    #[arg(long, alias = "n-gpu-layers", value_name = "N", allow_hyphen_values = true)]
    gpu_layers: Option<GpuLayers>,
    /// Threads of the CPU [default: its cores]
    #[arg(short = 't', long, value_name = "N", value_parser = values::threads, allow_hyphen_values = true)]
    threads: Option<Threads>,
    /// Read the weights into memory instead of mapping the file (CPU only: a GPU's are read in any case)
    #[arg(long, overrides_with = "mmap")]
    no_mmap: bool,
    /// Map the file: the default
    #[arg(long, hide = true)]
    mmap: bool,
}

impl DeviceArgs {
    /// Opens the device for a model of so many layers, where the model is known. Where `auto` falls back to the CPU, says
    /// so on stderr.
    pub fn open(&self, layers: Option<usize>) -> Result<Device> {
        self.open_for(Precision::F32, layers)
    }

    /// The same for a precision class, which may use more of the device.
    pub fn open_for(&self, precision: Precision, layers: Option<usize>) -> Result<Device> {
        self.open_with(precision, layers, GpuOptions::default())
    }

    /// The same with a GPU's clock, where it can be read.
    pub fn open_timed(&self, precision: Precision, layers: Option<usize>) -> Result<Device> {
        let timed = GpuOptions { timestamps: true, ..GpuOptions::default() };
        self.open_with(precision, layers, timed)
    }

    fn open_with(
        &self,
        precision: Precision,
        layers: Option<usize>,
        gpu: GpuOptions,
    ) -> Result<Device> {
        let wanted = Wanted::from_option(self.device.as_deref())?;
        let (wanted, note) = wanted.with_layers(self.gpu_layers, layers)?;
        note.into_iter().for_each(output::say);
        wanted.open_with(precision, self.threads.and_then(|threads| threads.0), gpu)
    }

    /// Whether the CPU maps the file.
    pub fn map(&self) -> bool {
        !self.no_mmap
    }
}

/// How many layers a GPU is asked to compute, in llama.cpp's ways to write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuLayers {
    /// As many as fit: -1 or `auto`.
    Auto,
    /// All: -2 or `all`.
    All,
    /// So many.
    Count(usize),
}

impl FromStr for GpuLayers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "-1" => Ok(Self::Auto),
            "all" | "-2" => Ok(Self::All),
            _ => text.parse().map(Self::Count).map_err(|_| {
                "expected a number of layers (0: the CPU; -1, auto or all: the device)".into()
            }),
        }
    }
}

impl std::fmt::Display for GpuLayers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("-1"),
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// Who chose a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    /// Nobody: it is the default.
    Nobody,
    /// The environment, which an option overrides.
    Environment,
    /// An option.
    Option,
}

/// A device as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// A name that [`Device::open`] knows.
    pub name: String,
    by: Chosen,
}

impl Wanted {
    /// What `--device` says, else `ENGINE_DEVICE`, else `auto`.
    pub fn from_option(option: Option<&str>) -> Result<Self> {
        if let Some(name) = option {
            if name.trim().is_empty() {
                bail!("--device is empty: write auto, cpu or a device that `engine devices` lists");
            }
            return Ok(Self { name: device_name(name), by: Chosen::Option });
        }
        match std::env::var("ENGINE_DEVICE") {
            Ok(name) if !name.trim().is_empty() => {
                Ok(Self { name: device_name(&name), by: Chosen::Environment })
            }
            _ => Ok(Self { name: "auto".into(), by: Chosen::Nobody }),
        }
    }

    /// The same by another name.
    pub fn called(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The same with `-ngl`. Layers cannot be divided between a GPU and the CPU: none is the CPU, all of `layers` is the
    /// device, anything between is refused, and so is a number that contradicts a device named beside it. Where the
    /// environment is contradicted there is a note to be said.
    pub fn with_layers(
        self,
        wanted: Option<GpuLayers>,
        layers: Option<usize>,
    ) -> Result<(Self, Option<String>)> {
        let Some(wanted) = wanted else { return Ok((self, None)) };
        let on_cpu = self.name == "cpu";
        match wanted {
            GpuLayers::Auto => Ok((self, None)),
            GpuLayers::Count(0) if on_cpu || self.name == "auto" => Ok((self.called("cpu"), None)),
            GpuLayers::Count(0) if self.by == Chosen::Environment => {
                let note = format!("-ngl 0: the CPU, not {} (ENGINE_DEVICE)", self.name);
                Ok((self.called("cpu"), Some(note)))
            }
            GpuLayers::Count(0) => bail!(
                "-ngl 0 keeps every layer on the CPU, --device {} names a GPU: give one of them",
                self.name
            ),
            GpuLayers::Count(count) if layers.is_none_or(|layers| count < layers) => {
                let Some(layers) = layers else {
                    bail!(
                        "-ngl {count}: the model's layers are unknown: write 0 for the CPU or -1 for the device"
                    );
                };
                bail!(
                    "-ngl {count}: the model has {layers} layers, which cannot be divided between the GPU and the CPU: \
                     write 0 for the CPU, {layers} or more (or -1) for the device"
                )
            }
            GpuLayers::All | GpuLayers::Count(_) if on_cpu && self.by == Chosen::Option => bail!(
                "-ngl {wanted} puts the layers on a GPU, --device cpu keeps them off it: give one of them"
            ),
            GpuLayers::All | GpuLayers::Count(_) => {
                let note = on_cpu.then(|| {
                    format!("-ngl {wanted}: the layers are on the CPU, which ENGINE_DEVICE names")
                });
                Ok((self, note))
            }
        }
    }

    /// Opens it. Where `auto` falls back to the CPU, says so on stderr.
    pub fn open(&self, precision: Precision, threads: Option<usize>) -> Result<Device> {
        self.open_with(precision, threads, GpuOptions::default())
    }

    /// The same with more that is asked of a GPU.
    pub fn open_with(
        &self,
        precision: Precision,
        threads: Option<usize>,
        gpu: GpuOptions,
    ) -> Result<Device> {
        let options = DeviceOptions {
            name: Some(self.name.clone()),
            threads,
            memory_limit: memory_limit()?,
            gpu: GpuOptions { cooperative: precision == Precision::F16Tiles, ..gpu },
        };
        let device = Device::open(&options).map_err(|error| {
            let several = if self.name.contains(',') {
                "; a model runs on one device, `engine bench` measures several one after another"
            } else {
                ""
            };
            anyhow!("{error}{several}")
        })?;
        if self.name == "auto" && device.is_cpu() {
            output::say(format_args!(
                "no GPU found: running on the CPU ({}). {}; see `engine devices`",
                device.name(),
                why_no_gpu()
            ));
        }
        Ok(device)
    }
}

/// Why no GPU was found, as far as it can be told: the environment asks for some APIs only, else what a GPU needs.
pub fn why_no_gpu() -> Cow<'static, str> {
    match engine::internals::gpu::apis_by_environment() {
        Some(apis) => {
            format!("WGPU_BACKEND is {apis:?}: of vulkan, metal and dx12 no other is asked").into()
        }
        None => Platform::HERE.driver_advice().into(),
    }
}

/// A device's name as [`Device::open`] knows it, from llama.cpp's ways to write one: `none`, `Vulkan0`.
fn device_name(name: &str) -> String {
    let name = name.trim();
    if name.eq_ignore_ascii_case("none") {
        return "cpu".into();
    }
    for api in ["vulkan", "metal", "dx12"] {
        if let Some((head, number)) = name.split_at_checked(api.len())
            && head.eq_ignore_ascii_case(api)
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            return format!("{api}:{number}");
        }
    }
    name.into()
}

/// `ENGINE_MEMORY_LIMIT`: take the device to have no more than this many free bytes.
fn memory_limit() -> Result<Option<u64>> {
    match std::env::var("ENGINE_MEMORY_LIMIT") {
        Ok(text) => match text.parse() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => bail!("ENGINE_MEMORY_LIMIT is {text:?}, expected a number of bytes"),
        },
        Err(_) => Ok(None),
    }
}

/// How exactly products are computed.
#[derive(Args, Clone)]
pub struct PrecisionArgs {
    /// f16-tiles: prompts with operands rounded to f16, on GPUs that multiply matrices of them (else f32); f32; int8:
    /// activations rounded to bytes
    #[arg(long, default_value = "f16-tiles", value_parser = precision)]
    precision: Precision,
    /// The same as --precision f32
    #[arg(long, conflicts_with = "precision")]
    exact: bool,
}

impl PrecisionArgs {
    /// The class asked for.
    pub fn class(&self) -> Precision {
        if self.exact { Precision::F32 } else { self.precision }
    }
}

/// Reads a precision class by its name.
fn precision(name: &str) -> Result<Precision, String> {
    Precision::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Precision::ALL.iter().map(|precision| precision.name()).collect();
        format!("the precision {name:?} is unknown (known: {})", known.join(", "))
    })
}

/// The context.
#[derive(Args, Clone)]
pub struct ContextArgs {
    /// Positions of the context; 0: as many as the model was made for [default: that, at most 4096]
    #[arg(short = 'c', long, alias = "ctx-size", value_parser = values::positions, allow_hyphen_values = true)]
    pub ctx: Option<usize>,
    /// The most tokens of a prompt handed over at once
    #[arg(short = 'b', long, value_name = "N", default_value = "2048", value_parser = values::count, allow_hyphen_values = true, hide_short_help = true)]
    batch_size: usize,
    /// The most tokens computed at once (also -ub)
    #[arg(long, value_name = "N", default_value = "512", value_parser = values::count, allow_hyphen_values = true, hide_short_help = true)]
    ubatch_size: usize,
    /// The type of keys in the cache: f32, f16, bf16, q8_0 or q4_0 (also -ctk)
    #[arg(long, default_value = "f16", value_parser = kv_type)]
    pub cache_type_k: KvType,
    /// The type of values in the cache: f32, f16, bf16, q8_0 or q4_0 (also -ctv)
    #[arg(long, default_value = "f16", value_parser = kv_type)]
    pub cache_type_v: KvType,
}

impl ContextArgs {
    /// The engine's options for a model.
    pub fn options(&self, spec: &Spec) -> ContextOptions {
        ContextOptions {
            positions: positions(self.ctx, spec.context_length),
            ..self.options_without_model()
        }
    }

    /// The engine's options where no model is understood, and none will be computed with.
    pub fn options_without_model(&self) -> ContextOptions {
        ContextOptions {
            chunk: self.batch_size.min(self.ubatch_size),
            key_type: self.cache_type_k,
            value_type: self.cache_type_v,
            ..ContextOptions::default()
        }
    }
}

/// Positions as `-c` asks for them: 0 is the model's own.
pub fn positions(ctx: Option<usize>, trained: usize) -> Option<usize> {
    ctx.map(|positions| if positions == 0 { trained } else { positions })
}

/// Reads a cache type by llama.cpp's name.
pub fn kv_type(name: &str) -> Result<KvType, String> {
    KvType::from_name(name).ok_or_else(|| {
        format!("the cache type {name:?} is unknown (known: f32, f16, bf16, q8_0, q4_0)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, by: Chosen) -> Wanted {
        Wanted { name: name.into(), by }
    }

    #[test]
    fn layers_are_the_cpu_the_device_or_refused() {
        use Chosen::{Environment, Nobody, Option as Said};
        let place = |name: &str, by: Chosen, layers: &str| {
            wanted(name, by)
                .with_layers(Some(layers.parse().unwrap()), Some(24))
                .map(|(to, _)| to.name)
        };
        for (name, by, layers, expected) in [
            ("auto", Nobody, "0", "cpu"),
            ("auto", Nobody, "-1", "auto"),
            ("auto", Nobody, "all", "auto"),
            ("auto", Nobody, "24", "auto"),
            ("auto", Nobody, "99", "auto"),
            ("cpu", Said, "0", "cpu"),
            ("cpu", Said, "auto", "cpu"),
            ("cpu", Environment, "99", "cpu"),
            ("vulkan:0", Environment, "0", "cpu"),
            ("vulkan:0", Said, "25", "vulkan:0"),
        ] {
            assert_eq!(place(name, by, layers).unwrap(), expected, "{name} {layers}");
        }
        for (name, by, layers, word) in [
            ("vulkan:0", Said, "0", "names a GPU"),
            ("cpu", Said, "99", "--device cpu"),
            ("cpu", Said, "-2", "--device cpu"),
        ] {
            let error = place(name, by, layers).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        for layers in 1..24 {
            for (name, by) in [("auto", Nobody), ("cpu", Environment), ("vulkan:0", Said)] {
                let error = place(name, by, &layers.to_string()).unwrap_err().to_string();
                assert!(error.contains("24 layers") && error.contains(&format!("-ngl {layers}:")));
            }
        }
        assert!(wanted("auto", Nobody).with_layers(Some(GpuLayers::Count(3)), None).is_err());
    }

    #[test]
    fn devices_by_the_names_of_llama_cpp() {
        for (given, name) in [
            ("none", "cpu"),
            ("Vulkan0", "vulkan:0"),
            ("METAL1", "metal:1"),
            ("vulkan:0", "vulkan:0"),
            ("vulkan", "vulkan"),
            (" AMD ", "AMD"),
        ] {
            assert_eq!(device_name(given), name);
        }
        assert!(Wanted::from_option(Some(" ")).is_err());
    }
}
