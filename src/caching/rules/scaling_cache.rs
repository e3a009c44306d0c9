//! ScalingCache (ICLR 2026): skipped steps are forecast by a blend of the newest residual and its
//! first-order extrapolation, with a coefficient for each step that is estimated beforehand.
//!
//! The paper blends the outputs of modules, and changes its intervals during the run. Here the
//! residual of all blocks is blended, at equal intervals.

use serde::{Deserialize, Serialize};

use crate::caching::evidence::Evidence;
use crate::caching::rule::{About, Advice, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::schedule::{StepSchedule, indices};
use crate::caching::setting::Setting;
use crate::caching::strategy::Fixed;
use crate::caching::{Action, BranchPlan, CacheError, Forecast, StepPlan, Strategy};
use crate::sampling::limits::MOST_STORED_STEPS;

/// Settings of ScalingCache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScalingCache {
    /// Number of computed steps.
    pub computed: usize,
    /// The coefficient of each step, 0 for computed ones; empty without a calibration.
    pub alphas: Vec<f64>,
}

impl ScalingCache {
    /// The coefficients are of one number of computed steps.
    fn set_computed(&mut self, computed: usize) {
        if self.computed != computed {
            *self = Self { computed, alphas: Vec::new() };
        }
    }

    /// Whether each step is computed.
    fn schedule(&self, steps: usize) -> Vec<bool> {
        StepSchedule::even(steps, self.computed).computed(steps)
    }

    fn plans(&self, blocks: usize) -> Vec<StepPlan> {
        let computed = self.schedule(self.alphas.len());
        let plan = |(step, alpha): (usize, &f64)| {
            let action = match anchors(&computed, step) {
                _ if computed[step] => Action::Store,
                (newest, Some(before)) => {
                    let ahead = (step - newest) as f64 / (newest - before) as f64;
                    Action::Reuse(Forecast::extrapolate((alpha * ahead) as f32))
                }
                (_, None) => Action::Reuse(Forecast::hold()),
            };
            StepPlan::both(BranchPlan::whole(blocks, action))
        };
        self.alphas.iter().enumerate().map(plan).collect()
    }
}

/// The last two computed steps before a step.
fn anchors(computed: &[bool], step: usize) -> (usize, Option<usize>) {
    let before = indices(&computed[..step]);
    (before.last().copied().unwrap_or(0), before.len().checked_sub(2).map(|place| before[place]))
}

/// The least-squares coefficient of each skipped step: the share of the extrapolated change that
/// came, from the inner products of full runs.
fn alphas(gram: &[Vec<f64>], computed: &[bool]) -> Vec<f64> {
    let alpha = |step: usize| match anchors(computed, step) {
        (newest, Some(before)) if !computed[step] => {
            let ahead = (step - newest) as f64 / (newest - before) as f64;
            let g = |i: usize, j: usize| gram[i][j];
            let common = g(step, newest) - g(step, before) - g(newest, newest) + g(newest, before);
            let change = g(newest, newest) - 2.0 * g(newest, before) + g(before, before);
            if change > 0.0 { common / (ahead * change) } else { 0.0 }
        }
        _ => 0.0,
    };
    (0..gram.len()).map(alpha).collect()
}

impl Rule for ScalingCache {
    const ABOUT: About = About {
        key: "scalingcache",
        label: "ScalingCache",
        summary: "Blends holding and extrapolating by coefficients from a profile.",
        source: "ICLR 2026, openreview uXmbrTlko7",
        group: Group::Published,
        needs: Needs::Profile,
    };

    fn defaults(steps: usize) -> Self {
        Self { computed: (steps / 2).max(1), alphas: Vec::new() }
    }

    fn settings(&self, Shape { steps, .. }: Shape) -> Vec<Setting<Self>> {
        let words = ("computed", "computed", "Number of computed steps");
        vec![Setting::count_by(words, 1..=steps.max(1), |rule| rule.computed, Self::set_computed).unit("steps")]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        if self.alphas.is_empty() {
            return Err(CacheError::Uncalibrated("ScalingCache"));
        }
        if self.alphas.len() != inputs.steps {
            let (known, asked) = (self.alphas.len(), inputs.steps);
            let message = format!("ScalingCache's coefficients are for {known} steps, the job has {asked}");
            return Err(CacheError::Settings(message));
        }
        Ok(Box::new(Fixed(self.plans(inputs.blocks))))
    }

    fn check(&self) -> Result<(), String> {
        let sane = self.alphas.len() <= MOST_STORED_STEPS && self.alphas.iter().all(|alpha| alpha.is_finite());
        if sane { Ok(()) } else { Err("its coefficients make no sense".into()) }
    }

    fn planned_steps(&self) -> Option<usize> {
        self.is_calibrated().then_some(self.alphas.len())
    }

    fn calibrate(&mut self, evidence: &Evidence) -> Result<(), CacheError> {
        if let (true, Some(known)) = (self.alphas.is_empty(), evidence.calibration_here()) {
            self.alphas = alphas(&known.gram, &self.schedule(known.steps()));
        }
        Ok(())
    }

    fn uncalibrate(&mut self) {
        self.alphas.clear();
    }

    fn is_calibrated(&self) -> bool {
        !self.alphas.is_empty()
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["computed"] }
    }

    fn candidates(&self, target: &SpeedupTarget) -> Vec<Self> {
        vec![Self { computed: target.computed_steps(), alphas: Vec::new() }]
    }

    fn advice(&self) -> Advice {
        Advice::SCHEDULE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values 0, 2, 3 on computed and skipped steps 0, 1, 2: extrapolated to 4, half of the change
    /// came.
    #[test]
    fn the_share_of_the_change_that_came() {
        let values: [f64; 3] = [0.0, 2.0, 3.0];
        let gram: Vec<Vec<f64>> = values.iter().map(|a| values.iter().map(|b| a * b).collect()).collect();
        assert_eq!(alphas(&gram, &[true, true, false]), [0.0, 0.0, 0.5]);
    }

    #[test]
    fn plans_blend() {
        let rule = ScalingCache { computed: 5, alphas: vec![0.5; 10] };
        let computed = rule.schedule(10);
        let plans = rule.plans(3);
        assert_eq!(plans.iter().filter(|plan| plan.cond.is_full(3)).count(), 5);
        let skipped = (2..10).find(|step| !computed[*step]).unwrap();
        let (newest, before) = anchors(&computed, skipped);
        let ahead = 0.5 * (skipped - newest) as f32 / (newest - before.unwrap()) as f32;
        assert_eq!(plans[skipped].cond, BranchPlan::whole(3, Action::Reuse(Forecast::extrapolate(ahead))));
    }
}
