//! `ditscope profile`: generates videos, measures, and writes the profile with its report.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::ProgressBar;

use crate::caching::{
    Action, BranchPlan, Calibration, Forecast, GramRecorder, Planner, StepPlan, StrategyConfig, calibrate_tea_cache,
};
use crate::engine::{
    Capture, ClipSettings, Engine, Facts, GenerateRequest, Generated, MeanPaid, Observe, Received, StepRecord,
    estimate_masks, subject_of,
};
use crate::media::{read_gray, write_bytes};
use crate::metrics::{self, Frames};
use crate::profiling::ProfilingError;
use crate::profiling::mask::{self, Estimate, Estimator};
use crate::profiling::partition::{TauRule, print_blocks};
use crate::profiling::profile::{Branch, ModelId, Profile, Queries, RunSettings};
use crate::profiling::recorder::{Recorder, Setup};
use crate::profiling::report;

use super::generate::SUBMIT_BUDGET;
use super::job::{Finished, RunArgs, open_gpu, run_job};
use super::{GpuArgs, WrongUse};

/// Speed-ups at which plans are tried out, so that others can be predicted from them.
const TRIED: [f64; 3] = [1.5, 2.5, 5.0];

/// Steps, as shares of all, at which an error is made on purpose to see what becomes of it.
const PROBED: [f64; 7] = [0.02, 0.08, 0.16, 0.3, 0.5, 0.75, 0.95];
/// Steps that a profile may have: one after which something can be reused, and as many as the planner takes.
const PLANNABLE: RangeInclusive<usize> = 2..=Planner::MOST_STEPS;
/// Prompts for it. Many: what becomes of an error varies a hundredfold between prompts, where a clip is about to become one thing or another.
const PROBED_PROMPTS: usize = 8;
/// Prompts on which plans are tried out.
const TRIED_PROMPTS: usize = 4;

/// Arguments of `ditscope profile`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    runs: RunArgs,
    /// Foreground mask: auto, motion, pca, prompt, or file:PLACE (a PNG for all frames, an animated PNG or GIF, or a folder of PNGs)
    #[arg(long, default_value = "auto", value_parser = parse_mask)]
    mask: MaskSource,
    /// Attention queries sampled per head to measure what tokens receive; 0 for all of them
    #[arg(long, value_name = "N", default_value_t = 0)]
    queries: usize,
    /// Threshold between foreground and background blocks: otsu, a number, q0.6 (quantile) or lowest8
    #[arg(long, default_value = "otsu", value_parser = parse_rule)]
    tau: TauRule,
    /// The profile to write
    #[arg(short, long, default_value = "profile.json")]
    output: PathBuf,
    /// Folder for figures (lift, recall, maps, prediction, delta, residual, blocks_lift_delta: SVG and PNG), tables (scores, blocks, steps: CSV) and the profile [default: none]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// Where masks come from.
#[derive(Clone, Debug)]
enum MaskSource {
    Estimated(Estimator),
    File(PathBuf),
}

fn parse_mask(text: &str) -> Result<MaskSource, String> {
    if let Some(place) = text.strip_prefix("file:") {
        return Ok(MaskSource::File(place.into()));
    }
    let estimated = [Estimator::Auto, Estimator::Motion, Estimator::Pca, Estimator::Prompt];
    let found = estimated.into_iter().find(|estimator| estimator.name() == text).map(MaskSource::Estimated);
    found.ok_or_else(|| format!("\"{text}\" is none of auto, motion, pca, prompt, file:PLACE"))
}

fn parse_rule(text: &str) -> Result<TauRule, String> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let rule = if text == "otsu" {
        Some(TauRule::Otsu)
    } else if let Some(share) = text.strip_prefix('q') {
        number(share).filter(|share| (0.0..=1.0).contains(share)).map(TauRule::Quantile)
    } else if let Some(count) = text.strip_prefix("lowest") {
        count.parse().ok().map(TauRule::Lowest)
    } else {
        number(text).map(TauRule::Value)
    };
    rule.ok_or_else(|| format!("\"{text}\" is none of otsu, a number, a quantile of 0 to 1 such as q0.6, lowest8"))
}

