//! MagCache (arXiv 2506.09045): skips steps while the product of calibrated magnitude ratios stays close to one.

use serde::{Deserialize, Serialize};

/// Settings of MagCache. Defaults are the method's slow ones for Wan2.1-1.3B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MagCache {
    /// delta: accumulated error at which a step is computed again.
    pub threshold: f64,
    /// K: skips in a row at most.
    pub max_skips: usize,
    /// R: share of the steps at the start that is computed.
    pub retention: f64,
    /// Ratio of the residual's magnitude to that of the step before, one a step of the calibration run.
    pub ratios: Vec<f64>,
}

impl Default for MagCache {
    fn default() -> Self {
        Self { threshold: 0.12, max_skips: 2, retention: 0.2, ratios: Vec::new() }
    }
}

impl MagCache {
    /// Which steps are computed. Ratios of another number of steps are resampled at the nearest index, as the method does.
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

/// The calibrated ratio of a step of `steps`: at the nearest index where the calibration had another number of steps.
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

    #[test]
    fn ratios_are_resampled_at_the_nearest_index() {
        let ratios: Vec<f64> = (0..50).map(f64::from).collect();
        let found = [(29, 30), (1, 30), (0, 1)].map(|(step, steps)| nearest_ratio(&ratios, step, steps));
        assert_eq!(found, [49.0, 2.0, 0.0]);
    }
}
