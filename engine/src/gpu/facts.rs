//! What an adapter is, as far as kernels and buffers go by it.

/// Whose adapter it is, as far as the defaults differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// NVIDIA: subgroups of 32.
    Nvidia,
    /// AMD: subgroups of 32 or 64.
    Amd,
    /// Intel: subgroups of 8 to 32, chosen by the compiler.
    Intel,
    /// Apple: subgroups of 32.
    Apple,
    /// A software driver on the CPU's SIMD units: loads are dear, shuffles cheap.
    Software,
    /// Any other.
    Other,
}

impl Family {
    /// The family of an adapter, by its PCI vendor.
    pub fn of(info: &wgpu::AdapterInfo) -> Self {
        match (info.device_type, info.vendor) {
            (wgpu::DeviceType::Cpu, _) => Self::Software,
            (_, 0x10de) => Self::Nvidia,
            (_, 0x1002 | 0x1022) => Self::Amd,
            (_, 0x8086) => Self::Intel,
            (_, 0x106b) => Self::Apple,
            _ if info.backend == wgpu::Backend::Metal => Self::Apple,
            _ => Self::Other,
        }
    }
}

/// The facts of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adapter {
    /// Whose it is.
    pub family: Family,
    /// Whether it has subgroup operations.
    pub has_subgroups: bool,
    /// The smallest subgroup that it may choose.
    pub subgroup_min: u32,
    /// The largest subgroup that it may choose.
    pub subgroup_max: u32,
    /// The most bytes of a binding.
    pub max_binding_bytes: u64,
    /// The most bytes of workgroup memory.
    pub max_workgroup_bytes: u32,
    /// The most workgroups of a dimension.
    pub max_workgroups: u32,
}

impl Adapter {
    /// One of a family whose subgroups have between `subgroups.0` and `.1` lanes (none: it has no subgroup operations), and
    /// else what every adapter has.
    pub fn new(family: Family, subgroups: Option<(u32, u32)>) -> Self {
        let (subgroup_min, subgroup_max) = subgroups.unwrap_or((1, 1));
        Self {
            family,
            has_subgroups: subgroups.is_some(),
            subgroup_min,
            subgroup_max: subgroup_max.clamp(4, 128),
            max_binding_bytes: 1 << 30,
            max_workgroup_bytes: 32 << 10,
            max_workgroups: 65_535,
        }
    }
}
