//! A program's own wgpu device: models run on it as on one that the engine has opened.

use engine::wgpu;
use engine::{
    ContextOptions, Device, GpuOptions, LoadOptions, Model, ModelFile, SequenceId, StepToken,
};
use engine_tests::devices::{gpu, gpu_context};
use engine_tests::golden::Tiny;

/// The adapter that tests run on, opened as a program would.
fn opened(limits: wgpu::Limits) -> (wgpu::Adapter, wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let adapter = adapters.into_iter().next().expect("a GPU or a software driver");
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() & wgpu::Features::SUBGROUP,
        required_limits: limits,
        ..wgpu::DeviceDescriptor::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    (adapter, device, queue)
}

#[test]
fn a_model_runs_on_the_programs_device() {
    let (adapter, device, queue) = opened(wgpu::Limits::default());
    let path = Tiny::load("llama").path();
    let context = ContextOptions { positions: Some(256), ..ContextOptions::default() };
    let load = LoadOptions { context: context.clone(), ..LoadOptions::default() };
    let on_it = Device::from_wgpu(&adapter, &device, &queue).unwrap();
    let model = Model::load(&[on_it], &path, &load).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 37 % 500).collect();
    let tokens = StepToken::run(SequenceId(0), 0, &ids, true);
    let ours = model.context(&context).unwrap().step(&tokens).unwrap();
    let file = ModelFile::open(&path).unwrap();
    let expected =
        gpu_context(&gpu(&GpuOptions::default()), &file, &context).step(&tokens).unwrap();
    for (ours, expected) in ours.iter().flatten().zip(expected.iter().flatten()) {
        assert!((ours - expected).abs() < 1e-4, "{ours} {expected}");
    }
    // The program goes on with its device when the model is gone.
    drop(model);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 64,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, &[1; 64]);
    queue.submit([]);
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
}

#[test]
fn a_device_with_too_little_is_refused() {
    let limits =
        wgpu::Limits { max_compute_invocations_per_workgroup: 128, ..wgpu::Limits::default() };
    let (adapter, device, queue) = opened(limits);
    let error = Device::from_wgpu(&adapter, &device, &queue).unwrap_err().to_string();
    assert!(error.contains("max_compute_invocations_per_workgroup 128"), "{error}");
    assert!(error.contains("need 256"), "{error}");
}
