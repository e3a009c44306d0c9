//! Euler's method on the flow.

use super::{Buffer, Error, LinearCombination, Schedule, Scheduler, StepUpdate};

/// Euler's method, `x' = x + (sigma' - sigma) v`, as in diffusers'
/// `FlowMatchEulerDiscreteScheduler`. That scheduler uses
/// [`Grid::FlowMatchEuler`](super::Grid::FlowMatchEuler), but the method works on every grid.
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

    fn step(&self, i: usize) -> Result<StepUpdate, Error> {
        let (sigma, next) = self.schedule.interval(i)?;
        let predict = [(Buffer::Sample, 1.0), (Buffer::Velocity, next - sigma)];
        Ok(StepUpdate {
            x0: LinearCombination::x0_estimate(sigma),
            correct: None,
            predict: LinearCombination::new(Buffer::LastSample, &predict),
        })
    }
}
