//! Which GPUs there are, and opening one.

use std::sync::{Arc, Mutex};

use wgpu::{Backend, Backends, DeviceType};

use super::budget;
use super::choice::{Adapter, Family, Kernels};
use super::halves;
use super::pipelines::Pipelines;
use crate::error::Advice;
use crate::{Error, Result};

/// wgpu's features, for callers that show them.
pub use wgpu::Features;

/// A physical GPU (or a software driver) under the best API that shows it.
#[derive(Clone)]
pub struct AdapterInfo {
    /// The stable name: API and number, `vulkan:0`.
    pub id: String,
    /// The stable names of the same device under other APIs, by which it can be asked for too.
    pub also: Vec<String>,
    /// Whether a better API shows the same device, so that only its own name chooses this adapter.
    pub is_twin: bool,
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

crate::opaque::opaque_debug!(AdapterInfo { id, name, driver });

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

/// The APIs that kernels run on.
const APIS: Backends = Backends::VULKAN.union(Backends::METAL).union(Backends::DX12);

/// The APIs that `WGPU_BACKEND`, wgpu's own variable, names: no other is asked for adapters. None if it is empty.
pub fn apis_by_environment() -> Option<String> {
    std::env::var("WGPU_BACKEND").ok().filter(|names| !names.trim().is_empty())
}

/// The APIs that are asked for adapters: all, or those of them that are named (`vulkan`, `metal`, `dx12`, several with
/// commas).
fn apis(wanted: Option<&str>) -> Backends {
    match wanted {
        Some(names) => APIS & Backends::from_comma_list(names),
        None => APIS,
    }
}

/// Every physical adapter once, Vulkan and Metal before DX12; GL never.
pub fn list() -> Vec<AdapterInfo> {
    list_all().into_iter().filter(|adapter| !adapter.is_twin).collect()
}

/// The same with the twins: the same device under each API that shows it, Vulkan and Metal before DX12.
pub fn list_all() -> Vec<AdapterInfo> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = apis(apis_by_environment().as_deref());
    // No validation of indirect calls: it clamps limits, and there are none here.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(Backends::all()));
    adapters.sort_by_key(|adapter| match adapter.get_info().backend {
        Backend::Vulkan => 0,
        Backend::Metal => 1,
        _ => 2,
    });
    let infos: Vec<wgpu::AdapterInfo> = adapters.iter().map(wgpu::Adapter::get_info).collect();
    let ids = ids(&infos);
    let twins = twins(&infos);
    let also = |index: usize| -> Vec<String> {
        ids.iter()
            .zip(&twins)
            .filter(|(_, twin)| **twin == Some(index))
            .map(|(id, _)| id.clone())
            .collect()
    };
    adapters
        .into_iter()
        .zip(infos)
        .enumerate()
        .map(|(index, (adapter, info))| AdapterInfo {
            id: ids[index].clone(),
            also: also(index),
            is_twin: twins[index].is_some(),
            name: info.name.clone(),
            kind: info.device_type,
            driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
            free_bytes: budget::free_bytes(&adapter),
            limits: adapter.limits(),
            features: adapter.features(),
            info,
            adapter,
        })
        .collect()
}

/// The stable name of each adapter: its API and its number among all that this API shows, twins counted, so that a
/// name does not depend on what other APIs show.
fn ids(adapters: &[wgpu::AdapterInfo]) -> Vec<String> {
    let id = |(index, adapter): (usize, &wgpu::AdapterInfo)| {
        let before = adapters[..index].iter().filter(|other| other.backend == adapter.backend);
        format!("{}:{}", api_name(adapter.backend), before.count())
    };
    adapters.iter().enumerate().map(id).collect()
}

