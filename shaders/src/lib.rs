//! WGSL compute kernels: assembled, validated and reflected variants.
//!
//! `wgsl/kernel/*.wgsl` hold one kernel each, `wgsl/format/*.wgsl` one block format each, all with the
//! same functions, `wgsl/shared/*.wgsl` what they share. A [`Variant`] names a kernel, a format, defines
//! (structure: `#ifdef`), numbers (`#unroll`) and constants (`override`). [`Variant::build`] assembles its text,
//! checks it with naga and reads off it what the host must bind, so that nothing is listed twice.
//!
//! This crate knows naga; never wgpu, never models.

mod assemble;
mod browsers;
mod cuda;
mod kernels;
mod native;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use naga::{AddressSpace, StorageAccess};

pub use assemble::names_in;
pub use kernels::Multiplies;
pub use native::{METAL_VERSIONS, SHADER_MODELS, ShaderModel, Text};

/// Why a kernel variant could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source has a fault: a defect of this engine.
    #[error("kernel {kernel}: {why}")]
    Source {
        /// The variant's name.
        kernel: String,
        /// What is wrong.
        why: String,
    },
}

/// The most storage buffers that a kernel may bind: the limit that every WebGPU adapter has.
pub const MAX_STORAGE_BUFFERS: usize = 8;
/// The most workgroup memory that a kernel may use, in bytes: the limit that every adapter has.
pub const MAX_WORKGROUP_BYTES: u32 = 16384;
/// The most invocations of a workgroup: the limit that every adapter has.
pub const MAX_INVOCATIONS: u32 = 256;

/// What naga lets the kernels use.
const CAPABILITIES: naga::valid::Capabilities = naga::valid::Capabilities::SUBGROUP
    .union(naga::valid::Capabilities::SHADER_FLOAT16)
    .union(naga::valid::Capabilities::COOPERATIVE_MATRIX)
    // unpack2x16float: no feature of WebGPU, every adapter has it.
    .union(naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32);

/// Which kernel, in which form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// A file in `wgsl/kernel`.
    pub kernel: &'static str,
    /// A file in `wgsl/format`, for kernels that `#import format`.
    pub format: Option<&'static str>,
    /// Names for `#ifdef`.
    pub defines: BTreeSet<&'static str>,
    /// Numbers of the text: counts of `#unroll`, `{NAME}`.
    pub numbers: BTreeMap<&'static str, u32>,
    /// Values of `override` constants.
    pub constants: BTreeMap<&'static str, u32>,
}

impl Variant {
    /// A kernel in its plain form.
    pub fn new(kernel: &'static str) -> Self {
        Self {
            kernel,
            format: None,
            defines: BTreeSet::new(),
            numbers: BTreeMap::new(),
            constants: BTreeMap::new(),
        }
    }

    /// For a block format.
    #[must_use]
    pub fn format(mut self, format: &'static str) -> Self {
        self.format = Some(format);
        self
    }

    /// With a name defined.
    #[must_use]
    pub fn define(mut self, name: &'static str) -> Self {
        self.defines.insert(name);
        self
    }

    /// With a name defined if `condition` holds.
    #[must_use]
    pub fn define_if(self, condition: bool, name: &'static str) -> Self {
        if condition { self.define(name) } else { self }
    }

    /// With a number of the text set.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: u32) -> Self {
        self.numbers.insert(name, value);
        self
    }

    /// With a constant set.
    #[must_use]
    pub fn constant(mut self, name: &'static str, value: u32) -> Self {
        self.constants.insert(name, value);
        self
    }

    /// Assembles, checks and reflects the variant.
    pub fn build(&self) -> Result<Kernel, Error> {
        let error = |why: String| Error::Source { kernel: self.to_string(), why };
        let source = assemble::assemble(self.kernel, self.format, &self.defines, &self.numbers)?;
        let module = naga::front::wgsl::parse_str(&source)
            .map_err(|parse| error(parse.emit_to_string(&source)))?;
        let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), CAPABILITIES)
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all())
            .validate(&module)
            .map_err(|invalid| error(invalid.emit_to_string(&source)))?;
        for name in self.constants.keys() {
            if !module.overrides.iter().any(|(_, constant)| constant.name.as_deref() == Some(name))
            {
                return Err(error(format!("has no override constant {name}")));
            }
        }
        let bindings = reflect_bindings(&module).map_err(error)?;
        let params = reflect_params(&module);
        Ok(Kernel { variant: self.clone(), source, module, info, bindings, params })
    }
}

