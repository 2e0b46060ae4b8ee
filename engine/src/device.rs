//! Choosing and opening a device: a GPU by rank or by name, or the CPU.

use std::sync::Arc;

use crate::cpu::{self, InstructionSet};
use crate::gpu::{AdapterInfo, Gpu, GpuOptions, list_all};
use crate::{Error, Result};

/// Which device, and how it is used.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// `auto`, `cpu`, a stable name (`vulkan:0`) or a part of a device's name; none: `auto`.
    pub name: Option<String>,
    /// Threads of the CPU; none: one a core.
    pub threads: Option<usize>,
    /// Take the device to have no more than this many free bytes.
    pub memory_limit: Option<u64>,
    /// How a GPU is opened.
    pub gpu: GpuOptions,
}

/// An opened device.
#[derive(Debug, Clone)]
pub enum Device {
    /// A GPU.
    Gpu(Arc<Gpu>),
    /// The CPU.
    Cpu {
        /// Threads that work.
        threads: usize,
        /// The instructions that the loops use.
        set: InstructionSet,
        /// Take the device to have no more than this many free bytes.
        memory_limit: Option<u64>,
    },
}

impl Device {
    /// Opens a device. `auto` takes a discrete GPU, else an integrated one, else the CPU; a software
    /// driver only when it is named. A stable name (`dx12:0`) chooses that API even where another shows the same GPU.
    pub fn open(options: &DeviceOptions) -> Result<Self> {
        let name = options.name.as_deref().unwrap_or("auto");
        if name == "cpu" {
            return Self::cpu(options);
        }
        let open = |adapter: &AdapterInfo| {
            Gpu::open_within(adapter, &options.gpu, options.memory_limit).map(Self::Gpu)
        };
        let every = list_all();
        if name == "auto" {
            return match best(&every) {
                Some(adapter) => open(adapter),
                None => Self::cpu(options),
            };
        }
        let wanted = name.to_lowercase();
        let chosen = every.iter().find(|adapter| adapter.id == wanted).or_else(|| {
            let mut listed = every.iter().filter(|adapter| !adapter.is_twin);
            listed.find(|adapter| adapter.name.to_lowercase().contains(&wanted))
        });
        if let Some(adapter) = chosen {
            return open(adapter);
        }
        let mut known: Vec<String> =
            every.iter().map(|adapter| format!("{} ({})", adapter.id, adapter.name)).collect();
        known.push("cpu".into());
        Err(Error::NoDevice(format!(
            "there is no device {name:?}; there are: {}; or say auto",
            known.join(", ")
        )))
    }

    /// A GPU that this program has opened for itself, to draw for example, and goes on using. `wgpu` is this crate's:
    /// [`crate::wgpu`]. Opened with wgpu's default limits or more; with `SUBGROUP` kernels are faster.
    ///
    /// # Errors
    /// If it was opened with less than the kernels need.
    pub fn from_wgpu(
        adapter: &wgpu::Adapter,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
    ) -> Result<Self> {
        Gpu::of_program(adapter, device.clone(), queue.clone()).map(Self::Gpu)
    }

    fn cpu(options: &DeviceOptions) -> Result<Self> {
        let threads = options.threads.unwrap_or_else(cpu::default_threads);
        if threads == 0 || threads > 1024 {
            return Err(Error::Option(format!("{threads} threads are out of range (1 to 1024)")));
        }
        Ok(Self::Cpu { threads, set: InstructionSet::detect(), memory_limit: options.memory_limit })
    }

    /// The device's name.
    pub fn name(&self) -> String {
        match self {
            Device::Gpu(gpu) => gpu.name.clone(),
            Device::Cpu { .. } => cpu::processor_name(),
        }
    }

    /// The stable name: `vulkan:0`, `cpu`.
    pub fn id(&self) -> String {
        match self {
            Device::Gpu(gpu) => gpu.id.clone(),
            Device::Cpu { .. } => "cpu".into(),
        }
    }

    /// Whether this is the CPU.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Device::Cpu { .. })
    }

    /// Bytes that are free, where the device or the operating system says.
    pub fn free_bytes(&self) -> Option<u64> {
        match self {
            Device::Gpu(gpu) => gpu.free_bytes(),
            Device::Cpu { memory_limit, .. } => memory_limit.or_else(cpu::free_bytes),
        }
    }
}

/// The GPU that `auto` takes: discrete before integrated, never a software driver.
fn best(adapters: &[AdapterInfo]) -> Option<&AdapterInfo> {
    let rank = |adapter: &AdapterInfo| match adapter.kind {
        wgpu::DeviceType::DiscreteGpu => Some(0),
        wgpu::DeviceType::IntegratedGpu => Some(1),
        wgpu::DeviceType::VirtualGpu => Some(2),
        wgpu::DeviceType::Other => Some(3),
        wgpu::DeviceType::Cpu => None,
    };
    let usable = |adapter: &&AdapterInfo| !adapter.is_twin && rank(adapter).is_some();
    adapters.iter().filter(usable).min_by_key(|adapter| rank(adapter))
}
