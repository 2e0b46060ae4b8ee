//! Which GPUs there are.

use wgpu::{Backend, Backends, DeviceType};

use super::budget;

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
    pub(super) adapter: wgpu::Adapter,
}

crate::opaque::opaque_debug!(AdapterInfo { id, name, driver });

impl AdapterInfo {
    /// What an adapter says of itself, under a stable name.
    pub(super) fn new(id: String, adapter: wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        Self {
            id,
            also: vec![],
            is_twin: false,
            name: info.name.clone(),
            kind: info.device_type,
            driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
            free_bytes: budget::free_bytes(&adapter),
            limits: adapter.limits(),
            features: adapter.features(),
            info,
            adapter,
        }
    }

    /// An adapter with the device that a program has opened on it, of which no more can be used than it was opened with.
    pub(super) fn of_program(adapter: &wgpu::Adapter, device: &wgpu::Device) -> Self {
        let id = format!("{}:program", api_name(adapter.get_info().backend));
        let (limits, features) = (device.limits(), device.features());
        Self { limits, features, ..Self::new(id, adapter.clone()) }
    }

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
        .enumerate()
        .map(|(index, adapter)| AdapterInfo {
            also: also(index),
            is_twin: twins[index].is_some(),
            ..AdapterInfo::new(ids[index].clone(), adapter)
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
    let adapter = AdapterInfo::new("none:0".into(), adapter);
    Some(AdapterInfo {
        name: "no driver".into(),
        driver: String::new(),
        free_bytes: None,
        // No timestamps, no caches: nothing is behind them.
        features: adapter.features & wgpu::Features::SUBGROUP,
        ..adapter
    })
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
