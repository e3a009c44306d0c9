//! The planner: which steps to compute, and how to forecast the other steps, from a model's own
//! calibration.
//!
//! The blocks do not run on a skipped step. A forecast stands for what they would add to the
//! residual stream: a linear combination of what they added on the last computed steps, with the
//! weights that fit best on the calibration runs. The next computed step shows how far a forecast
//! for that step would have been off. This error is also, in part, the error of the skipped steps
//! before. A share of it corrects the latents ([`Correction`]) without running a block again, as
//! UniPC's corrector does for its own interpolation.
//!
//! Everything follows from the Gram matrix G of the residuals r. The forecast weights solve its
//! normal equations. The shares are regressions of one forecast's error on another's. The error
//! that a gap between two computed steps leaves in the clean latents is a quadratic form in G:
//! |sum over the gap of h_s (r_s - forecast - share of the error at its end)|^2. Here h_s is the
//! step's length, sigma_s - sigma_(s+1), times the square root of the measured amplification, which
//! says how far an error made at step s is carried on. A dynamic program finds, for every number of
//! computed steps, the set with the least sum of these errors.

use super::{Action, BranchPlan, CacheError, Calibration, Correction, Forecast, StepPlan};
use crate::sampling::limits;

/// Residuals that a forecast combines at most. With corrections a third residual brings nothing
/// (`docs/rejected.md`).
const DEPTH: usize = 2;
/// Ridge of the normal equations, relative to the residuals' size. Neighbouring residuals are
/// almost parallel. Without a ridge they would get large weights of opposite sign, which carry
/// rounding and the plan's own errors on.
const RIDGE: f64 = 1e-6;

/// What a plan does in a step.
#[derive(Clone, Debug, PartialEq)]
pub enum PlannedStep {
    /// The blocks run; the skipped steps before are corrected, if there are any.
    Compute(Option<Correction>),
    /// The residual is forecast with these weights of the last computed ones, newest first.
    Skip(Forecast),
}

/// A plan for a number of computed steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The computed steps.
    pub computed: Vec<usize>,
    /// All steps.
    pub steps: Vec<PlannedStep>,
    /// Expected squared error of the latents, per value.
    pub error: f64,
}

