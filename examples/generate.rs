//! Makes a clip of a prompt with the demo model, and writes it as a video.
//!
//! `cargo run --release --example generate -- [OUTPUT.mp4] [STEPS]`

use std::path::PathBuf;
use std::time::Duration;

use ditscope::engine::{Engine, Event, GenerateRequest};
use ditscope::gpu::{Gpu, GpuOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let output = PathBuf::from(args.next().unwrap_or_else(|| "cat.mp4".into()));
    let mut request = GenerateRequest::of_model("assets/demo-model".as_ref(), "a cat walking on grass")?;
    if let Some(steps) = args.next() {
        request.clip.num_inference_steps = steps.parse()?;
    }
    // Without a window that shares the GPU, one submit may take 100 ms.
    let engine = Engine::start(Gpu::open(&GpuOptions::default())?, Duration::from_millis(100))?;
    engine.generate(request)?;
    for event in engine.events() {
        match event {
            Event::Step(done) => println!("step {} of {}", done.record.step + 1, done.steps),
            Event::Warning(text) => eprintln!("warning: {text}"),
            Event::Finished(clip) => {
                clip.write(&output, "")?;
                println!("{} in {:.1} s", output.display(), clip.seconds.total);
                return Ok(());
            }
            Event::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }
    Err("the engine stopped".into())
}
