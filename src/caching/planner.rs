//! The planner: which steps to compute, and how to forecast the others, from a model's own calibration.
//!
//! On a skipped step the blocks do not run: what they would add to the residual stream is forecast as a linear combination of what they
//! added on the last computed steps, with the weights that fit best on the calibration runs. All that takes is the Gram matrix G of
//! these residuals r: the weights solve its normal equations, and the error that a gap between two computed steps leaves in the
//! clean latents, |sum over the gap of h_s (r_s - forecast)|^2, is a quadratic form in G. Here h_s is the step's length, sigma_s -
//! sigma_(s+1), times the square root of the measured amplification: how far an error made at step s is carried on. A dynamic program
//! then finds the set of computed steps with the least sum of these errors for every number of them.

use super::{Action, BranchPlan, CacheError, Calibration, Forecast, StepPlan};

/// Residuals that a forecast combines at most.
const DEPTH: usize = 3;
/// Ridge of the normal equations, relative to the residuals' size: neighbours are almost parallel, and large weights of opposite
/// sign would carry rounding and the plan's own errors on.
const RIDGE: f64 = 1e-6;

/// A plan for a number of computed steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The computed steps.
    pub computed: Vec<usize>,
    /// Weights of the last computed residuals, newest first, for every step that is not computed.
    pub forecasts: Vec<Option<Vec<f64>>>,
    /// Expected squared error of the latents, per value.
    pub error: f64,
}

impl Planned {
    /// The plan of every step of a model of `blocks` blocks.
    pub fn plans(&self, blocks: usize) -> Vec<StepPlan> {
        let plan = |forecast: &Option<Vec<f64>>| {
            let action = match forecast {
                None => Action::Store,
                Some(weights) => Action::Reuse(Forecast(weights.iter().map(|weight| *weight as f32).collect())),
            };
            StepPlan::both(BranchPlan::whole(blocks, action))
        };
        self.forecasts.iter().map(plan).collect()
    }
}

/// Finds plans.
#[derive(Clone, Debug)]
pub struct Planner<'a> {
    calibration: &'a Calibration,
    /// Step lengths, amplified.
    h: Vec<f64>,
    /// `along[c][s]`: sum of h_t G[t][c] over t < s.
    along: Vec<Vec<f64>>,
    /// `square[s][e]`: sum of h_t h_u G[t][u] over t < s and u < e.
    square: Vec<Vec<f64>>,
    /// The best choice of computed steps for every number of them, from 1.
    best: Vec<Vec<usize>>,
}

/// Steps that can be planned: the search takes their fourth power.
const MOST_STEPS: usize = 100;

impl<'a> Planner<'a> {
    /// A planner for a checked calibration.
    ///
    /// # Errors
    /// [`CacheError::Settings`] for tables that do not fit each other, or more than 100 steps.
    pub fn new(calibration: &'a Calibration) -> Result<Self, CacheError> {
        calibration.check()?;
        let steps = calibration.steps();
        if steps > MOST_STEPS {
            return Err(CacheError::Settings(format!("{steps} steps cannot be planned, at most {MOST_STEPS}")));
        }
        let lengths = calibration.sigmas.windows(2).map(|pair| pair[0] - pair[1]);
        let h: Vec<f64> = lengths.zip(&calibration.amplification).map(|(h, a)| h * a.max(0.0).sqrt()).collect();
        let gram = &calibration.gram;
        let along = (0..steps).map(|c| prefix((0..steps).map(|t| h[t] * gram[t][c]))).collect();
        let mut square = vec![vec![0.0; steps + 1]; steps + 1];
        for s in 0..steps {
            let mut row = 0.0;
            for e in 0..steps {
                row += h[s] * h[e] * gram[s][e];
                square[s + 1][e + 1] = square[s][e + 1] + row;
            }
        }
        let mut planner = Self { calibration, h, along, square, best: Vec::new() };
        planner.best = planner.search();
        Ok(planner)
    }

