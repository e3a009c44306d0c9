//! Which steps are computed: ProfilingDiT's step-level schedule (eq. 11, 12, 15) and its alternatives.

use serde::{Deserialize, Serialize};

/// How an interval T(s) becomes a whole number of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// `2 floor(T / 2)`: gives the list that the authors hard-coded.
    #[default]
    Paper,
    /// `max(1, round(T))`.
    Nearest,
}

/// The shape of the intervals between computed steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intervals {
    /// T falls linearly from `max` to `min` (eq. 15; the paper's "stepwise").
    Decreasing {
        /// Interval after the warm-up.
        max: f64,
        /// Interval at the end.
        min: f64,
        /// How it becomes whole.
        rounding: Rounding,
    },
    /// T rises from `min` to `max` (the paper's "inverse").
    Increasing {
        /// Interval at the end.
        max: f64,
        /// Interval after the warm-up.
        min: f64,
        /// How it becomes whole.
        rounding: Rounding,
    },
    /// Every `k`-th step (the paper's "average").
    Uniform(usize),
    /// These steps, besides the warm-up and the last ones.
    Explicit(Vec<usize>),
}

/// A step-level schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSchedule {
    /// s0: steps `0..=warm_up` are computed.
    pub warm_up: usize,
    /// Steps at the end that are computed whatever the intervals say.
    pub last: usize,
    /// The intervals in between.
    pub intervals: Intervals,
}

impl Default for StepSchedule {
    /// The paper's settings for 50 steps; other numbers of steps scale them, see [`StepSchedule::for_steps`].
    fn default() -> Self {
        let intervals = Intervals::Decreasing { max: 12.0, min: 3.0, rounding: Rounding::Paper };
        Self { warm_up: 6, last: 1, intervals }
    }
}

impl StepSchedule {
    /// The paper's settings scaled from 50 to `steps` steps.
    pub fn for_steps(steps: usize) -> Self {
        let share = steps as f64 / 50.0;
        let intervals = Intervals::Decreasing {
            max: (12.0 * share).max(2.0),
            min: (3.0 * share).max(1.0),
            rounding: if steps == 50 { Rounding::Paper } else { Rounding::Nearest },
        };
        Self { warm_up: (6.0 * share).round() as usize, last: 1, intervals }
    }

    /// Whether each of `steps` steps is computed. The first always is.
    pub fn computed(&self, steps: usize) -> Vec<bool> {
        let mut computed = vec![false; steps];
        computed.iter_mut().take(self.warm_up.saturating_add(1)).for_each(|step| *step = true);
        computed.iter_mut().rev().take(self.last).for_each(|step| *step = true);
        if let Intervals::Explicit(list) = &self.intervals {
            list.iter().filter(|step| **step < steps).for_each(|step| computed[*step] = true);
            return computed;
        }
        let mut step = self.warm_up;
        while step < steps {
            computed[step] = true;
            step += self.interval(step, steps);
        }
        computed
    }

    /// Steps from a computed one to the next.
    fn interval(&self, step: usize, steps: usize) -> usize {
        let done = (step - self.warm_up) as f64 / (steps - self.warm_up).max(1) as f64;
        let (t, rounding) = match self.intervals {
            Intervals::Decreasing { max, min, rounding } => (max - (max - min) * done, rounding),
            Intervals::Increasing { max, min, rounding } => (min + (max - min) * done, rounding),
            Intervals::Uniform(k) => (k as f64, Rounding::Nearest),
            Intervals::Explicit(_) => (1.0, Rounding::Nearest),
        };
        let whole = match rounding {
            Rounding::Paper => 2.0 * (t / 2.0).floor(),
            Rounding::Nearest => t.round(),
        };
        // `as` saturates, so no setting can make the loop stand still or overflow.
        (whole.max(1.0) as usize).min(steps)
    }
}

/// The indices of computed steps.
pub fn indices(computed: &[bool]) -> Vec<usize> {
    computed.iter().enumerate().filter_map(|(step, on)| on.then_some(step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_warm_up(schedule: &StepSchedule, steps: usize) -> Vec<usize> {
        indices(&schedule.computed(steps)).into_iter().filter(|step| *step >= schedule.warm_up).collect()
    }

    /// The list hard-coded by the paper's authors.
    #[test]
    fn the_papers_list() {
        let schedule = StepSchedule { last: 0, ..Default::default() };
        assert_eq!(after_warm_up(&schedule, 50), [6, 18, 26, 32, 38, 42, 46, 48]);
        let with_last = StepSchedule::default();
        assert_eq!(after_warm_up(&with_last, 50), [6, 18, 26, 32, 38, 42, 46, 48, 49]);
        assert_eq!(StepSchedule::for_steps(50), with_last);
    }

    #[test]
    fn uniform_inverse_and_explicit() {
        let uniform = StepSchedule { warm_up: 6, last: 0, intervals: Intervals::Uniform(6) };
        assert_eq!(after_warm_up(&uniform, 50), [6, 12, 18, 24, 30, 36, 42, 48]);
        let inverse = Intervals::Increasing { max: 12.0, min: 3.0, rounding: Rounding::Nearest };
        let steps = after_warm_up(&StepSchedule { warm_up: 6, last: 0, intervals: inverse }, 50);
        let gaps: Vec<usize> = steps.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted() && gaps[0] == 3, "{gaps:?}");
        let explicit = StepSchedule { warm_up: 0, last: 1, intervals: Intervals::Explicit(vec![2, 99]) };
        assert_eq!(indices(&explicit.computed(5)), [0, 2, 4]);
    }

    #[test]
    fn strange_settings_end() {
        for (max, min) in [(0.0, 0.0), (-5.0, 1e300), (f64::NAN, 1.0), (f64::INFINITY, 1.0)] {
            for rounding in [Rounding::Paper, Rounding::Nearest] {
                let intervals = Intervals::Decreasing { max, min, rounding };
                for steps in [0, 1, 7] {
                    let schedule = StepSchedule { warm_up: 3, last: 9, intervals: intervals.clone() };
                    assert_eq!(schedule.computed(steps), vec![true; steps]);
                }
                let schedule = StepSchedule { warm_up: 0, last: 0, intervals };
                assert!(schedule.computed(20)[0]);
            }
        }
    }
}
