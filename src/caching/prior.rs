//! What the planner assumes of a model that was never measured.
//!
//! The velocity of a flow between data and noise is known in closed form where the data are
//! Gaussian. A component of variance `v` has the velocity `(s - v (1 - s)) / sqrt(v (1 - s)^2 +
//! s^2)` times a constant of the path, at noise level `s`. Natural videos have components of very
//! different variances, so the assumed correlation of two steps is that of the velocities of many
//! components, whose logarithms of the variance are spread as a bell. Its middle and its width fit
//! the demo model's measured correlations best (`docs/notebook`).
//!
//! An error in the velocity of a step is carried on as `1 / (1 - s)`: while there is much noise,
//! the model takes the error for content. The measured amplification of the demo model follows
//! this curve from its first step to its last.

use super::Calibration;

/// Middle of the variances' logarithms.
const MIDDLE: f64 = -1.5;
/// Standard deviation of the variances' logarithms.
const WIDTH: f64 = 4.0;
/// Nodes of the quadrature over the variances, within three standard deviations.
const NODES: usize = 40;
/// Expected squared errors of the latents of the prior's plans, and the PSNR in dB that the demo
/// model's measured Gram matrix expects of the same plans, rounded. No clip was measured for them.
const OUTCOMES: [(f64, f64); 5] = [(1e-9, 60.0), (2e-9, 56.0), (2e-8, 46.0), (2e-7, 38.0), (2e-6, 33.0)];
/// Expected squared errors of plans from measured residuals in units of the velocity, and the PSNR
/// in dB that such plans have. The demo model's outcomes (`docs/notebook`).
const MEASURED_OUTCOMES: [(f64, f64); 3] = [(4.4e-7, 74.9), (9.3e-6, 52.6), (5.5e-4, 36.6)];

/// What is assumed at these noise levels, which fall and end with 0. Residuals are in units of the
/// velocity, whose mean square counts as 1.
pub fn prior(sigmas: &[f64]) -> Calibration {
    let steps = sigmas.len().saturating_sub(1);
    Calibration {
        sigmas: sigmas.to_vec(),
        gram: correlations(&sigmas[..steps]),
        amplification: amplification(sigmas, 1.0),
        magnitude_ratios: vec![1.0; steps],
        outcomes: OUTCOMES.to_vec(),
        ..Calibration::default()
    }
}

impl Calibration {
    /// Takes over the prior's amplification and outcomes, where nothing was tried. `gain` is the
    /// squared change of the velocity for a squared change of the residual.
    pub fn assume_amplification(&mut self, gain: f64) {
        self.amplification = amplification(&self.sigmas, gain);
        self.outcomes = MEASURED_OUTCOMES.to_vec();
    }

    /// Shifts the expected PSNR so that it agrees with a plan that was tried: `error` was expected,
    /// and `psnr` in dB came.
    pub fn agree_with(&mut self, error: f64, psnr: f64) {
        let shift = self.expected_psnr(error).map_or(0.0, |expected| psnr - expected);
        if shift.is_finite() {
            self.outcomes.iter_mut().for_each(|(_, psnr)| *psnr += shift);
        }
    }
}

/// A calibration from measured or completed inner products of residuals, with the prior's
/// amplification. `gain` is the squared change of the velocity for a squared change of the
/// residual.
pub fn with_residuals(sigmas: &[f64], gram: Vec<Vec<f64>>, gain: f64) -> Calibration {
    let size = |step: usize| gram[step][step].sqrt();
    let ratio = |step: usize| if step == 0 { 1.0 } else { size(step) / size(step - 1) };
    let magnitude_ratios = (0..gram.len()).map(ratio).collect();
    let mut calibration = Calibration { sigmas: sigmas.to_vec(), magnitude_ratios, gram, ..Calibration::default() };
    calibration.assume_amplification(gain);
    calibration
}

/// The assumed correlation of the residuals at each pair of noise levels.
pub fn correlations(levels: &[f64]) -> Vec<Vec<f64>> {
    let velocities: Vec<Vec<f64>> = levels.iter().map(|sigma| velocities(*sigma)).collect();
    let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    velocities.iter().map(|a| velocities.iter().map(|b| inner(a, b)).collect()).collect()
}

/// The velocities of all components at a noise level, weighted so that their squares sum to 1.
fn velocities(sigma: f64) -> Vec<f64> {
    let sigma = sigma.clamp(0.0, 1.0);
    let at = |node: usize| {
        let z = 6.0 * node as f64 / (NODES - 1) as f64 - 3.0;
        let variance = (MIDDLE + WIDTH * z).exp();
        let spread = (variance * (1.0 - sigma).powi(2) + sigma.powi(2)).sqrt();
        (-z * z / 4.0).exp() * (sigma - variance * (1.0 - sigma)) / spread
    };
    let mut values: Vec<f64> = (0..NODES).map(at).collect();
    let size = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.iter_mut().for_each(|value| *value /= size);
    values
}

/// `gain / (1 - sigma)`. The first step starts from pure noise, where this has no bound; there the
/// middle of the step counts.
fn amplification(sigmas: &[f64], gain: f64) -> Vec<f64> {
    let content = |pair: &[f64]| (1.0 - pair[0]).max((1.0 - pair[1]) / 2.0).max(f64::EPSILON);
    sigmas.windows(2).map(|pair| gain / content(pair)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::Planner;

    fn sigmas(steps: usize, shift: f64) -> Vec<f64> {
        let shifted = |t: f64| shift * t / (1.0 + (shift - 1.0) * t);
        (0..=steps).map(|step| shifted(1.0 - step as f64 / steps as f64)).collect()
    }

    #[test]
    fn any_schedule_has_a_prior_that_can_be_planned_with() {
        for (steps, shift) in [(1, 3.0), (2, 1.0), (12, 8.0), (50, 3.0)] {
            let prior = prior(&sigmas(steps, shift));
            prior.check().unwrap();
            let planner = Planner::new(&prior).unwrap();
            let half = planner.with_computed(steps.div_ceil(2));
            assert!(half.error.is_finite() && half.computed.len() == steps.div_ceil(2));
        }
    }

    #[test]
    fn a_tried_plan_shifts_what_is_expected() {
        let mut known = prior(&sigmas(20, 3.0));
        known.assume_amplification(0.01);
        known.agree_with(1e-4, 50.0);
        assert!(known.expected_psnr(1e-4).is_some_and(|psnr| (psnr - 50.0).abs() < 1e-9));
        known.agree_with(0.0, 50.0);
        assert!(known.outcomes.iter().all(|(_, psnr)| psnr.is_finite()));
    }

    /// Nearby steps are alike, far ones are not, and the first steps decide more than the last.
    #[test]
    fn the_prior_has_the_shape_of_measurements() {
        let prior = prior(&sigmas(50, 3.0));
        let row = &prior.gram[25];
        assert!((row[25] - 1.0).abs() < 1e-12 && row[26] > 0.999 && row[26] > row[35] && row[35] > row[49]);
        assert!(prior.amplification.is_sorted_by(|a, b| a >= b));
        assert!(prior.amplification[0] > 50.0 && prior.amplification[49] < 1.1, "{:?}", prior.amplification);
        let computed = Planner::new(&prior).unwrap().with_computed(10).computed;
        assert!(computed[..4] == [0, 1, 2, 4] && computed.windows(2).any(|pair| pair[1] - pair[0] > 8), "{computed:?}");
    }
}
