//! Checks that the records of a file fit each other, so that code that draws a capture can trust
//! its sizes.

use crate::sampling::limits::{LARGEST_STORED_SIDE, MOST_BLOCKS, MOST_FRAMES, MOST_STORED_STEPS};

use crate::ops::all_finite;

use super::{BlockRecord, Capture, Frames, MaskRecord, Outcome, Record, RunInfo, StepRecord};

const MOST_TOKENS: usize = 1 << 24;
/// Warnings, masks, kernels.
const MOST_ENTRIES: usize = 10_000;

type Checked = Result<(), String>;

fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(wrong()) }
}

fn product(extents: &[usize], most: usize) -> Option<usize> {
    extents.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent)).filter(|product| *product <= most)
}

fn positive(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// The description of a run.
pub(super) fn run(run: &RunInfo) -> Checked {
    ensure(run.blocks <= MOST_BLOCKS, || format!("it claims {} blocks", run.blocks))?;
    let steps = run.steps().max(run.clip.num_inference_steps);
    ensure(steps <= MOST_STORED_STEPS, || format!("it claims {steps} steps"))?;
    ensure(run.sigmas.iter().all(|sigma| sigma.is_finite()), || "a sigma is not a number".into())?;
    ensure(product(&run.token_grid, MOST_TOKENS).is_some(), || format!("it claims {:?} tokens", run.token_grid))?;
    let latents = product(&run.latent_shape, MOST_TOKENS * 256);
    ensure(latents.is_some(), || format!("it claims latents of {:?}", run.latent_shape))?;
    let clip = &run.clip;
    let side = |side| side <= LARGEST_STORED_SIDE;
    let sizes = side(clip.width) && side(clip.height) && clip.num_frames <= MOST_FRAMES;
    ensure(sizes, || format!("it claims {} frames of {}x{}", clip.num_frames, clip.width, clip.height))?;
    let numbers = clip.guidance_scale.is_finite() && clip.flow_shift.is_none_or(f64::is_finite);
    ensure(numbers, || "a setting is not a number".into())?;
    if let Some(cost) = &run.cost {
        let costs = cost.blocks.iter().chain([&cost.outside]).all(|cost| positive(*cost));
        let sane = costs && cost.blocks.len() == run.blocks;
        ensure(sane, || "its cost is not that of its model".into())?;
    }
    ensure(run.expected.len() <= MOST_STORED_STEPS, || "its plan is too long".into())?;
    run.expected.iter().try_for_each(|expected| expected.check_sizes(run.blocks))?;
    run.strategy.check()
}

/// Any record but the first, in a capture that holds all records before it.
pub(super) fn record(so_far: &Capture, record: &Record) -> Checked {
    match record {
        Record::Run(info) => run(info),
        Record::Step(done) => step(so_far, done),
        Record::Mask(found) => mask(so_far, found),
        Record::Warning(_) => ensure(so_far.warnings.len() < MOST_ENTRIES, || "it has too many warnings".into()),
        Record::Clip(clip) => frames(clip),
        Record::Outcome(end) => outcome(end),
    }
}

/// Drops measurements of a step that are not finite. Version 0.1.0 recorded such steps where
/// weights were broken.
pub(super) fn mend(record: &mut Record) {
    fn finite(value: &mut Option<f64>) {
        *value = value.filter(|value| value.is_finite());
    }
    let Record::Step(step) = record else { return };
    [&mut step.prediction_change, &mut step.relative_change, &mut step.residual_change, &mut step.magnitude_ratio]
        .into_iter()
        .for_each(finite);
    for block in step.cond.iter_mut().chain(&mut step.uncond) {
        block.change = block.change.filter(|change| change.is_finite());
        for map in [&mut block.received, &mut block.paid] {
            map.take_if(|map| map.iter().any(|value| !value.is_finite()));
        }
    }
}

fn step(so_far: &Capture, step: &StepRecord) -> Checked {
    let (run, number) = (&so_far.run, step.step);
    let next = so_far.steps.last().map_or(0, |last| last.step + 1);
    ensure(number >= next && number < run.steps(), || format!("step {number} is not where it belongs"))?;
    ensure(positive(step.seconds), || format!("step {number} took no time that exists"))?;
    let optional = [step.prediction_change, step.relative_change, step.residual_change, step.magnitude_ratio];
    ensure(optional.into_iter().flatten().all(positive), || format!("a measure of step {number} is not a number"))?;
    step.plan.iter().try_for_each(|done| done.check_sizes(run.blocks))?;
    blocks(run, &step.cond)?;
    blocks(run, &step.uncond)?;
    step.preview.iter().try_for_each(frames)?;
    let latents = product(&run.latent_shape, usize::MAX).unwrap_or(0);
    let whole = |values: &[f32]| values.len() == latents && all_finite(values);
    let fits = step
        .state
        .as_ref()
        .is_none_or(|state| whole(&state.velocity) && (state.surprise.is_empty() || whole(&state.surprise)));
    ensure(fits, || format!("the state of step {number} does not fit the run"))?;
    let times = step.kernels.iter().all(|kernel| positive(kernel.seconds) && positive(kernel.flops));
    ensure(times && step.kernels.len() <= MOST_ENTRIES, || format!("the kernels of step {number} make no sense"))
}

fn blocks(run: &RunInfo, records: &[BlockRecord]) -> Checked {
    let count = records.len();
    ensure(count == 0 || count == run.blocks, || format!("a step has {count} blocks, the model {}", run.blocks))?;
    let map_fits = |map: &Option<Vec<f32>>| {
        map.as_ref().is_none_or(|map| map.len() == run.tokens() && map.iter().all(|a| a.is_finite() && *a >= 0.0))
    };
    let sane = |record: &BlockRecord| {
        let map_fits = map_fits(&record.received) && map_fits(&record.paid);
        let numbers = [record.change, record.seconds];
        map_fits && numbers.into_iter().flatten().all(|value| positive(value.into()))
    };
    ensure(records.iter().all(sane), || "a block's record does not fit the run".into())
}

fn mask(so_far: &Capture, mask: &MaskRecord) -> Checked {
    ensure(so_far.masks.len() < MOST_ENTRIES, || "it has too many masks".into())?;
    let fits = mask.tokens.len() == so_far.run.tokens() && mask.confidence.is_finite();
    ensure(fits, || "a mask does not fit the run".into())
}

fn frames(frames: &Frames) -> Checked {
    let sides = frames.width <= LARGEST_STORED_SIDE
        && frames.height <= LARGEST_STORED_SIDE
        && frames.frames.len() <= MOST_FRAMES;
    let bytes = frames.width.saturating_mul(frames.height).saturating_mul(3);
    let whole = sides && bytes > 0 && frames.frames.iter().all(|frame| frame.len() == bytes);
    ensure(whole, || "its frames are not as large as they claim".into())
}

fn outcome(outcome: &Outcome) -> Checked {
    let times = &outcome.seconds;
    let all = [times.load, times.text, times.denoise, times.decode, times.total];
    ensure(all.into_iter().all(positive), || "its times make no sense".into())
}
