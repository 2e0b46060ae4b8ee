//! Variants compiled: each once per device, with the names of what it binds.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use shaders::{Binding, BindingKind, Params, Variant};

use crate::{Error, Result, cache};

/// A compiled variant.
pub struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// What it binds.
    pub(super) bindings: Vec<Binding>,
    /// Where its numbers go.
    pub(super) params: Params,
}

/// The compiled variants of a device.
pub struct Pipelines {
    device: wgpu::Device,
    /// The device's name, for messages.
    name: String,
    compiled: Mutex<HashMap<Variant, Arc<Pipeline>>>,
    /// A text in kernels and what takes its place, for tests.
    injected_fault: Option<(String, String)>,
    /// What the driver keeps from run to run, and the file that it lies in.
    cache: Option<(wgpu::PipelineCache, PathBuf)>,
}

impl Pipelines {
    /// Nothing compiled yet; the driver's cache from an earlier run, where the adapter has one.
    pub fn new(
        device: &wgpu::Device,
        adapter: &wgpu::AdapterInfo,
        injected_fault: Option<(String, String)>,
    ) -> Self {
        let cache = Self::open_cache(device, adapter);
        Self {
            device: device.clone(),
            name: adapter.name.clone(),
            compiled: Mutex::default(),
            injected_fault,
            cache,
        }
    }

    fn open_cache(
        device: &wgpu::Device,
        adapter: &wgpu::AdapterInfo,
    ) -> Option<(wgpu::PipelineCache, PathBuf)> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let name = wgpu::util::pipeline_cache_key(adapter)?;
        let file = cache::folder()?.join("pipelines").join(name);
        let data = std::fs::read(&file).ok();
        // SAFETY: the file is what `save` wrote of get_data's for this adapter and driver (the key names
        // both), written whole or not at all; what does not fit is dropped (fallback).
        let cache = unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: Some("pipelines"),
                data: data.as_deref(),
                fallback: true,
            })
        };
        Some((cache, file))
    }

    /// Keeps what the driver compiled for the next run; where it cannot be written that one compiles again.
    pub fn save(&self) {
        let Some((cache, file)) = &self.cache else { return };
        let (Some(data), Some(folder)) = (cache.get_data(), file.parent()) else { return };
        let part = file.with_extension(format!("{}.part", std::process::id()));
        if std::fs::create_dir_all(folder).is_ok() && std::fs::write(&part, data).is_ok() {
            let _ = std::fs::rename(&part, file);
        }
    }

    /// Compiles variants on several threads.
    pub fn warm(&self, variants: &[Variant]) -> Result<()> {
        let missing: Vec<&Variant> = match self.compiled.lock() {
            Ok(compiled) => variants.iter().filter(|v| !compiled.contains_key(v)).collect(),
            Err(_) => return Ok(()),
        };
        if missing.is_empty() {
            return Ok(());
        }
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(missing.len()).min(8))
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        while let Some(variant) = missing.get(next.fetch_add(1, Ordering::Relaxed))
                        {
                            self.get(variant)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| {
                let lost = || Error::Internal("a thread that compiles kernels has ended".into());
                worker.join().map_err(|_| lost())?
            })
        })?;
        self.save();
        Ok(())
    }

    /// The compiled form of a variant; compiles it on first use.
    pub fn get(&self, variant: &Variant) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self.compiled.lock().ok().and_then(|map| map.get(variant).cloned())
        {
            return Ok(pipeline);
        }
        let pipeline = Arc::new(self.compile(variant)?);
        if let Ok(mut compiled) = self.compiled.lock() {
            compiled.insert(variant.clone(), pipeline.clone());
        }
        Ok(pipeline)
    }

    fn compile(&self, variant: &Variant) -> Result<Pipeline> {
        let mut kernel = variant.build()?;
        if let Some((text, instead)) = &self.injected_fault {
            kernel.source = kernel.source.replace(text, instead);
        }
        let label = variant.to_string();
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(kernel.source.as_str().into()),
        };
        let module = if variant.is_trusted() {
            // SAFETY: a trusted variant takes every index from its grid and its params, clamped to the rows and
            // tokens that exist, and clamps what it reads from buffers; tests hold grids and params against the
            // buffers' sizes. Its loops end at counts from params.
            unsafe {
                self.device.create_shader_module_trusted(
                    descriptor,
                    wgpu::ShaderRuntimeChecks::unchecked(),
                )
            }
        } else {
            self.device.create_shader_module(descriptor)
        };
        let entries: Vec<_> = kernel
            .bindings
            .iter()
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding: binding.index,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: binding_type(binding.kind),
                count: None,
            })
            .collect();
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&label),
            entries: &entries,
        });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let constants: Vec<_> =
            variant.constants.iter().map(|(&name, &value)| (name, f64::from(value))).collect();
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: self.cache.as_ref().map(|(cache, _)| cache),
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::DeviceLost {
                device: self.name.clone(),
                why: format!("kernel {label} does not compile: {error}"),
            });
        }
        Ok(Pipeline { pipeline, layout, bindings: kernel.bindings, params: kernel.params })
    }
}

/// A kind of binding in wgpu's words.
fn binding_type(kind: BindingKind) -> wgpu::BindingType {
    let ty = match kind {
        BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
        BindingKind::ReadOnly => wgpu::BufferBindingType::Storage { read_only: true },
        BindingKind::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None }
}