impl Planned {
    /// The plan of every step of a model of `blocks` blocks.
    pub fn plans(&self, blocks: usize) -> Vec<StepPlan> {
        let plan = |step: &PlannedStep| {
            let (action, correction) = match step {
                PlannedStep::Compute(correction) => (Action::Store, correction.clone()),
                PlannedStep::Skip(forecast) => (Action::Reuse(forecast.clone()), None),
            };
            StepPlan { correction, ..StepPlan::both(BranchPlan::whole(blocks, action)) }
        };
        self.steps.iter().map(plan).collect()
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

impl<'a> Planner<'a> {
    /// Steps that can be planned: the search takes their cube, and keeps a step in a byte.
    pub const MOST_STEPS: usize = limits::MOST_PLANNED_STEPS;

    /// A planner for a checked calibration.
    ///
    /// # Errors
    /// [`CacheError::Settings`] for tables that do not fit each other, or more than 250 steps.
    pub fn new(calibration: &'a Calibration) -> Result<Self, CacheError> {
        calibration.check()?;
        let steps = calibration.steps();
        if steps > Self::MOST_STEPS {
            return Err(CacheError::Settings(format!("{steps} steps cannot be planned, at most {}", Self::MOST_STEPS)));
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

    /// Denoising steps.
    pub fn steps(&self) -> usize {
        self.h.len()
    }

    /// The best plan with `count` computed steps, the first step among them.
    pub fn with_computed(&self, count: usize) -> Planned {
        let steps = self.h.len();
        self.describe(self.best[count.clamp(1, steps) - 1].clone())
    }

    /// The number of computed steps, of `steps`, that a speed-up pays for: at most its share of the
    /// blocks' work, and at least one.
    pub fn budget(steps: usize, speedup: f64) -> usize {
        // A speed-up that was computed from a number of steps gives this number, whatever its last
        // bit is.
        const ROUNDING: f64 = 1e-6;
        ((steps as f64 / speedup + ROUNDING) as usize).clamp(1, steps.max(1))
    }

    /// The forecasts and the expected squared error of a choice of computed steps. The choice must
    /// be sorted and contain the first step.
    pub fn describe(&self, computed: Vec<usize>) -> Planned {
        let all = self.h.len();
        let mut steps = vec![PlannedStep::Compute(None); all];
        let mut error = 0.0;
        for (index, &newest) in computed.iter().enumerate() {
            let end = computed.get(index + 1).copied().unwrap_or(all);
            let gap = Gap::new(self, basis_of(index.checked_sub(1).map(|i| computed[i]), newest), end);
            error += gap.error();
            for step in gap.steps() {
                steps[step] = PlannedStep::Skip(gap.forecast(step));
            }
            if end < all && end > newest + 1 {
                steps[end] = PlannedStep::Compute(Some(gap.correction()));
            }
        }
        Planned { computed, steps, error }
    }

    /// The computed steps with the least error, for every number of them.
    fn search(&self) -> Vec<Vec<usize>> {
        least_sums(self.h.len(), |a, b| self.gaps_after(a, b))
    }

    /// Errors of the gaps from a pair of computed steps to every later step, and to the end.
    fn gaps_after(&self, a: usize, b: usize) -> Vec<f64> {
        (b + 1..=self.h.len()).map(|end| Gap::new(self, basis_of(Some(a), b), end).error()).collect()
    }
}

/// The computed steps with the least sum over their gaps, for every number of them from 1 to
/// `steps`. `gaps_after(a, b)` has the costs of the gaps from `b` to every later step, and to the
/// end, where `a` is the computed step before `b`. The dynamic program runs over the pairs (a, b)
/// of the last two computed steps, and adds one computed step at a time. As long as only the first
/// step is computed, `a` equals `b`. At most [`Planner::MOST_STEPS`] steps.
pub(super) fn least_sums(steps: usize, gaps_after: impl Fn(usize, usize) -> Vec<f64>) -> Vec<Vec<usize>> {
    let at = |a: usize, b: usize| a * steps + b;
    let gaps: Vec<Vec<f64>> = pairs(steps).map(|(a, b)| gaps_after(a, b)).collect();
    let mut reached = vec![f64::INFINITY; steps * steps];
    reached[at(0, 0)] = 0.0;
    // For every layer and pair the computed step before the pair, to walk back.
    let mut before: Vec<Vec<u8>> = vec![vec![0; steps * steps]];
    let mut best = Vec::with_capacity(steps);
    loop {
        let total =
            |((a, b), gaps): &((usize, usize), &Vec<f64>)| reached[at(*a, *b)] + gaps.last().copied().unwrap_or(0.0);
        let ends = pairs(steps).zip(&gaps).min_by(|x, y| total(x).total_cmp(&total(y)));
        best.push(walk_back(ends.map_or((0, 0), |(pair, _)| pair), &before, at));
        if best.len() == steps {
            return best;
        }
        let mut next = vec![f64::INFINITY; steps * steps];
        let mut layer = vec![0; steps * steps];
        for ((a, b), gaps) in pairs(steps).zip(&gaps) {
            let error = reached[at(a, b)];
            for (c, gap) in (b + 1..steps).zip(gaps) {
                if error + gap < next[at(b, c)] {
                    next[at(b, c)] = error + gap;
                    layer[at(b, c)] = a as u8;
                }
            }
        }
        reached = next;
        before.push(layer);
    }
}

/// The steps between two computed ones, all forecast from the same basis.
struct Gap<'a> {
    planner: &'a Planner<'a>,
    /// The last computed steps before the gap, newest first.
    basis: Vec<usize>,
    /// The computed step after the gap, or the number of steps.
    end: usize,
}

/// Something to forecast: its inner products with the basis.
type Target = Vec<f64>;

impl<'a> Gap<'a> {
    fn new(planner: &'a Planner<'a>, basis: Vec<usize>, end: usize) -> Self {
        Self { planner, basis, end }
    }

    fn steps(&self) -> std::ops::Range<usize> {
        self.basis[0] + 1..self.end
    }

    fn gram(&self, a: usize, b: usize) -> f64 {
        self.planner.calibration.gram[a][b]
    }

    /// The residual of a step.
    fn residual(&self, step: usize) -> Target {
        self.basis.iter().map(|c| self.gram(*c, step)).collect()
    }

    /// Least squares weights of the basis for a target.
    fn weights(&self, target: &Target) -> Vec<f64> {
        // Positive definite thanks to the ridge, as the residuals of a checked calibration are not
        // zero.
        let diagonal = |c: usize| self.gram(c, c) + RIDGE * self.gram(c, c).max(f64::MIN_POSITIVE);
        match (&self.basis[..], &target[..]) {
            ([a, b], [x, y]) => {
                let (p, q, r) = (diagonal(*a), self.gram(*a, *b), diagonal(*b));
                let determinant = p * r - q * q;
                vec![(r * x - q * y) / determinant, (p * y - q * x) / determinant]
            }
            (basis, target) => basis.iter().zip(target).map(|(c, x)| x / diagonal(*c)).collect(),
        }
    }

    /// Inner product of the errors of two targets' forecasts, given their own inner product.
    fn errors(&self, (x, y): (&Target, &Target), own: f64) -> f64 {
        let (of_x, of_y) = (self.weights(x), self.weights(y));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut forecasts = 0.0;
        for (a, i) in of_x.iter().zip(&self.basis) {
            for (b, j) in of_y.iter().zip(&self.basis) {
                forecasts += a * b * self.gram(*i, *j);
            }
        }
        own - dot(&of_x, y) - dot(&of_y, x) + forecasts
    }

    /// The regression of some error on the error at the end, where `common` is the inner product of
    /// both, and the squared error at the end. The ridge keeps the denominator away from zero.
    fn share(&self, at_end: &Target, common: f64) -> (f64, f64) {
        let own = self.gram(self.end, self.end);
        let error = self.errors((at_end, at_end), own);
        (common / (error + RIDGE * own.max(f64::MIN_POSITIVE)), error)
    }

    /// Squared error that the gap leaves in the latents. Forecasts and their errors are linear in
    /// the target, so the sum over the gap is one target.
    fn error(&self) -> f64 {
        let std::ops::Range { start, end } = self.steps();
        if start >= end {
            return 0.0;
        }
        let (along, s) = (&self.planner.along, &self.planner.square);
        let sum: Target = self.basis.iter().map(|c| along[*c][end] - along[*c][start]).collect();
        let own = s[end][end] - s[start][end] - s[end][start] + s[start][start];
        let mut error = self.errors((&sum, &sum), own);
        if end < self.planner.h.len() {
            let at_end = self.residual(end);
            let common = self.errors((&sum, &at_end), along[end][end] - along[end][start]);
            let (share, left) = self.share(&at_end, common);
            error += share * (share * left - 2.0 * common);
        }
        // A file of nonsense may give no number here, which must not look like the best plan.
        if error.is_nan() { f64::INFINITY } else { error.max(0.0) }
    }

    fn forecast(&self, step: usize) -> Forecast {
        Forecast(self.weights(&self.residual(step)).iter().map(|weight| *weight as f32).collect())
    }

    /// The regression of every skipped step's error on that at the end.
    fn correction(&self) -> Correction {
        let at_end = self.residual(self.end);
        let share = |step| {
            let common = self.errors((&self.residual(step), &at_end), self.gram(step, self.end));
            self.share(&at_end, common).0 as f32
        };
        Correction { expected: self.forecast(self.end), shares: self.steps().map(share).collect() }
    }
}

/// The computed steps that lead to a pair, from the layers of their predecessors.
fn walk_back(end: (usize, usize), before: &[Vec<u8>], at: impl Fn(usize, usize) -> usize) -> Vec<usize> {
    let (mut a, mut b) = end;
    let mut computed = Vec::with_capacity(before.len());
    for layer in before.iter().rev() {
        computed.push(b);
        (a, b) = (usize::from(layer[at(a, b)]), a);
    }
    computed.reverse();
    computed
}

/// Pairs that can be the last computed steps.
fn pairs(steps: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..steps).flat_map(move |b| (0..=b).map(move |a| (a, b)))
}

/// The distinct steps of a pair, newest first.
fn basis_of(older: Option<usize>, newest: usize) -> Vec<usize> {
    let mut basis: Vec<usize> = std::iter::once(newest).chain(older).take(DEPTH).collect();
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

    /// The quadratic form against forecasts and corrections carried out on vectors.
    #[test]
    fn gap_errors_are_those_of_the_forecasts() {
        let calibration = calibration(12);
        let planner = Planner::new(&calibration).unwrap();
        let computed = [0, 3, 5, 11];
        let plan = planner.describe(computed.to_vec());
        // |sum_s h_s (v_s - forecast - share (v_end - expected))|^2 as one combination of all v.
        let mut total = 0.0;
        for (index, (start, end)) in [(0, 3), (3, 5), (5, 11)].into_iter().enumerate() {
            let mut coefficients = [0.0; 12];
            let mut add_error = |step: usize, forecast: &Forecast, scale: f64| {
                coefficients[step] += scale;
                for (c, w) in computed[..=index].iter().rev().zip(&forecast.0) {
                    coefficients[*c] -= scale * f64::from(*w);
                }
            };
            let PlannedStep::Compute(correction) = &plan.steps[end] else { panic!("step {end} is computed") };
            for step in start + 1..end {
                let PlannedStep::Skip(forecast) = &plan.steps[step] else { panic!("step {step} is skipped") };
                add_error(step, forecast, planner.h[step]);
                let correction = correction.as_ref().unwrap();
                let share = f64::from(correction.shares[step - start - 1]);
                add_error(end, &correction.expected, -share * planner.h[step]);
            }
            for (i, a) in coefficients.iter().enumerate() {
                total += coefficients.iter().enumerate().map(|(j, b)| a * b * calibration.gram[i][j]).sum::<f64>();
            }
        }
        assert!((plan.error - total).abs() < 1e-7 + 1e-5 * total, "{} {total}", plan.error);
    }

    /// The residuals lie on one line in time. Forecasts from two of them are exact, so no error is
    /// left, and nothing is divided by zero.
    #[test]
    fn a_straight_line_is_forecast_without_error() {
        let mut calibration = calibration(9);
        for (i, row) in calibration.gram.iter_mut().enumerate() {
            row.iter_mut().enumerate().for_each(|(j, value)| *value = 1.0 + (i * j) as f64);
        }
        let plan = Planner::new(&calibration).unwrap().describe(vec![0, 1, 8]);
        assert!(plan.error < 1e-3, "{}", plan.error);
        let PlannedStep::Compute(Some(correction)) = &plan.steps[8] else { panic!("the last step is corrected") };
        assert!(correction.shares.iter().all(|share| share.is_finite()));
    }

    #[test]
    fn plans_reuse_only_what_was_computed() {
        let calibration = calibration(20);
        let planner = Planner::new(&calibration).unwrap();
        for speedup in [1.0, 1.5, 3.0, 20.0] {
            let planned = planner.with_computed(Planner::budget(20, speedup));
            super::super::plan::check_reuse(&planned.plans(4)).unwrap();
            assert!(planned.computed.len() as f64 * speedup <= 20.0);
        }
        assert_eq!(
            [1.0, 1.5, 3.0, 4.0, 50.0, 99.0].map(|speedup| Planner::budget(50, speedup)),
            [50, 33, 16, 12, 1, 1]
        );
        assert!((1..=50).all(|count| Planner::budget(50, 50.0 / count as f64) == count));
    }
}
