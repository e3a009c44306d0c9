//! A job is held and ended at any time, while it loads as well as while it computes.

use std::path::Path;
use std::time::{Duration, Instant};

use ditscope::engine::{Engine, EngineError, Event, GenerateRequest};
use ditscope::gpu::{Gpu, GpuOptions};

fn request() -> GenerateRequest {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
    GenerateRequest::of_model(&model, "a cat walking on grass").unwrap()
}

/// The job's last event, and how many steps it made.
fn end(engine: &Engine) -> (Event, usize) {
    let mut steps = 0;
    loop {
        match engine.events().recv_timeout(Duration::from_secs(100)).expect("an event") {
            last @ (Event::Finished(_) | Event::Failed(_)) => return (last, steps),
            Event::Step(_) => steps += 1,
            _ => {}
        }
    }
}

#[test]
fn a_job_is_held_and_ended_while_it_loads() {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let engine = Engine::start(gpu.clone(), Duration::from_millis(12)).unwrap();
    engine.generate(request()).unwrap();
    engine.control().pause();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(gpu.memory().used, 0, "weights were loaded in a pause");
    engine.control().cancel();
    let asked = Instant::now();
    assert!(matches!(end(&engine), (Event::Failed(EngineError::Cancelled), 0)));
    assert!(asked.elapsed() < Duration::from_secs(5));

    // A wish that comes before the job's thread knows of the job is not lost, and holds for that job only.
    for _ in 0..8 {
        engine.generate(request()).unwrap();
        engine.control().cancel();
        assert!(matches!(end(&engine), (Event::Failed(EngineError::Cancelled), 0)));
    }
    engine.control().cancel();
    engine.generate(GenerateRequest { num_inference_steps: 2, num_frames: 5, ..request() }).unwrap();
    assert!(matches!(end(&engine), (Event::Finished(_), 2)));
}
