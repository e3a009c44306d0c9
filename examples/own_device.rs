//! Generates on a wgpu device that the caller opened, for example the one that draws a game.
//!
//! `cargo run --release --example own_device -- [STEPS]`

use std::time::Duration;

use ditscope::engine::{Engine, GenerateRequest};
use ditscope::gpu::{Gpu, GpuOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    // WebGPU's default limits are enough. Subgroups and larger limits make large models faster.
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() & (wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY),
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let gpu = Gpu::from_wgpu(device, queue, GpuOptions::default());
    let engine = Engine::start(gpu, Duration::from_millis(12))?;
    let mut request = GenerateRequest::of_model("assets/demo-model".as_ref(), "a cat walking on grass")?;
    if let Some(steps) = std::env::args().nth(1) {
        request.clip.num_inference_steps = steps.parse()?;
    }
    engine.generate(request)?;
    let clip = engine.wait()?;
    println!("{} frames of {}x{} on {}", clip.frames.len(), clip.width, clip.height, engine.adapter());
    Ok(())
}
