//! Compiles SPIR-V on a Vulkan driver and asks what came of it (`VK_KHR_pipeline_executable_properties`): registers,
//! spills, the machine's own instructions.
//!
//! wgpu asks for none of that, and cannot open a driver that only compiles (RADV's null device), so that this speaks Vulkan
//! itself, with the features and the robust access to buffers that wgpu asks for.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::path::Path;

use ash::vk;

use super::Compiled;

/// The first Vulkan device, opened to compile.
pub struct Compiler {
    // The loaded library, which must outlive the device.
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    executables: ash::khr::pipeline_executable_properties::Device,
    /// The device's name.
    pub name: String,
    /// The driver and its version in its own words.
    pub driver: String,
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Compiler").finish_non_exhaustive()
    }
}

/// What wgpu would use where the driver has it, and what this program is for.
const EXTENSIONS: [&CStr; 4] = [
    ash::khr::pipeline_executable_properties::NAME,
    ash::ext::robustness2::NAME,
    ash::khr::cooperative_matrix::NAME,
    ash::khr::workgroup_memory_explicit_layout::NAME,
];

impl Compiler {
    /// Opens the first device of the drivers that the environment names (`VK_DRIVER_FILES`).
    pub fn open() -> Result<Self, String> {
        // SAFETY: the system's Vulkan loader, whose initialisation runs no code of ours.
        let entry = unsafe { ash::Entry::load() }.map_err(|why| format!("no Vulkan: {why}"))?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `create` and what it points at live through the call.
        let instance = unsafe { entry.create_instance(&create, None) }
            .map_err(|why| format!("no Vulkan instance: {why}"))?;
        // SAFETY: the instance lives.
        let devices = unsafe { instance.enumerate_physical_devices() };
        let first = devices.ok().and_then(|devices| devices.first().copied());
        let physical = first.ok_or("no Vulkan device")?;
        let mut of_driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut of_driver);
        // SAFETY: the device is of this instance, of Vulkan 1.3; what is written to lives through the call.
        unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
        let name = text(&properties.properties.device_name);
        let driver = text(&of_driver.driver_info);
        let device = open_device(&instance, physical)?;
        let executables = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
        Ok(Self { _entry: entry, instance, device, executables, name, driver })
    }

    /// Compiles a file of SPIR-V whose entry point is `main`.
    pub fn compile(&self, file: &Path) -> Result<Compiled, String> {
        let bytes = std::fs::read(file).map_err(|why| format!("{}: {why}", file.display()))?;
        let words: Vec<u32> =
            bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let (pipeline, objects) = self.pipeline(&words).map_err(|why| why.to_string())?;
        let read = self.read(pipeline).map_err(|why| why.to_string());
        // SAFETY: made just now, used by nobody else.
        unsafe { objects.destroy(&self.device, pipeline) };
        read
    }

    fn pipeline(&self, words: &[u32]) -> Result<(vk::Pipeline, Objects), vk::Result> {
        let device = &self.device;
        let bindings = bindings_of(words);
        let module = vk::ShaderModuleCreateInfo::default().code(words);
        let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: naga wrote the words and validated the module; what the infos point at lives through each call, and the
        // layouts are of this device.
        unsafe {
            let module = device.create_shader_module(&module, None)?;
            let set = device.create_descriptor_set_layout(&set, None)?;
            let sets = [set];
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = device.create_pipeline_layout(&layout, None)?;
            let objects = Objects { module, set, layout };
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"main");
            let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let create =
                vk::ComputePipelineCreateInfo::default().flags(flags).stage(stage).layout(layout);
            match device.create_compute_pipelines(vk::PipelineCache::null(), &[create], None) {
                Ok(pipelines) => Ok((pipelines[0], objects)),
                Err((_, why)) => {
                    objects.destroy(device, vk::Pipeline::null());
                    Err(why)
                }
            }
        }
    }

    /// What the driver says of a pipeline: a compute shader is one executable.
    fn read(&self, pipeline: vk::Pipeline) -> Result<Compiled, vk::Result> {
        let of = vk::PipelineInfoKHR::default().pipeline(pipeline);
        let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline lives, was made with the flags that these calls want, and has an executable.
        let (properties, statistics) = unsafe {
            (
                self.executables.get_pipeline_executable_properties(&of)?,
                self.executables.get_pipeline_executable_statistics(&executable)?,
            )
        };
        let subgroup = properties.first().map_or(0, |first| first.subgroup_size);
        let statistics: BTreeMap<String, f64> = statistics
            .iter()
            .map(|statistic| {
                use vk::PipelineExecutableStatisticFormatKHR as Format;
                // SAFETY: the format says which member was written.
                let value = unsafe {
                    match statistic.format {
                        Format::FLOAT64 => statistic.value.f64,
                        Format::INT64 => statistic.value.i64 as f64,
                        Format::BOOL32 => f64::from(statistic.value.b32),
                        _ => statistic.value.u64 as f64,
                    }
                };
                (text(&statistic.name), value)
            })
            .collect();
        let driver = self.driver.clone();
        Ok(Compiled { driver, subgroup, statistics, texts: self.texts(&executable)? })
    }

    /// The compiler's texts of an executable by their names: RADV gives its NIR, its own IR and the assembly.
    fn texts(
        &self,
        executable: &vk::PipelineExecutableInfoKHR,
    ) -> Result<BTreeMap<String, String>, vk::Result> {
        let call = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let device = self.device.handle();
        // SAFETY: asked for first are the texts' names and lengths, then, in room of these lengths, the texts.
        unsafe {
            let mut texts =
                self.executables.get_pipeline_executable_internal_representations(executable)?;
            let mut room: Vec<Vec<u8>> = texts.iter().map(|text| vec![0; text.data_size]).collect();
            for (text, room) in texts.iter_mut().zip(&mut room) {
                text.p_data = room.as_mut_ptr().cast();
            }
            let mut count = texts.len() as u32;
            call(device, executable, &raw mut count, texts.as_mut_ptr()).result()?;
            let read = |bytes: &[u8]| {
                let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                String::from_utf8_lossy(&bytes[..end]).into_owned()
            };
            let whole = texts.iter().zip(&room).filter(|(text, _)| text.is_text == vk::TRUE);
            Ok(whole.map(|(info, bytes)| (text(&info.name), read(bytes))).collect())
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // SAFETY: everything made of the device is gone, and nothing uses either after this.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// What a pipeline was made of.
struct Objects {
    module: vk::ShaderModule,
    set: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
}

impl Objects {
    /// # Safety
    /// The objects are of `device`, and nothing uses them or the pipeline any more.
    unsafe fn destroy(&self, device: &ash::Device, pipeline: vk::Pipeline) {
        // SAFETY: as above.
        unsafe {
            device.destroy_pipeline(pipeline, None);
            device.destroy_pipeline_layout(self.layout, None);
            device.destroy_descriptor_set_layout(self.set, None);
            device.destroy_shader_module(self.module, None);
        }
    }
}

/// Opens a device with every feature of those that it has.
fn open_device(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
) -> Result<ash::Device, String> {
    // SAFETY: the device is of this instance.
    let offered = unsafe { instance.enumerate_device_extension_properties(physical) }
        .map_err(|why| format!("no extensions: {why}"))?;
    let has = |name: &CStr| {
        offered.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name))
    };
    if !has(EXTENSIONS[0]) {
        return Err("the driver does not tell what it compiled".into());
    }
    let extensions: Vec<*const c_char> =
        EXTENSIONS.iter().filter(|name| has(name)).map(|name| name.as_ptr()).collect();
    let mut told = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
    let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
    let mut cooperative = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
    let mut layout = vk::PhysicalDeviceWorkgroupMemoryExplicitLayoutFeaturesKHR::default();
    let mut vulkan11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut vulkan12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut vulkan13 = vk::PhysicalDeviceVulkan13Features::default();
    let mut features = vk::PhysicalDeviceFeatures2::default()
        .push_next(&mut vulkan11)
        .push_next(&mut vulkan12)
        .push_next(&mut vulkan13)
        .push_next(&mut told);
    if has(EXTENSIONS[1]) {
        features = features.push_next(&mut robust);
    }
    if has(EXTENSIONS[2]) {
        features = features.push_next(&mut cooperative);
    }
    if has(EXTENSIONS[3]) {
        features = features.push_next(&mut layout);
    }
    let queues =
        [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    // SAFETY: the chain holds structs of offered extensions alone, and lives, like the lists, through both calls.
    unsafe {
        instance.get_physical_device_features2(physical, &mut features);
        let create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .push_next(&mut features);
        instance.create_device(physical, &create, None)
    }
    .map_err(|why| format!("the device does not open: {why}"))
}

/// What a module binds, read off its decorations: enough for naga's modules, which have one set, and one resource a
/// variable.
fn bindings_of(words: &[u32]) -> Vec<vk::DescriptorSetLayoutBinding<'static>> {
    const DECORATE: u32 = 71;
    const BINDING: u32 = 33;
    const VARIABLE: u32 = 59;
    const UNIFORM_CONSTANT: u32 = 0;
    const UNIFORM: u32 = 2;
    let mut binding_of = BTreeMap::new();
    let mut bindings = Vec::new();
    // Behind a header of five words, each instruction says its length and what it is.
    let mut rest = words.get(5..).unwrap_or_default();
    while let Some(&first) = rest.first() {
        let (operation, length) = (first & 0xffff, (first >> 16) as usize);
        let Some((instruction, after)) = rest.split_at_checked(length.max(1)) else { break };
        match *instruction {
            [_, id, BINDING, binding] if operation == DECORATE => {
                binding_of.insert(id, binding);
            }
            [_, _, id, class, ..] if operation == VARIABLE => {
                let Some(&binding) = binding_of.get(&id) else {
                    rest = after;
                    continue;
                };
                let kind = match class {
                    UNIFORM => vk::DescriptorType::UNIFORM_BUFFER,
                    UNIFORM_CONSTANT => vk::DescriptorType::STORAGE_IMAGE,
                    _ => vk::DescriptorType::STORAGE_BUFFER,
                };
                bindings.push(
                    vk::DescriptorSetLayoutBinding::default()
                        .binding(binding)
                        .descriptor_type(kind)
                        .descriptor_count(1)
                        .stage_flags(vk::ShaderStageFlags::COMPUTE),
                );
            }
            _ => {}
        }
        rest = after;
    }
    bindings
}

/// A name out of a struct of Vulkan's.
fn text(characters: &[c_char]) -> String {
    let bytes: Vec<u8> =
        characters.iter().take_while(|&&c| c != 0).map(|&c| c.to_ne_bytes()[0]).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
