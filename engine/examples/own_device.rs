//! A model on the wgpu device of a program that draws: both use one device and one queue.
//!
//! ```text
//! cargo run --release -p engine --example own_device -- MODEL.gguf
//! ```

use std::error::Error;
use std::sync::atomic::AtomicBool;

use engine::wgpu;
use engine::{Device, GenerateOptions, LoadOptions, Message, Model, Scheduler, Session};

/// A picture that the program draws: here all of one colour.
struct Picture {
    device: wgpu::Device,
    queue: wgpu::Queue,
    view: wgpu::TextureView,
}

impl Picture {
    fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let texture = device.create_texture(&wgpu::TextureDescriptor {
            label: Some("picture"),
            size: wgpu::Extent3d { width: 256, height: 256, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba8Unorm,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
            view_formats: &[],
        });
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        Self { device: device.clone(), queue: queue.clone(), view }
    }

    fn draw(&self, red: f64) {
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let colour = wgpu::Color { r: red, g: 0.2, b: 0.4, a: 1.0 };
        encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &self.view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations {
                    load: wgpu::LoadOp::Clear(colour),
                    store: wgpu::StoreOp::Store,
                },
            })],
            ..wgpu::RenderPassDescriptor::default()
        });
        self.queue.submit([encoder.finish()]);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which model? give a .gguf file")?;
    // What any program does that draws by wgpu.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let adapter = adapters.into_iter().next().ok_or("there is no GPU")?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features() & wgpu::Features::SUBGROUP,
        required_limits: adapter.limits(),
        ..wgpu::DeviceDescriptor::default()
    }))?;
    let picture = Picture::new(&device, &queue);

    let options = LoadOptions::default();
    let model = Model::load(&[Device::from_wgpu(&adapter, &device, &queue)?], &path, &options)?;
    let scheduler = Scheduler::start(&model, &options.context)?;
    let mut session = Session::new(&scheduler)?;
    session.push_chat(&[Message::user("Why is the sky blue?")])?;
    let generate = GenerateOptions { max_tokens: Some(40), ..GenerateOptions::default() };
    let mut frames = 0;
    session.generate(&generate, &AtomicBool::new(false), &mut |text| {
        // A frame between two tokens.
        picture.draw(f64::from(frames % 60) / 60.0);
        frames += 1;
        print!("{text}");
    })?;
    println!("\n({frames} frames drawn beside it on {})", adapter.get_info().name);
    Ok(())
}
