//! The texts that wgpu-hal 30 makes of a kernel for Direct3D 12 and Metal: what the compilers there really get.
//!
//! wgpu-hal builds them on Windows and on a Mac alone, so its choices stand here again: how bindings become registers and
//! slots, which checks are written, that workgroup memory is not zeroed (the pipelines ask for that), and the entry point.

use naga::back::{hlsl, msl};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

use crate::{BindingKind, Error, Kernel};

pub use naga::back::hlsl::ShaderModel;

/// The shader models that differ for the kernels: 5.1 is what Windows' own compiler FXC knows, which has no subgroups; 6.0
/// is the least of DXC's, 6.6 what recent cards have (dot products of bytes since 6.4).
pub const SHADER_MODELS: [ShaderModel; 3] =
    [ShaderModel::V5_1, ShaderModel::V6_0, ShaderModel::V6_6];

/// Versions of Metal's language: that of macOS 12, and the latest that wgpu-hal asks for.
pub const METAL_VERSIONS: [(u8, u8); 2] = [(2, 4), (4, 0)];

/// A text for a compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// The function in it that is compiled.
    pub entry: String,
}

const ENTRY: &str = "main";

impl Kernel {
    fn place(binding: u32) -> naga::ResourceBinding {
        naga::ResourceBinding { group: 0, binding }
    }

    /// Direct3D's language for a shader model, as wgpu-hal hands it to FXC (5.1) or DXC (6.0 and later).
    pub fn hlsl(&self, model: ShaderModel) -> Result<Text, Error> {
        let (module, info) = self.resolved()?;
        // Registers are counted in each class by themselves, in the order of the bindings.
        let mut registers = [0u32; 3];
        let mut binding_map = hlsl::BindingMap::default();
        for binding in &self.bindings {
            let class = match binding.kind {
                BindingKind::Uniform => 0,
                BindingKind::ReadOnly => 1,
                BindingKind::ReadWrite => 2,
            };
            let target = hlsl::BindTarget { register: registers[class], ..Default::default() };
            binding_map.insert(Self::place(binding.index), target);
            registers[class] += 1;
        }
        let is_checked = !self.variant.is_trusted();
        let options = hlsl::Options {
            shader_model: model,
            binding_map,
            fake_missing_bindings: false,
            // The number of workgroups, where a kernel asks for it: behind the uniforms.
            special_constants_binding: Some(hlsl::BindTarget {
                register: registers[0],
                ..Default::default()
            }),
            zero_initialize_workgroup_memory: false,
            restrict_indexing: is_checked,
            force_loop_bounding: is_checked,
            ..hlsl::Options::default()
        };
        let pipeline =
            hlsl::PipelineOptions { entry_point: Some((naga::ShaderStage::Compute, ENTRY.into())) };
        let mut text = String::new();
        let written = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(&module, &info, None)
            .map_err(|why| self.error(why.to_string()))?;
        let entry = written.entry_point_names.into_iter().next();
        let entry = entry.ok_or_else(|| self.error(format!("has no entry point {ENTRY}")))?;
        Ok(Text { text, entry: entry.map_err(|why| self.error(why.to_string()))? })
    }

    /// Metal's language in a version, as wgpu-hal hands it to Metal's compiler.
    pub fn msl(&self, version: (u8, u8)) -> Result<Text, Error> {
        let (module, info) = self.resolved()?;
        let mut resources = msl::BindingMap::default();
        let mut buffers = 0u8;
        for binding in &self.bindings {
            let mut target = msl::BindTarget {
                mutable: binding.kind == BindingKind::ReadWrite,
                ..Default::default()
            };
            target.buffer = Some(buffers);
            buffers += 1;
            resources.insert(Self::place(binding.index), target);
        }
        // The lengths of the storage buffers come in a buffer of their own.
        let has_storage = self
            .bindings
            .iter()
            .any(|binding| matches!(binding.kind, BindingKind::ReadOnly | BindingKind::ReadWrite));
        let resources = msl::EntryPointResources {
            resources,
            immediates_buffer: None,
            sizes_buffer: has_storage.then_some(buffers),
        };
        let is_checked = !self.variant.is_trusted();
        let policy =
            if is_checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
        let options = msl::Options {
            lang_version: version,
            fake_missing_bindings: false,
            spirv_cross_compatibility: false,
            per_entry_point_map: [(ENTRY.to_string(), resources)].into(),
            bounds_check_policies: BoundsCheckPolicies {
                index: policy,
                buffer: policy,
                image_load: policy,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: is_checked,
            emit_int_div_checks: is_checked,
            ..msl::Options::default()
        };
        let pipeline = msl::PipelineOptions {
            entry_point: Some((naga::ShaderStage::Compute, ENTRY.into())),
            vertex_pulling_transform: true,
            ..msl::PipelineOptions::default()
        };
        let (text, written) = msl::write_string(&module, &info, &options, &pipeline)
            .map_err(|why| self.error(why.to_string()))?;
        let entry = written.entry_point_names.into_iter().next();
        let entry = entry.ok_or_else(|| self.error(format!("has no entry point {ENTRY}")))?;
        Ok(Text { text, entry: entry.map_err(|why| self.error(why.to_string()))? })
    }

    /// Whether it asks the subgroup for anything, which shader model 5.1 has not: a device without subgroups never
    /// gets such a kernel.
    pub fn uses_subgroups(&self) -> bool {
        // What holds without the capability does not use it.
        naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            crate::CAPABILITIES - naga::valid::Capabilities::SUBGROUP,
        )
        .validate(&self.module)
        .is_err()
    }
}
