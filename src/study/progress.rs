//! The progress of a study and the estimate of its remaining time.

use std::ops::{Add, AddAssign};
use std::time::Instant;

/// The size of one run or of a list of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Size {
    /// Number of runs.
    pub runs: usize,
    /// Number of denoising steps of these runs.
    pub steps: usize,
    /// Work in units of full denoising steps. A step of a strategy that is 4 times as fast counts
    /// as a quarter. The estimate of the remaining time uses this number.
    pub work: f64,
}

impl Size {
    /// The size of one run of `steps` steps that is `speedup` times as fast as a run without reuse.
    pub fn run(steps: usize, speedup: f64) -> Self {
        Self { runs: 1, steps, work: steps as f64 / speedup.max(1.0) }
    }

    /// The size of `count` runs of this size.
    #[must_use]
    pub fn times(self, count: usize) -> Self {
        Self { runs: self.runs * count, steps: self.steps * count, work: self.work * count as f64 }
    }
}

impl Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { runs: self.runs + other.runs, steps: self.steps + other.steps, work: self.work + other.work }
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Size {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), Self::add)
    }
}

/// The progress of a study.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Name of the current phase, in a few words.
    pub phase: String,
    /// Number of runs that have ended.
    pub runs_done: usize,
    /// Number of all runs of the study.
    pub runs: usize,
    /// Number of denoising steps that are done.
    pub steps_done: usize,
    /// Number of all denoising steps of the study.
    pub steps: usize,
    /// Estimate of the remaining seconds. `None` until a step was timed.
    pub seconds_left: Option<f64>,
}

/// Counts the work that is done and the work that is left.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    phase: String,
    done: Size,
    /// The work that is left, including the running run.
    left: Size,
    /// The size of the running run, and the number of its steps that are done.
    running: (Size, usize),
    /// The time and the finished work at the end of the first step. The estimate starts there,
    /// because loading and compiling happen only once before.
    start: Option<(Instant, f64)>,
}

impl Tracker {
    pub fn phase(&mut self, phase: &str) {
        phase.clone_into(&mut self.phase);
    }

    pub fn phase_name(&self) -> &str {
        &self.phase
    }

    /// Replaces the work that is left.
    pub fn set_left(&mut self, left: Size) {
        self.left = left;
    }

    /// Adds to the work that is left.
    pub fn expect(&mut self, more: Size) {
        self.left += more;
    }

    pub fn begin(&mut self, run: Size) {
        self.running = (run, 0);
    }

    pub fn step(&mut self) {
        self.running.1 += 1;
        if self.start.is_none() {
            self.start = Some((Instant::now(), self.work_done()));
        }
    }

    /// Counts the running run as done, even if it did not complete.
    pub fn end(&mut self) {
        let (run, _) = std::mem::take(&mut self.running);
        self.done += run;
        self.left = Size {
            runs: self.left.runs.saturating_sub(run.runs),
            steps: self.left.steps.saturating_sub(run.steps),
            work: (self.left.work - run.work).max(0.0),
        };
    }

    fn work_done(&self) -> f64 {
        let (run, steps) = self.running;
        self.done.work + run.work * (steps as f64 / run.steps.max(1) as f64).min(1.0)
    }

    pub fn progress(&self) -> Progress {
        let (run, steps) = self.running;
        let all = self.done + self.left;
        let seconds_left = self.start.and_then(|(start, before)| {
            let done = self.work_done();
            (done > before).then(|| start.elapsed().as_secs_f64() / (done - before) * (all.work - done).max(0.0))
        });
        Progress {
            phase: self.phase.clone(),
            runs_done: self.done.runs,
            runs: all.runs,
            steps_done: self.done.steps + steps.min(run.steps),
            steps: all.steps,
            seconds_left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_steps_add_up_to_the_whole() {
        let (full, fast) = (Size::run(10, 1.0), Size::run(10, 4.0));
        let mut tracker = Tracker::default();
        tracker.expect(full.times(2) + fast);
        for run in [full, fast, full] {
            tracker.begin(run);
            for step in 1..=10 {
                tracker.step();
                let progress = tracker.progress();
                assert_eq!((progress.runs, progress.steps), (3, 30));
                assert_eq!(progress.steps_done % 10, step % 10);
            }
            tracker.end();
        }
        let end = tracker.progress();
        assert_eq!((end.runs_done, end.steps_done, end.seconds_left), (3, 30, Some(0.0)));
    }

    /// A run that is four times as fast counts as a quarter of the time.
    #[test]
    fn the_estimate_weighs_runs_by_their_work() {
        let mut tracker = Tracker::default();
        tracker.expect(Size::run(8, 1.0) + Size::run(8, 4.0));
        tracker.begin(Size::run(8, 1.0));
        for _ in 0..8 {
            tracker.step();
        }
        assert_eq!(tracker.work_done(), 8.0);
        tracker.start = Some((Instant::now() - std::time::Duration::from_secs(70), 1.0));
        let left = tracker.progress().seconds_left.unwrap();
        assert!((left - 20.0).abs() < 1.0, "two steps of work at ten seconds each: {left}");
    }
}
