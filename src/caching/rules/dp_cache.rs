//! DPCache (arXiv 2602.22654): the computed steps with the least sum of forecast errors, where a
//! gap's error depends on the computed step before it, found by dynamic programming. Skipped steps
//! are forecast by a Taylor series of order 1.
//!
//! The paper measures the errors by runs. Here they follow from a profile's inner products, as the
//! squared error of the residual of all blocks.

use serde::{Deserialize, Serialize};

use super::taylor_seer::{taylor, taylor_plans};
use crate::caching::evidence::Evidence;
use crate::caching::planner::{Planner, least_sums};
use crate::caching::rule::{About, Advice, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::setting::Setting;
use crate::caching::strategy::Fixed;
use crate::caching::{CacheError, Strategy};
use crate::sampling::limits::MOST_STORED_STEPS;

/// Settings of DPCache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DpCache {
    /// K: number of computed steps.
    pub computed: usize,
    /// Whether each step is computed; empty without a calibration.
    pub list: Vec<bool>,
}

impl DpCache {
    /// The list is of one number of computed steps.
    fn set_computed(&mut self, computed: usize) {
        if self.computed != computed {
            *self = Self { computed, list: Vec::new() };
        }
    }
}

/// The best choice of `count` computed steps for a table of inner products.
fn best(gram: &[Vec<f64>], count: usize) -> Vec<bool> {
    let steps = gram.len();
    let error = |a: usize, b: usize, step: usize| {
        let known = if a == b { vec![b] } else { vec![b, a] };
        let weights = taylor(&known, step).0;
        let parts: Vec<(usize, f64)> =
            known.into_iter().zip(weights.iter().map(|w| -f64::from(*w))).chain([(step, 1.0)]).collect();
        parts.iter().map(|(i, x)| parts.iter().map(|(j, y)| x * y * gram[*i][*j]).sum::<f64>()).sum::<f64>()
    };
    let gaps_after = |a: usize, b: usize| {
        let mut sum = 0.0;
        let mut gaps = vec![0.0];
        for step in b + 1..steps {
            sum += error(a, b, step).max(0.0);
            gaps.push(sum);
        }
        gaps
    };
    let choice = least_sums(steps, gaps_after).swap_remove(count.clamp(1, steps) - 1);
    (0..steps).map(|step| choice.contains(&step)).collect()
}

impl Rule for DpCache {
    const ABOUT: About = About {
        key: "dpcache",
        label: "DPCache",
        summary: "The computed steps with the least sum of forecast errors, by dynamic programming.",
        source: "arXiv 2602.22654",
        group: Group::Published,
        needs: Needs::Profile,
    };

    fn defaults(steps: usize) -> Self {
        Self { computed: (steps / 2).max(1), list: Vec::new() }
    }

    fn settings(&self, Shape { steps, .. }: Shape) -> Vec<Setting<Self>> {
        let computed = ("computed", "computed", "K: number of computed steps");
        vec![Setting::count_by(computed, 1..=steps.max(1), |rule| rule.computed, Self::set_computed).unit("steps")]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        if self.list.is_empty() {
            return Err(CacheError::Uncalibrated("DPCache"));
        }
        if self.list.len() != inputs.steps {
            let (planned, asked) = (self.list.len(), inputs.steps);
            return Err(CacheError::Settings(format!("DPCache's list is for {planned} steps, the job has {asked}")));
        }
        Ok(Box::new(Fixed(taylor_plans(&self.list, 1, inputs.blocks))))
    }

    fn check(&self) -> Result<(), String> {
        let sane = self.list.len() <= MOST_STORED_STEPS && self.list.first() != Some(&false);
        if sane { Ok(()) } else { Err("its list of computed steps makes no sense".into()) }
    }

    fn planned_steps(&self) -> Option<usize> {
        (!self.list.is_empty()).then_some(self.list.len())
    }

    fn calibrate(&mut self, evidence: &Evidence) -> Result<(), CacheError> {
        let known = evidence.calibration_here().filter(|known| (1..=Planner::MOST_STEPS).contains(&known.steps()));
        if let (true, Some(known)) = (self.list.is_empty(), known) {
            self.list = best(&known.gram, self.computed);
        }
        Ok(())
    }

    fn uncalibrate(&mut self) {
        self.list.clear();
    }

    fn is_calibrated(&self) -> bool {
        !self.list.is_empty()
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["computed"] }
    }

    fn candidates(&self, target: &SpeedupTarget) -> Vec<Self> {
        vec![Self { computed: target.computed_steps(), list: Vec::new() }]
    }

    fn advice(&self) -> Advice {
        Advice::SCHEDULE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Residuals on a line are forecast exactly from two of them; the kink has to be computed.
    #[test]
    fn a_kink_is_computed() {
        let value = |step: usize| [1.0, step as f64 + 4.0 * step.saturating_sub(5) as f64];
        let inner = |i: usize, j: usize| value(i).iter().zip(value(j)).map(|(a, b)| a * b).sum::<f64>();
        let gram: Vec<Vec<f64>> = (0..10).map(|i| (0..10).map(|j| inner(i, j)).collect()).collect();
        let computed = best(&gram, 4);
        let list: Vec<usize> = (0..10).filter(|step| computed[*step]).collect();
        assert_eq!(list, [0, 1, 5, 6]);
    }
}
