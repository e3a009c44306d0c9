//! No reuse.

use serde::{Deserialize, Serialize};

use crate::caching::rule::{About, Advice, Group, Needs, Rule, StrategyInputs, Tuning};
use crate::caching::strategy::Fixed;
use crate::caching::{CacheError, StepPlan, Strategy};

/// Every block computes in every step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Off {}

impl Rule for Off {
    const ABOUT: About = About {
        key: "off",
        label: "Off",
        summary: "Every block computes in every step.",
        source: "",
        group: Group::Off,
        needs: Needs::Nothing,
    };

    fn defaults(_steps: usize) -> Self {
        Self {}
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        Ok(Box::new(Fixed(vec![StepPlan::compute(inputs.blocks); inputs.steps])))
    }

    fn caches(&self) -> bool {
        false
    }

    fn tuning(&self) -> Tuning {
        Tuning::Fixed("it has nothing to tune")
    }

    fn expected_psnr(&self) -> Option<f64> {
        Some(f64::INFINITY)
    }

    fn advice(&self) -> Advice {
        Advice::SCHEDULE
    }
}
