//! MagCache (arXiv 2506.09045): skips steps while the product of calibrated magnitude ratios stays
//! close to one.

use serde::{Deserialize, Serialize};

use crate::caching::evidence::Evidence;
use crate::caching::rule::{About, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::setting::Setting;
use crate::caching::strategy::Fixed;
use crate::caching::{CacheError, StepPlan, Strategy};

/// Settings of MagCache. Defaults are the method's slow ones for Wan2.1-1.3B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MagCache {
    /// delta: accumulated error at which a step is computed again.
    pub threshold: f64,
    /// K: skips in a row at most.
    pub max_skips: usize,
    /// R: share of the steps at the start that is computed.
    pub retention: f64,
    /// Ratio of the residual's magnitude to the magnitude of the step before: one value for each
    /// step of the calibration run.
    pub ratios: Vec<f64>,
}

impl Default for MagCache {
    fn default() -> Self {
        Self { threshold: 0.12, max_skips: 2, retention: 0.2, ratios: Vec::new() }
    }
}

impl MagCache {
    /// Which steps are computed. Ratios of another number of steps are resampled at the nearest
    /// index, as the method does.
    pub fn computed(&self, steps: usize) -> Vec<bool> {
        let full = (steps as f64 * self.retention) as usize;
        let (mut product, mut skips, mut error) = (1.0f64, 0, 0.0f64);
        let decide = |step: usize| {
            if step < full.max(1) {
                return true;
            }
            product *= nearest_ratio(&self.ratios, step, steps);
            skips += 1;
            error += (1.0f64 - product).abs();
            if error < self.threshold && skips <= self.max_skips {
                return false;
            }
            (product, skips, error) = (1.0, 0, 0.0);
            true
        };
        (0..steps).map(decide).collect()
    }
}

impl Rule for MagCache {
    const ABOUT: About = About {
        key: "magcache",
        label: "MagCache",
        summary: "Reuses while the residual's magnitude has changed little.",
        source: "arXiv 2506.09045",
        group: Group::Published,
        needs: Needs::Calibration,
    };

    fn defaults(_steps: usize) -> Self {
        Self::default()
    }

    fn settings(&self, _shape: Shape) -> Vec<Setting<Self>> {
        let threshold = ("threshold", "threshold", "Accumulated error at which a step is computed again");
        let skips = ("skips", "most in a row", "K: skips in a row at most");
        let retention = ("retention", "computed first", "R: share of the steps at the start that is computed");
        vec![
            Setting::real(threshold, 0.0..=0.5, |rule: &mut Self| &mut rule.threshold).threshold(),
            Setting::count(skips, 1..=20, |rule: &mut Self| &mut rule.max_skips).unit("steps"),
            Setting::real(retention, 0.0..=1.0, |rule: &mut Self| &mut rule.retention),
        ]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        if !self.is_calibrated() {
            return Err(CacheError::Uncalibrated("MagCache"));
        }
        Ok(Box::new(Fixed(StepPlan::stack(&self.computed(inputs.steps), inputs.blocks))))
    }

    fn calibrate(&mut self, evidence: &Evidence) -> Result<(), CacheError> {
        // The ratios are compared with a threshold, so those of another number of steps are taken
        // at the nearest index, as published.
        if let (true, Some(known)) = (self.ratios.is_empty(), evidence.calibration()) {
            self.ratios.clone_from(&known.magnitude_ratios);
        }
        Ok(())
    }

    fn uncalibrate(&mut self) {
        self.ratios.clear();
    }

    fn is_calibrated(&self) -> bool {
        !self.ratios.is_empty()
    }

    fn learns_from_a_run(&self) -> bool {
        true
    }

    fn tuning(&self) -> Tuning {
        Tuning::Threshold
    }

    fn loosened(&self, target: &SpeedupTarget) -> Self {
        let fewest = (2.0 * target.speedup).ceil() as usize;
        let max_skips = if target.is_given("skips") { self.max_skips } else { fewest };
        Self { retention: target.share_at_most("retention", self.retention, 0.5), max_skips, ..self.clone() }
    }