impl std::str::FromStr for Variant {
    type Err = Error;

    /// Reads what [`Variant`] displays: `matvec.q4_k+SUBGROUP ROWS=4 LANES=64`. Numbers that the kernel declares as
    /// `override` are constants, the others numbers of the text. Meant for tools: the names are kept for the life of
    /// the program.
    fn from_str(text: &str) -> Result<Self, Error> {
        let keep = |name: &str| -> &'static str { Box::leak(name.to_string().into_boxed_str()) };
        let mut words = text.split_whitespace();
        let mut head = words.next().unwrap_or_default().split('+');
        let name = head.next().unwrap_or_default();
        let (kernel, format) = name.split_once('.').map_or((name, None), |(k, f)| (k, Some(f)));
        let mut variant = Variant::new(keep(kernel));
        variant.format = format.map(keep);
        variant.defines = head.map(keep).collect();
        for word in words {
            let number = word.split_once('=').and_then(|(name, n)| Some((name, n.parse().ok()?)));
            let Some((name, number)) = number else {
                let why = format!("{word}: NAME=NUMBER is wanted");
                return Err(Error::Source { kernel: text.into(), why });
            };
            let is_constant = assemble::declares_override(kernel, name);
            let into = if is_constant { &mut variant.constants } else { &mut variant.numbers };
            into.insert(keep(name), number);
        }
        Ok(variant)
    }
}

impl fmt::Display for Variant {
    /// `matvec.q4_k+SUBGROUP ROWS=4`: for messages, caches and profiles.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kernel)?;
        if let Some(format) = self.format {
            write!(f, ".{format}")?;
        }
        for name in &self.defines {
            write!(f, "+{name}")?;
        }
        for (name, value) in self.numbers.iter().chain(&self.constants) {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// How a binding is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingKind {
    /// `var<uniform>`.
    Uniform,
    /// `var<storage, read>`.
    ReadOnly,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// One binding of a kernel, in group 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name, by which the host names what it binds.
    pub name: String,
    /// The index in the group.
    pub index: u32,
    /// How it is used.
    pub kind: BindingKind,
    /// Bytes of its type, for uniforms: what the host must bind. Of the others as many as there are.
    pub bytes: u32,
}

/// The members of the kernel's `Params`, by name: where the host writes numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    /// Name and offset in bytes of each member, all of four bytes.
    pub members: Vec<(String, u32)>,
    /// The struct's size in bytes.
    pub bytes: u32,
}

/// A variant, assembled, checked and reflected.
pub struct Kernel {
    /// What it was built from.
    pub variant: Variant,
    /// The assembled WGSL.
    pub source: String,
    /// naga's module.
    pub module: naga::Module,
    /// naga's findings about the module.
    pub info: naga::valid::ModuleInfo,
    /// What the host must bind, by ascending index.
    pub bindings: Vec<Binding>,
    /// The members of `params`.
    pub params: Params,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Kernel")
            .field("variant", &self.variant)
            .field("bindings", &self.bindings)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// The module with its constants set, as back ends want it.
    fn resolved(
        &self,
    ) -> Result<
        (std::borrow::Cow<'_, naga::Module>, std::borrow::Cow<'_, naga::valid::ModuleInfo>),
        Error,
    > {
        let constants: naga::back::PipelineConstants = self
            .variant
            .constants
            .iter()
            .map(|(&name, &value)| (name.to_string(), f64::from(value)))
            .collect();
        naga::back::pipeline_constants::process_overrides(
            &self.module,
            &self.info,
            Some((naga::ShaderStage::Compute, "main")),
            &constants,
        )
        .map_err(|why| self.error(why.to_string()))
    }

    fn error(&self, why: String) -> Error {
        Error::Source { kernel: self.variant.to_string(), why }
    }

    /// Whether it needs what only devices with cooperative matrices are sure to have: it multiplies by them, which
    /// Direct3D's language has not, and Metal's not in this size, or computes with halves.
    pub fn is_cooperative(&self) -> bool {
        ["enable wgpu_cooperative_matrix;", "enable f16;"]
            .iter()
            .any(|line| self.source.contains(line))
    }

