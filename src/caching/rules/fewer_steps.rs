//! Fewer denoising steps: the control that papers leave out.

use serde::{Deserialize, Serialize};

use crate::caching::rule::{About, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::setting::{Kind, Setting, Value};
use crate::caching::strategy::Fixed;
use crate::caching::{CacheError, StepPlan, Strategy};
use crate::sampling::limits::MOST_STORED_STEPS;

/// No reuse, but fewer steps than the job asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FewerSteps {
    /// Denoising steps in place of the job's.
    pub steps: usize,
}

impl Rule for FewerSteps {
    const ABOUT: About = About {
        key: "fewer-steps",
        label: "Fewer steps",
        summary: "No reuse, fewer steps: the control that others have to beat.",
        source: "",
        group: Group::Control,
        needs: Needs::Nothing,
    };

    fn defaults(steps: usize) -> Self {
        Self { steps: (steps / 2).max(1) }
    }

    fn settings(&self, shape: Shape) -> Vec<Setting<Self>> {
        let words = ("steps", "steps", "Denoising steps in place of the number above");
        let set = move |rule: &mut Self, value| match value {
            Value::Count(steps) if (1..=shape.steps).contains(&steps) => {
                rule.steps = steps;
                Ok(())
            }
            Value::Count(0) => Err("a run takes one step at least".into()),
            other => Err(format!("a job of {} steps cannot have {other} in their place", shape.steps)),
        };
        let kind = Kind::Count(1..=shape.steps.max(1));
        vec![Setting::new(words, kind, |rule: &Self| Value::Count(rule.steps), set).unit("steps")]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        if self.steps == 0 {
            return Err(CacheError::Settings("a run takes one step at least".into()));
        }
        Ok(Box::new(Fixed(vec![StepPlan::compute(inputs.blocks); inputs.steps])))
    }

    fn check(&self) -> Result<(), String> {
        if self.steps <= MOST_STORED_STEPS { Ok(()) } else { Err(format!("it claims {} steps", self.steps)) }
    }

    fn caches(&self) -> bool {
        false
    }

    fn steps(&self, requested: usize) -> usize {
        // Never more steps than requested, whatever the request was when these were chosen.
        self.steps.min(requested)
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["steps"] }
    }

    fn candidates(&self, target: &SpeedupTarget) -> Vec<Self> {
        vec![Self { steps: target.computed_steps() }]
    }
}
