//! Spectrum (arXiv 2603.01623): the residual is forecast by a ridge fit of Chebyshev polynomials
//! over time, mixed with a straight line, and the gaps between computed steps grow.

use serde::{Deserialize, Serialize};

use crate::caching::rule::{About, Advice, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::setting::Setting;
use crate::caching::strategy::Fixed;
use crate::caching::{Action, BranchPlan, CacheError, Forecast, StepPlan, Strategy};

/// Computed steps that a fit goes through at most: so many deltas are kept.
const MOST_FITTED: usize = 8;
/// Terms of the fit.
const TERMS: usize = 5;

/// Settings of Spectrum. Defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spectrum {
    /// Steps at the start that are computed.
    pub warm_up: usize,
    /// Steps from a computed one to the next, at first.
    pub window: f64,
    /// How much longer each gap is than the one before.
    pub flex: f64,
    /// Weight of the polynomial; the rest is the straight line's.
    pub share: f64,
    /// Ridge of the fit.
    pub ridge: f64,
}

impl Default for Spectrum {
    fn default() -> Self {
        Self { warm_up: 5, window: 2.0, flex: 0.75, share: 0.5, ridge: 0.1 }
    }
}

impl Spectrum {
    /// Whether each step is computed.
    pub fn computed(&self, steps: usize) -> Vec<bool> {
        let (mut window, mut skipped) = (self.window.max(1.0), 0.0);
        let decide = |step: usize| {
            if step < self.warm_up.max(2) {
                return true;
            }
            skipped += 1.0;
            if skipped < window.floor() {
                return false;
            }
            (window, skipped) = (window + self.flex.max(0.0), 0.0);
            true
        };
        (0..steps).map(decide).collect()
    }

    /// The weights of the residuals of the last computed steps, newest first, for a step of
    /// `steps`.
    fn forecast(&self, fitted: &[usize], step: usize, steps: usize) -> Forecast {
        let place = |step: usize| 2.0 * step as f64 / steps.max(2).saturating_sub(1) as f64 - 1.0;
        let rows: Vec<[f64; TERMS]> = fitted.iter().map(|step| chebyshev(place(*step))).collect();
        // (F'F + ridge)^-1 f, by which every row of F tells its weight.
        let mut normal = [[0.0; TERMS + 1]; TERMS];
        let target = chebyshev(place(step));
        for (i, equation) in normal.iter_mut().enumerate() {
            for (j, value) in equation.iter_mut().enumerate().take(TERMS) {
                *value = rows.iter().map(|row| row[i] * row[j]).sum::<f64>();
            }
            equation[i] += self.ridge.max(1e-6);
            equation[TERMS] = target[i];
        }
        let solution = eliminated(normal);
        let polynomial = rows.iter().map(|row| row.iter().zip(&solution).map(|(a, b)| a * b).sum::<f64>());
        let line = match fitted {
            [newest, before, ..] => {
                let ahead = (step - newest) as f64 / (newest - before) as f64;
                vec![1.0 + ahead, -ahead]
            }
            _ => vec![1.0],
        };
        let share = self.share.clamp(0.0, 1.0);
        let mixed = polynomial.enumerate().map(|(index, weight)| {
            let straight = line.get(index).copied().unwrap_or(0.0);
            (share * weight + (1.0 - share) * straight) as f32
        });
        Forecast(mixed.collect())
    }

    fn plans(&self, steps: usize, blocks: usize) -> Vec<StepPlan> {
        let mut fitted: Vec<usize> = Vec::new();
        let mut plan = |(step, computed): (usize, bool)| {
            let action = if computed {
                fitted.insert(0, step);
                fitted.truncate(MOST_FITTED);
                Action::Store
            } else {
                Action::Reuse(self.forecast(&fitted, step, steps))
            };
            StepPlan::both(BranchPlan::whole(blocks, action))
        };
        self.computed(steps).into_iter().enumerate().map(&mut plan).collect()
    }
}

/// The first Chebyshev polynomials at a place in [-1, 1].
fn chebyshev(x: f64) -> [f64; TERMS] {
    let mut values = [1.0; TERMS];
    values[1] = x;
    for i in 2..TERMS {
        values[i] = 2.0 * x * values[i - 1] - values[i - 2];
    }
    values
}

/// Solves equations whose matrix is positive definite, thanks to the ridge.
fn eliminated(mut rows: [[f64; TERMS + 1]; TERMS]) -> [f64; TERMS] {
    for column in 0..TERMS {
        let head = rows[column];
        for (index, row) in rows.iter_mut().enumerate() {
            if index == column {
                continue;
            }
            let factor = row[column] / head[column];
            row.iter_mut().zip(head).for_each(|(value, from)| *value -= factor * from);
        }
    }
    std::array::from_fn(|i| rows[i][TERMS] / rows[i][i])
}

impl Rule for Spectrum {
    const ABOUT: About = About {
        key: "spectrum",
        label: "Spectrum",
        summary: "Forecasts by Chebyshev polynomials over time, with gaps that grow.",
        source: "arXiv 2603.01623",
        group: Group::Published,
        needs: Needs::Nothing,
    };

    fn defaults(_steps: usize) -> Self {
        Self::default()
    }

    fn settings(&self, Shape { steps, .. }: Shape) -> Vec<Setting<Self>> {
        let warm_up = ("warm-up", "warm-up", "Steps at the start that are computed");
        let window = ("window", "first gap", "Steps from a computed one to the next, at first");
        let flex = ("flex", "growth", "How much longer each gap is than the one before");
        let share = ("share", "polynomial", "Weight of the polynomial; the rest is a straight line's");
        vec![
            Setting::count(warm_up, 2..=steps.max(2), |rule: &mut Self| &mut rule.warm_up).unit("steps"),
            Setting::real(window, 1.0..=10.0, |rule: &mut Self| &mut rule.window).unit("steps"),
            Setting::real(flex, 0.0..=5.0, |rule: &mut Self| &mut rule.flex).unit("steps"),
            Setting::real(share, 0.0..=1.0, |rule: &mut Self| &mut rule.share),
        ]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        Ok(Box::new(Fixed(self.plans(inputs.steps, inputs.blocks))))
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["window", "flex"] }
    }

    fn candidates(&self, _target: &SpeedupTarget) -> Vec<Self> {
        let flexes = (0..=60).map(|flex| f64::from(flex) / 20.0);
        let windows = [1.0, 2.0];
        flexes.flat_map(|flex| windows.map(|window| Self { flex, window, ..self.clone() })).collect()
    }

    fn advice(&self) -> Advice {
        Advice::SCHEDULE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::schedule::indices;

    /// The paper's settings compute 14 of 50 steps, and 10 with a growth of 3.
    #[test]
    fn published_numbers_of_computed_steps() {
        let count = |flex| indices(&Spectrum { flex, ..Spectrum::default() }.computed(50)).len();
        assert_eq!((count(0.75), count(3.0)), (14, 10));
    }

    /// Without a ridge a straight line is forecast exactly by both parts.
    #[test]
    fn a_line_is_forecast() {
        let rule = Spectrum { ridge: 0.0, ..Spectrum::default() };
        let fitted = [9, 6, 4, 3, 2, 1, 0];
        let forecast = rule.forecast(&fitted, 12, 50);
        let found: f64 = forecast.0.iter().zip(fitted).map(|(w, step)| f64::from(*w) * (3.0 + step as f64)).sum();
        assert!((found - 15.0).abs() < 0.05, "{found}");
        assert!(rule.forecast(&[0], 1, 50).0.len() == 1);
    }
}
