//! Euler's method on the flow.

use super::{Buffer, Error, LinearCombination, Schedule, Scheduler, StepPlan};

/// Euler's method: `x' = x + (sigma' - sigma) v`, as diffusers' `FlowMatchEulerDiscreteScheduler` (its grid is
/// [`Grid::FlowMatchEuler`](super::Grid::FlowMatchEuler), but any will do).
#[derive(Debug, Clone)]
pub struct Euler {
    schedule: Schedule,
}

impl Euler {
    /// Euler's method over `schedule`.
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule }
    }
}

impl Scheduler for Euler {
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn state(&self) -> &'static [Buffer] {
        &[Buffer::Sample]
    }

    fn step(&self, i: usize) -> Result<StepPlan, Error> {
        let (sigma, next) = self.schedule.interval(i)?;
        let predict = [(Buffer::Sample, 1.0), (Buffer::Velocity, next - sigma)];
        Ok(StepPlan {
            x0: LinearCombination::x0_estimate(sigma),
            correct: None,
            predict: LinearCombination::new(Buffer::LastSample, &predict),
        })
    }
}
