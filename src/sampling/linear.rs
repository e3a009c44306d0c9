//! Steps as linear combinations of named buffers, and the sampler that carries them out on the CPU.

use super::{Error, Scheduler};

/// The largest number of terms in a [`LinearCombination`].
pub const MAX_TERMS: usize = 4;

/// The buffers that a step reads and writes. Each has the latents' shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// The noisy latents at the current sigma, which are the model's input.
    Sample,
    /// The model's output, guidance included.
    Velocity,
    /// This step's estimate of the clean latents, `sample - sigma velocity`. Previews show it.
    X0,
    /// The sample from which the last prediction started. The step's own prediction overwrites it.
    LastSample,
    /// The previous step's [`Buffer::X0`].
    LastX0,
    /// The [`Buffer::X0`] of the step before that.
    OlderX0,
}

impl Buffer {
    const COUNT: usize = Self::OlderX0 as usize + 1;
}

/// `output = sum of coefficient * input`, element by element. The output is never among the inputs,
/// so a GPU may write the output while it reads the inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearCombination {
    output: Buffer,
    terms: Vec<(Buffer, f32)>,
}

impl LinearCombination {
    /// Takes coefficients in `f64` and rounds them to `f32`.
    pub(super) fn new(output: Buffer, terms: &[(Buffer, f64)]) -> Self {
        debug_assert!(terms.len() <= MAX_TERMS && terms.iter().all(|&(input, _)| input != output));
        Self { output, terms: terms.iter().map(|&(input, coefficient)| (input, coefficient as f32)).collect() }
    }

    /// The estimate of the clean latents, `x0 = x - sigma v`.
    pub fn x0_estimate(sigma: f64) -> Self {
        Self::new(Buffer::X0, &[(Buffer::Sample, 1.0), (Buffer::Velocity, -sigma)])
    }

    /// The buffer that is written.
    pub fn output(&self) -> Buffer {
        self.output
    }

    /// The buffers that are read and their coefficients: one to [`MAX_TERMS`] pairs.
    pub fn terms(&self) -> &[(Buffer, f32)] {
        &self.terms
    }

    /// One element of the output, from the same element of each input.
    fn at(&self, input: impl Fn(Buffer) -> f32) -> f32 {
        self.terms.iter().map(|&(buffer, coefficient)| coefficient * input(buffer)).sum()
    }
}

/// How the sampler finishes a step once the velocity is known: up to three assignments in order,
/// then [`Buffers::advance`].
#[derive(Debug, Clone, PartialEq)]
pub struct StepUpdate {
    /// Writes [`Buffer::X0`].
    pub x0: LinearCombination,
    /// Rewrites [`Buffer::Sample`] from the history and [`Buffer::X0`]. [`Buffer::X0`] itself stays
    /// the estimate of the uncorrected sample.
    pub correct: Option<LinearCombination>,
    /// Writes the next sample into [`Buffer::LastSample`].
    pub predict: LinearCombination,
}

impl StepUpdate {
    /// The assignments in order.
    pub fn assignments(&self) -> impl Iterator<Item = &LinearCombination> {
        [Some(&self.x0), self.correct.as_ref(), Some(&self.predict)].into_iter().flatten()
    }
}

/// One `T` (a vector or a GPU tensor) for each buffer in use.
#[derive(Debug, Clone)]
pub struct Buffers<T> {
    slots: [Option<T>; Buffer::COUNT],
}

impl<T> Buffers<T> {
    /// Makes every buffer that `scheduler` uses, and the buffers of `more` (for guidance), with
    /// `make`.
    pub fn new(scheduler: &dyn Scheduler, more: &[Buffer], mut make: impl FnMut(Buffer) -> T) -> Self {
        let mut slots = [const { None }; Buffer::COUNT];
        let every_step = [Buffer::Sample, Buffer::Velocity, Buffer::X0, Buffer::LastSample];
        for &buffer in every_step.iter().chain(scheduler.state()).chain(more) {
            slots[buffer as usize].get_or_insert_with(|| make(buffer));
        }
        Self { slots }
    }

    /// The named buffer, or `None` if the scheduler does not use it.
    pub fn get(&self, buffer: Buffer) -> Option<&T> {
        self.slots[buffer as usize].as_ref()
    }

    /// The same as [`get`](Self::get), mutable.
    pub fn get_mut(&mut self, buffer: Buffer) -> Option<&mut T> {
        self.slots[buffer as usize].as_mut()
    }

