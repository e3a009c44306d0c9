//! What to generate.

use std::path::{Path, PathBuf};

use crate::caching::StrategyConfig;
use crate::model::wan::config::{SchedulerClass, SchedulerConfig, TransformerConfig, VaeConfig};
use crate::ops::Received;
use crate::sampling::limits::{LARGEST_SIDE, MOST_FPS, MOST_FRAMES};
use crate::sampling::{ClipSettings, Euler, Grid, Schedule, Scheduler, SolverOrder, UniPc};

use super::{EngineError, clip_settings_of};

/// The solver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerChoice {
    /// UniPC.
    UniPc,
    /// Flow-match Euler.
    Euler,
}

impl SchedulerChoice {
    /// Its name in commands, captures and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::UniPc => "unipc",
            Self::Euler => "euler",
        }
    }
}

/// What to measure on the way. Measuring never changes the video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observe {
    /// Attention received by every token in every computed block, and that which tokens pay to the prompt's subject.
    pub attention: Option<Received>,
    /// How every block's delta, the whole residual and its magnitude change from step to step. Keeps two deltas of every block.
    pub changes: bool,
    /// GPU time of every block: waits for the GPU after each, which costs some speed.
    pub times: bool,
}

/// Latents of a clip, normalised as the transformer takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Latents {
    /// Channels, frames, height, width.
    pub shape: [usize; 4],
    /// Row-major.
    pub values: Vec<f32>,
}

/// A generation.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// The model's folder.
    pub model: PathBuf,
    /// What to show.
    pub prompt: String,
    /// What not to show; encoded even if empty, as diffusers does.
    pub negative_prompt: String,
    /// Size, frames, steps and the like.
    pub clip: ClipSettings,
    /// The solver; the model's own if `None`.
    pub scheduler: Option<SchedulerChoice>,
    /// Where the sigmas lie; diffusers' grid of the solver if `None`.
    pub grid: Option<Grid>,
    /// The initial noise itself; made from the seed if `None`.
    pub latents: Option<Latents>,
    /// Which features are reused when.
    pub strategy: StrategyConfig,
    /// What to measure.
    pub observe: Observe,
}

impl GenerateRequest {
    /// A request for a prompt with the model's own settings, without reuse and measurements.
    ///
    /// # Errors
    /// As [`clip_settings_of`].
    pub fn of_model(model: &Path, prompt: &str) -> Result<Self, EngineError> {
        Ok(Self {
            model: model.to_owned(),
            prompt: prompt.into(),
            negative_prompt: String::new(),
            clip: clip_settings_of(model)?,
            scheduler: None,
            grid: None,
            latents: None,
            strategy: StrategyConfig::off(),
            observe: Observe::default(),
        })
    }

    /// The same request for another prompt and seed.
    #[must_use]
    pub fn with_prompt(&self, prompt: &str, seed: u64) -> Self {
        Self { prompt: prompt.into(), clip: ClipSettings { seed, ..self.clip }, ..self.clone() }
    }

    /// Extents `[C, F, H, W]` of the latents; an error that names the nearest possible sizes where the model has none for the request.
    pub(super) fn latent_shape(
        &self,
        transformer: &TransformerConfig,
        vae: &VaeConfig,
    ) -> Result<[usize; 4], EngineError> {
        let [pt, ph, pw] = transformer.patch_size;
        let (time, space) = (vae.temporal_compression(), vae.spatial_compression());
        let ClipSettings { width, height, num_frames, fps, .. } = self.clip;
        check_multiple("width", width, space * pw)?;
        check_multiple("height", height, space * ph)?;
        if num_frames > MOST_FRAMES {
            return Err(EngineError::Request(format!("{num_frames} frames cannot be made: at most {MOST_FRAMES}")));
        }
        if !(1..=MOST_FPS).contains(&fps) {
            return Err(EngineError::Request(format!("{fps} frames a second cannot be shown: use 1 to {MOST_FPS}")));
        }
        let frames = match num_frames.checked_sub(1) {
            Some(rest) if rest % time == 0 && (rest / time + 1) % pt == 0 => rest / time + 1,
            _ => {
                let nearest = num_frames.saturating_sub(1) / time * time + 1;
                let message = format!("{num_frames} frames cannot be made: use {time} n + 1, for example {nearest}");
                return Err(EngineError::Request(message));
            }
        };
        if transformer.in_channels != vae.z_dim || transformer.out_channels != vae.z_dim {
            let message = format!(
                "the transformer takes {} and gives {} channels, the VAE has {}: these parts are not of one text-to-video model",
                transformer.in_channels, transformer.out_channels, vae.z_dim
            );
            return Err(EngineError::Request(message));
        }
        let shape = [vae.z_dim, frames, height / space, width / space];
        match &self.latents {
            Some(given) if given.shape != shape || given.values.len() != shape.iter().product::<usize>() => {
                let message = format!("the given latents are {:?}, this size needs {shape:?}", given.shape);
                Err(EngineError::Request(message))
            }
            _ => Ok(shape),
        }
    }

    /// The solver's name: the request's, or the model's own.
    pub(super) fn scheduler_choice(&self, config: &SchedulerConfig) -> SchedulerChoice {
        self.scheduler.unwrap_or(match config.class {
            SchedulerClass::UniPc => SchedulerChoice::UniPc,
            SchedulerClass::FlowMatchEuler => SchedulerChoice::Euler,
        })
    }

    /// The shift of the sigmas: the request's, or the model's own.
    pub(super) fn shift(&self, config: &SchedulerConfig) -> f64 {
        self.clip.flow_shift.unwrap_or(config.flow_shift)
    }

    /// The solver with its schedule.
    pub(super) fn scheduler(&self, config: &SchedulerConfig) -> Result<Box<dyn Scheduler>, EngineError> {
        let shift = self.shift(config);
        let steps = self.strategy.steps(self.clip.num_inference_steps);
        Ok(match self.scheduler_choice(config) {
            SchedulerChoice::UniPc => {
                let order = if config.solver_order == 1 && config.class == SchedulerClass::UniPc {
                    SolverOrder::One
                } else {
                    SolverOrder::Two
                };
                Box::new(UniPc::new(Schedule::new(self.grid.unwrap_or(Grid::Diffusers), steps, shift)?, order)?)
            }
            SchedulerChoice::Euler => {
                Box::new(Euler::new(Schedule::new(self.grid.unwrap_or(Grid::FlowMatchEuler), steps, shift)?))
            }
        })
    }
}

fn check_multiple(what: &str, value: usize, unit: usize) -> Result<(), EngineError> {
    if value > 0 && value.is_multiple_of(unit) && value <= LARGEST_SIDE {
        return Ok(());
    }
    let below = (value / unit * unit).clamp(unit, LARGEST_SIDE);
    Err(EngineError::Request(format!(
        "{what} {value} cannot be made: use a multiple of {unit} up to {LARGEST_SIDE}, for example {below}"
    )))
}
