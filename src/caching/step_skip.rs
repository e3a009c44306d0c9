//! Simple fixed rules: whole steps that are skipped, and Delta-DiT's halves.

use serde::{Deserialize, Serialize};

use super::{Action, BranchPlan, Forecast, StepPlan, StepSchedule};

/// A computed step stores, any other reuses what was stored last.
fn store_or_hold(compute: bool) -> Action {
    if compute { Action::Store } else { Action::Reuse(Forecast::hold()) }
}

/// All blocks are reused together between computed steps: the plainest rule, and a strong one.
pub fn stack_plans(computed: &[bool], blocks: usize) -> Vec<StepPlan> {
    computed.iter().map(|compute| StepPlan::both(BranchPlan::whole(blocks, store_or_hold(*compute)))).collect()
}

/// Delta-DiT (arXiv 2406.01125): up to a boundary the rear blocks are reused, after it the front blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeltaDit {
    /// Share of the blocks that is reused.
    pub share: f64,
    /// Share of the steps after which the front blocks are reused in place of the rear ones.
    pub boundary: f64,
    /// Computed steps.
    pub schedule: StepSchedule,
}

impl Default for DeltaDit {
    fn default() -> Self {
        let intervals = super::Intervals::Uniform(2);
        Self { share: 0.5, boundary: 0.5, schedule: StepSchedule { warm_up: 1, last: 1, intervals } }
    }
}

impl DeltaDit {
    /// The plan of every step.
    pub fn plans(&self, steps: usize, blocks: usize) -> Vec<StepPlan> {
        let cached = ((blocks as f64 * self.share).round() as usize).min(blocks);
        let mut run = 0..0;
        let plan = |(step, compute): (usize, bool)| {
            // The half changes only on a computed step, which stores it.
            if compute {
                let early = (step as f64) < self.boundary * steps as f64;
                run = if early { blocks - cached..blocks } else { 0..cached };
            }
            StepPlan::both(BranchPlan::runs(blocks, std::slice::from_ref(&run), &store_or_hold(compute)))
        };
        self.schedule.computed(steps).into_iter().enumerate().map(plan).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::{Cell, Intervals};

    #[test]
    fn uniform_reuses_everything_between() {
        let schedule = StepSchedule { warm_up: 1, last: 1, intervals: Intervals::Uniform(3) };
        let plans = stack_plans(&schedule.computed(9), 4);
        let runs: Vec<usize> = plans.iter().map(|plan| plan.cond.computed(4)).collect();
        assert_eq!(runs, [4, 4, 0, 0, 4, 0, 0, 4, 4]);
    }

    #[test]
    fn delta_dit_changes_halves_at_the_boundary() {
        let plans = DeltaDit::default().plans(20, 6);
        let reused = |step: usize| -> Vec<usize> {
            let cells = plans[step].cond.cells(6);
            (0..6).filter(|block| cells[*block] == Cell::Reused).collect()
        };
        assert_eq!(reused(4), [3, 4, 5]);
        assert_eq!(reused(14), [0, 1, 2]);
        assert!(reused(0).is_empty() && reused(19).is_empty());
    }
}