/// Profiles and writes.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let prompts = args.runs.read_prompts()?;
    crate::media::check_place(&args.output)?;
    if let Some(folder) = &args.report {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut request = args.runs.request(&prompts[0])?;
    let mode = if args.queries == 0 { Received::Exact } else { Received::Sampled(args.queries) };
    request.observe = Observe { attention: Some(mode), changes: true, times: false };
    let facts = Facts::of(&request)?;
    check_mask(&args.mask, &prompts, args.runs.seeds, facts.token_grid)?;
    check_rule(args.tau, facts.blocks)?;
    if !PLANNABLE.contains(&request.clip.num_inference_steps) {
        let message = format!("--steps must be {} to {}, to be planned for", PLANNABLE.start(), PLANNABLE.end());
        return Err(WrongUse(message).into());
    }
    let engine = Engine::start(open_gpu(&args.gpu, facts.gpu_memory)?, SUBMIT_BUDGET)?;
    let jobs = prompts.len() as u64 * args.runs.seeds;
    let exact = u64::from(args.queries > 0);
    let probes = prompts.len().min(PROBED_PROMPTS) * PROBED.len();
    let trials = prompts.len().min(TRIED_PROMPTS) * TRIED.len();
    let bar = ProgressBar::new((jobs + exact + (probes + trials) as u64) * request.clip.num_inference_steps as u64);
    bar.set_style(super::generate::bar_style()?);
    let mut collected = Collected::default();
    for prompt in &prompts {
        for seed in 0..args.runs.seeds {
            bar.set_message("profiling");
            let request = GenerateRequest {
                prompt: prompt.clone(),
                clip: ClipSettings { seed, ..request.clip },
                ..request.clone()
            };
            if let Err(error) = collected.add(args, &engine, &request, &bar) {
                return Err(collected.keep(&args.output, error));
            }
        }
    }
    if args.queries > 0 {
        collected.compare_with_exact(&engine, &request, &bar)?;
    }
    let (mut profile, maps) = collected.recorder.context("nothing was profiled")?.finish()?;
    // What comes now takes as long again: what is measured so far must not hang on it.
    let uncalibrated = partial(&args.output);
    write_bytes(&uncalibrated, profile.to_json()?.as_bytes())?;
    let mut calibration = collected.calibration;
    calibration.gram = collected.gram.gram();
    mean_of_runs(&mut calibration.magnitude_ratios, jobs);
    calibration.tea_embedding = calibrate_tea_cache(&collected.signals[0], &collected.outputs);
    calibration.tea_projection = calibrate_tea_cache(&collected.signals[1], &collected.outputs);
    request.observe = Observe::default();
    bar.set_message("sensitivity");
    let trials = Trials { engine: &engine, request: &request, blocks: profile.model.blocks, bar: &bar };
    calibration.amplification = trials.amplification(&collected.references, &calibration)?;
    bar.set_message("trying plans");
    calibration.outcomes = trials.outcomes(&collected.references, &calibration)?;
    bar.finish_and_clear();
    profile.calibration = Some(calibration);
    write_bytes(&args.output, profile.to_json()?.as_bytes())?;
    // It has served; where it cannot be removed it does no harm.
    std::fs::remove_file(uncalibrated).ok();
    if let Some(folder) = &args.report {
        report::write(folder, &profile, Some(&maps))?;
    }
    print(&profile, &args.output);
    Ok(())
}

/// Where a profile is until it is calibrated.
fn partial(output: &Path) -> PathBuf {
    output.with_added_extension("partial")
}

/// Fails if there are fewer blocks than the rule wants.
fn check_rule(rule: TauRule, blocks: usize) -> Result<(), WrongUse> {
    match rule {
        TauRule::Lowest(count) if count > blocks => {
            Err(WrongUse(format!("--tau lowest{count}: the model has {blocks} blocks")))
        }
        _ => Ok(()),
    }
}

fn mean_of_runs(values: &mut [f64], runs: u64) {
    values.iter_mut().for_each(|value| *value /= runs.max(1) as f64);
}

/// What all runs together tell.
#[derive(Default)]
struct Collected {
    recorder: Option<Recorder>,
    /// Maps of the first run, by step and block, where they are of sampled queries.
    sampled: Vec<Vec<Vec<f32>>>,
    gram: GramRecorder,
    calibration: Calibration,
    /// Relative changes of TeaCache's two signals, and of the output, of all steps of all runs.
    signals: [Vec<f64>; 2],
    outputs: Vec<f64>,
    /// What the first prompts became: measuring changes nothing in it.
    references: Vec<Reference>,
}

/// A clip without reuse.
struct Reference {
    prompt: String,
    latents: Vec<f32>,
    /// Of the prompts on which plans are tried.
    frames: Option<Frames>,
}

