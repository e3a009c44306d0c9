//! A plan that somebody made step by step: by hand in the window, or in a file.

use serde::{Deserialize, Serialize};

use crate::caching::plan::check_reuse;
use crate::caching::rule::{About, Advice, Group, Needs, Rule, StrategyInputs, Tuning};
use crate::caching::strategy::Fixed;
use crate::caching::{CacheError, Cell, StepPlan, Strategy};
use crate::sampling::limits::MOST_STORED_STEPS;

/// Where a plan comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Somebody edited the plan in the window.
    #[default]
    Hand,
    /// The plan was read from a file.
    File,
    /// A measurement made the plan, to see what comes of it.
    Probe,
}

/// One plan for every step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The name that its maker gave.
    pub title: String,
    /// Who made the plan.
    #[serde(default)]
    pub origin: Origin,
    /// The plans, one a step.
    pub plans: Vec<StepPlan>,
}

impl Rule for Plan {
    const ABOUT: About = About {
        key: "plan",
        label: "Own plan",
        summary: "A plan of your own: edit it in the map.",
        source: "",
        group: Group::Own,
        needs: Needs::Nothing,
    };

    fn defaults(_steps: usize) -> Self {
        Self { title: "my plan".into(), origin: Origin::Hand, plans: Vec::new() }
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        fitting(&self.plans, inputs).map(|plans| Box::new(Fixed(plans)) as Box<dyn Strategy>)
    }

    fn check(&self) -> Result<(), String> {
        check_sizes(&self.plans)
    }

    fn planned_steps(&self) -> Option<usize> {
        Some(self.plans.len())
    }

    fn tuning(&self) -> Tuning {
        Tuning::Fixed("a plan says all of its settings")
    }

    fn advice(&self) -> Advice {
        PLANNING
    }

    fn background(&self, blocks: usize) -> Vec<usize> {
        ever_reused(&self.plans, blocks)
    }
}

/// The advice for plans.
pub(super) const PLANNING: Advice =
    Advice { more: "plan for a higher speed-up or for fewer dB", less: "plan for a lower speed-up or for more dB" };

/// The plans, if they are for as many steps and blocks as the job has, and reuse only what was
/// stored before.
pub(super) fn fitting(plans: &[StepPlan], inputs: &StrategyInputs) -> Result<Vec<StepPlan>, CacheError> {
    if plans.len() != inputs.steps {
        let (planned, asked) = (plans.len(), inputs.steps);
        let message = format!(
            "the plan is for {planned} steps, the job has {asked}: ask for {planned} steps, or plan for {asked}"
        );
        return Err(CacheError::Settings(message));
    }
    if !plans.iter().all(|plan| plan.cond.fits(inputs.blocks) && plan.uncond.fits(inputs.blocks)) {
        let message = format!("the plan is not for a model of {} blocks", inputs.blocks);
        return Err(CacheError::Settings(message));
    }
    check_reuse(plans)?;
    Ok(plans.to_vec())
}

/// Fails for plans with absurd sizes, whatever the model is.
pub(super) fn check_sizes(plans: &[StepPlan]) -> Result<(), String> {
    if plans.len() > MOST_STORED_STEPS {
        return Err("its plan is too long".into());
    }
    plans.iter().try_for_each(|plan| plan.check_sizes(plan.blocks()))
}

/// The blocks that plans reuse in any step, ascending.
pub(super) fn ever_reused(plans: &[StepPlan], blocks: usize) -> Vec<usize> {
    let maps: Vec<Vec<Cell>> = plans.iter().map(|plan| plan.cond.cells(blocks)).collect();
    (0..blocks).filter(|block| maps.iter().any(|cells| cells.get(*block) == Some(&Cell::Reused))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_for_other_steps_says_what_to_ask_for() {
        let plan = Plan { plans: StepPlan::stack(&[true; 5], 2), ..Plan::defaults(5) };
        let inputs = StrategyInputs { steps: 9, blocks: 2, ..Default::default() };
        let message = plan.build(&inputs).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("ask for 5 steps") && message.contains("plan for 9"), "{message}");
    }

    #[test]
    fn blocks_that_a_plan_reuses_are_its_background() {
        use crate::caching::{Action, BranchPlan, Forecast};
        let run = |action| StepPlan::both(BranchPlan::runs(4, std::slice::from_ref(&(1..3)), &action));
        let plan = Plan { plans: vec![run(Action::Store), run(Action::Reuse(Forecast::hold()))], ..Plan::defaults(2) };
        assert_eq!(plan.background(4), [1, 2]);
    }
}
