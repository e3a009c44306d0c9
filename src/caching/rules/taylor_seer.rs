//! TaylorSeer (arXiv 2503.06923): skipped steps are forecast by a Taylor series whose derivatives
//! are finite differences between computed steps. The paper keeps a series for every module; here
//! one for the residual of all blocks, as libraries offer it in their light variants.

use serde::{Deserialize, Serialize};

use crate::caching::rule::{About, Advice, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::schedule::scaled;
use crate::caching::setting::Setting;
use crate::caching::strategy::Fixed;
use crate::caching::{Action, BranchPlan, CacheError, Forecast, StepPlan, Strategy};

/// Highest order: so many deltas and one are kept.
const MOST_ORDER: usize = 4;

/// Settings of TaylorSeer. Defaults are the method's for Wan2.1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaylorSeer {
    /// N: steps from a computed one to the next.
    pub interval: usize,
    /// Steps at the start that are computed.
    pub first: usize,
    /// O: order of the series.
    pub order: usize,
}

impl Default for TaylorSeer {
    fn default() -> Self {
        Self { interval: 5, first: 1, order: 1 }
    }
}

impl TaylorSeer {
    /// Whether each step is computed.
    pub fn computed(&self, steps: usize) -> Vec<bool> {
        let first = self.first.max(1);
        (0..steps).map(|step| step < first || (step + 1 - first).is_multiple_of(self.interval.max(1))).collect()
    }
}

/// Plans of all steps: the computed ones store, the others are forecast by a series of this order.
pub(super) fn taylor_plans(computed: &[bool], order: usize, blocks: usize) -> Vec<StepPlan> {
    let mut known: Vec<usize> = Vec::new();
    let plan = |(step, computed): (usize, &bool)| {
        let action = if *computed {
            known.insert(0, step);
            known.truncate(order.min(MOST_ORDER) + 1);
            Action::Store
        } else {
            Action::Reuse(taylor(&known, step))
        };
        StepPlan::both(BranchPlan::whole(blocks, action))
    };
    computed.iter().enumerate().map(plan).collect()
}

/// The weights of the residuals of the computed steps `known`, newest first, for a step: the sum
/// over the orders i of the i-th derivative times k^i / i!, where k is the distance to the newest.
/// A derivative is the difference of the lower derivatives at the two newest computed steps that
/// have them, divided by the distance of the steps.
pub(super) fn taylor(known: &[usize], step: usize) -> Forecast {
    let count = known.len();
    let unit = |i: usize| (0..count).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
    let mut derivatives: Vec<Vec<f64>> = (0..count).map(unit).collect();
    let ahead = step as f64 - known.first().copied().unwrap_or(0) as f64;
    let (mut weights, mut factor) = (vec![0.0; count], 1.0);
    for order in 1..=count {
        weights.iter_mut().zip(&derivatives[0]).for_each(|(weight, part)| *weight += factor * part);
        factor *= ahead / order as f64;
        let pairs = derivatives.windows(2).zip(known.windows(2));
        derivatives = pairs
            .map(|(pair, at)| {
                let distance = at[0] as f64 - at[1] as f64;
                pair[0].iter().zip(&pair[1]).map(|(new, old)| (new - old) / distance).collect()
            })
            .collect();
    }
    Forecast(weights.into_iter().map(|weight| weight as f32).collect())
}

impl Rule for TaylorSeer {
    const ABOUT: About = About {
        key: "taylorseer",
        label: "TaylorSeer",
        summary: "Forecasts by a Taylor series from computed steps at equal distances.",
        source: "arXiv 2503.06923",
        group: Group::Published,
        needs: Needs::Nothing,
    };

    fn defaults(steps: usize) -> Self {
        Self { first: scaled(1, steps), ..Self::default() }
    }

    fn settings(&self, Shape { steps, .. }: Shape) -> Vec<Setting<Self>> {
        let interval = ("interval", "every", "N: steps from a computed one to the next");
        let first = ("first", "first steps", "Steps at the start that are computed");
        let order = ("order", "order", "O: order of the series; 0 holds");
        vec![
            Setting::count(interval, 1..=steps.max(2), |rule: &mut Self| &mut rule.interval).unit("steps"),
            Setting::count(first, 1..=steps.max(1), |rule: &mut Self| &mut rule.first).unit("steps"),
            Setting::count(order, 0..=MOST_ORDER, |rule: &mut Self| &mut rule.order),
        ]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        let computed = self.computed(inputs.steps);
        Ok(Box::new(Fixed(taylor_plans(&computed, self.order, inputs.blocks))))
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["interval", "first"] }
    }

    fn candidates(&self, target: &SpeedupTarget) -> Vec<Self> {
        let firsts = 1..=(target.steps / 2).max(1);
        let of = |first: usize| (2..=12).map(move |interval| (first, interval));
        firsts.flat_map(of).map(|(first, interval)| Self { first, interval, ..self.clone() }).collect()
    }

    fn advice(&self) -> Advice {
        Advice::SCHEDULE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::schedule::indices;

    #[test]
    fn computed_at_equal_distances() {
        let rule = TaylorSeer { interval: 5, first: 3, order: 1 };
        assert_eq!(indices(&rule.computed(20)), [0, 1, 2, 7, 12, 17]);
        assert_eq!(indices(&TaylorSeer::default().computed(50)), [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]);
    }

    /// Counted by hand: values 1, 2, 4 at steps 0, 1, 3 have the slopes 1 and 1, so no curvature.
    #[test]
    fn series_from_finite_differences() {
        let forecast = |known: &[usize], values: &[f32], step| {
            taylor(known, step).0.iter().zip(values).map(|(w, v)| w * v).sum::<f32>()
        };
        assert_eq!(taylor(&[4], 6).0, [1.0]);
        assert_eq!(taylor(&[4, 2], 6).0, [2.0, -1.0]);
        assert!((forecast(&[3, 1, 0], &[4.0, 2.0, 1.0], 5) - 6.0).abs() < 1e-6);
        // Slopes 2 and 1 over distances 2 and 1: curvature (2 - 1) / 2, and 2^2 / 2 of it.
        assert!((forecast(&[3, 1, 0], &[6.0, 2.0, 1.0], 5) - (6.0 + 2.0 * 2.0 + 0.5 * 2.0)).abs() < 1e-6);
    }
}
