//! Collects the measured runs of a profile.

use crate::caching::{Calibration, GramRecorder, calibrate_tea_cache};
use crate::engine::{Capture, ClipSettings, GenerateRequest, Observe, Received, StepRecord};
use crate::metrics::FloatFrames;
use crate::profiling::ProfilingError;
use crate::profiling::profile::{Branch, ModelId, Profile, Queries, RunSettings};
use crate::profiling::recorder::{KeptMaps, Recorder, Setup};

use super::mask::doubt;
use super::trials::{PROBED_PROMPTS, TRIED_PROMPTS};
use super::{ProfileStudy, Session, Size, StudyError};

/// A clip without reuse.
#[derive(Clone)]
pub(super) struct Reference {
    pub prompt: String,
    /// The clean latents.
    pub latents: Vec<f32>,
    /// The frames, for prompts on which plans are tried.
    pub frames: Option<FloatFrames>,
}

/// The measurements of all runs.
#[derive(Clone)]
pub(super) struct Measured<'a> {
    study: &'a ProfileStudy,
    recorder: Option<Recorder>,
    /// Number of recorded runs.
    runs: usize,
    /// Sampled maps of the first run, by step and block. Empty for exact maps.
    sampled: Vec<Vec<Vec<f32>>>,
    gram: GramRecorder,
    sigmas: Vec<f64>,
    /// Sum over the runs: logarithms of the squared change of the velocity for a squared change of
    /// the residual.
    gain: f64,
    /// Sums over the runs, for each step.
    magnitude_ratios: Vec<f64>,
    /// Relative changes of TeaCache's two signals at all steps of all runs.
    signals: [Vec<f64>; 2],
    /// Relative changes of the output at the same steps.
    outputs: Vec<f64>,
    /// The clips of the first prompts. Measuring does not change a clip, so they serve as
    /// references.
    references: Vec<Reference>,
}

impl<'a> Measured<'a> {
    pub fn new(study: &'a ProfileStudy) -> Self {
        Self {
            study,
            recorder: None,
            runs: 0,
            sampled: Vec::new(),
            gram: GramRecorder::default(),
            sigmas: Vec::new(),
            gain: 0.0,
            magnitude_ratios: Vec::new(),
            signals: Default::default(),
            outputs: Vec::new(),
            references: Vec::new(),
        }
    }

    /// Runs a request and adds its measurements.
    pub fn add(&mut self, session: &Session, request: GenerateRequest) -> Result<(), StudyError> {
        let (prompt, seed) = (request.condition.to_string(), request.clip.seed);
        let size = Size::run(self.study.steps(), 1.0);
        let mut residuals = Vec::new();
        let run = session.run(request, size, |done| residuals.extend(done.residual.clone()))?;
        let estimate = self.study.mask.choose(&run.generated.latents, &run.capture)?;
        if let Some(doubt) = doubt(&estimate) {
            session.warn(format!("\"{prompt}\", seed {seed}: {doubt}"));
        }
        let recorder = match &mut self.recorder {
            Some(recorder) => recorder,
            None => self.recorder.insert(Recorder::new(setup(self.study, &run.capture))?),
        };
        recorder.begin(&prompt, seed, estimate)?;
        for step in &run.capture.steps {
            record(recorder, step)?;
        }
        recorder.end()?;
        self.runs += 1;
        self.calibrate(&run.capture, &residuals);
        self.gain += run.generated.measured.as_ref().map_or(0.0, |measured| measured.gain.ln());
        if seed == 0 && self.references.len() < PROBED_PROMPTS {
            let frames = (self.references.len() < TRIED_PROMPTS).then(|| run.frames()).transpose()?;
            self.references.push(Reference { prompt, latents: run.generated.latents, frames });
        }
        if self.study.queries != Queries::Exact && self.sampled.is_empty() {
            self.sampled = run.capture.steps.into_iter().map(received).collect();
        }
        Ok(())
    }

    /// Runs the first request again with all queries and compares the sampled maps with the exact
    /// maps. Measuring does not change the clip, so both maps have the same hidden states.
    pub fn compare_with_exact(&mut self, session: &Session, first: GenerateRequest) -> Result<(), StudyError> {
        let observe = Observe { attention: Some(Received::Exact), ..Observe::default() };
        let size = Size::run(self.study.steps(), 1.0);
        let run = session.run(GenerateRequest { observe, ..first }, size, |_| {})?;
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
        self.sigmas.clone_from(&capture.run.sigmas);
        self.magnitude_ratios.resize(capture.steps.len(), 0.0);
        for (sum, step) in self.magnitude_ratios.iter_mut().zip(&capture.steps) {
            *sum += step.magnitude_ratio.unwrap_or(1.0);
        }
        for (step, changes) in capture.steps.iter().zip(&capture.run.signal_changes) {
            if let Some(output) = step.relative_change {
                self.outputs.push(output);
                self.signals.iter_mut().zip(changes).for_each(|(list, change)| list.push(*change));
            }
        }
    }

    /// The profile of the runs so far.
    pub fn so_far(&self) -> Result<Profile, StudyError> {
        Ok(self.clone().finish()?.0)
    }

    /// Returns the profile, the maps for figures, the references of the trials, and the calibration
    /// that follows from the measured runs, which the profile has too. Its amplification is
    /// assumed.
    pub fn finish(self) -> Result<(Profile, KeptMaps, Vec<Reference>, Calibration), StudyError> {
        let nothing = || StudyError::Failed("nothing was profiled".into());
        let (mut profile, maps) = self.recorder.ok_or_else(nothing)?.finish()?;
        let runs = self.runs.max(1) as f64;
        let mut calibration = Calibration {
            sigmas: self.sigmas,
            magnitude_ratios: self.magnitude_ratios.iter().map(|sum| sum / runs).collect(),
            gram: self.gram.gram(),
            tea_embedding: calibrate_tea_cache(&self.signals[0], &self.outputs),
            tea_projection: calibrate_tea_cache(&self.signals[1], &self.outputs),
            ..Calibration::default()
        };
        calibration.assume_amplification((self.gain / runs).exp());
        profile.calibration = Some(calibration.clone());
        Ok((profile, maps, self.references, calibration))
    }
}

/// Adds the measurements of a step.
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

/// The maps of received attention in the prompt's branch, by block.
fn received(step: StepRecord) -> Vec<Vec<f32>> {
    step.cond.into_iter().filter_map(|block| block.received).collect()
}

fn setup(study: &ProfileStudy, capture: &Capture) -> Setup {
    let run = &capture.run;
    Setup {
        model: ModelId { id: run.model.clone(), hash: run.model_id.clone(), blocks: run.blocks },
        settings: RunSettings {
            clip: ClipSettings { num_inference_steps: run.steps(), ..run.clip },
            scheduler: run.scheduler.clone(),
        },
        token_grid: run.token_grid,
        queries: study.queries,
        rule: study.rule,
    }
}
