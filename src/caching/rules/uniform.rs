//! Every k-th step is computed: the plainest rule, and a strong one.

use serde::{Deserialize, Serialize};

use crate::caching::rule::{About, Advice, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::schedule::{self, Intervals, StepSchedule};
use crate::caching::setting::Setting;
use crate::caching::strategy::Fixed;
use crate::caching::{CacheError, StepPlan, Strategy};

/// All blocks are reused together between the computed steps of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uniform(pub StepSchedule);

impl Rule for Uniform {
    const ABOUT: About = About {
        key: "uniform",
        label: "Uniform",
        summary: "All blocks are reused between computed steps.",
        source: "",
        group: Group::Control,
        needs: Needs::Nothing,
    };

    fn defaults(steps: usize) -> Self {
        Self(StepSchedule { warm_up: schedule::scaled(6, steps), last: 1, intervals: Intervals::Uniform(2) })
    }

    fn settings(&self, shape: Shape) -> Vec<Setting<Self>> {
        schedule::settings(&self.0, shape, |rule: &mut Self| &mut rule.0)
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        Ok(Box::new(Fixed(StepPlan::stack(&self.0.computed(inputs.steps), inputs.blocks))))
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["every", "warm-up", "last"] }
    }

    fn candidates(&self, target: &SpeedupTarget) -> Vec<Self> {
        vec![Self(StepSchedule::even(target.steps, target.computed_steps()))]
    }

    fn advice(&self) -> Advice {
        Advice::SCHEDULE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_between_is_reused() {
        let rule = Uniform(StepSchedule { warm_up: 1, last: 1, intervals: Intervals::Uniform(3) });
        let inputs = StrategyInputs { steps: 9, blocks: 4, ..Default::default() };
        let plans = rule.build(&inputs).unwrap().preview().unwrap();
        let runs: Vec<usize> = plans.iter().map(|plan| plan.cond.computed(4)).collect();
        assert_eq!(runs, [4, 4, 0, 0, 4, 0, 0, 4, 4]);
    }
}