impl Collected {
    fn add(
        &mut self,
        args: &Args,
        engine: &Engine,
        request: &GenerateRequest,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let mut residuals = Vec::new();
        let Finished { generated, capture } = run_job(engine, request, |done| {
            residuals.extend(done.residual.clone());
            bar.inc(1);
        })?;
        let recorder = match &mut self.recorder {
            Some(recorder) => recorder,
            None => self.recorder.insert(Recorder::new(setup(args, &capture))?),
        };
        let estimate = choose_mask(&args.mask, &generated.latents, &capture)?;
        if let Some(doubt) = doubt(&estimate) {
            bar.suspend(|| eprintln!("warning: \"{}\", seed {}: {doubt}", request.prompt, request.clip.seed));
        }
        recorder.begin(&request.prompt, request.clip.seed, estimate)?;
        for step in &capture.steps {
            record(recorder, step)?;
        }
        recorder.end()?;
        self.calibrate(&capture, &residuals);
        if request.clip.seed == 0 && self.references.len() < PROBED_PROMPTS {
            let tried = self.references.len() < TRIED_PROMPTS;
            let frames = tried.then(|| frames(&generated)).transpose()?;
            self.references.push(Reference { prompt: request.prompt.clone(), latents: generated.latents, frames });
        }
        if args.queries > 0 && self.sampled.is_empty() {
            self.sampled = capture.steps.into_iter().map(received).collect();
        }
        Ok(())
    }

    /// Writes what the runs before an error tell, if there are any; the error, with the place.
    fn keep(self, output: &Path, error: anyhow::Error) -> anyhow::Error {
        let Some(Ok((profile, _))) = self.recorder.map(Recorder::finish) else { return error };
        let place = partial(output);
        let written = profile.to_json().is_ok_and(|text| write_bytes(&place, text.as_bytes()).is_ok());
        if written { error.context(format!("the runs until then are in {}", place.display())) } else { error }
    }

    /// The first run again with all queries, whose maps tell how good the sampled ones are: measuring changes nothing in what is
    /// generated, so both are of the same hidden states.
    fn compare_with_exact(
        &mut self,
        engine: &Engine,
        request: &GenerateRequest,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let observe = Observe { attention: Some(Received::Exact), ..Observe::default() };
        let run = run_job(
            engine,
            &GenerateRequest { observe, clip: ClipSettings { seed: 0, ..request.clip }, ..request.clone() },
            |_| bar.inc(1),
        )?;
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        for (sampled, step) in self.sampled.iter().zip(run.capture.steps) {
            for (sampled, exact) in sampled.iter().zip(received(step)) {
                recorder.compare_sampled(sampled, &exact);
            }
        }
        Ok(())
    }

    fn calibrate(&mut self, capture: &Capture, residuals: &[Vec<f32>]) {
        self.gram.add(residuals);
        self.calibration.sigmas = capture.run.sigmas.clone();
        self.calibration.magnitude_ratios.resize(capture.steps.len(), 0.0);
        for (sum, step) in self.calibration.magnitude_ratios.iter_mut().zip(&capture.steps) {
            *sum += step.magnitude_ratio.unwrap_or(1.0);
        }
        for (step, changes) in capture.steps.iter().zip(&capture.run.signal_changes) {
            if let Some(output) = step.relative_change {
                self.outputs.push(output);
                self.signals.iter_mut().zip(changes).for_each(|(list, change)| list.push(*change));
            }
        }
    }
}

/// What was measured on a step.
fn record(recorder: &mut Recorder, step: &StepRecord) -> Result<(), ProfilingError> {
    for (branch, blocks) in [(Branch::Cond, &step.cond), (Branch::Uncond, &step.uncond)] {
        for (block, record) in blocks.iter().enumerate() {
            if let Some(map) = &record.received {
                recorder.received(step.step, block, branch, map)?;
            }
            if let (Some(change), Branch::Cond) = (record.change, branch) {
                recorder.delta_change(step.step, block, f64::from(change))?;
            }
        }
    }
    if let Some(change) = step.prediction_change {
        recorder.prediction_l1(step.step, change)?;
    }
    step.residual_change.map_or(Ok(()), |change| recorder.residual_change(step.step, change))
}

/// Attention received in the prompt's branch, block by block.
fn received(step: StepRecord) -> Vec<Vec<f32>> {
    step.cond.into_iter().filter_map(|block| block.received).collect()
}

