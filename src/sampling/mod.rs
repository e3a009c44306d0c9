//! The arithmetic of sampling: noise schedules, solvers, guidance and the initial noise.
//!
//! This room computes with plain numbers and knows neither a GPU nor a model. A [`Scheduler`]
//! describes each step as linear combinations of a few named buffers ([`StepUpdate`]). The owner of
//! the buffers carries the combinations out. The engine uses [`CpuSampler`], whose buffers are
//! vectors.
//!
//! The words are those of diffusers. A *sample* is the noisy latents. A *velocity* is the model's
//! output (`noise - x0`). Sigma is the share of noise in the sample:
//! `x_sigma = (1 - sigma) x0 + sigma noise`.

mod euler;
mod guidance;
pub mod limits;
mod linear;
pub mod noise;
mod schedule;
mod settings;
mod unipc;

pub use euler::Euler;
pub use guidance::{BranchWeights, Guidance};
pub use linear::{Buffer, Buffers, CpuSampler, LinearCombination, MAX_TERMS, StepUpdate};
pub use schedule::{Grid, NUM_TRAIN_TIMESTEPS, Schedule};
pub use settings::{ClipSettings, SchedulerChoice};
pub use unipc::{SolverOrder, UniPc};

/// Why sampling is impossible.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The number of steps is zero or beyond [`limits::MOST_STEPS`].
    #[error("num_inference_steps is {0}: choose 1 to {most}", most = limits::MOST_STEPS)]
    Steps(usize),
    /// The shift is not a positive finite number.
    #[error("flow_shift is {0}: choose a positive number, for example 3 for 480p or 5 for 720p")]
    Shift(f64),
    /// The shift is so extreme that neighbouring sigmas are equal in 32-bit floats.
    #[error(
        "flow_shift {shift} with {steps} steps gives sigmas that do not fall from step to step: choose a shift nearer to 1, or fewer steps"
    )]
    Degenerate {
        /// The requested shift.
        shift: f64,
        /// The requested number of steps.
        steps: usize,
    },
    /// The first sigma is 1, where UniPC's half log-SNR is infinite.
    #[error(
        "UniPC cannot start from sigma = 1 (pure noise): use the `diffusers` or `reference` grid, or the Euler scheduler"
    )]
    PureNoise,
    /// A step beyond the schedule.
    #[error("step {step} of a schedule of {steps} steps: steps count from 0 to {}", steps - 1)]
    StepOutOfRange {
        /// The requested step.
        step: usize,
        /// The length of the schedule.
        steps: usize,
    },
    /// The guidance scale is not finite, or negative.
    #[error("guidance_scale is {0}: choose 1 (no guidance) or more, for example 5")]
    GuidanceScale(f64),
    /// The velocity and the sample have different lengths.
    #[error("the velocity has {velocity} values and the sample {sample}: both must have the latents' shape")]
    Length {
        /// Values in the velocity.
        velocity: usize,
        /// Values in the sample.
        sample: usize,
    },
}

/// A solver over a [`Schedule`]. The solver gives the coefficients of every step.
///
/// A scheduler is plain data without state. [`step`](Self::step) depends on `i` only, so a run can
/// resume at any step from the buffers that [`state`](Self::state) names.
pub trait Scheduler: Send + Sync {
    /// The sigmas and timesteps that the solver walks over.
    fn schedule(&self) -> &Schedule;

    /// The buffers that live from one step to the next. A saved run must hold all of them. The
    /// sample comes first.
    fn state(&self) -> &'static [Buffer];

    /// The update of step `i`, counted from 0. Fails beyond the schedule.
    fn step(&self, i: usize) -> Result<StepUpdate, Error>;

    /// The timesteps that the model is given, one for each step.
    fn timesteps(&self) -> &[f32] {
        self.schedule().timesteps()
    }

    /// The sigmas, one for each step, and a final 0.
    fn sigmas(&self) -> &[f32] {
        self.schedule().sigmas()
    }

    /// The number of steps.
    fn num_inference_steps(&self) -> usize {
        self.timesteps().len()
    }
}
