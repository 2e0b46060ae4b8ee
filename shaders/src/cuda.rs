//! The text of a kernel for NVIDIA's compiler of CUDA, whose assembly can be read without a card (`checks/nvrtc`).

use naga::proc::BoundsCheckPolicy::{Restrict, Unchecked};

use crate::{Error, Kernel};

impl Kernel {
    /// Metal's language, which is C++ and so nearly CUDA's, with the checks that the variant has on Vulkan: what
    /// `checks/nvrtc` counts instructions of. Never run.
    pub fn text_for_cuda(&self) -> Result<String, Error> {
        let (module, info) = self.resolved()?;
        let trusted = self.variant.is_trusted();
        let options = naga::back::msl::Options {
            lang_version: (2, 4),
            fake_missing_bindings: true,
            bounds_check_policies: naga::proc::BoundsCheckPolicies {
                index: if trusted { Unchecked } else { Restrict },
                // Vulkan's robust access costs no instructions of the shader's own.
                buffer: Unchecked,
                image_load: Unchecked,
                binding_array: Unchecked,
            },
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: !trusted,
            emit_int_div_checks: !trusted,
            ..naga::back::msl::Options::default()
        };
        let pipeline = naga::back::msl::PipelineOptions::default();
        naga::back::msl::write_string(&module, &info, &options, &pipeline)
            .map(|(text, _)| text)
            .map_err(|why| self.error(why.to_string()))
    }
}
