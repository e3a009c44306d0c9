//! TeaCache (arXiv 2411.19108): skips steps while the accumulated, rescaled change of the time embedding stays small.

use serde::{Deserialize, Serialize};

/// Settings of TeaCache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeaCache {
    /// The change at which a step is computed again.
    pub threshold: f64,
    /// Polynomial of degree 4, highest power first, from the signal's change to the output's.
    pub coefficients: [f64; 5],
    /// The signal is the time projection (6 dim values) and the first steps are all computed; else the time embedding.
    pub ret_steps: bool,
}

/// Coefficients for Wan2.1 T2V, from the method's repository (Apache-2.0), by number of blocks: 30 (1.3B) or 40 (14B).
pub fn wan_coefficients(blocks: usize, ret_steps: bool) -> Option<[f64; 5]> {
    Some(match (blocks, ret_steps) {
        (30, true) => [-5.21862437e4, 9.23041404e3, -5.28275948e2, 1.36987616e1, -4.99875664e-2],
        (30, false) => [2.39676752e3, -1.31110545e3, 2.01331979e2, -8.29855975, 1.37887774e-1],
        (40, true) => [-3.03318725e5, 4.90537029e4, -2.65530556e3, 5.87365115e1, -3.15583525e-1],
        (40, false) => [-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404],
        _ => return None,
    })
}

impl TeaCache {
    /// Which steps are computed. `distances[t]` is the relative change of the signal from step t - 1 to t; the first is not used.
    /// On Wan the signal depends on the timestep alone, so that the whole plan is known before anything runs.
    pub fn computed(&self, distances: &[f64]) -> Vec<bool> {
        let steps = distances.len();
        let forced = |step: usize| if self.ret_steps { step < 5 } else { step == 0 || step + 1 == steps };
        let mut accumulated = 0.0;
        let decide = |(step, distance): (usize, &f64)| {
            if forced(step) {
                accumulated = 0.0;
                return true;
            }
            accumulated += self.rescaled(*distance);
            // A change that is not a number computes.
            let skip = accumulated < self.threshold;
            if !skip {
                accumulated = 0.0;
            }
            !skip
        };
        distances.iter().enumerate().map(decide).collect()
    }

    fn rescaled(&self, distance: f64) -> f64 {
        self.coefficients.iter().fold(0.0, |value, coefficient| value * distance + coefficient)
    }
}

/// Least squares fit of a polynomial of degree 4 from the signal's changes to the output's, as the method calibrates a model.
/// Highest power first; `None` where there are fewer than five different points.
pub fn calibrate(signal: &[f64], output: &[f64]) -> Option<[f64; 5]> {
    // Scaled to [-1, 1] at most, or the normal equations of x^8 lose all digits.
    let scale = signal.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    if scale <= 0.0 || !scale.is_finite() {
        return None;
    }
    let mut normal = [[0.0f64; 6]; 5];
    for (x, y) in signal.iter().zip(output) {
        let powers: [f64; 5] = std::array::from_fn(|i| (x / scale).powi(4 - i as i32));
        for i in 0..5 {
            for j in 0..5 {
                normal[i][j] += powers[i] * powers[j];
            }
            normal[i][5] += powers[i] * y;
        }
    }
    let solution = solve(normal)?;
    Some(std::array::from_fn(|i| solution[i] / scale.powi(4 - i as i32)))
}

/// Gaussian elimination with partial pivoting; `None` where the matrix is singular to working precision.
fn solve(mut rows: [[f64; 6]; 5]) -> Option<[f64; 5]> {
    for column in 0..5 {
        let pivot = (column..5).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
        rows.swap(column, pivot);
        let head = rows[column];
        if head[column].abs() < 1e-12 {
            return None;
        }
        for (index, row) in rows.iter_mut().enumerate() {
            if index != column {
                let factor = row[column] / head[column];
                row.iter_mut().zip(head).for_each(|(value, from)| *value -= factor * from);
            }
        }
    }
    Some(std::array::from_fn(|i| rows[i][5] / rows[i][i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::schedule::indices;

    #[test]
    fn accumulates_until_the_threshold() {
        let linear = [0.0, 0.0, 0.0, 1.0, 0.0];
        let rule = TeaCache { threshold: 0.25, coefficients: linear, ret_steps: false };
        let distances = [9.0, 0.1, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1];
        assert_eq!(indices(&rule.computed(&distances)), [0, 3, 5, 7]);
        let ret = TeaCache { ret_steps: true, ..rule.clone() };
        assert_eq!(indices(&ret.computed(&[0.1; 12])), [0, 1, 2, 3, 4, 7, 10]);
        assert_eq!(indices(&rule.computed(&[f64::NAN; 4])), [0, 1, 2, 3]);
    }

    #[test]
    fn calibration_recovers_a_polynomial() {
        let truth = [120.0, -30.0, 4.0, 0.7, 0.01];
        let x: Vec<f64> = (1..40).map(|i| f64::from(i) * 0.004).collect();
        let y: Vec<f64> = x.iter().map(|x| truth.iter().fold(0.0, |value, c| value * x + c)).collect();
        let found = calibrate(&x, &y).unwrap();
        for (found, truth) in found.iter().zip(truth) {
            assert!((found - truth).abs() < 1e-6 * truth.abs().max(1.0), "{found} {truth}");
        }
        assert!(calibrate(&[0.1; 9], &[0.2; 9]).is_none());
        assert!(calibrate(&[], &[]).is_none());
    }
}
