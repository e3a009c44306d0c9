//! The planner's best plans of a run for every number of computed steps, so that an answer to a
//! changed goal costs nothing.

use serde::{Deserialize, Serialize};

use super::{CacheError, Calibration, Planned, Planner};

/// What the planner is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The least loss at this speed-up of the denoising.
    Speedup(f64),
    /// The greatest speed-up that is expected to keep this PSNR to the clip without reuse, in dB.
    Psnr(f64),
    /// The least loss with this many computed steps.
    Computed(usize),
}

impl Default for Goal {
    fn default() -> Self {
        Self::Speedup(2.0)
    }
}

/// A plan, and the PSNR in dB to expect of it: infinite for a plan without reuse, `None` where
/// the calibration has no measured outcomes.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// The plan.
    pub planned: Planned,
    /// The expected PSNR.
    pub psnr: Option<f64>,
}

/// The best plan for every number of computed steps, from 1 to all.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanTable(Vec<Outlook>);

impl PlanTable {
    /// Searches the plans for a calibration of the run's own schedule.
    ///
    /// # Errors
    /// Those of [`Planner::new`].
    pub fn new(calibration: &Calibration) -> Result<Self, CacheError> {
        let planner = Planner::new(calibration)?;
        let row = |count| {
            let planned = planner.with_computed(count);
            // Only the clip without reuse is the same clip, however small an error is expected.
            let same = planned.computed.len() == planned.steps.len();
            let psnr = calibration.expected_psnr(planned.error).filter(|psnr| same || psnr.is_finite());
            Outlook { planned, psnr }
        };
        Ok(Self((1..=calibration.steps()).map(row).collect()))
    }

    /// Denoising steps of the run.
    pub fn steps(&self) -> usize {
        self.0.len()
    }

    /// The plan for a goal. A PSNR that no plan keeps gives the plan without reuse.
    ///
    /// # Errors
    /// [`CacheError::Settings`] for a goal that no plan can meet; [`CacheError::Uncalibrated`] for
    /// a PSNR without measured outcomes to expect from.
    pub fn choose(&self, goal: Goal) -> Result<&Outlook, CacheError> {
        let steps = self.steps();
        let wrong = |message: String| Err(CacheError::Settings(message));
        let index = match goal {
            Goal::Speedup(speedup) if !(1.0..=steps as f64).contains(&speedup) => {
                return wrong(format!(
                    "a speed-up of {speedup} cannot be planned: choose 1 to {steps} for {steps} steps"
                ));
            }
            Goal::Speedup(speedup) => Planner::budget(steps, speedup) - 1,
            Goal::Psnr(psnr) if !psnr.is_finite() => {
                return wrong(format!("{psnr} dB cannot be planned for: name a number, for example 40"));
            }
            Goal::Psnr(_) if self.0.iter().all(|row| row.psnr.is_none()) => {
                return Err(CacheError::Uncalibrated("the expected PSNR"));
            }
            Goal::Psnr(psnr) => {
                let keeps = |row: &Outlook| row.psnr.is_some_and(|found| found >= psnr);
                self.0.iter().position(keeps).unwrap_or(steps.saturating_sub(1))
            }
            Goal::Computed(count) => count.clamp(1, steps.max(1)) - 1,
        };
        self.0.get(index).ok_or_else(|| CacheError::Settings("there are no steps to plan".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::{Forecast, PlannedStep};

    fn table(steps: usize) -> PlanTable {
        let row = |count| {
            let step = |step| match step < count {
                true => PlannedStep::Compute(None),
                false => PlannedStep::Skip(Forecast::hold()),
            };
            let planned = Planned { computed: (0..count).collect(), steps: (0..steps).map(step).collect(), error: 0.0 };
            Outlook { planned, psnr: Some(10.0 + count as f64) }
        };
        PlanTable((1..=steps).map(row).collect())
    }

    #[test]
    fn goals_choose_as_many_steps_as_they_need() {
        let known = table(30);
        let computed = |goal| known.choose(goal).unwrap().planned.computed.len();
        assert_eq!((computed(Goal::Speedup(2.0)), computed(Goal::Speedup(1.0))), (15, 30));
        assert_eq!((computed(Goal::Psnr(25.0)), computed(Goal::Psnr(99.0)), computed(Goal::Psnr(0.0))), (15, 30, 1));
        assert_eq!(
            (computed(Goal::Computed(7)), computed(Goal::Computed(0)), computed(Goal::Computed(99))),
            (7, 1, 30)
        );
        for wrong in [Goal::Speedup(0.5), Goal::Speedup(31.0), Goal::Speedup(f64::NAN), Goal::Psnr(f64::NAN)] {
            assert!(known.choose(wrong).is_err(), "{wrong:?}");
        }
        assert!(table(0).choose(Goal::Computed(1)).is_err());
    }
}
