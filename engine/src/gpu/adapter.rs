//! Which GPUs there are, and opening one.

use std::sync::{Arc, Mutex};

use wgpu::{Backend, Backends, DeviceType};

use super::budget;
use super::choice::{Caps, Family};
use super::pipelines::Pipelines;
use crate::{Error, Result};

/// wgpu's features, for callers that show them.
pub use wgpu::Features;

/// A physical GPU (or a software driver) under the best API that shows it.
#[derive(Clone)]
pub struct AdapterInfo {
    /// The stable name: API and number, `vulkan:0`.
    pub id: String,
    /// The driver's name for it.
    pub name: String,
    /// What kind of device it is.
    pub kind: DeviceType,
    /// Driver name and version.
    pub driver: String,
    /// Free bytes of its memory, where the API says.
    pub free_bytes: Option<u64>,
    /// What wgpu says of it.
    pub info: wgpu::AdapterInfo,
    /// Its limits.
    pub limits: wgpu::Limits,
    /// Its features.
    pub features: wgpu::Features,
    adapter: wgpu::Adapter,
}

impl AdapterInfo {
    /// Whether this is a software driver, which `auto` does not choose.
    pub fn is_software(&self) -> bool {
        self.kind == DeviceType::Cpu
    }

    /// The kind in a word.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            DeviceType::DiscreteGpu => "discrete GPU",
            DeviceType::IntegratedGpu => "integrated GPU",
            DeviceType::VirtualGpu => "virtual GPU",
            DeviceType::Cpu => "software",
            DeviceType::Other => "other",
        }
    }
}

/// The name of an API in device ids.
fn api_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Vulkan => "vulkan",
        Backend::Metal => "metal",
        Backend::Dx12 => "dx12",
        Backend::Gl => "gl",
        _ => "other",
    }
}

/// Every physical adapter once, Vulkan and Metal before DX12; GL never.
pub fn list() -> Vec<AdapterInfo> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    // No validation of indirect calls: it clamps limits, and there are none here.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(Backends::all()));
    adapters.sort_by_key(|adapter| match adapter.get_info().backend {
        Backend::Vulkan => 0,
        Backend::Metal => 1,
        _ => 2,
    });
    let mut listed: Vec<AdapterInfo> = Vec::new();
    let mut numbers = std::collections::HashMap::new();
    for adapter in adapters {
        let info = adapter.get_info();
        // The same device under a later API: same identity, or same bus address where both give one.
        let twin = listed.iter().any(|seen| {
            seen.info.backend != info.backend
                && seen.info.vendor == info.vendor
                && seen.info.device == info.device
                && (seen.info.device_pci_bus_id.is_empty()
                    || info.device_pci_bus_id.is_empty()
                    || seen.info.device_pci_bus_id == info.device_pci_bus_id)
        });
        if twin {
            continue;
        }
        let number = numbers.entry(info.backend).or_insert(0u32);
        let id = format!("{}:{number}", api_name(info.backend));
        *number += 1;
        listed.push(AdapterInfo {
            id,
            name: info.name.clone(),
            kind: info.device_type,
            driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
            free_bytes: budget::free_bytes(&adapter),
            limits: adapter.limits(),
            features: adapter.features(),
            info,
            adapter,
        });
    }
    listed
}

/// An adapter with no driver under it, which computes nothing: for measuring what the host spends.
pub fn without_driver() -> Option<AdapterInfo> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = Backends::NOOP;
    descriptor.backend_options.noop.enable = true;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(Backends::NOOP));
    let adapter = adapters.into_iter().next()?;
    let info = adapter.get_info();
    Some(AdapterInfo {
        id: "none:0".into(),
        name: "no driver".into(),
        kind: info.device_type,
        driver: String::new(),
        free_bytes: None,
        limits: adapter.limits(),
        // No timestamps, no caches: nothing is behind them.
        features: adapter.features() & wgpu::Features::SUBGROUP,
        info,
        adapter,
    })
}

