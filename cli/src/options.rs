//! Options that several commands share: the device, the context.

use anyhow::{Result, bail};
use clap::Args;
use engine::executor::Precision;
use engine::kv::KvType;
use engine::{ContextOptions, Device, DeviceOptions};

/// Which device.
#[derive(Args, Clone)]
pub struct DeviceArgs {
    /// auto, cpu, a stable name (vulkan:0) or a part of a device's name
    #[arg(long, default_value = "auto", env = "ENGINE_DEVICE")]
    pub device: String,
    /// Threads of the CPU [default: its cores]
    #[arg(short = 't', long)]
    pub threads: Option<usize>,
}

impl DeviceArgs {
    /// Opens the device. Where `auto` falls back to the CPU, says so on stderr.
    pub fn open(&self) -> Result<Device> {
        self.open_for(Precision::F32)
    }

    /// The same for a precision class, which may use more of the device.
    pub fn open_for(&self, precision: Precision) -> Result<Device> {
        let options = DeviceOptions {
            name: Some(self.device.clone()),
            threads: self.threads,
            gpu: engine::gpu::GpuOptions {
                memory_limit: memory_limit()?,
                cooperative: precision == Precision::F16Tiles,
                ..Default::default()
            },
        };
        let device = Device::open(&options)?;
        if self.device == "auto" && device.is_cpu() {
            eprintln!(
                "no GPU found: running on the CPU ({}). A GPU needs its Vulkan driver: mesa-vulkan-drivers for AMD and Intel, NVIDIA's own for NVIDIA; see `engine devices`",
                device.name()
            );
        }
        Ok(device)
    }
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

/// The context.
#[derive(Args, Clone)]
pub struct ContextArgs {
    /// Positions of the context [default: the model's own, at most 4096]
    #[arg(short = 'c', long)]
    pub ctx: Option<usize>,
    /// The type of keys in the cache: f32, f16, bf16, q8_0 or q4_0 (also -ctk)
    #[arg(long, default_value = "f16", value_parser = kv_type)]
    pub cache_type_k: KvType,
    /// The type of values in the cache: f32, f16, bf16, q8_0 or q4_0 (also -ctv)
    #[arg(long, default_value = "f16", value_parser = kv_type)]
    pub cache_type_v: KvType,
}

/// How exactly products are computed.
#[derive(Args, Clone)]
pub struct PrecisionArgs {
    /// f32; f16-tiles: prompts with operands rounded to f16; int8: activations rounded to bytes
    #[arg(long, default_value = "f32", value_parser = precision)]
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

impl ContextArgs {
    /// The engine's options.
    pub fn options(&self) -> ContextOptions {
        ContextOptions {
            cells: self.ctx,
            key_type: self.cache_type_k,
            value_type: self.cache_type_v,
            ..ContextOptions::default()
        }
    }
}

/// Reads a cache type by llama.cpp's name.
pub fn kv_type(name: &str) -> Result<KvType, String> {
    KvType::from_name(name).ok_or_else(|| {
        format!("the cache type {name:?} is unknown (known: f32, f16, bf16, q8_0, q4_0)")
    })
}
