//! A rule at work: a strategy sees numbers, one step at a time, and answers with plans.

use super::{CacheError, StepPlan};

/// What is known before a step.
#[derive(Clone, Copy, Debug)]
pub struct StepContext {
    /// Which step, from 0 (the noisiest).
    pub step: usize,
    /// Of how many.
    pub steps: usize,
    /// Mean of |x_t - x_(t-1)| over the latents, where there was a step before.
    pub latent_step: Option<f64>,
}

/// Measurements of a step whose cond branch ran through the whole transformer. m(.) is the mean of
/// |.| over all elements.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation {
    /// m(o): size of the prediction.
    pub output_size: f64,
    /// m(o_a - o_b), to the prediction of the last such step.
    pub output_change: Option<f64>,
    /// m(x_a - x_b), to the latents of the last such step.
    pub latent_change: Option<f64>,
}

/// How the delta of the first blocks (the probe) compares with earlier deltas of these blocks. m(.)
/// is the mean of |.| over all elements.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProbeResult {
    /// m(p - p') / m(p'), p' of the step before.
    pub since_last_step: Option<f64>,
    /// m(p - p') / m(p'), p' of the last step that computed everything.
    pub since_computed: Option<f64>,
    /// m(p - p'') / m(p' - p''), p' and p'' of the last two steps that computed everything.
    pub progress: Option<f64>,
}

/// A strategy's answer before a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Do this.
    Plan(StepPlan),
    /// Run this many blocks of the cond branch first, then ask [`Strategy::decide`]. The plan of
    /// that answer computes these blocks.
    Probe {
        /// Number of blocks, at least 1 and fewer than all.
        blocks: usize,
    },
}

/// A caching rule at work. The engine makes a new one for every job, so nothing leaks from one
/// generation into the next.
pub trait Strategy: Send {
    /// What to do in a step. Called once a step, in order.
    fn plan(&mut self, now: &StepContext) -> Decision;

    /// The plan after the probe that [`Strategy::plan`] asked for.
    ///
    /// # Errors
    /// [`CacheError::Unexpected`] from strategies that never probe.
    fn decide(&mut self, _now: &StepContext, _probe: &ProbeResult) -> Result<StepPlan, CacheError> {
        Err(CacheError::Unexpected("a probe's result was given to a strategy that asked for none"))
    }

    /// What was measured on a step that was computed in full.
    fn observe(&mut self, _step: usize, _seen: &Observation) {}

    /// How many of the last deltas of a run its plans may combine, where these are made on the way.
    fn depth(&self) -> usize {
        1
    }

    /// How many deltas of a probe are there at most.
    fn probes(&self) -> usize {
        0
    }

    /// The plan of all steps where it does not depend on what is generated.
    fn preview(&self) -> Option<Vec<StepPlan>> {
        None
    }
}

/// A strategy whose plan is known from the start.
#[derive(Clone, Debug)]
pub struct Fixed(pub Vec<StepPlan>);

impl Strategy for Fixed {
    fn plan(&mut self, now: &StepContext) -> Decision {
        // A plan shorter than the run ends in its last step's form; `build` refuses an empty one.
        let plan = self.0.get(now.step).or(self.0.last()).cloned();
        Decision::Plan(plan.unwrap_or_else(|| StepPlan::compute(0)))
    }

    fn preview(&self) -> Option<Vec<StepPlan>> {
        Some(self.0.clone())
    }
}