    fn skip_limit(&self) -> Option<usize> {
        Some(self.max_skips)
    }
}

/// The calibrated ratio of step `step` of `steps`. Where the calibration had another number of
/// steps, this is the ratio at the nearest index.
pub(super) fn nearest_ratio(ratios: &[f64], step: usize, steps: usize) -> f64 {
    let last = ratios.len().saturating_sub(1);
    let index = (step as f64 * last as f64 / (steps.max(2) - 1) as f64).round() as usize;
    ratios.get(index.min(last)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::schedule::indices;

    /// Constant ratios make the rule countable by hand: errors 0.01, 0.0199, 0.029701, ... add up.
    #[test]
    fn errors_accumulate_and_reset() {
        let rule = MagCache { threshold: 0.05, max_skips: 9, retention: 0.2, ratios: vec![0.99; 20] };
        assert_eq!(indices(&rule.computed(20)), [0, 1, 2, 3, 6, 9, 12, 15, 18]);
        let few = MagCache { max_skips: 1, ..rule.clone() };
        assert_eq!(indices(&few.computed(20)), [0, 1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
        let never = MagCache { ratios: Vec::new(), ..rule };
        assert_eq!(indices(&never.computed(5)), [0, 1, 2, 3, 4], "without calibration nothing is skipped");
    }

    /// The ratios that MagCache's authors measured on Wan2.1 T2V 1.3B, cond branch
    /// (Zehong-Ma/MagCache, MagCache4Wan2.1).
    #[rustfmt::skip]
    const PUBLISHED: [f64; 50] = [
        1.0, 1.0124, 1.00166, 0.99791, 0.99682, 0.99634, 0.99567, 0.99416, 0.99578, 0.9957,
        0.99511, 0.99535, 0.99552, 0.99541, 0.9954, 0.99489, 0.99518, 0.99484, 0.99481, 0.99415,
        0.99419, 0.99396, 0.99388, 0.99349, 0.99309, 0.9927, 0.99228, 0.99171, 0.99137, 0.99068,
        0.99005, 0.98944, 0.98849, 0.98758, 0.98644, 0.98504, 0.9836, 0.98202, 0.97977, 0.97717,
        0.9741, 0.97003, 0.96538, 0.9593, 0.95086, 0.94013, 0.92402, 0.90241, 0.86821, 0.81838,
    ];

    /// The schedules that the released code makes of these ratios. With their square roots the code
    /// has 24 and 19 computed steps, as the paper's speed-ups say.
    #[test]
    fn published_ratios_give_the_published_schedules() {
        let later = |ratios: &[f64], threshold, max_skips| {
            let rule = MagCache { threshold, max_skips, retention: 0.2, ratios: ratios.to_vec() };
            let computed = indices(&rule.computed(50));
            assert_eq!(computed[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
            computed[10..].to_vec()
        };
        assert_eq!(later(&PUBLISHED, 0.12, 2), [12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 44, 46, 48, 49]);
        assert_eq!(later(&PUBLISHED, 0.12, 4), [14, 19, 24, 29, 34, 38, 41, 44, 46, 48, 49]);
        assert_eq!(later(&PUBLISHED, 0.24, 6), [16, 23, 30, 36, 41, 45, 47, 49]);
        let roots = PUBLISHED.map(f64::sqrt);
        assert_eq!(later(&roots, 0.12, 2), [12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45, 47, 49]);
        assert_eq!(later(&roots, 0.12, 4), [14, 19, 24, 29, 34, 39, 43, 46, 48]);
    }

    #[test]
    fn ratios_are_resampled_at_the_nearest_index() {
        let ratios: Vec<f64> = (0..50).map(f64::from).collect();
        let found = [(29, 30), (1, 30), (0, 1)].map(|(step, steps)| nearest_ratio(&ratios, step, steps));
        assert_eq!(found, [49.0, 2.0, 0.0]);
    }
}
