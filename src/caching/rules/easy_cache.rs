//! EasyCache (arXiv 2507.02860): the transformer is skipped while its output is expected to have
//! changed little, judged from how much the latents moved.

use serde::{Deserialize, Serialize};

use crate::caching::rule::{About, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::schedule::scaled;
use crate::caching::setting::Setting;
use crate::caching::{
    BranchPlan, CacheError, Decision, Forecast, Observation, OutputKind, StepContext, StepPlan, Strategy,
};

/// Settings of EasyCache. Defaults are the method's for Wan2.1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EasyCache {
    /// tau: accumulated relative change at which a step is computed again.
    pub threshold: f64,
    /// Steps at the start that are computed.
    pub first: usize,
    /// Steps at the end that are computed.
    pub last: usize,
}

impl Default for EasyCache {
    fn default() -> Self {
        Self { threshold: 0.05, first: 10, last: 1 }
    }
}

impl Rule for EasyCache {
    const ABOUT: About = About {
        key: "easycache",
        label: "EasyCache",
        summary: "Reuses while the output is expected to have changed little.",
        source: "arXiv 2507.02860",
        group: Group::Published,
        needs: Needs::Steps,
    };

    fn defaults(steps: usize) -> Self {
        Self { first: scaled(10, steps), ..Self::default() }
    }

    fn settings(&self, Shape { steps, .. }: Shape) -> Vec<Setting<Self>> {
        let threshold = ("threshold", "threshold", "Accumulated relative change that computes again");
        let first = ("first", "first steps", "Steps at the start that are computed");
        let last = ("last", "last steps", "Steps at the end that are computed");
        vec![
            Setting::real(threshold, 0.0..=0.5, |rule: &mut Self| &mut rule.threshold).threshold(),
            Setting::count(first, 0..=steps, |rule: &mut Self| &mut rule.first).unit("steps"),
            Setting::count(last, 0..=steps, |rule: &mut Self| &mut rule.last).unit("steps"),
        ]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        Ok(Box::new(Running::new(self.clone(), inputs.blocks)))
    }

    fn is_planned_ahead(&self) -> bool {
        false
    }

    fn tuning(&self) -> Tuning {
        Tuning::Threshold
    }

    fn loosened(&self, target: &SpeedupTarget) -> Self {
        Self { first: target.at_most("first", self.first, 0.5), ..self.clone() }
    }
}

/// EasyCache at work.
#[derive(Debug)]
struct Running {
    settings: EasyCache,
    blocks: usize,
    /// m(output change) / m(latent change) between the last two computed steps.
    rate: Option<f64>,
    output_size: f64,
    accumulated: f64,
}

impl Running {
    fn new(settings: EasyCache, blocks: usize) -> Self {
        Self { settings, blocks, rate: None, output_size: 0.0, accumulated: 0.0 }
    }

    fn may_skip(&mut self, now: &StepContext) -> bool {
        if now.step < self.settings.first.max(2) || now.step.saturating_add(self.settings.last) >= now.steps {
            return false;
        }
        let (Some(rate), Some(moved)) = (self.rate, now.latent_step) else { return false };
        self.accumulated += rate * moved / self.output_size;
        self.accumulated < self.settings.threshold
    }
}

impl Strategy for Running {
    /// The rule reuses outputs, not deltas.
    fn depth(&self) -> usize {
        0
    }

    fn plan(&mut self, now: &StepContext) -> Decision {
        Decision::Plan(StepPlan::both(if self.may_skip(now) {
            BranchPlan::Output(OutputKind::Offset, Forecast::hold())
        } else {
            self.accumulated = 0.0;
            BranchPlan::compute(self.blocks)
        }))
    }

    fn observe(&mut self, _step: usize, seen: &Observation) {
        self.output_size = seen.output_size;
        self.rate = match (seen.output_change, seen.latent_change) {
            (Some(output), Some(latents)) if latents > 0.0 => Some(output / latents),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latents move 0.1 a step, the output changes as much as they and has size 1: 0.1 a step adds
    /// up.
    #[test]
    fn skips_until_the_expected_change_reaches_the_threshold() {
        let settings = EasyCache { threshold: 0.25, first: 3, last: 1 };
        let mut run = Running::new(settings, 4);
        let mut computed = Vec::new();
        for step in 0..12 {
            let now = StepContext { step, steps: 12, latent_step: (step > 0).then_some(0.1) };
            let Decision::Plan(plan) = run.plan(&now) else { panic!("no probe") };
            if plan.cond.is_full(4) {
                let before = computed.last().map(|last| (step - last) as f64 * 0.1);
                run.observe(step, &Observation { output_size: 1.0, output_change: before, latent_change: before });
                computed.push(step);
            }
        }
        assert_eq!(computed, [0, 1, 2, 5, 8, 11]);
    }
}
