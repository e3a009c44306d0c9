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
/// Weight of the prior's correlations beside one measured run. It is large, because the prior's
/// residuals change some twenty times less from step to step than measured ones.
const ASSUMED_SHARE: f64 = 10.0;
/// Weight of the differences between clips at the start, beside one measured run. Both weights and
/// [`EARLY`] were chosen so that plans from one run of ten suit the nine others (`docs/notebook`).
const EARLY_SHARE: f64 = 0.3;
/// The share of content up to which clips differ most.
const EARLY: f64 = 0.02;
/// Expected squared errors of the latents of the prior's plans, and the PSNR in dB that such plans
/// had: means of clips of the demo model, rounded (`docs/notebook`).
const OUTCOMES: [(f64, f64); 5] = [(6.7e-10, 65.0), (1.3e-9, 63.0), (1.1e-8, 51.0), (1.2e-7, 44.0), (1.0e-6, 35.0)];
/// The same for cautious plans from one run.
const CAUTIOUS_OUTCOMES: [(f64, f64); 5] =
    [(1.2e-6, 74.0), (6.4e-6, 65.0), (6.6e-5, 53.0), (4.0e-4, 44.0), (1.9e-3, 36.0)];
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

/// A calibration from `runs` runs, made cautious: clips differ, and a few runs may by chance leave
/// small errors where other clips leave large ones. What the prior says of the residuals, and that
/// they differ most while there is almost only noise, is added with the weight of a part of one
/// run. The expected PSNR is that of such plans.
pub fn cautious(mut known: Calibration, runs: usize) -> Calibration {
    let levels = &known.sigmas[..known.steps()];
    let (assumed, early) = (correlations(levels), early_differences(levels));
    let sizes: Vec<f64> = (0..levels.len()).map(|step| known.gram[step][step].sqrt()).collect();
    let share = 1.0 / runs.max(1) as f64;
    known.outcomes = CAUTIOUS_OUTCOMES.to_vec();
    for (i, row) in known.gram.iter_mut().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            *value += share * sizes[i] * sizes[j] * (ASSUMED_SHARE * assumed[i][j] + EARLY_SHARE * early[i][j]);
        }
    }
    known
}

/// How alike the parts of the residuals are in which clips differ at the start: a Matern kernel of
/// order 5/2 over the logarithm of the signal-to-noise ratio, which fades out with the noise.
fn early_differences(levels: &[f64]) -> Vec<Vec<f64>> {
    /// Beyond these signal-to-noise ratios nothing changes.
    const BOUND: f64 = 1e-3;
    let place = |level: &f64| ((1.0 - level).max(BOUND) / level.max(BOUND)).ln();
    let size = |level: &f64| 1.0 / (1.0 + ((1.0 - level) / EARLY).powi(2)).sqrt();
    let alike = |a: &f64, b: &f64| {
        let d = 5f64.sqrt() * (place(a) - place(b)).abs();
        size(a) * size(b) * (1.0 + d + d * d / 3.0) * (-d).exp()
    };
    levels.iter().map(|a| levels.iter().map(|b| alike(a, b)).collect()).collect()
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

    /// One run that by chance has no error at the start does not lead to plans that skip the start,
    /// and with many runs the measurements decide.
    #[test]
    fn few_runs_are_not_believed_at_the_start() {
        let sigmas = sigmas(50, 3.0);
        let mut lucky = prior(&sigmas);
        lucky.gram = (0..50).map(|i| (0..50).map(|j| 1.0 + 1e-4 * (i * j) as f64).collect()).collect();
        (20..50).for_each(|step| lucky.gram[step][step] += 0.01);
        let early = |known: &Calibration| {
            let computed = Planner::new(known).unwrap().with_computed(17).computed;
            computed.iter().filter(|step| **step < 5).count()
        };
        let one = cautious(lucky.clone(), 1);
        one.check().unwrap();
        assert!(early(&lucky) <= 2 && early(&one) >= 4, "{} {}", early(&lucky), early(&one));
        let many = cautious(lucky.clone(), 1_000_000);
        let differs = |i: usize, j: usize| (many.gram[i][j] / lucky.gram[i][j] - 1.0).abs();
        assert!((0..50).all(|i| (0..50).all(|j| differs(i, j) < 1e-4)));
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