    /// The best plan with `count` computed steps, the first step among them.
    pub fn with_computed(&self, count: usize) -> Planned {
        let steps = self.h.len();
        self.describe(self.best[count.clamp(1, steps) - 1].clone())
    }

    /// The best plan whose computed steps, among `steps`, are at most the share `1 / speedup` of the work.
    ///
    /// # Errors
    /// A speed-up below 1, or one that not even a single computed step reaches.
    pub fn for_speedup(&self, speedup: f64) -> Result<Planned, CacheError> {
        let steps = self.h.len();
        if !(1.0..=steps as f64).contains(&speedup) {
            let message = format!("a speed-up of {speedup} cannot be planned: choose 1 to {steps} for {steps} steps");
            return Err(CacheError::Settings(message));
        }
        Ok(self.with_computed(((steps as f64 / speedup).round() as usize).max(1)))
    }

    /// The fastest plan that is expected to keep `psnr` dB.
    ///
    /// # Errors
    /// The calibration has no measured outcomes to expect from.
    pub fn for_psnr(&self, psnr: f64) -> Result<Planned, CacheError> {
        if self.calibration.outcomes.is_empty() {
            return Err(CacheError::Uncalibrated("the expected PSNR"));
        }
        let keeps =
            |planned: &Planned| self.calibration.expected_psnr(planned.error).is_some_and(|found| found >= psnr);
        let steps = self.h.len();
        Ok((1..steps).map(|count| self.with_computed(count)).find(keeps).unwrap_or_else(|| self.with_computed(steps)))
    }

    /// Expected squared error of a given choice of computed steps (sorted, the first step among them), and its forecasts.
    pub fn describe(&self, computed: Vec<usize>) -> Planned {
        let steps = self.h.len();
        let mut forecasts = vec![None; steps];
        let mut error = 0.0;
        for (index, &newest) in computed.iter().enumerate() {
            let end = computed.get(index + 1).copied().unwrap_or(steps);
            let basis: Vec<usize> = computed[..=index].iter().rev().take(DEPTH).copied().collect();
            error += self.gap_error(&basis, end);
            for (step, slot) in forecasts.iter_mut().enumerate().take(end).skip(newest + 1) {
                *slot = Some(self.weights(&basis, step));
            }
        }
        Planned { computed, forecasts, error }
    }

    /// Least squares weights of the residuals of `basis` (newest first) for that of `step`.
    fn weights(&self, basis: &[usize], step: usize) -> Vec<f64> {
        let target: Vec<f64> = basis.iter().map(|c| self.calibration.gram[*c][step]).collect();
        self.solve(basis, &target)
    }

