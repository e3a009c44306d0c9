//! Sigma and timestep schedules.

use super::Error;
use super::limits::MOST_STEPS;

/// Length of the noise schedule in training. A timestep is sigma times this number.
pub const NUM_TRAIN_TIMESTEPS: f64 = 1000.0;

/// Keeps the first sigma of the diffusers grid below 1, because UniPC's half log-SNR is infinite at
/// 1.
const EPSILON: f64 = 1e-6;

/// Which sigmas to step over. The sigmas of every grid are evenly spaced before the shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Grid {
    /// `UniPCMultistepScheduler` of diffusers with `use_flow_sigmas`: from 1 - 1e-6 towards 0.001.
    /// Timesteps are whole numbers.
    #[default]
    Diffusers,
    /// The Wan2.1 repository (`FlowUniPCMultistepScheduler`), and older diffusers: from 0.999
    /// towards 0. Timesteps are whole numbers.
    Reference,
    /// `FlowMatchEulerDiscreteScheduler` of diffusers: from 1 to the shifted 0.001, shifted once
    /// more. Timesteps have fractions.
    FlowMatchEuler,
}

/// Sigmas and timesteps of one run.
///
/// The values are computed in `f64`, so that timesteps are truncated to the same numbers as in the
/// reference implementations. They are kept in `f32`, as the reference implementations do, because
/// the rounding of a first sigma near 1 is visible in UniPC's coefficients.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
}

impl Schedule {
    /// The schedule of `num_inference_steps` steps over `grid`, shifted by `flow_shift`:
    /// `sigma = s b / (1 + (s - 1) b)` for an evenly spaced `b`.
    ///
    /// # Errors
    /// [`Error::Steps`] for a number of steps outside 1 to [`MOST_STEPS`].
    /// [`Error::Shift`] for a shift that is not positive and finite. [`Error::Degenerate`] for a
    /// shift so extreme that the sigmas do not fall strictly.
    pub fn new(grid: Grid, num_inference_steps: usize, flow_shift: f64) -> Result<Self, Error> {
        let steps = num_inference_steps;
        if !(1..=MOST_STEPS).contains(&steps) {
            return Err(Error::Steps(steps));
        }
        if !(flow_shift.is_finite() && flow_shift > 0.0) {
            return Err(Error::Shift(flow_shift));
        }
        let shifted = shifted_sigmas(grid, steps, flow_shift);
        let timesteps = shifted.iter().map(|&sigma| timestep(grid, sigma)).collect();
        let sigmas: Vec<f32> = shifted.iter().map(|&sigma| sigma as f32).chain([0.0]).collect();
        if sigmas.windows(2).all(|pair| pair[0] > pair[1]) {
            Ok(Self { sigmas, timesteps })
        } else {
            Err(Error::Degenerate { shift: flow_shift, steps })
        }
    }

    /// One sigma for each step, falling, and a final 0.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// One timestep for each step, from 0 to 1000. The model is given the timestep.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The number of steps.
    pub fn num_inference_steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The sigmas before and after step `i`.
    ///
    /// # Errors
    /// [`Error::StepOutOfRange`] beyond the schedule.
    pub fn interval(&self, i: usize) -> Result<(f64, f64), Error> {
        match (self.sigmas.get(i), self.sigmas.get(i + 1)) {
            (Some(&from), Some(&to)) => Ok((f64::from(from), f64::from(to))),
            _ => Err(Error::StepOutOfRange { step: i, steps: self.num_inference_steps() }),
        }
    }
}

fn shifted_sigmas(grid: Grid, steps: usize, flow_shift: f64) -> Vec<f64> {
    let shift = |b: f64| flow_shift * b / (1.0 + (flow_shift - 1.0) * b);
    match grid {
        Grid::Reference => {
            // The reference holds its largest sigma as a 32-bit float.
            let base = linspace(f64::from(0.999_f32), 0.0, steps + 1);
            base.take(steps).map(shift).collect()
        }
        Grid::Diffusers => {
            let mut sigmas: Vec<f64> =
                linspace(1.0, 1.0 / NUM_TRAIN_TIMESTEPS, steps + 1).take(steps).map(shift).collect();
            if let Some(first) = sigmas.first_mut().filter(|first| (**first - 1.0).abs() < EPSILON) {
                *first -= EPSILON;
            }
            sigmas
        }
        Grid::FlowMatchEuler => {
            // diffusers shifts its whole training grid in 32-bit floats and takes both ends from
            // it.
            let (b, s) = (1.0 / NUM_TRAIN_TIMESTEPS as f32, flow_shift as f32);
            let smallest = f64::from(s * b / (1.0 + (flow_shift - 1.0) as f32 * b));
            let timesteps = linspace(NUM_TRAIN_TIMESTEPS, smallest * NUM_TRAIN_TIMESTEPS, steps);
            timesteps.map(|t| shift(t / NUM_TRAIN_TIMESTEPS)).collect()
        }
    }
}

fn timestep(grid: Grid, sigma: f64) -> f32 {
    match grid {
        Grid::Diffusers | Grid::Reference => (sigma * NUM_TRAIN_TIMESTEPS).trunc() as f32,
        Grid::FlowMatchEuler => sigma as f32 * NUM_TRAIN_TIMESTEPS as f32,
    }
}

/// `count` evenly spaced values from `start` to `stop`, both included, rounded as numpy's
/// `linspace` rounds them.
fn linspace(start: f64, stop: f64, count: usize) -> impl Iterator<Item = f64> {
    let gaps = count.saturating_sub(1).max(1);
    let step = (stop - start) / gaps as f64;
    (0..count).map(move |i| if i > 0 && i == gaps { stop } else { i as f64 * step + start })
}

#[cfg(test)]
mod tests;
