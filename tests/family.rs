//! A second family of models, made for these tests, is run, measured, cached, profiled and shown by
//! the engine that knows nothing of it.

mod toy;

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use ditscope::app::{Screenshot, screenshot};
use ditscope::caching::{Action, BranchPlan, DiCache, Forecast, Origin, StepPlan, StrategyConfig};
use ditscope::engine::capture::{BlockRecord, file};
use ditscope::engine::{Capture, Condition, Engine, EngineError, Event, GenerateRequest, Generated, Observe, Received};
use ditscope::gpu::{Gpu, GpuOptions};
use ditscope::profiling::mask;
use ditscope::profiling::partition::TauRule;
use ditscope::profiling::profile::{Branch, ModelId, Queries, RunSettings};
use ditscope::profiling::recorder::{Recorder, Setup};

use toy::{BLOCKS, DOUBLE, Toy};

fn engine() -> Engine {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| ditscope::model::register(&Toy));
    Engine::start(Gpu::open(&GpuOptions::default()).unwrap(), Duration::from_millis(100)).unwrap()
}

fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("toy.json"), "{}").unwrap();
    folder
}

fn request(model: &Path, label: u32) -> GenerateRequest {
    GenerateRequest::of_model(model, Condition::Label(label)).unwrap()
}

fn run(engine: &Engine, request: GenerateRequest) -> (Generated, Capture) {
    engine.generate(request).unwrap();
    let mut capture = Capture::default();
    loop {
        let event = engine.events().recv_timeout(Duration::from_secs(100)).expect("an event");
        capture.observe(&event);
        match event {
            Event::Finished(generated) => return (*generated, capture),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

/// A strategy that stores the deltas of both kinds of blocks, and reuses those of `reused` in every
/// second step.
fn plan(steps: usize, reuse: [bool; 2]) -> StrategyConfig {
    let hold = || Action::Reuse(Forecast::hold());
    let step = |step: usize| {
        let action = |kind: usize| if step % 2 == 1 && reuse[kind] { hold() } else { Action::Store };
        let ranges = [(0..DOUBLE, action(0)), (DOUBLE..BLOCKS, action(1))];
        let segments = ranges.map(|(blocks, action)| ditscope::caching::Segment { blocks, action });
        StepPlan::both(BranchPlan::Blocks(segments.into()))
    };
    StrategyConfig::plan("by kind", Origin::Hand, (0..steps).map(step).collect())
}

#[test]
fn a_registered_family_has_settings_sizes_and_costs_of_its_own() {
    let (engine, folder) = (engine(), model());
    let asked = request(folder.path(), 3);
    assert_eq!((asked.clip.size(), asked.clip.num_frames, asked.clip.num_inference_steps), ((32, 32), 3, 6));
    let (generated, capture) = run(&engine, asked.clone());
    assert_eq!((generated.frames.len(), generated.latent_shape), (3, [4, 3, 8, 8]));
    let info = &capture.run;
    assert_eq!((info.blocks, info.token_grid, info.prompt.as_str()), (BLOCKS, [3, 4, 4], "class 3"));
    let cost = info.cost.as_ref().unwrap();
    assert!(cost.blocks[0] > cost.blocks[DOUBLE] && cost.blocks.len() == BLOCKS);
    let (other, _) = run(&engine, request(folder.path(), 4));
    assert_ne!(generated.frames, other.frames, "the class matters");
    let mut unguided = asked.clone();
    unguided.clip.guidance_scale = 1.0;
    let (unguided, _) = run(&engine, unguided);
    assert_ne!(generated.frames, unguided.frames, "and so does guidance");
    engine.generate(asked.with_prompt("a cat", 0)).unwrap();
    let last = engine.events().iter().find(|event| matches!(event, Event::Failed(_) | Event::Finished(_)));
    assert!(matches!(last, Some(Event::Failed(EngineError::Request(_)))), "{last:?}");
}

#[test]
fn deltas_may_cover_a_part_of_the_sequence() {
    let (engine, folder) = (engine(), model());
    let asked = request(folder.path(), 3);
    let with = |strategy: StrategyConfig| run(&engine, asked.clone().with_strategy(strategy));
    let (plain, _) = with(StrategyConfig::off());
    let (stored, _) = with(plan(6, [false, false]));
    assert_eq!(stored.frames, plain.frames, "storing changes nothing");
    let mut memory = Vec::new();
    for reuse in [[true, false], [false, true], [true, true]] {
        let (cached, capture) = with(plan(6, reuse));
        assert_ne!(cached.frames, plain.frames);
        assert!(cached.frames.iter().flatten().all(|value| value.is_finite()));
        memory.push(capture.steps[5].delta_memory);
        let cost = capture.run.cost.as_ref().unwrap();
        let saved: f64 = (0..BLOCKS).filter(|block| reuse[usize::from(*block >= DOUBLE)]).map(|b| cost.blocks[b]).sum();
        let whole = cost.outside + cost.blocks.iter().sum::<f64>();
        let speedup = capture.flop_speedup().unwrap();
        assert!((speedup - whole / (whole - 0.5 * saved)).abs() < 1e-9, "{reuse:?}: {speedup}");
    }
    // A delta of double blocks has the condition's rows too.
    let row = 4 * toy::DIM as u64;
    assert_eq!(memory[0], 2 * row * (2 * 48 + toy::CONDITION_ROWS as u64));
    let (probed, capture) = with(StrategyConfig::of(DiCache { threshold: 0.5, probe: 1, retention: 0.2 }));
    assert!(capture.hit_rate() > 0.0 && probed.frames != plain.frames);
}

#[test]
fn a_registered_family_is_profiled_and_shown() {
    let (engine, folder) = (engine(), model());
    let asked = request(folder.path(), 3);
    let (plain, _) = run(&engine, asked.clone());
    let observe = Observe::default().with_attention(Received::Exact).with_changes().with_times();
    let (generated, capture) = run(&engine, asked.with_observe(observe));
    assert_eq!(generated.frames, plain.frames, "measuring changes nothing");
    for step in &capture.steps {
        for (index, block) in step.cond.iter().enumerate() {
            assert_eq!(block.received.as_ref().map(Vec::len), Some(48), "step {}, block {index}", step.step);
            assert_eq!(block.paid.is_some(), index < DOUBLE, "single blocks pay nothing to the condition");
            assert_eq!((block.change.is_some(), block.seconds.is_some()), (step.step > 0, true));
        }
        assert_eq!((step.uncond.len(), step.residual_change.is_some()), (BLOCKS, step.step > 0));
    }
    assert!(capture.masks.iter().any(|mask| mask.estimator == "prompt"), "{:?}", capture.warnings);

    let run = &capture.run;
    let mut recorder = Recorder::new(Setup {
        model: ModelId { id: run.model.clone(), hash: run.model_id.clone(), blocks: run.blocks },
        settings: RunSettings { clip: run.clip, scheduler: run.scheduler.clone() },
        token_grid: run.token_grid,
        queries: Queries::Exact,
        rule: TauRule::Otsu,
    })
    .unwrap();
    let estimate = mask::motion(&generated.latents, generated.latent_shape, run.token_grid).unwrap();
    recorder.begin(&run.prompt, run.clip.seed, estimate).unwrap();
    for step in &capture.steps {
        let received = |block: &BlockRecord| block.received.clone().unwrap();
        for (block, map) in step.cond.iter().map(received).enumerate() {
            recorder.received(step.step, block, Branch::Cond, &map).unwrap();
        }
    }
    recorder.end().unwrap();
    let (profile, _) = recorder.finish().unwrap();
    assert_eq!(profile.block_lift.len(), BLOCKS);

    let place = folder.path().join("toy.capture");
    file::save(&place, &capture).unwrap();
    let loaded = file::open(&place).unwrap();
    assert_eq!((loaded.capture.run.cost, loaded.damage), (capture.run.cost, None));
    let wanted =
        Screenshot { capture: place, baseline: None, size: [640, 400], scale: 1.0, dark: true, cell: Some([1, 2]) };
    let (rgba, width, height) = screenshot(&wanted).unwrap();
    assert_eq!(rgba.len(), 4 * (width * height) as usize);
    assert!(rgba.chunks(4).any(|pixel| pixel != &rgba[..4]));
}