    /// Solves the normal equations of `basis`.
    fn solve(&self, basis: &[usize], target: &[f64]) -> Vec<f64> {
        let gram = &self.calibration.gram;
        let n = basis.len();
        let mut rows = vec![vec![0.0; n + 1]; n];
        for i in 0..n {
            for j in 0..n {
                rows[i][j] = gram[basis[i]][basis[j]];
            }
            rows[i][i] += RIDGE * gram[basis[i]][basis[i]].max(f64::MIN_POSITIVE);
            rows[i][n] = target[i];
        }
        for column in 0..n {
            let pivot = rows[column].clone();
            for (index, row) in rows.iter_mut().enumerate() {
                // Positive definite thanks to the ridge: no pivoting, no division by zero.
                if index != column {
                    let factor = row[column] / pivot[column];
                    row.iter_mut().zip(&pivot).for_each(|(value, from)| *value -= factor * from);
                }
            }
        }
        (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
    }

    /// Squared error that the steps between `basis[0]` and `end` leave in the latents. Weights are linear in their target, so the sum
    /// of all forecasts of a gap has the weights of the summed target.
    fn gap_error(&self, basis: &[usize], end: usize) -> f64 {
        let start = basis[0] + 1;
        if start >= end {
            return 0.0;
        }
        let target: Vec<f64> = basis.iter().map(|c| self.along[*c][end] - self.along[*c][start]).collect();
        let weights = self.solve(basis, &target);
        let s = &self.square;
        let own = s[end][end] - s[start][end] - s[end][start] + s[start][start];
        let mixed: f64 = weights.iter().zip(&target).map(|(w, t)| w * t).sum();
        let gram = &self.calibration.gram;
        let mut forecast = 0.0;
        for (i, a) in basis.iter().enumerate() {
            for (j, b) in basis.iter().enumerate() {
                forecast += weights[i] * weights[j] * gram[*a][*b];
            }
        }
        (own - 2.0 * mixed + forecast).max(0.0)
    }

    /// The computed steps with the least error, for every number of them: over triples (a, b, c) of the last computed steps, c
    /// advanced one by one. Before three are computed, a (and b) stand for nothing and equal the first step.
    fn search(&self) -> Vec<Vec<usize>> {
        let steps = self.h.len();
        let at = |a: usize, b: usize, c: usize| (a * steps + b) * steps + c;
        let gaps: Vec<Vec<f64>> = triples(steps).map(|(a, b, c)| self.gaps_after(&basis_of(a, b, c))).collect();
        let mut reached = vec![f64::INFINITY; steps.pow(3)];
        reached[at(0, 0, 0)] = 0.0;
        // For every layer and triple the computed step before the triple, to walk back.
        let mut before: Vec<Vec<u8>> = vec![vec![0; steps.pow(3)]];
        let mut best = Vec::with_capacity(steps);
        loop {
            let total = |((a, b, c), gaps): &((usize, usize, usize), &Vec<f64>)| {
                reached[at(*a, *b, *c)] + gaps.last().copied().unwrap_or(0.0)
            };
            let ends = triples(steps).zip(&gaps).min_by(|x, y| total(x).total_cmp(&total(y)));
            let (mut a, mut b, mut c) = ends.map_or((0, 0, 0), |(triple, _)| triple);
            let mut computed = Vec::with_capacity(before.len());
            for layer in before.iter().rev() {
                computed.push(c);
                (a, b, c) = (usize::from(layer[at(a, b, c)]), a, b);
            }
            computed.reverse();
            best.push(computed);
            if best.len() == steps {
                return best;
            }
            let mut next = vec![f64::INFINITY; steps.pow(3)];
            let mut layer = vec![0; steps.pow(3)];
            for ((a, b, c), gaps) in triples(steps).zip(&gaps) {
                let error = reached[at(a, b, c)];
                for (d, gap) in (c + 1..steps).zip(gaps) {
                    if error + gap < next[at(b, c, d)] {
                        next[at(b, c, d)] = error + gap;
                        layer[at(b, c, d)] = a as u8;
                    }
                }
            }
            reached = next;
            before.push(layer);
        }
    }

    /// Errors of the gaps from a basis to every later step, and to the end.
    fn gaps_after(&self, basis: &[usize]) -> Vec<f64> {
        (basis[0] + 1..=self.h.len()).map(|end| self.gap_error(basis, end)).collect()
    }
}

/// Triples that can be the last computed steps.
fn triples(steps: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..steps).flat_map(move |c| (0..=c).flat_map(move |b| (0..=b).map(move |a| (a, b, c))))
}

/// The distinct steps of a triple, newest first.
fn basis_of(a: usize, b: usize, c: usize) -> Vec<usize> {
    let mut basis = vec![c, b, a];
    basis.dedup();
    basis
}

