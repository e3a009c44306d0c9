//! A job can be paused and cancelled at any time, while it loads and while it computes. The
//! measurements of a job are correct.

use std::path::Path;
use std::time::{Duration, Instant};

use ditscope::caching::{DiCache, MagCache, StrategyConfig};
use ditscope::engine::{Engine, EngineError, Event, GenerateRequest, Observe, Received, Stage};
use ditscope::gpu::{Gpu, GpuOptions};

fn request() -> GenerateRequest {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
    GenerateRequest::of_model(&model, "a cat walking on grass").unwrap()
}

/// The same for five frames and few steps.
fn short(num_inference_steps: usize) -> GenerateRequest {
    let mut request = request();
    request.clip.num_inference_steps = num_inference_steps;
    request.clip.num_frames = 5;
    request
}

/// The job's last event, and the number of its steps.
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
    // The limit is smaller than any layer. Embeddings of the prompts may be loaded, but no weights.
    assert!(gpu.memory().used < 64 << 10, "weights were loaded in a pause: {} bytes", gpu.memory().used);
    engine.control().cancel();
    let asked = Instant::now();
    assert!(matches!(end(&engine), (Event::Failed(EngineError::Cancelled), 0)));
    assert!(asked.elapsed() < Duration::from_secs(5));

    // A cancellation that comes before the engine's thread starts the job is not lost, and affects
    // this job only.
    for _ in 0..8 {
        engine.generate(request()).unwrap();
        engine.control().cancel();
        assert!(matches!(end(&engine), (Event::Failed(EngineError::Cancelled), 0)));
    }
    engine.control().cancel();
    engine.generate(short(2)).unwrap();
    assert!(matches!(end(&engine), (Event::Finished(_), 2)));
}

/// A later job of the same model reuses the transformer and the prompts, and gives the same frames.
#[test]
fn data_kept_between_jobs_change_nothing() {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let engine = Engine::start(gpu.clone(), Duration::from_millis(100)).unwrap();
    let small = short(2);
    let run = |prompt: &str| {
        engine.generate(small.with_prompt(prompt, 0)).unwrap();
        match end(&engine) {
            (Event::Finished(generated), 2) => (generated.frames, gpu.memory().used),
            (other, steps) => panic!("{other:?} after {steps} steps"),
        }
    };
    let (first, kept) = run("a cat walking on grass");
    let (other, ..) = run("a ball bouncing at night");
    let (again, still_kept) = run("a cat walking on grass");
    assert_ne!(first, other, "a prompt of its own");
    assert_eq!(first, again);
    assert_eq!(kept, still_kept, "one transformer, not one a job");
}

/// A strategy that cannot work is refused before the text encoder is loaded.
#[test]
fn a_strategy_without_its_calibration_fails_at_once() {
    let engine = Engine::start(Gpu::open(&GpuOptions::default()).unwrap(), Duration::from_millis(12)).unwrap();
    engine.generate(request().with_strategy(StrategyConfig::of(MagCache::default()))).unwrap();
    let events: Vec<Event> = (0..2).map(|_| engine.events().recv_timeout(Duration::from_secs(100)).unwrap()).collect();
    assert!(matches!(events[..], [Event::Stage(Stage::Load), Event::Failed(EngineError::Cache(_))]), "{events:?}");
}