/// For each adapter the one before it, of another API, that is the same device: same identity, and same bus address where
/// both APIs give one. Of several alike without an address the first that has no twin of this API yet.
fn twins(adapters: &[wgpu::AdapterInfo]) -> Vec<Option<usize>> {
    let mut twins: Vec<Option<usize>> = Vec::new();
    for (index, adapter) in adapters.iter().enumerate() {
        let same: Vec<usize> = (0..index)
            .filter(|&first| {
                let seen = &adapters[first];
                twins[first].is_none()
                    && seen.backend != adapter.backend
                    && (seen.vendor, seen.device) == (adapter.vendor, adapter.device)
                    && (seen.device_pci_bus_id.is_empty()
                        || adapter.device_pci_bus_id.is_empty()
                        || seen.device_pci_bus_id == adapter.device_pci_bus_id)
            })
            .collect();
        let is_free = |first: &&usize| {
            !(0..index).any(|other| {
                twins[other] == Some(**first) && adapters[other].backend == adapter.backend
            })
        };
        twins.push(same.iter().find(is_free).or(same.first()).copied());
    }
    twins
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
        also: vec![],
        is_twin: false,
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
    /// Whether cooperative matrices may be used where the adapter has them: experimental in wgpu, and only class
    /// f16-tiles has a use for them.
    pub cooperative: bool,
    /// Whether the device is to be measured: its clock is read where it can be, as `engine bench --profile` wants it, and its
    /// arithmetic in f16 is open to [`super::roofline`].
    pub timestamps: bool,
    /// What tests take from it.
    #[doc(hidden)]
    pub handicap: Handicap,
}

/// What tests take from a device that has it.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct Handicap {
    /// Optional features that must not be used even where the adapter has them.
    pub without: wgpu::Features,
    /// A smaller limit of a binding's size than the adapter's.
    pub max_binding_bytes: Option<u64>,
    /// A text in kernels and what takes its place: a driver's fault.
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
    pub kernels: Kernels,
    pub(super) pipelines: Pipelines,
    /// Whether host and device share their memory, so that weights are written in place.
    pub(super) unified: bool,
    /// Whether it is a card with memory of its own.
    pub is_card: bool,
    adapter: wgpu::Adapter,
    memory_limit: Option<u64>,
    fault: Arc<Mutex<Option<String>>>,
}

crate::opaque::opaque_debug!(Gpu { id, name, driver, kernels });