fn setup(args: &Args, capture: &Capture) -> Setup {
    let run = &capture.run;
    Setup {
        model: ModelId { id: run.model.clone(), hash: run.model_id.clone(), blocks: run.blocks },
        settings: RunSettings {
            clip: ClipSettings { num_inference_steps: run.steps(), ..run.clip },
            scheduler: run.scheduler.clone(),
        },
        token_grid: run.token_grid,
        queries: if args.queries == 0 { Queries::Exact } else { Queries::Sampled(args.queries) },
        rule: args.tau,
    }
}

/// Fails before anything runs if there will be no mask: a file that cannot be read, that shows no mask, or that is of one clip where many
/// are profiled; a prompt without a subject.
fn check_mask(wanted: &MaskSource, prompts: &[String], seeds: u64, grid: [usize; 3]) -> anyhow::Result<()> {
    match wanted {
        MaskSource::File(_) if prompts.len() as u64 * seeds > 1 => {
            let message = "--mask file: is of one clip: name one prompt and one seed, or use --mask auto";
            return Err(WrongUse(message.into()).into());
        }
        MaskSource::File(place) => {
            let wrong = |error| WrongUse(format!("{}: {error}", place.display()));
            mask::file(&read_gray(place)?, grid).map_err(wrong)?;
        }
        MaskSource::Estimated(Estimator::Prompt) => {
            if let Some(prompt) = prompts.iter().find(|prompt| subject_of(prompt).is_none()) {
                return Err(WrongUse(format!("no subject was found in \"{prompt}\"; try --mask auto")).into());
            }
        }
        MaskSource::Estimated(_) => {}
    }
    Ok(())
}

/// The mask that the user asked for.
fn choose_mask(wanted: &MaskSource, latents: &[f32], capture: &Capture) -> anyhow::Result<Estimate> {
    let run = &capture.run;
    let estimator = match wanted {
        MaskSource::File(place) => return Ok(mask::file(&read_gray(place)?, run.token_grid)?),
        MaskSource::Estimated(estimator) => estimator,
    };
    let mut paid = MeanPaid::new(run.tokens());
    for (step, record) in capture.steps.iter().enumerate() {
        paid.add(step, capture.steps.len(), record);
    }
    let estimates = estimate_masks(latents, run.latent_shape, run.token_grid, paid.mean().as_deref())?;
    let found = estimates.into_iter().find(|estimate| estimate.estimator == *estimator);
    found.with_context(|| format!("no {estimator:?} mask was found for \"{}\"", run.prompt))
}

/// What a user should know of a mask before its scores are believed.
fn doubt(estimate: &Estimate) -> Option<String> {
    /// Below this, estimates hardly agree, or hardly tell two classes apart.
    const UNSURE: f64 = 0.02;
    if estimate.mask.is_trivial() {
        return Some("no frame of the mask has foreground and background, so this run has no scores".into());
    }
    let confidence = estimate.confidence;
    (confidence < UNSURE)
        .then(|| format!("the mask is a guess (confidence {confidence:.2}): so are the scores of this run"))
}

fn frames(generated: &Generated) -> anyhow::Result<Frames> {
    Ok(Frames::from_signed(generated.width, generated.height, &generated.frames)?)
}

/// Runs with reuse, to see what they keep of the clips without.
struct Trials<'a> {
    engine: &'a Engine,
    request: &'a GenerateRequest,
    blocks: usize,
    bar: &'a ProgressBar,
}

