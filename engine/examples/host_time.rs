//! What a decode step costs the host: dispatches, and microseconds to prepare, encode and submit them.
//!
//! `cargo run --release -p engine --example host_time -- MODEL [DEVICE]`; the device `none` has no driver under it, so
//! that what is measured is the engine's and wgpu's own work.

use std::time::{Duration, Instant};

use engine::GpuOptions;
use engine::ModelFile;
use engine::internals::blueprint::Blueprint;
use engine::internals::executor::Executor as _;
use engine::internals::gpu::adapter::without_driver;
use engine::internals::gpu::{Gpu, GpuExecutor, GpuWeights};
use engine::{ContextOptions, Device, DeviceOptions, Error, Result};
use engine::{SequenceId, StepToken};

const STEPS: u32 = 200;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or_else(|| Error::Option("which model?".into()))?;
    let name = arguments.next().unwrap_or_else(|| "vulkan:0".into());
    let gpu = if name == "none" {
        let adapter = without_driver();
        let adapter = adapter.ok_or_else(|| Error::Option("there is no such adapter".into()))?;
        Gpu::open(&adapter, &GpuOptions::default())?
    } else {
        let device = Device::open(&DeviceOptions { name: Some(name), ..DeviceOptions::default() })?;
        let Device::Gpu(gpu) = device else { return Err(Error::Option("a GPU is needed".into())) };
        gpu
    };

    let start = Instant::now();
    let file = ModelFile::open(&path)?;
    let header = start.elapsed();
    let options =
        ContextOptions { positions: Some(512), outputs: Some(1), ..ContextOptions::default() };
    let blueprint = Blueprint::new(&file, &options)?;
    let start = Instant::now();
    let plan = &blueprint.plan;
    let weights =
        GpuWeights::load(gpu.clone(), &file.gguf, plan, gpu.kernels.clone(), &mut |_, _| ())?;
    let load = start.elapsed();
    let mut table = blueprint.table(blueprint.sizes.positions);
    let mut executor = GpuExecutor::new(weights.into(), blueprint)?;
    let mut times = Vec::new();
    for position in 0..STEPS {
        let step = StepToken::run(SequenceId(0), position as usize, &[position], true);
        let prepared = table.prepare(&step)?;
        let start = Instant::now();
        executor.step(&table, &prepared)?;
        times.push(start.elapsed());
        // Waits: the next step's time on the host is not to hide behind this one's work.
        executor.logits()?;
    }
    // The first step lowers and compiles.
    times.remove(0);
    times.sort();
    let counts = executor.counts();
    let median: Duration = times[times.len() / 2];
    println!(
        "{path} on {}: header {:.1} ms, load {:.0} ms, {} dispatches, {} submits and {} writes a token, host {:.0} us a token (median of {}), {:.2} us a dispatch",
        gpu.name,
        header.as_secs_f64() * 1e3,
        load.as_secs_f64() * 1e3,
        counts.dispatches,
        counts.submits,
        counts.writes,
        median.as_secs_f64() * 1e6,
        times.len(),
        median.as_secs_f64() * 1e6 / counts.dispatches as f64,
    );
    Ok(())
}