/// How a GPU is opened.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Optional features that must not be used even where the adapter has them, for tests.
    pub without: wgpu::Features,
    /// A smaller limit of a binding's size than the adapter's, for tests.
    pub max_binding_bytes: Option<u64>,
    /// Whether cooperative matrices may be used where the adapter has them: experimental in wgpu, and only class
    /// f16-tiles has a use for them.
    pub cooperative: bool,
    /// Whether the device's clock is to be read where it can be, as [`crate::profile`] wants it.
    pub timestamps: bool,
    /// Take the device to have no more than this many free bytes.
    pub memory_limit: Option<u64>,
    /// A text in kernels and what takes its place: a driver's fault, for tests of the self-test.
    pub injected_fault: Option<(String, String)>,
}

/// Whether the adapter multiplies 16 x 16 halves with sums in f32.
fn has_matrices_of_16(adapter: &wgpu::Adapter) -> bool {
    adapter.cooperative_matrix_properties().iter().any(|matrices| {
        (matrices.m_size, matrices.n_size, matrices.k_size) == (16, 16, 16)
            && matrices.ab_type == wgpu::CooperativeScalarType::F16
            && matrices.cr_type == wgpu::CooperativeScalarType::F32
    })
}

/// Features used where the adapter has them.
pub const OPTIONAL_FEATURES: wgpu::Features =
    wgpu::Features::SUBGROUP.union(wgpu::Features::PIPELINE_CACHE);

/// An opened GPU: device, queue and what kernels may use.
pub struct Gpu {
    /// The adapter's name, for messages.
    pub name: String,
    /// The stable name.
    pub id: String,
    /// Driver name and version.
    pub driver: String,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// What kernels may use.
    pub caps: Caps,
    pub(super) pipelines: Pipelines,
    /// Whether host and device share their memory, so that weights are written in place.
    pub(super) unified: bool,
    /// Whether it is a card with memory of its own.
    pub(super) is_card: bool,
    adapter: wgpu::Adapter,
    memory_limit: Option<u64>,
    fault: Arc<Mutex<Option<String>>>,
}