    /// The workgroup's size and its memory in bytes, constants set.
    pub fn workgroup(&self) -> Result<([u32; 3], u32), Error> {
        let (module, _) = self.resolved()?;
        let entry = module
            .entry_points
            .iter()
            .find(|entry| entry.name == "main")
            .ok_or_else(|| self.error("has no entry point main".into()))?;
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).map_err(|why| self.error(why.to_string()))?;
        let bytes = module
            .global_variables
            .iter()
            .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
            .map(|(_, variable)| layouter[variable.ty].size)
            .sum();
        Ok((entry.workgroup_size, bytes))
    }

    /// SPIR-V 1.3, as Vulkan gets it.
    pub fn spirv(&self) -> Result<Vec<u32>, Error> {
        let (module, info) = self.resolved()?;
        let options = naga::back::spv::Options {
            lang_version: (1, 3),
            ..naga::back::spv::Options::default()
        };
        let pipeline = naga::back::spv::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: "main".into(),
        };
        naga::back::spv::write_vec(&module, &info, &options, Some(&pipeline))
            .map_err(|why| self.error(why.to_string()))
    }

    /// SPIR-V as wgpu 30 gives it to a driver of Vulkan 1.3 with robust access to buffers, the variant's constants set: what
    /// statistics by a vendor's compiler must be made from.
    pub fn spirv_as_wgpu(&self) -> Result<Vec<u32>, Error> {
        use naga::proc::BoundsCheckPolicy::{Restrict, Unchecked};
        let (module, info) = self.resolved()?;
        let trusted = self.variant.is_trusted();
        let options = naga::back::spv::Options {
            lang_version: (1, 6),
            flags: naga::back::spv::WriterFlags::empty(),
            bounds_check_policies: naga::proc::BoundsCheckPolicies {
                index: if trusted { Unchecked } else { Restrict },
                buffer: Unchecked,
                image_load: Unchecked,
                binding_array: Unchecked,
            },
            // As the pipelines ask for.
            zero_initialize_workgroup_memory:
                naga::back::spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: !trusted,
            emit_int_div_checks: !trusted,
            fake_missing_bindings: true,
            ..naga::back::spv::Options::default()
        };
        let pipeline = naga::back::spv::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: "main".into(),
        };
        naga::back::spv::write_vec(&module, &info, &options, Some(&pipeline))
            .map_err(|why| self.error(why.to_string()))
    }
}

/// Reads the bindings of group 0 off the module, and holds them against the limits.
fn reflect_bindings(module: &naga::Module) -> Result<Vec<Binding>, String> {
    let mut bindings = Vec::new();
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|why| why.to_string())?;
    for (_, variable) in module.global_variables.iter() {
        let Some(place) = variable.binding else { continue };
        let kind = match variable.space {
            AddressSpace::Uniform => BindingKind::Uniform,
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                BindingKind::ReadWrite
            }
            AddressSpace::Storage { .. } => BindingKind::ReadOnly,
            _ => continue,
        };
        let name = variable.name.clone().unwrap_or_default();
        let bytes = if kind == BindingKind::Uniform { layouter[variable.ty].size } else { 0 };
        bindings.push(Binding { name, index: place.binding, kind, bytes });
    }
    bindings.sort_by_key(|binding| binding.index);
    let is_buffer =
        |kind: BindingKind| matches!(kind, BindingKind::ReadOnly | BindingKind::ReadWrite);
    let storage = bindings.iter().filter(|binding| is_buffer(binding.kind)).count();
    if storage > MAX_STORAGE_BUFFERS {
        return Err(format!(
            "binds {storage} storage buffers, at most {MAX_STORAGE_BUFFERS} are portable"
        ));
    }
    if bindings.windows(2).any(|pair| pair[0].index == pair[1].index) {
        return Err("binds two variables at one index".into());
    }
    Ok(bindings)
}

/// Reads the members of the uniform named `params`.
fn reflect_params(module: &naga::Module) -> Params {
    let params = module
        .global_variables
        .iter()
        .find(|(_, variable)| variable.name.as_deref() == Some("params"))
        .map(|(_, variable)| &module.types[variable.ty].inner);
    match params {
        Some(naga::TypeInner::Struct { members, span }) => Params {
            members: members
                .iter()
                .map(|member| (member.name.clone().unwrap_or_default(), member.offset))
                .collect(),
            bytes: *span,
        },
        _ => Params::default(),
    }
}
