//! Opening a GPU: which features are asked for, and what kernels may use of it.

use std::sync::Arc;

use wgpu::{DeviceType, Features};

use super::adapter::AdapterInfo;
use super::choice::{Adapter, Family, Kernels};
use super::device::{Fault, Gpu};
use super::halves;
use super::pipelines::Pipelines;
use crate::{Error, Result};

/// How a GPU is opened.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Whether cooperative matrices may be used where the adapter has them: experimental in wgpu, and only class
    /// f16-tiles has a use for them.
    pub cooperative: bool,
    /// Whether the device is to be measured: its clock is read where it can be, as profiles want it, and its
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

/// Features used where the adapter has them.
pub const OPTIONAL_FEATURES: Features = Features::SUBGROUP.union(Features::PIPELINE_CACHE);

/// What a device is asked for.
struct Wanted {
    features: Features,
    /// Whether cooperative matrices are among the features.
    cooperative: bool,
}

impl Wanted {
    fn of(adapter: &AdapterInfo, options: &GpuOptions) -> Self {
        let without = options.handicap.without;
        let mut wanted = OPTIONAL_FEATURES;
        if shares_memory(adapter) {
            wanted |= Features::MAPPABLE_PRIMARY_BUFFERS;
        }
        let matrices = Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16;
        let cooperative =
            options.cooperative && !without.intersects(matrices) && has_matrices(adapter);
        if cooperative {
            wanted |= matrices;
        }
        if options.timestamps {
            wanted |= Features::TIMESTAMP_QUERY | Features::SHADER_F16;
        }
        Self { features: adapter.features & wanted & !without, cooperative }
    }
}

/// Whether the device's memory is the host's. On a card with memory of its own mapped buffers would be the host's, across the
/// bus.
fn shares_memory(adapter: &AdapterInfo) -> bool {
    matches!(adapter.kind, DeviceType::IntegratedGpu | DeviceType::Cpu)
}

/// Whether the adapter multiplies 16 x 16 halves with sums in f32.
fn has_matrices(adapter: &AdapterInfo) -> bool {
    let wanted = Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16;
    let has_16 = adapter.adapter.cooperative_matrix_properties().iter().any(|matrices| {
        (matrices.m_size, matrices.n_size, matrices.k_size) == (16, 16, 16)
            && matrices.ab_type == wgpu::CooperativeScalarType::F16
            && matrices.cr_type == wgpu::CooperativeScalarType::F32
    });
    adapter.features.contains(wanted) && has_16
}

/// What kernels may use of an adapter opened with `features`.
fn facts(adapter: &AdapterInfo, features: Features, handicap: &Handicap) -> Adapter {
    let binding =
        adapter.limits.max_storage_buffer_binding_size.min(adapter.limits.max_buffer_size);
    let subgroups = (adapter.info.subgroup_min_size, adapter.info.subgroup_max_size);
    // Kernels have room for the sums of as many subgroups as there are lanes of four.
    let has_subgroups = features.contains(Features::SUBGROUP) && subgroups.0 >= 4;
    Adapter {
        max_binding_bytes: handicap.max_binding_bytes.unwrap_or(binding).min(binding),
        max_workgroup_bytes: adapter.limits.max_compute_workgroup_storage_size,
        max_workgroups: adapter.limits.max_compute_workgroups_per_dimension,
        ..Adapter::new(Family::of(&adapter.info), has_subgroups.then_some(subgroups))
    }
}

/// One of wgpu's limits.
type Limit = fn(&wgpu::Limits) -> u64;

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn open(adapter: &AdapterInfo, options: &GpuOptions) -> Result<Arc<Self>> {
        Self::open_within(adapter, options, None)
    }

    /// The same, taken to have no more than `memory_limit` free bytes.
    pub(crate) fn open_within(
        adapter: &AdapterInfo,
        options: &GpuOptions,
        memory_limit: Option<u64>,
    ) -> Result<Arc<Self>> {
        let Wanted { features, cooperative } = Wanted::of(adapter, options);
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
        let fault = Fault::of(&device);
        let adapter = AdapterInfo { features, ..adapter.clone() };
        Ok(Self::with(&adapter, (device, queue), cooperative, (options, memory_limit), fault))
    }

    /// A device that a program has opened for itself, and goes on using. Features that kernels can use are used where it
    /// was opened with them (subgroups, halves, cooperative matrices). What goes wrong on it outside of an error scope is
    /// told to the program's own handlers, not to these.
    ///
    /// # Errors
    /// If it was opened with less than the kernels need: wgpu's default limits are enough.
    pub fn of_program(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
    ) -> Result<Arc<Self>> {
        let adapter = AdapterInfo::of_program(adapter, &device);
        let (has, needs) = (&adapter.limits, &wgpu::Limits::default());
        let limits: [(&str, Limit); 8] = [
            ("max_compute_workgroup_size_x", |limits| limits.max_compute_workgroup_size_x.into()),
            ("max_bind_groups", |limits| limits.max_bind_groups.into()),
            ("max_buffer_size", |limits| limits.max_buffer_size),
            ("max_storage_buffer_binding_size", |limits| limits.max_storage_buffer_binding_size),
            ("max_storage_buffers_per_shader_stage", |limits| {
                limits.max_storage_buffers_per_shader_stage.into()
            }),
            ("max_compute_workgroup_storage_size", |limits| {
                limits.max_compute_workgroup_storage_size.into()
            }),
            ("max_compute_invocations_per_workgroup", |limits| {
                limits.max_compute_invocations_per_workgroup.into()
            }),
            ("max_compute_workgroups_per_dimension", |limits| {
                limits.max_compute_workgroups_per_dimension.into()
            }),
        ];
        for (name, of) in limits {
            if of(has) < of(needs) {
                let (has, needs) = (of(has), of(needs));
                let why =
                    format!("the wgpu device given has {name} {has}, the kernels need {needs}");
                return Err(Error::unsupported(why, None));
            }
        }
        let cooperative = has_matrices(&adapter);
        let options = &GpuOptions::default();
        let fault = Fault::default();
        Ok(Self::with(&adapter, (device, queue), cooperative, (options, None), fault))
    }

    /// A device with what it was opened with.
    fn with(
        adapter: &AdapterInfo,
        (device, queue): (wgpu::Device, wgpu::Queue),
        cooperative: bool,
        (options, memory_limit): (&GpuOptions, Option<u64>),
        fault: Fault,
    ) -> Arc<Self> {
        let (features, handicap) = (adapter.features, &options.handicap);
        let kernels = Kernels { cooperative, ..Kernels::new(facts(adapter, features, handicap)) };
        let mut gpu = Self {
            name: adapter.name.clone(),
            id: adapter.id.clone(),
            driver: adapter.driver.clone(),
            pipelines: Pipelines::new(&device, &adapter.info, handicap.injected_fault.clone()),
            unified: features.contains(Features::MAPPABLE_PRIMARY_BUFFERS)
                && shares_memory(adapter),
            is_card: adapter.kind == DeviceType::DiscreteGpu,
            device,
            queue,
            kernels,
            adapter: adapter.adapter.clone(),
            memory_limit,
            fault,
        };
        gpu.kernels.native_halves = halves::are_native(&gpu);
        Arc::new(gpu)
    }
}
