//! The request for a generation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::caching::StrategyConfig;
use crate::model::NamedFiles;
use crate::model::family::{Condition, Latents, SamplerDefaults};
use crate::ops::Received;
use crate::sampling::limits::MOST_FPS;
use crate::sampling::{ClipSettings, Euler, Grid, Schedule, Scheduler, SchedulerChoice, UniPc};

use super::defaults::settings_in;
use super::{Capture, EngineError};

/// The measurements of a run. Measuring never changes the video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observe {
    /// Attention received by every token in every computed block, and attention paid to the
    /// prompt's subject.
    pub attention: Option<Received>,
    /// Measures the changes of every block's delta, of the whole residual and of its magnitude from
    /// step to step. This keeps two deltas of every block.
    pub changes: bool,
    /// Samples the residual of every step of a run without reuse, for [`Generated::measured`]. This
    /// costs two samples of rows a step and branch.
    ///
    /// [`Generated::measured`]: super::Generated::measured
    pub residuals: bool,
    /// GPU time of every block. The job waits for the GPU after each block, which costs some speed.
    pub times: bool,
    /// What a later run needs to go on after each step: one value a latent, or two where the plan
    /// corrects.
    pub state: bool,
}

impl Observe {
    /// Also measures attention.
    #[must_use]
    pub fn with_attention(self, attention: Received) -> Self {
        Self { attention: Some(attention), ..self }
    }

    /// Also measures changes from step to step.
    #[must_use]
    pub fn with_changes(self) -> Self {
        Self { changes: true, ..self }
    }

    /// Also keeps what a later run needs to go on.
    #[must_use]
    pub fn with_state(self) -> Self {
        Self { state: true, ..self }
    }

    /// Also samples the residuals of computed steps.
    #[must_use]
    pub fn with_residuals(self) -> Self {
        Self { residuals: true, ..self }
    }

    /// Also measures GPU time of every block.
    #[must_use]
    pub fn with_times(self) -> Self {
        Self { times: true, ..self }
    }
}

/// A request for a generation. [`GenerateRequest::of_model`] makes one; its fields can then be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateRequest {
    /// The model's folder.
    pub model: PathBuf,
    /// Files of the model that are named one by one, whatever else its folder holds.
    pub files: NamedFiles,
    /// The condition, for example a prompt.
    pub condition: Condition,
    /// What not to show: the model's own default, unless something is said. The empty prompt is
    /// encoded too, as in diffusers.
    pub negative: Condition,
    /// Size, number of frames and steps, guidance, shift, seed and rate.
    pub clip: ClipSettings,
    /// The scheduler. `None` takes the model's own scheduler.
    pub scheduler: Option<SchedulerChoice>,
    /// The grid of the sigmas; diffusers' grid for the solver if `None`.
    pub grid: Option<Grid>,
    /// The initial noise. `None` makes it from the seed.
    pub latents: Option<Latents>,
    /// The strategy for reuse.
    pub strategy: StrategyConfig,
    /// The measurements.
    pub observe: Observe,
    /// An interrupted run of the same request, whose steps have states. The job takes its steps
    /// over and goes on: the clip is the same.
    pub earlier: Option<Arc<Capture>>,
}

impl GenerateRequest {
    /// A request for a condition with the model's own settings, without reuse and measurements.
    ///
    /// # Errors
    /// The errors of [`clip_settings_of`](super::clip_settings_of).
    pub fn of_model(model: &Path, condition: impl Into<Condition>) -> Result<Self, EngineError> {
        Self::of_files(model, &NamedFiles::default(), condition)
    }

    /// As [`GenerateRequest::of_model`], for a model of which some files are named one by one.
    ///
    /// # Errors
    /// As [`GenerateRequest::of_model`], and a named file that does not hold its part.
    pub fn of_files(model: &Path, files: &NamedFiles, condition: impl Into<Condition>) -> Result<Self, EngineError> {
        let found = crate::model::find_named(model, files)?;
        Ok(Self {
            model: model.to_owned(),
            files: files.clone(),
            condition: condition.into(),
            negative: found.default_negative(),
            clip: settings_in(model, &found.defaults())?,
            scheduler: None,
            grid: None,
            latents: None,
            strategy: StrategyConfig::off(),
            observe: Observe::default(),
            earlier: None,
        })
    }

    /// The same request with a strategy.
    #[must_use]
    pub fn with_strategy(self, strategy: StrategyConfig) -> Self {
        Self { strategy, ..self }
    }

    /// The same request with measurements.
    #[must_use]
    pub fn with_observe(self, observe: Observe) -> Self {
        Self { observe, ..self }
    }

    /// The same request for another prompt and seed.
    #[must_use]
    pub fn with_prompt(&self, prompt: &str, seed: u64) -> Self {
        Self { condition: prompt.into(), clip: ClipSettings { seed, ..self.clip }, ..self.clone() }
    }

    /// Checks that the initial noise has the size of the clip and that the frame rate is possible.
    pub(super) fn check(&self, shape: [usize; 4]) -> Result<(), EngineError> {
        let fps = self.clip.fps;
        if !(1..=MOST_FPS).contains(&fps) {
            return Err(EngineError::Request(format!("{fps} frames a second cannot be shown: use 1 to {MOST_FPS}")));
        }
        match &self.latents {
            Some(given) if given.shape != shape || given.values.len() != shape.iter().product::<usize>() => {
                let message = format!("the given latents are {:?}, this size needs {shape:?}", given.shape);
                Err(EngineError::Request(message))
            }
            _ => Ok(()),
        }
    }

    /// The scheduler of the request, or the model's own.
    pub(super) fn scheduler_choice(&self, model: &SamplerDefaults) -> SchedulerChoice {
        self.scheduler.unwrap_or(model.scheduler)
    }

    /// The shift of the request, or the model's own.
    pub(super) fn shift(&self, model: &SamplerDefaults) -> f64 {
        self.clip.flow_shift.unwrap_or(model.flow_shift)
    }

    /// The scheduler with its schedule.
    pub(super) fn scheduler(&self, model: &SamplerDefaults) -> Result<Box<dyn Scheduler>, EngineError> {
        let shift = self.shift(model);
        let steps = self.strategy.steps(self.clip.num_inference_steps);
        Ok(match self.scheduler_choice(model) {
            SchedulerChoice::UniPc => {
                let schedule = Schedule::new(self.grid.unwrap_or(Grid::Diffusers), steps, shift)?;
                Box::new(UniPc::new(schedule, model.solver_order)?)
            }
            SchedulerChoice::Euler => {
                Box::new(Euler::new(Schedule::new(self.grid.unwrap_or(Grid::FlowMatchEuler), steps, shift)?))
            }
        })
    }
}