fn prefix(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sums = vec![0.0];
    let mut sum = 0.0;
    for value in values {
        sum += value;
        sums.push(sum);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Residuals that are polynomials of the step in a few directions, with a kink at step 6.
    fn calibration(steps: usize) -> Calibration {
        let predictions: Vec<Vec<f64>> = (0..steps)
            .map(|s| {
                let t = s as f64 / steps as f64;
                vec![1.0, t, 0.3 * t * t, if s > 6 { t - 6.0 / steps as f64 } else { 0.0 }, 0.1 * (9.0 * t).sin()]
            })
            .collect();
        let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        Calibration {
            sigmas: (0..=steps).map(|s| 1.0 - (s as f64 / steps as f64).powi(2)).collect(),
            gram: predictions.iter().map(|a| predictions.iter().map(|b| inner(a, b)).collect()).collect(),
            amplification: (0..steps).map(|s| 1.0 + 3.0 / (1.0 + s as f64)).collect(),
            magnitude_ratios: vec![1.0; steps],
            tea_embedding: None,
            tea_projection: None,
            outcomes: vec![(1e-3, 30.0), (1e-5, 50.0)],
        }
    }

    /// All choices of `count` steps with the first among them.
    fn choices(steps: usize, count: usize) -> Vec<Vec<usize>> {
        (0u32..1 << steps)
            .filter(|bits| bits & 1 == 1 && bits.count_ones() as usize == count)
            .map(|bits| (0..steps).filter(|s| bits >> s & 1 == 1).collect())
            .collect()
    }

    #[test]
    fn the_search_finds_what_trying_everything_finds() {
        let calibration = calibration(12);
        let planner = Planner::new(&calibration).unwrap();
        for count in 1..=12 {
            let found = planner.with_computed(count);
            assert_eq!(found.computed.len(), count);
            let best = choices(12, count).into_iter().map(|choice| planner.describe(choice).error);
            let best = best.fold(f64::INFINITY, f64::min);
            assert!((found.error - best).abs() <= 1e-12 + 1e-6 * best, "{count}: {} {best}", found.error);
        }
    }

    /// The quadratic form against forecasts carried out on vectors.
    #[test]
    fn gap_errors_are_those_of_the_forecasts() {
        let calibration = calibration(12);
        let planner = Planner::new(&calibration).unwrap();
        let plan = planner.describe(vec![0, 3, 5, 11]);
        let gram = &calibration.gram;
        // |sum_s h_s (v_s - sum_k w_k v_k)|^2 as one combination of all v.
        let mut total = 0.0;
        for (start, end) in [(0, 3), (3, 5), (5, 11), (11, 12)] {
            let mut coefficients = [0.0; 12];
            for step in start + 1..end {
                coefficients[step] += planner.h[step];
                let basis: Vec<usize> =
                    plan.computed.iter().rev().filter(|c| **c <= start).take(DEPTH).copied().collect();
                for (c, w) in basis.iter().zip(plan.forecasts[step].as_ref().unwrap()) {
                    coefficients[*c] -= planner.h[step] * w;
                }
            }
            for (i, a) in coefficients.iter().enumerate() {
                total += coefficients.iter().enumerate().map(|(j, b)| a * b * gram[i][j]).sum::<f64>();
            }
        }
        assert!((plan.error - total).abs() < 1e-9 + 1e-6 * total, "{} {total}", plan.error);
    }

    #[test]
    fn plans_reuse_only_what_was_computed() {
        let calibration = calibration(20);
        let planner = Planner::new(&calibration).unwrap();
        for speedup in [1.0, 1.5, 3.0, 20.0] {
            let planned = planner.for_speedup(speedup).unwrap();
            super::super::plan::check_reuse(&planned.plans(4)).unwrap();
            assert!(planned.computed.len() as f64 <= (20.0 / speedup).round().max(1.0));
        }
        assert!(planner.for_speedup(0.5).is_err() && planner.for_speedup(f64::NAN).is_err());
        let (slow, fast) = (planner.for_psnr(60.0).unwrap(), planner.for_psnr(25.0).unwrap());
        assert!(slow.computed.len() > fast.computed.len());
    }
}
