//! How much memory a GPU has free: wgpu does not say, Vulkan does. Metal and DX12 are not asked yet; there
//! the driver's refusal of a buffer is the first sign.

/// Free bytes of the adapter's largest local heap, where its API says: by VK_EXT_memory_budget what this
/// process may still take, else the heap's size.
#[cfg(not(target_vendor = "apple"))]
pub fn free_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    use ash::vk;

    // SAFETY: the handles behind the guard are only asked, and not destroyed.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let shared = adapter.shared_instance();
    if shared.instance_api_version() < vk::API_VERSION_1_1 {
        return None;
    }
    let (instance, device) = (shared.raw_instance(), adapter.raw_physical_device());
    // SAFETY: the device belongs to this instance, which the guard keeps alive.
    let extensions = unsafe { instance.enumerate_device_extension_properties(device) }.ok()?;
    let has_budget = extensions
        .iter()
        .any(|extension| extension.extension_name_as_c_str() == Ok(ash::ext::memory_budget::NAME));
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default();
    if has_budget {
        properties = properties.push_next(&mut budget);
    }
    // SAFETY: as above; the function is part of Vulkan 1.1, and the structure chained to the query is one
    // that the device's extension defines.
    unsafe { instance.get_physical_device_memory_properties2(device, &mut properties) };
    let memory = properties.memory_properties;
    (0..memory.memory_heap_count as usize)
        .filter(|&heap| memory.memory_heaps[heap].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
        .map(|heap| {
            if has_budget {
                budget.heap_budget[heap].saturating_sub(budget.heap_usage[heap])
            } else {
                memory.memory_heaps[heap].size
            }
        })
        .max()
}

/// Not known on this system.
#[cfg(target_vendor = "apple")]
pub fn free_bytes(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}