impl Gpu {
    /// Refuses a device whose clock cannot be read: one that has none, or was opened without
    /// [`GpuOptions::timestamps`].
    pub fn need_timestamps(&self) -> Result<()> {
        if self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(());
        }
        let (name, driver) = (&self.name, &self.driver);
        Err(Error::unsupported(
            format!(
                "{name} ({driver}) gives no timestamps, without which no dispatch can be timed"
            ),
            Advice::HostClock,
        ))
    }

    /// What tells this device's kernels from others' in what is kept from run to run: the API, the adapter, its driver, and
    /// whether there are subgroups, which on DX12 depends on the compiler that lies beside the program.
    pub(crate) fn identity(&self) -> String {
        let api = self.id.split(':').next().unwrap_or_default();
        let subgroups = if self.kernels.subgroups { "subgroups" } else { "no subgroups" };
        format!("{api} {} {} {subgroups}", self.name, self.driver)
    }

    /// Opens an adapter.
    pub fn open(adapter: &AdapterInfo, options: &GpuOptions) -> Result<Arc<Self>> {
        Self::open_within(adapter, options, None)
    }

    /// The same, taken to have no more than `memory_limit` free bytes.
    pub(crate) fn open_within(
        adapter: &AdapterInfo,
        options: &GpuOptions,
        memory_limit: Option<u64>,
    ) -> Result<Arc<Self>> {
        let handicap = &options.handicap;
        let mut wanted = OPTIONAL_FEATURES;
        // On a card with memory of its own mapped buffers would be the host's memory, across the bus.
        if matches!(adapter.kind, DeviceType::IntegratedGpu | DeviceType::Cpu) {
            wanted |= wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
        }
        let matrices =
            wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);
        let cooperative = options.cooperative
            && adapter.features.contains(matrices)
            && !handicap.without.intersects(matrices)
            && has_matrices_of_16(&adapter.adapter);
        if cooperative {
            wanted |= matrices;
        }
        if options.timestamps {
            wanted |= wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SHADER_F16;
        }
        let features = adapter.features & wanted & !handicap.without;
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
                Error::NoDevice(format!("{} cannot be opened: {error}", adapter.name))
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
        let subgroups = (adapter.info.subgroup_min_size, adapter.info.subgroup_max_size);
        // Kernels have room for the sums of as many subgroups as there are lanes of four.
        let has_subgroups = features.contains(wgpu::Features::SUBGROUP) && subgroups.0 >= 4;
        let facts = Adapter {
            max_binding_bytes: handicap.max_binding_bytes.unwrap_or(binding).min(binding),
            max_workgroup_bytes: adapter.limits.max_compute_workgroup_storage_size,
            max_workgroups: adapter.limits.max_compute_workgroups_per_dimension,
            ..Adapter::new(Family::of(&adapter.info), has_subgroups.then_some(subgroups))
        };
        let kernels = Kernels { cooperative, ..Kernels::new(facts) };
        let mut gpu = Self {
            name: adapter.name.clone(),
            id: adapter.id.clone(),
            driver: adapter.driver.clone(),
            pipelines: Pipelines::new(&device, &adapter.info, handicap.injected_fault.clone()),
            unified: features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
            is_card: adapter.kind == DeviceType::DiscreteGpu,
            device,
            queue,
            kernels,
            adapter: adapter.adapter.clone(),
            memory_limit,
            fault,
        };
        gpu.kernels.native_halves = halves::are_native(&gpu);
        Ok(Arc::new(gpu))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An adapter of an API, a device's number and a bus address.
    fn adapter(backend: Backend, device: u32, bus: &str) -> wgpu::AdapterInfo {
        let mut info = wgpu::AdapterInfo::new(DeviceType::DiscreteGpu, backend);
        (info.vendor, info.device) = (0x10de, device);
        info.device_pci_bus_id = bus.into();
        info
    }

    #[test]
    fn twins_are_one_device_under_two_apis() {
        use Backend::{Dx12, Metal, Vulkan};
        for (what, adapters, expected) in [
            ("one card", vec![(Vulkan, 1, "0:1"), (Dx12, 1, "0:1")], vec![None, Some(0)]),
            ("no address", vec![(Vulkan, 1, "0:1"), (Dx12, 1, "")], vec![None, Some(0)]),
            ("another device", vec![(Vulkan, 1, "0:1"), (Dx12, 2, "0:1")], vec![None, None]),
            (
                "a second card, which Vulkan does not show",
                vec![(Vulkan, 1, "0:1"), (Dx12, 1, "0:1"), (Dx12, 1, "0:2")],
                vec![None, Some(0), None],
            ),
            ("two alike under one API", vec![(Vulkan, 1, ""), (Vulkan, 1, "")], vec![None, None]),
            (
                "two alike, in another order",
                vec![(Vulkan, 1, "0:1"), (Vulkan, 1, "0:2"), (Dx12, 1, "0:2"), (Dx12, 1, "0:1")],
                vec![None, None, Some(1), Some(0)],
            ),
            (
                "two alike without an address",
                vec![(Vulkan, 1, "0:1"), (Vulkan, 1, "0:2"), (Dx12, 1, ""), (Dx12, 1, "")],
                vec![None, None, Some(0), Some(1)],
            ),
            (
                "shown twice by an API without addresses",
                vec![(Vulkan, 1, "0:1"), (Dx12, 1, ""), (Dx12, 1, "")],
                vec![None, Some(0), Some(0)],
            ),
            ("DX12 alone", vec![(Dx12, 1, ""), (Dx12, 2, "")], vec![None, None]),
            (
                "three APIs",
                vec![(Vulkan, 1, ""), (Metal, 1, ""), (Dx12, 1, "")],
                vec![None, Some(0), Some(0)],
            ),
        ] {
            let adapters: Vec<_> =
                adapters.into_iter().map(|(api, device, bus)| adapter(api, device, bus)).collect();
            assert_eq!(twins(&adapters), expected, "{what}");
        }
    }

    #[test]
    fn names_count_all_of_an_api() {
        use Backend::{Dx12, Vulkan};
        let adapters = [(Vulkan, 1), (Vulkan, 2), (Dx12, 2), (Dx12, 3)];
        let adapters: Vec<_> =
            adapters.into_iter().map(|(api, device)| adapter(api, device, "")).collect();
        // The first of DX12 is a twin, and yet has its number.
        assert_eq!(ids(&adapters), ["vulkan:0", "vulkan:1", "dx12:0", "dx12:1"]);
    }

    #[test]
    fn the_environment_chooses_among_the_apis() {
        assert_eq!(apis(None), APIS);
        for (names, expected) in [
            ("dx12", Backends::DX12),
            ("Vulkan, metal", Backends::VULKAN | Backends::METAL),
            ("vk,d3d12,gl", Backends::VULKAN | Backends::DX12),
            ("gl", Backends::empty()),
            ("cuda", Backends::empty()),
        ] {
            assert_eq!(apis(Some(names)), expected, "{names}");
        }
    }
}