impl Trials<'_> {
    fn run(&self, prompt: &str, strategy: &StrategyConfig) -> anyhow::Result<Generated> {
        let request = GenerateRequest { prompt: prompt.into(), strategy: strategy.clone(), ..self.request.clone() };
        Ok(run_job(self.engine, &request, |_| self.bar.inc(1))?.generated)
    }

    /// What becomes of an error at each step: the newest residual is held over a single step, and the clean latents compared with
    /// those of a full run, in the mean of squares over the prompts. Between the probed steps the logarithm is interpolated.
    fn amplification(&self, references: &[Reference], calibration: &Calibration) -> anyhow::Result<Vec<f64>> {
        let gram = &calibration.gram;
        let steps = gram.len();
        let mut probed: Vec<(usize, f64)> = Vec::new();
        for share in PROBED {
            let step = ((share * steps as f64).round() as usize).clamp(1, steps.saturating_sub(1).max(1));
            let h = calibration.sigmas[step] - calibration.sigmas[step + 1];
            let made = h * h * (gram[step][step] - 2.0 * gram[step][step - 1] + gram[step - 1][step - 1]);
            if made <= 0.0 || probed.iter().any(|(known, _)| *known == step) {
                continue;
            }
            let action = |s| if s == step { Action::Reuse(Forecast::hold()) } else { Action::Store };
            let plans = (0..steps).map(|s| StepPlan::both(BranchPlan::whole(self.blocks, action(s)))).collect();
            let held = StrategyConfig::Plan { title: "probe".into(), plans };
            let mut found = 0.0;
            for Reference { prompt, latents, .. } in references {
                let difference = self.run(prompt, &held)?.latents;
                let squares = difference.iter().zip(latents).map(|(a, b)| f64::from(a - b).powi(2));
                found += squares.sum::<f64>() / latents.len() as f64 / references.len() as f64;
            }
            probed.push((step, (found / made).max(1e-12)));
        }
        Ok((0..steps).map(|step| between(&probed, step)).collect())
    }

    /// Plans tried out: the error that was predicted, and the mean PSNR that came out.
    fn outcomes(&self, references: &[Reference], calibration: &Calibration) -> anyhow::Result<Vec<(f64, f64)>> {
        let planner = Planner::new(calibration)?;
        let tried = references.iter().filter_map(|known| Some((&known.prompt, known.frames.as_ref()?)));
        let mut outcomes = Vec::new();
        for speedup in TRIED {
            let Ok(planned) = planner.for_speedup(speedup) else { continue };
            let strategy = planned.strategy(self.blocks);
            let mut found = Vec::new();
            for (prompt, reference) in tried.clone() {
                found.push(metrics::clip_psnr(reference, &frames(&self.run(prompt, &strategy)?)?)?);
            }
            let psnr = found.iter().sum::<f64>() / found.len() as f64;
            if psnr.is_finite() {
                outcomes.push((planned.error, psnr));
            }
        }
        Ok(outcomes)
    }
}

/// A value between the measured ones (steps rising), by the logarithm; beyond them the nearest, and 1 where there is none.
fn between(measured: &[(usize, f64)], step: usize) -> f64 {
    let after = measured.iter().position(|(known, _)| *known >= step).unwrap_or(measured.len());
    match (after.checked_sub(1).and_then(|i| measured.get(i)), measured.get(after)) {
        (Some(low), Some(high)) => {
            let share = (step - low.0) as f64 / (high.0 - low.0) as f64;
            (low.1.ln() + share * (high.1.ln() - low.1.ln())).exp()
        }
        (Some(only), None) | (None, Some(only)) => only.1,
        (None, None) => 1.0,
    }
}

/// What a profile says, in a few lines.
pub(super) fn print(profile: &Profile, place: &Path) {
    let stability = profile.stability;
    let shown = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let runs = profile.prompts.len() * profile.seeds.len();
    println!("{}: {runs} runs of {}, {} blocks", place.display(), profile.model.id, profile.model.blocks);
    println!("  background blocks {}", print_blocks(&profile.partition.background));
    println!(
        "  foreground blocks {} (lift of {:.2} and more)",
        print_blocks(&profile.partition.foreground),
        profile.partition.tau
    );
    println!(
        "  order of the blocks: rank correlation {} between steps, {} between prompts; lists agree by {} and {}",
        shown(stability.steps.spearman),
        shown(stability.prompts.spearman),
        shown(stability.steps.jaccard),
        shown(stability.prompts.jaccard)
    );
    println!("  masks: {:?}, confidence {:.2}", profile.mask.estimator, profile.mask.confidence);
    if let Some(agreement) = profile.sampled_agreement {
        println!("  sampled maps against exact ones: rank correlation {agreement:.2}");
    }
    for (error, psnr) in profile.calibration.iter().flat_map(|calibration| &calibration.outcomes) {
        println!("  a plan with a predicted error of {error:.1e} kept {psnr:.1} dB");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_parse() {
        assert_eq!(parse_rule("otsu"), Ok(TauRule::Otsu));
        assert_eq!(parse_rule("q0.6"), Ok(TauRule::Quantile(0.6)));
        assert_eq!(parse_rule("lowest8"), Ok(TauRule::Lowest(8)));
        assert_eq!(parse_rule("1.2"), Ok(TauRule::Value(1.2)));
        for wrong in ["lowest", "much", "q5", "q-0.1", "qnan", "nan", "inf", "lowest-1"] {
            assert!(parse_rule(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_between_measured_steps_follow_the_logarithm() {
        let measured = [(2, 1.0), (4, 100.0)];
        let found: Vec<f64> = (0..6).map(|step| between(&measured, step)).collect();
        for (found, wanted) in found.iter().zip([1.0, 1.0, 1.0, 10.0, 100.0, 100.0]) {
            assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        }
        assert_eq!(between(&[], 3), 1.0);
    }
}
