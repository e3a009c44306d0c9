//! What ordinary runs without reuse tell of a model: inner products of their residuals.
//!
//! Steps are known by their noise levels, so that a run tells something of every other number of
//! steps, scheduler and size. Planned runs are not kept: completed from their computed steps, plans
//! got worse at half the work (`docs/notebook`).

use serde::{Deserialize, Serialize};

use super::calibration::is_gram;
use super::completion::{SAME_LEVEL, completed_at};
use super::{Calibration, prior};
use crate::sampling::limits::MOST_PLANNED_STEPS;

/// Runs that are kept of a model at most.
pub const MOST_RUNS: usize = 16;
/// The measurements of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunMeasurement {
    /// Noise levels of the steps, falling.
    pub levels: Vec<f64>,
    /// Inner products of the guided residuals, divided by the number of values: rows of the lower
    /// triangle, one after the other.
    pub products: Vec<f32>,
    /// Squared change of the guided velocity divided by that of the residual, between steps.
    pub gain: f64,
    /// Width and height in pixels, and frames.
    pub size: [usize; 3],
    /// Guidance; 1 for none.
    pub guidance_scale: f64,
    /// Name of the scheduler.
    pub scheduler: String,
}

impl RunMeasurement {
    /// The inner products as a square table. Empty where the triangle does not fit the levels.
    fn gram(&self) -> Vec<Vec<f64>> {
        let count = self.levels.len();
        if self.products.len() != count * (count + 1) / 2 {
            return Vec::new();
        }
        let at = |i: usize, j: usize| f64::from(self.products[i.max(j) * (i.max(j) + 1) / 2 + i.min(j)]);
        (0..count).map(|i| (0..count).map(|j| at(i, j)).collect()).collect()
    }

    /// Whether a planner can use the measurement: two steps at least, sizes that fit, falling
    /// levels, and a table that inner products can have.
    pub fn is_sound(&self) -> bool {
        let gram = self.gram();
        let numbers = self.products.iter().all(|value| value.is_finite());
        (2..=MOST_PLANNED_STEPS).contains(&self.levels.len())
            && self.levels.iter().all(|level| (SAME_LEVEL..=1.0).contains(level))
            && self.levels.windows(2).all(|pair| pair[0] - pair[1] > SAME_LEVEL)
            && numbers
            && !gram.is_empty()
            && (0..gram.len()).all(|step| gram[step][step] > 0.0)
            && is_gram(&gram)
            && self.gain.is_finite()
            && self.gain > 0.0
            && self.scheduler.len() <= 100
    }
}

/// The measurements of a model's runs, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learnt {
    runs: Vec<RunMeasurement>,
}

impl Learnt {
    /// The measurements, oldest first.
    pub fn runs(&self) -> &[RunMeasurement] {
        &self.runs
    }

    /// Adds the measurement of a run, if it is sound. Beyond [`MOST_RUNS`] the oldest goes.
    pub fn add(&mut self, run: RunMeasurement) {
        self.runs.push(run);
        self.retain_sound();
    }

    /// Drops what no planner can use, for example after reading a file.
    pub fn retain_sound(&mut self) {
        self.runs.retain(RunMeasurement::is_sound);
        let surplus = self.runs.len().saturating_sub(MOST_RUNS);
        self.runs.drain(..surplus);
    }

    /// The calibration for a schedule. `None` without measurements.
    pub fn calibration(&self, sigmas: &[f64]) -> Option<Calibration> {
        let levels = &sigmas[..sigmas.len().checked_sub(1).filter(|steps| *steps > 0)?];
        let groups = self.groups(levels);
        if groups.is_empty() {
            return None;
        }
        let tables: Vec<_> = groups.iter().map(|group| (&group.levels[..], &group.gram[..])).collect();
        let table = completed_at(levels, &tables)?;
        let gain = self.runs.iter().map(|run| run.gain.ln()).sum::<f64>() / self.runs.len() as f64;
        Some(prior::with_residuals(sigmas, table, gain.exp())).filter(|found| found.check().is_ok())
    }

    /// The means over runs of the same schedule. The table that is to hold as it was measured is
    /// the last: that of the schedule itself, or else that of the most runs.
    fn groups(&self, levels: &[f64]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for run in &self.runs {
            let gram = run.gram();
            match groups.iter_mut().find(|group| same_levels(&group.levels, &run.levels)) {
                Some(group) => group.add(&gram),
                None => groups.push(Group { levels: run.levels.clone(), gram, runs: 1 }),
            }
        }
        groups.sort_by_key(|group| (same_levels(&group.levels, levels), group.runs));
        groups
    }
}

fn same_levels(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SAME_LEVEL)
}

/// Runs of the same schedule.
struct Group {
    levels: Vec<f64>,
    gram: Vec<Vec<f64>>,
    runs: usize,
}

impl Group {
    fn add(&mut self, gram: &[Vec<f64>]) {
        for (mean, new) in self.gram.iter_mut().flatten().zip(gram.iter().flatten()) {
            *mean += (new - *mean) / (self.runs + 1) as f64;
        }
        self.runs += 1;
    }
}

/// Values of a residual that a run's recorder keeps at most: they are kept of all computed steps.
const MOST_VALUES: usize = 1 << 17;

/// Collects the residuals and velocities of a run's steps.
#[derive(Clone, Debug, Default)]
pub struct RunRecorder {
    levels: Vec<f64>,
    residuals: Vec<Vec<f32>>,
    products: Vec<f32>,
    last_velocity: Vec<f32>,
    changes: (f64, f64),
}

impl RunRecorder {
    /// Adds a step: its noise level, the sample of its guided residual, and its guided
    /// velocity. Steps that a planner cannot use are left out.
    pub fn add(&mut self, level: f64, residual: &[f32], velocity: &[f32]) {
        let residual: Vec<f32> =
            residual.iter().step_by(residual.len().div_ceil(MOST_VALUES).max(1)).copied().collect();
        if self.levels.len() >= MOST_PLANNED_STEPS
            || self.residuals.first().is_some_and(|it| it.len() != residual.len())
        {
            return;
        }
        let squares = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len().max(1) as f64
        };
        if let Some(before) = self.residuals.last() {
            self.changes.0 += squares(velocity, &self.last_velocity);
            self.changes.1 += squares(&residual, before);
        }
        self.residuals.push(residual);
        let newest = self.residuals.len() - 1;
        let inner = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / a.len().max(1) as f64
        };
        self.products.extend(self.residuals.iter().map(|it| inner(it, &self.residuals[newest]) as f32));
        self.last_velocity = velocity.to_vec();
        self.levels.push(level);
    }

    /// The levels, the products and the gain of the run.
    pub fn finish(self) -> (Vec<f64>, Vec<f32>, f64) {
        (self.levels, self.products, self.changes.0 / self.changes.1)
    }
}

#[cfg(test)]
mod tests;