impl Gpu {
    /// Refuses a device whose clock cannot be read: one that has none, or was opened without
    /// [`GpuOptions::timestamps`].
    pub fn need_timestamps(&self) -> Result<()> {
        if self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(());
        }
        Err(Error::Device(format!(
            "{} ({}) gives no timestamps, without which no dispatch can be timed; `engine tune --verbose` times each product's kernels by the host's clock",
            self.name, self.driver
        )))
    }

    /// Opens an adapter.
    pub fn open(adapter: &AdapterInfo, options: &GpuOptions) -> Result<Arc<Self>> {
        let mut wanted = OPTIONAL_FEATURES;
        // On a card with memory of its own mapped buffers would be the host's memory, across the bus.
        if matches!(adapter.kind, DeviceType::IntegratedGpu | DeviceType::Cpu) {
            wanted |= wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
        }
        let matrices =
            wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);
        let cooperative = options.cooperative
            && adapter.features.contains(matrices)
            && !options.without.intersects(matrices)
            && has_matrices_of_16(&adapter.adapter);
        if cooperative {
            wanted |= matrices;
        }
        if options.timestamps {
            wanted |= wgpu::Features::TIMESTAMP_QUERY;
        }
        let features = adapter.features & wanted & !options.without;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("engine"),
            required_features: features,
            required_limits: adapter.limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            experimental_features: if cooperative {
                // SAFETY: asked for by the caller; the self-test checks the kernel that uses it first.
                unsafe { wgpu::ExperimentalFeatures::enabled() }
            } else {
                wgpu::ExperimentalFeatures::disabled()
            },
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.adapter.request_device(&descriptor))
            .map_err(|error| {
                Error::Device(format!("{} cannot be opened: {error}", adapter.name))
            })?;
        let fault = Arc::new(Mutex::new(None));
        let keep_first = |fault: &Arc<Mutex<Option<String>>>, message: String| {
            if let Ok(mut fault) = fault.lock() {
                fault.get_or_insert(message);
            }
        };
        let shared = fault.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            keep_first(&shared, error.to_string());
        }));
        let shared = fault.clone();
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                keep_first(&shared, format!("device lost: {message}"));
            }
        });
        let binding =
            adapter.limits.max_storage_buffer_binding_size.min(adapter.limits.max_buffer_size);
        let has_subgroups = features.contains(wgpu::Features::SUBGROUP);
        let subgroups = (adapter.info.subgroup_min_size, adapter.info.subgroup_max_size);
        let mut caps = Caps::new(
            Family::of(&adapter.info),
            has_subgroups.then_some(subgroups),
            options.max_binding_bytes.unwrap_or(binding).min(binding),
            adapter.limits.max_compute_workgroups_per_dimension,
        );
        caps.cooperative = cooperative;
        Ok(Arc::new(Self {
            name: adapter.name.clone(),
            id: adapter.id.clone(),
            driver: adapter.driver.clone(),
            pipelines: Pipelines::new(&device, &adapter.info, options.injected_fault.clone()),
            unified: features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
            is_card: adapter.kind == DeviceType::DiscreteGpu,
            device,
            queue,
            caps,
            adapter: adapter.adapter.clone(),
            memory_limit: options.memory_limit,
            fault,
        }))
    }

    /// The first thing that went wrong on the device, as an error.
    pub(super) fn check(&self) -> Result<()> {
        match self.fault.lock().ok().and_then(|fault| fault.clone()) {
            Some(why) => Err(Error::DeviceLost { device: self.name.clone(), why }),
            None => Ok(()),
        }
    }

    /// Waits until all submitted work is done.
    pub(super) fn wait(&self) -> Result<()> {
        self.wait_for(None)
    }

    /// Waits until a submission, or all, are done.
    fn wait_for(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let until = wgpu::PollType::Wait { submission_index: submission, timeout: None };
        self.device.poll(until).map_err(|error| Error::DeviceLost {
            device: self.name.clone(),
            why: error.to_string(),
        })?;
        self.check()
    }

    /// Free bytes on the device, where known: the limit given, else what the API says.
    pub fn free_bytes(&self) -> Option<u64> {
        self.memory_limit.or_else(|| budget::free_bytes(&self.adapter))
    }

    /// Ends the device, as a crash of its driver would: for tests of what follows.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// Bytes that the device's allocator has given out, where it says.
    pub fn allocated_bytes(&self) -> Option<u64> {
        self.device.generate_allocator_report().map(|report| report.total_allocated_bytes)
    }

    /// Creates a buffer of at least `bytes` bytes, rounded up to 16.
    pub(super) fn buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: buffer_bytes(bytes),
            usage,
            mapped_at_creation: false,
        })
    }

    /// The first `bytes` bytes of a buffer that was made with `MAP_READ`, once the device has filled it.
    pub(super) fn read_mapped<T: bytemuck::Pod>(
        &self,
        buffer: &wgpu::Buffer,
        bytes: u64,
    ) -> Result<Vec<T>> {
        self.read_mapped_after(buffer, bytes, None)
    }

    /// The same, waiting for no more than the submission that fills the buffer.
    pub(super) fn read_mapped_after<T: bytemuck::Pod>(
        &self,
        buffer: &wgpu::Buffer,
        bytes: u64,
        submission: Option<wgpu::SubmissionIndex>,
    ) -> Result<Vec<T>> {
        let lost = |why: String| Error::DeviceLost { device: self.name.clone(), why };
        let (send, receive) = std::sync::mpsc::channel();
        buffer.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            // The receiver outlives the wait below; if it is gone nobody wants the answer.
            let _ = send.send(result);
        });
        self.wait_for(submission)?;
        match receive.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(lost(error.to_string())),
            Err(_) => return Err(lost("a readback was never answered".into())),
        }
        let view = buffer.get_mapped_range(0..bytes).map_err(|error| lost(error.to_string()))?;
        let data = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        buffer.unmap();
        Ok(data)
    }
}

/// What a buffer for `bytes` bytes takes.
pub(super) fn buffer_bytes(bytes: u64) -> u64 {
    bytes.max(16).next_multiple_of(16)
}