/// Without guidance and with few tokens, a step reports the whole residual of the stack, so the
/// test can compute its change.
#[test]
fn measured_changes_are_those_of_the_residuals() {
    /// The width of the demo model's transformer.
    const WIDTH: usize = 192;
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let engine = Engine::start(gpu, Duration::from_millis(12)).unwrap();
    let mut asked = short(3).with_observe(Observe::default().with_changes());
    asked.clip.guidance_scale = 1.0;
    engine.generate(asked).unwrap();
    let mut last: Option<Vec<f32>> = None;
    let mut steps = 0;
    loop {
        match engine.events().recv_timeout(Duration::from_secs(100)).expect("an event") {
            Event::Step(done) => {
                let residual = done.residual.expect("a residual is measured");
                let (blocks, found) = (done.record.cond, done.record.residual_change);
                assert_eq!(blocks.len(), 12);
                assert!(blocks.iter().all(|block| block.change.is_some() == last.is_some()), "step {steps}");
                assert_eq!(found.is_some(), last.is_some(), "step {steps}");
                if let Some((last, found)) = last.as_ref().zip(found) {
                    let sum = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v.abs())).sum::<f64>();
                    let changed = sum(&mut residual.iter().zip(last).map(|(new, old)| new - old));
                    let want = changed / sum(&mut last.iter().copied());
                    assert!((found - want).abs() < 1e-4 * want, "step {steps}: {found}, not {want}");
                    let size = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                    let rows = residual.chunks(WIDTH).zip(last.chunks(WIDTH));
                    let want =
                        rows.map(|(new, old)| size(new) / size(old)).sum::<f64>() / (residual.len() / WIDTH) as f64;
                    let found = done.record.magnitude_ratio.expect("a ratio of magnitudes");
                    assert!((found - want).abs() < 1e-4 * want, "step {steps}: {found}, not {want}");
                    // Each block has a change of its own, which differs from the change of the
                    // residual.
                    let changes: Vec<f32> = blocks.iter().filter_map(|block| block.change).collect();
                    assert!(changes.windows(2).all(|pair| pair[0] > 0.0 && pair[0] != pair[1]), "{changes:?}");
                }
                last = Some(residual);
                steps += 1;
            }
            Event::Failed(error) => panic!("{error}"),
            Event::Finished(_) => break,
            _ => {}
        }
    }
    assert_eq!(steps, 3);
}

/// Blocks that run in a probe are measured in the same way as blocks of a plain step.
#[test]
fn probed_blocks_are_measured_too() {
    let engine = Engine::start(Gpu::open(&GpuOptions::default()).unwrap(), Duration::from_millis(100)).unwrap();
    let records = |strategy: StrategyConfig| {
        let observe = Observe::default().with_changes().with_attention(Received::Exact);
        engine.generate(short(4).with_observe(observe).with_strategy(strategy)).unwrap();
        let mut records = Vec::new();
        loop {
            match engine.events().recv_timeout(Duration::from_secs(100)).expect("an event") {
                Event::Step(done) => records.push(done.record),
                Event::Finished(_) => return records,
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
    };
    // This strategy probes every step and computes every step.
    let probed = records(StrategyConfig::of(DiCache { threshold: 0.0, probe: 3, retention: 0.0 }));
    let plain = records(StrategyConfig::off());
    assert_eq!(probed.len(), plain.len());
    for (probed, plain) in probed.iter().zip(&plain) {
        assert_eq!((probed.residual_change, probed.magnitude_ratio), (plain.residual_change, plain.magnitude_ratio));
        for (block, (probed, plain)) in probed.cond.iter().zip(&plain.cond).enumerate() {
            assert!(plain.received.is_some() && plain.change.is_some() == (probed.change.is_some()), "block {block}");
            assert_eq!((&probed.received, probed.change), (&plain.received, plain.change), "block {block}");
        }
    }
}

/// Measuring, sampled or exact, does not change a bit of the frames.
#[test]
fn a_profiled_run_gives_the_same_frames() {
    let engine = Engine::start(Gpu::open(&GpuOptions::default()).unwrap(), Duration::from_millis(100)).unwrap();
    let frames = |observe: Observe| {
        engine.generate(short(3).with_observe(observe)).unwrap();
        match end(&engine) {
            (Event::Finished(generated), 3) => generated.frames,
            (other, steps) => panic!("{other:?} after {steps} steps"),
        }
    };
    let plain = frames(Observe::default());
    for attention in [Received::Exact, Received::Sampled(16)] {
        let profiled = frames(Observe::default().with_attention(attention).with_changes());
        assert!(profiled == plain, "{attention:?}");
    }
}