    /// Ends a step by renaming buffers. No data moves.
    ///
    /// The prediction becomes [`Buffer::Sample`], the old sample becomes [`Buffer::LastSample`],
    /// and the estimates of the clean latents become one step older. If the scheduler keeps a
    /// history, the newest estimate is then [`Buffer::LastX0`], so read [`Buffer::X0`] before this
    /// call.
    pub fn advance(&mut self) {
        self.swap(Buffer::Sample, Buffer::LastSample);
        self.swap(Buffer::OlderX0, Buffer::LastX0);
        self.swap(Buffer::LastX0, Buffer::X0);
    }

    /// Swaps two buffers if both are in use.
    fn swap(&mut self, a: Buffer, b: Buffer) {
        if self.get(a).is_some() && self.get(b).is_some() {
            self.slots.swap(a as usize, b as usize);
        }
    }
}

/// A scheduler with its buffers on the CPU.
pub struct CpuSampler<'a> {
    scheduler: &'a dyn Scheduler,
    buffers: Buffers<Vec<f32>>,
    step: usize,
}

impl<'a> CpuSampler<'a> {
    /// Starts from `latents`, the initial noise of any shape.
    pub fn new(scheduler: &'a dyn Scheduler, latents: &[f32]) -> Self {
        let make = |buffer| match buffer {
            Buffer::Sample => latents.to_vec(),
            _ => vec![0.0; latents.len()],
        };
        Self { scheduler, buffers: Buffers::new(scheduler, &[], make), step: 0 }
    }

    /// The current sample. It is the model's next input and, after the last step, the result.
    pub fn sample(&self) -> &[f32] {
        self.values(Buffer::Sample)
    }

    /// Takes one step with the model's output for [`sample`](Self::sample) and returns the estimate
    /// of the clean latents.
    ///
    /// # Errors
    /// [`Error::StepOutOfRange`] after the last step and [`Error::Length`] if `velocity` is not as
    /// long as the sample. An error changes nothing.
    pub fn step(&mut self, velocity: &[f32]) -> Result<Vec<f32>, Error> {
        let sample = self.sample().len();
        if velocity.len() != sample {
            return Err(Error::Length { velocity: velocity.len(), sample });
        }
        let update = self.scheduler.step(self.step)?;
        self.write(Buffer::Velocity, velocity.to_vec());
        for assignment in update.assignments() {
            let output =
                (0..sample).map(|i| assignment.at(|buffer| self.values(buffer).get(i).copied().unwrap_or_default()));
            let output = output.collect();
            self.write(assignment.output(), output);
        }
        let x0 = self.values(Buffer::X0).to_vec();
        self.buffers.advance();
        self.step += 1;
        Ok(x0)
    }

    /// Corrects the last `shares.len()` steps, as if the velocity of each step had been larger by
    /// its share of `error`.
    ///
    /// A step is linear in its velocities. A sampler of a single number, whose velocities are the
    /// shares, therefore gives the factor by which each buffer receives the error.
    ///
    /// # Errors
    /// [`Error::StepOutOfRange`] if fewer steps were taken and [`Error::Length`] if `error` is not
    /// as long as the sample. An error changes nothing.
    pub fn correct(&mut self, shares: &[f32], error: &[f32]) -> Result<(), Error> {
        let sample = self.sample().len();
        if error.len() != sample {
            return Err(Error::Length { velocity: error.len(), sample });
        }
        let start = self.step.checked_sub(shares.len());
        let start = start.ok_or(Error::StepOutOfRange { step: shares.len(), steps: self.step })?;
        let mut response = Self { step: start, ..Self::new(self.scheduler, &[0.0]) };
        for share in shares {
            response.step(&[*share])?;
        }
        for &buffer in self.scheduler.state() {
            let Some((values, by)) = self.buffers.get_mut(buffer).zip(response.values(buffer).first()) else {
                continue;
            };
            values.iter_mut().zip(error).for_each(|(value, error)| *value += by * error);
        }
        Ok(())
    }

    fn values(&self, buffer: Buffer) -> &[f32] {
        self.buffers.get(buffer).map_or(&[], Vec::as_slice)
    }

    fn write(&mut self, buffer: Buffer, values: Vec<f32>) {
        if let Some(slot) = self.buffers.get_mut(buffer) {
            *slot = values;
        }
    }
}

#[cfg(test)]
mod tests;
