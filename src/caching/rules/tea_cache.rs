//! TeaCache (arXiv 2411.19108): skips steps while the accumulated, rescaled change of the time
//! embedding stays small.

use serde::{Deserialize, Serialize};

use crate::caching::evidence::Evidence;
use crate::caching::rule::{About, Group, Needs, Rule, Shape, Signal, StrategyInputs, Tuning};
use crate::caching::setting::{Kind, Setting, Value};
use crate::caching::strategy::Fixed;
use crate::caching::{CacheError, StepPlan, Strategy};

/// Settings of TeaCache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TeaCache {
    /// The change at which a step is computed again.
    pub threshold: f64,
    /// The variant whose signal is the time projection, with five computed steps first; otherwise
    /// the signal is the time embedding.
    pub ret_steps: bool,
    /// Polynomial of degree 4, highest power first, from the signal's change to the output's.
    pub coefficients: Option<[f64; 5]>,
}

impl Default for TeaCache {
    fn default() -> Self {
        Self { threshold: 0.05, ret_steps: false, coefficients: None }
    }
}

impl TeaCache {
    /// Which steps are computed. `distances[t]` is the relative change of the signal from step t -
    /// 1 to t; the first is not used. On Wan the signal depends on the timestep alone, so the whole
    /// plan is known before anything runs.
    pub fn computed(&self, coefficients: &[f64; 5], distances: &[f64]) -> Vec<bool> {
        let steps = distances.len();
        let forced = |step: usize| if self.ret_steps { step < 5 } else { step == 0 || step + 1 == steps };
        let mut accumulated = 0.0;
        let decide = |(step, distance): (usize, &f64)| {
            if forced(step) {
                accumulated = 0.0;
                return true;
            }
            let change = coefficients.iter().fold(0.0, |value, coefficient| value * distance + coefficient);
            // Beyond the changes that a polynomial was fitted to, it may fall below zero. A change
            // has no sign, and must not make room for others. A change that is not a number
            // computes.
            accumulated += if change < 0.0 { 0.0 } else { change };
            let skip = accumulated < self.threshold;
            if !skip {
                accumulated = 0.0;
            }
            !skip
        };
        distances.iter().enumerate().map(decide).collect()
    }

    fn own_signal(&self) -> Signal {
        if self.ret_steps { Signal::Projection } else { Signal::Embedding }
    }
}

impl Rule for TeaCache {
    const ABOUT: About = About {
        key: "teacache",
        label: "TeaCache",
        summary: "Reuses while the time embedding has changed little.",
        source: "arXiv 2411.19108",
        group: Group::Published,
        needs: Needs::Calibration,
    };

    fn defaults(_steps: usize) -> Self {
        Self::default()
    }

    fn settings(&self, _shape: Shape) -> Vec<Setting<Self>> {
        let threshold = ("threshold", "threshold", "The accumulated change at which a step is computed again");
        let words = (
            "ret",
            "time projection",
            "The method's \"ret steps\" variant: another signal, and five computed steps first",
        );
        let set = |rule: &mut Self, value| match value {
            Value::Flag(ret_steps) => {
                // A polynomial of one signal means nothing for the other.
                if rule.ret_steps != ret_steps {
                    (rule.ret_steps, rule.coefficients) = (ret_steps, None);
                }
                Ok(())
            }
            other => Err(format!("{other} is neither true nor false")),
        };
        vec![
            Setting::real(threshold, 0.0..=0.5, |rule: &mut Self| &mut rule.threshold).threshold(),
            Setting::new(words, Kind::Flag, |rule: &Self| Value::Flag(rule.ret_steps), set),
        ]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        let coefficients = self.coefficients.ok_or(CacheError::Uncalibrated("TeaCache"))?;
        let computed = self.computed(&coefficients, &inputs.signal_changes);
        Ok(Box::new(Fixed(StepPlan::stack(&computed, inputs.blocks))))
    }

    fn signal(&self) -> Option<Signal> {
        Some(self.own_signal())
    }

    fn calibrate(&mut self, evidence: &Evidence) -> Result<(), CacheError> {
        self.coefficients = self.coefficients.or_else(|| evidence.tea_coefficients(self.own_signal()));
        Ok(())
    }

    fn uncalibrate(&mut self) {
        self.coefficients = None;
    }

    fn is_calibrated(&self) -> bool {
        self.coefficients.is_some()
    }

    fn learns_from_a_run(&self) -> bool {
        true
    }

    fn tuning(&self) -> Tuning {
        Tuning::Threshold
    }
}

/// Least squares fit of a polynomial of degree 4 from the signal's changes to the output's changes.
/// The method calibrates a model in this way.
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

/// Gaussian elimination with partial pivoting; `None` where the matrix is singular to working
/// precision.
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
        let rule = TeaCache { threshold: 0.25, ..TeaCache::default() };
        let distances = [9.0, 0.1, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1];
        assert_eq!(indices(&rule.computed(&linear, &distances)), [0, 3, 5, 7]);
        let ret = TeaCache { ret_steps: true, ..rule.clone() };
        assert_eq!(indices(&ret.computed(&linear, &[0.1; 12])), [0, 1, 2, 3, 4, 7, 10]);
        assert_eq!(indices(&rule.computed(&linear, &[f64::NAN; 4])), [0, 1, 2, 3]);
        // Below zero at 0.05: as if nothing had changed.
        let falling = [0.0, 0.0, 0.0, -1.0, 0.0];
        assert_eq!(TeaCache { threshold: 0.0, ..rule.clone() }.computed(&falling, &[0.05; 8]), [true; 8]);
        let mixed = [9.0, 0.1, -9.0, 0.1, 0.1, 0.1, 0.1, 0.1];
        assert_eq!(indices(&rule.computed(&linear, &mixed)), [0, 4, 7], "no credit for later changes");
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
