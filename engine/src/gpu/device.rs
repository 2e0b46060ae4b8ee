//! An opened GPU: its queue, its faults, its buffers and what is read back of them.

use std::sync::{Arc, Mutex};

use super::budget;
use super::choice::Kernels;
use super::pipelines::Pipelines;
use crate::error::Advice;
use crate::{Error, Result};

/// The first thing that went wrong on a device, which its callbacks tell.
#[derive(Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    /// Hears what goes wrong on a device from now on.
    pub fn of(device: &wgpu::Device) -> Self {
        let fault = Self::default();
        let heard = fault.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            heard.keep_first(error.to_string());
        }));
        let heard = fault.clone();
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                heard.keep_first(format!("device lost: {message}"));
            }
        });
        fault
    }

    fn keep_first(&self, message: String) {
        if let Ok(mut fault) = self.0.lock() {
            fault.get_or_insert(message);
        }
    }

    fn get(&self) -> Option<String> {
        self.0.lock().ok()?.clone()
    }
}

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
    pub(super) adapter: wgpu::Adapter,
    pub(super) memory_limit: Option<u64>,
    pub(super) fault: Fault,
}

crate::opaque::opaque_debug!(Gpu { id, name, driver, kernels });

impl Gpu {
    /// Refuses a device whose clock cannot be read: one that has none, or was opened without
    /// [`super::GpuOptions::timestamps`].
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

    /// The first thing that went wrong on the device, as an error.
    pub(super) fn check(&self) -> Result<()> {
        match self.fault.get() {
            Some(why) => Err(Error::DeviceLost { device: self.name.clone(), why }),
            None => Ok(()),
        }
    }

    /// Waits until all submitted work is done.
    pub(super) fn wait(&self) -> Result<()> {
        self.wait_for(None)
    }

    /// Waits until a submission, or all, are done.
    pub(super) fn wait_for(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
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
