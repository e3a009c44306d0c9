//! Which steps are computed: ProfilingDiT's step-level schedule (eq. 11, 12, 15) and its
//! alternatives.

use serde::{Deserialize, Serialize};

use super::rule::Shape;
use super::setting::{Choice, Kind, Setting, Value};

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
    /// The paper's settings for 50 steps. [`StepSchedule::for_steps`] scales them to other numbers
    /// of steps.
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

    /// `count` computed steps: a tenth of the steps at the start, the last step, and the others
    /// evenly between them.
    pub fn even(steps: usize, count: usize) -> Self {
        let first = (steps / 10).min(count.saturating_sub(1)).max(1);
        let rest = count.saturating_sub(first);
        let span = steps.saturating_sub(first) as f64;
        let list = (1..=rest).map(|i| first - 1 + (span * i as f64 / rest as f64).round() as usize).collect();
        Self { warm_up: first - 1, last: 0, intervals: Intervals::Explicit(list) }
    }

    /// The same schedule with intervals `share` times as long. Listed steps stay.
    pub fn stretched(&self, share: f64) -> Self {
        let scaled = |interval: f64| (interval * share).max(1.0);
        let rounding = Rounding::Nearest;
        let intervals = match self.intervals.clone() {
            Intervals::Decreasing { max, min, .. } => {
                Intervals::Decreasing { max: scaled(max), min: scaled(min), rounding }
            }
            Intervals::Uniform(every) => Intervals::Uniform(scaled(every as f64).round() as usize),
            other => other,
        };
        Self { intervals, ..self.clone() }
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

/// A number of steps of fifty, for a job of `steps` steps; at least one.
pub(super) fn scaled(of_fifty: usize, steps: usize) -> usize {
    (of_fifty * steps / 50).max(1)
}

const KINDS: &[Choice] = &[
    Choice { key: "falling", label: "falling", help: "From Tmax to Tmin (the paper)" },
    Choice { key: "rising", label: "rising", help: "From Tmin to Tmax" },
    Choice { key: "equal", label: "equal", help: "Always the same" },
];

impl Intervals {
    /// The key among [`KINDS`]; empty for listed steps.
    fn kind(&self) -> &'static str {
        match self {
            Self::Decreasing { .. } => "falling",
            Self::Increasing { .. } => "rising",
            Self::Uniform(_) => "equal",
            Self::Explicit(_) => "",
        }
    }

    /// The longest and the shortest interval.
    fn bounds(&self) -> (f64, f64) {
        match *self {
            Self::Decreasing { max, min, .. } | Self::Increasing { max, min, .. } => (max, min),
            Self::Uniform(every) => (every as f64, every as f64),
            Self::Explicit(_) => (2.0, 2.0),
        }
    }

    /// Intervals of a kind between two bounds, rounded as these are.
    fn of_kind(&self, kind: &str, (max, min): (f64, f64)) -> Self {
        let rounding = match *self {
            Self::Decreasing { rounding, .. } | Self::Increasing { rounding, .. } => rounding,
            _ => Rounding::default(),
        };
        match kind {
            "falling" => Self::Decreasing { max, min, rounding },
            "rising" => Self::Increasing { max, min, rounding },
            _ => Self::Uniform((max.round() as usize).max(1)),
        }
    }
}

/// The settings of a schedule that is a field of a rule: `schedule` is the value of now, and
/// `field` finds the schedule in the rule.
pub(super) fn settings<T: Clone + 'static>(
    schedule: &StepSchedule,
    shape: Shape,
    field: impl Fn(&mut T) -> &mut StepSchedule + Copy + 'static,
) -> Vec<Setting<T>> {
    let steps = shape.steps;
    let warm_up = ("warm-up", "warm-up", "s0: the steps up to this one are computed");
    let last = ("last", "last steps", "Steps at the end that are computed");
    let mut settings = vec![
        Setting::count(warm_up, 0..=steps, move |rule: &mut T| &mut field(rule).warm_up).unit("steps"),
        Setting::count(last, 0..=steps, move |rule: &mut T| &mut field(rule).last).unit("steps"),
        kind(field),
    ];
    let varies = matches!(schedule.intervals, Intervals::Decreasing { .. } | Intervals::Increasing { .. });
    if varies {
        let longest = ("max", "Tmax", "Longest interval, in steps");
        let shortest = ("min", "Tmin", "Shortest interval, in steps");
        settings.push(bound(longest, steps, field, |(max, _)| max, |(_, min), max| (max, min.min(max))));
        settings.push(bound(shortest, steps, field, |(_, min)| min, |(max, _), min| (max.max(min), min)));
    }
    settings.push(every(field, steps).shown(matches!(schedule.intervals, Intervals::Uniform(_))));
    settings
}

/// The shape of the intervals.
fn kind<T: Clone + 'static>(field: impl Fn(&mut T) -> &mut StepSchedule + Copy + 'static) -> Setting<T> {
    let set = move |rule: &mut T, value| match value {
        Value::Choice(kind) => {
            let intervals = &mut field(rule).intervals;
            if intervals.kind() != kind {
                *intervals = intervals.of_kind(kind, intervals.bounds());
            }
            Ok(())
        }
        other => Err(format!("{other} is no shape of intervals")),
    };
    let get = move |rule: &T| Value::Choice(field(&mut rule.clone()).intervals.kind());
    Setting::new(("intervals", "intervals", "Steps from a computed one to the next"), Kind::Choice(KINDS), get, set)
}

/// One end of the intervals: `get` picks the end, and `set` replaces it and keeps both in order.
fn bound<T: Clone + 'static>(
    words: (&'static str, &'static str, &'static str),
    steps: usize,
    field: impl Fn(&mut T) -> &mut StepSchedule + Copy + 'static,
    get: fn((f64, f64)) -> f64,
    set: fn((f64, f64), f64) -> (f64, f64),
) -> Setting<T> {
    let change = move |rule: &mut T, value| match value {
        Value::Real(value) => {
            let intervals = &mut field(rule).intervals;
            *intervals = intervals.of_kind(intervals.kind(), set(intervals.bounds(), value));
            Ok(())
        }
        other => Err(format!("{other} is no number of steps")),
    };
    let read = move |rule: &T| Value::Real(get(field(&mut rule.clone()).intervals.bounds()));
    Setting::new(words, Kind::Real(1.0..=steps.max(2) as f64), read, change).unit("steps").excludes(&["every"])
}

/// Equal intervals.
fn every<T: Clone + 'static>(field: impl Fn(&mut T) -> &mut StepSchedule + Copy + 'static, steps: usize) -> Setting<T> {
    let change = move |rule: &mut T, value| match value {
        Value::Count(every) if every > 0 => {
            field(rule).intervals = Intervals::Uniform(every);
            Ok(())
        }
        other => Err(format!("\"{other}\" is no value: the next step is 1 step away at least")),
    };
    let read = move |rule: &T| Value::Count(field(&mut rule.clone()).intervals.bounds().0.round() as usize);
    let words = ("every", "every", "Steps from a computed one to the next");
    Setting::new(words, Kind::Count(1..=steps.max(2)), read, change).unit("steps")
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
    fn even_schedules_have_the_count_and_end_with_the_last_step() {
        for (steps, count) in [(50, 25), (50, 17), (50, 10), (30, 15), (10, 1), (12, 12)] {
            let computed = indices(&StepSchedule::even(steps, count).computed(steps));
            assert_eq!(computed.len(), count, "{steps} {count}");
            assert!(count == 1 || *computed.last().unwrap() == steps - 1);
        }
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
