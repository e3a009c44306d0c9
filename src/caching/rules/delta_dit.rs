//! Delta-DiT (arXiv 2406.01125): rear blocks are reused early, front blocks late.

use serde::{Deserialize, Serialize};

use crate::caching::rule::{About, Advice, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::schedule::{self, Intervals, StepSchedule};
use crate::caching::setting::Setting;
use crate::caching::strategy::Fixed;
use crate::caching::{Action, BranchPlan, CacheError, StepPlan, Strategy};

/// Delta-DiT: up to a boundary the rear blocks are reused, after it the front blocks.
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
        let intervals = Intervals::Uniform(2);
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
            let action = Action::store_or_hold(compute);
            StepPlan::both(BranchPlan::runs(blocks, std::slice::from_ref(&run), &action))
        };
        self.schedule.computed(steps).into_iter().enumerate().map(plan).collect()
    }
}

impl Rule for DeltaDit {
    const ABOUT: About = About {
        key: "deltadit",
        label: "Delta-DiT",
        summary: "Rear blocks are reused early, front blocks late.",
        source: "arXiv 2406.01125",
        group: Group::Published,
        needs: Needs::Nothing,
    };

    fn defaults(_steps: usize) -> Self {
        Self::default()
    }

    fn settings(&self, shape: Shape) -> Vec<Setting<Self>> {
        let mut settings = vec![
            Setting::real(("share", "share", "Share of the blocks that is reused"), 0.0..=1.0, |rule: &mut Self| {
                &mut rule.share
            }),
            Setting::real(
                ("boundary", "boundary", "Share of the steps after which front blocks are reused"),
                0.0..=1.0,
                |rule: &mut Self| &mut rule.boundary,
            ),
        ];
        settings.extend(schedule::settings(&self.schedule, shape, |rule: &mut Self| &mut rule.schedule));
        settings
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        Ok(Box::new(Fixed(self.plans(inputs.steps, inputs.blocks))))
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["share", "every"] }
    }

    fn candidates(&self, _target: &SpeedupTarget) -> Vec<Self> {
        let all = [0.5, 0.6, 0.7, 0.8, 0.9].into_iter().flat_map(|share| (2..=12).map(move |every| (share, every)));
        let one = |(share, every)| {
            let schedule = StepSchedule { intervals: Intervals::Uniform(every), ..self.schedule.clone() };
            Self { share, schedule, ..self.clone() }
        };
        all.map(one).collect()
    }

    fn advice(&self) -> Advice {
        Advice::SCHEDULE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::Cell;

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
