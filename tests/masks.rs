//! A measurement that is run by hand: how well the estimated masks agree with the moving parts of
//! the decoded frames. The demo model's backgrounds do not move, so pixels that differ from their
//! median over time belong to the object.
//!
//! `cargo test --release --test integration masks:: -- --ignored --nocapture`

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ditscope::engine::{Capture, Engine, Event, GenerateRequest, Generated, Observe, Received};
use ditscope::gpu::{Gpu, GpuOptions};
use ditscope::media::GrayFrame;
use ditscope::profiling::ProfilingError;
use ditscope::profiling::mask::{self, Mask};

/// A pixel belongs to the object if it differs from the median by more than this. Values lie in
/// [-1, 1].
const MOVED: f32 = 0.3;
const STEPS: usize = 20;

fn request(prompt: &str, size: usize) -> GenerateRequest {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
    let mut request = GenerateRequest::of_model(&model, prompt).unwrap();
    (request.clip.width, request.clip.height) = (size, size);
    request.clip.num_inference_steps = STEPS;
    request.with_observe(Observe::default().with_attention(Received::Exact))
}

fn run(engine: &Engine, request: GenerateRequest) -> (Generated, Capture) {
    engine.generate(request).unwrap();
    let mut capture = Capture::default();
    for event in engine.events() {
        capture.observe(&event);
        match event {
            Event::Finished(generated) => return (*generated, capture),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    panic!("the engine stopped");
}

/// The tokens of which at least half is covered by pixels of the object. `None` if nothing moves.
fn moving(generated: &Generated, grid: [usize; 3]) -> Option<Mask> {
    let pixels = generated.width * generated.height;
    let median = |place: usize| {
        let mut values: Vec<f32> = generated.frames.iter().map(|frame| frame[place]).collect();
        values.sort_by(f32::total_cmp);
        values[values.len() / 2]
    };
    let background: Vec<f32> = (0..3 * pixels).map(median).collect();
    let picture = |frame: &Vec<f32>| {
        let moved = |pixel: usize| (0..3).any(|c| (frame[3 * pixel + c] - background[3 * pixel + c]).abs() > MOVED);
        let values = (0..pixels).map(|pixel| 255 * u8::from(moved(pixel))).collect();
        GrayFrame { width: generated.width, height: generated.height, values }
    };
    let pictures: Vec<_> = generated.frames.iter().map(picture).collect();
    match mask::file(&pictures, grid) {
        Err(ProfilingError::NoMask(_)) => None,
        found => Some(found.unwrap().mask),
    }
}

#[test]
#[ignore = "a measurement of some minutes"]
fn estimated_masks_against_what_moves() {
    let engine = Engine::start(Gpu::open(&GpuOptions::default()).unwrap(), Duration::from_millis(100)).unwrap();
    let prompts = include_str!("../assets/prompts/profile.txt");
    for size in [64, 128] {
        let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for prompt in prompts.lines() {
            let (generated, capture) = run(&engine, request(prompt, size));
            let Some(truth) = moving(&generated, capture.run.token_grid) else {
                println!("{size} px: nothing moves for \"{prompt}\"");
                continue;
            };
            for record in &capture.masks {
                let estimate = Mask::new(capture.run.token_grid, record.tokens.clone()).unwrap();
                found.entry(record.estimator.clone()).or_default().extend(estimate.iou(&truth));
            }
            found.entry("share of foreground".into()).or_default().push(truth.share());
        }
        for (estimator, values) in found {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            println!("{size} px, {estimator}: {mean:.2} over {} prompts", values.len());
        }
    }
}
