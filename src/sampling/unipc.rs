//! UniPC: a multistep predictor with a corrector that needs no additional forward.

use super::{Buffer, Error, LinearCombination, Schedule, Scheduler, StepUpdate};

/// The order of the predictor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SolverOrder {
    /// Predicts from the newest estimate alone, which is Euler's method with a corrector.
    One,
    /// Predicts from the two newest estimates. The first and the last step have order one.
    #[default]
    Two,
}

/// UniPC (Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework") with the settings of
/// Wan2.1: `B(h) = exp(h) - 1` ("bh2"), prediction of x0, lower order at the end, corrector on. It
/// equals diffusers' `UniPCMultistepScheduler` with `prediction_type="flow_prediction"` and
/// `use_flow_sigmas=True`.
///
/// Let `lambda = ln((1 - sigma) / sigma)` be the half log-SNR, `h` the step's rise in lambda, and
/// `K = 1 - sigma_t / sigma_s` (which is `-alpha_t expm1(-h)`). Every update has the form
/// `x_t = (sigma_t / sigma_s) x_s + K (weighted mean of estimates)`, with weights that sum to one.
/// As in diffusers, the estimate at step `i` belongs to the *uncorrected* sample, in the history
/// too.
#[derive(Debug, Clone)]
pub struct UniPc {
    schedule: Schedule,
    order: SolverOrder,
}

impl UniPc {
    /// UniPC over `schedule`.
    ///
    /// # Errors
    /// [`Error::PureNoise`] if the first sigma is 1, where lambda is infinite.
    pub fn new(schedule: Schedule, order: SolverOrder) -> Result<Self, Error> {
        match schedule.sigmas().first() {
            Some(&first) if first < 1.0 => Ok(Self { schedule, order }),
            _ => Err(Error::PureNoise),
        }
    }

    /// The order of the prediction of step `i`. The first step has order one because it has no
    /// history, and the last because lambda is infinite at its end.
    fn order_at(&self, i: usize) -> SolverOrder {
        if i == 0 || i + 1 >= self.num_inference_steps() { SolverOrder::One } else { self.order }
    }

    /// UniP: predicts the next sample from this step's corrected sample.
    fn predict(&self, i: usize) -> Result<LinearCombination, Error> {
        let (sigma_s, sigma_t) = self.schedule.interval(i)?;
        let k = 1.0 - sigma_t / sigma_s;
        let sample = (Buffer::Sample, sigma_t / sigma_s);
        Ok(match self.order_at(i) {
            SolverOrder::One => LinearCombination::new(Buffer::LastSample, &[sample, (Buffer::X0, k)]),
            SolverOrder::Two => {
                let (sigma_last, _) = self.schedule.interval(i - 1)?;
                // For order two the paper replaces the solution of the order conditions by one
                // half.
                let slope = 0.5 / lambda_ratio(sigma_last, sigma_s, sigma_t);
                let terms = [sample, (Buffer::X0, k * (1.0 - slope)), (Buffer::LastX0, k * slope)];
                LinearCombination::new(Buffer::LastSample, &terms)
            }
        })
    }

    /// UniC: repeats the last prediction, now that the estimate at its end is known.
    fn correct(&self, i: usize) -> Result<LinearCombination, Error> {
        let (sigma_s, sigma_t) = self.schedule.interval(i - 1)?;
        let k = 1.0 - sigma_t / sigma_s;
        let sample = (Buffer::LastSample, sigma_t / sigma_s);
        Ok(match self.order_at(i - 1) {
            SolverOrder::One => {
                let terms = [sample, (Buffer::LastX0, k * 0.5), (Buffer::X0, k * 0.5)];
                LinearCombination::new(Buffer::Sample, &terms)
            }
            SolverOrder::Two => {
                let (sigma_last, _) = self.schedule.interval(i - 2)?;
                let ratio = lambda_ratio(sigma_last, sigma_s, sigma_t);
                let (rho_old, rho_new) = corrector_weights(lambda(sigma_t) - lambda(sigma_s), ratio);
                let slope = rho_old / ratio;
                let newest = k * (1.0 - slope - rho_new);
                let terms = [sample, (Buffer::LastX0, newest), (Buffer::OlderX0, k * slope), (Buffer::X0, k * rho_new)];
                LinearCombination::new(Buffer::Sample, &terms)
            }
        })
    }
}

impl Scheduler for UniPc {
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn state(&self) -> &'static [Buffer] {
        match self.order {
            SolverOrder::One => &[Buffer::Sample, Buffer::LastSample, Buffer::LastX0],
            SolverOrder::Two => &[Buffer::Sample, Buffer::LastSample, Buffer::LastX0, Buffer::OlderX0],
        }
    }

    fn step(&self, i: usize) -> Result<StepUpdate, Error> {
        let (sigma, _) = self.schedule.interval(i)?;
        Ok(StepUpdate {
            x0: LinearCombination::x0_estimate(sigma),
            correct: (i > 0).then(|| self.correct(i)).transpose()?,
            predict: self.predict(i)?,
        })
    }
}

/// The half log-SNR. With signal `1 - sigma` and noise `sigma` this is the logarithm of their
/// ratio.
fn lambda(sigma: f64) -> f64 {
    ((1.0 - sigma) / sigma).ln()
}

/// The ratio `r`: the position of the last sigma relative to `sigma_s`, in units of the step from
/// `sigma_s` to `sigma_t`. It is negative.
fn lambda_ratio(sigma_last: f64, sigma_s: f64, sigma_t: f64) -> f64 {
    (lambda(sigma_last) - lambda(sigma_s)) / (lambda(sigma_t) - lambda(sigma_s))
}

/// The corrector's weights of the older and the newest difference of estimates, for a step `h` in
/// lambda and the ratio `r`. They solve the order conditions `[1 1; r 1] rho = b`, where `b` comes
/// from the phi functions of `-h` (paper, equation 5).
fn corrector_weights(h: f64, r: f64) -> (f64, f64) {
    let step = -h;
    let phi_1 = step.exp_m1();
    let phi_2 = phi_1 / step - 1.0;
    let phi_3 = phi_2 / step - 0.5;
    let (b_1, b_2) = (phi_2 / phi_1, 2.0 * phi_3 / phi_1);
    let older = (b_1 - b_2) / (1.0 - r);
    (older, b_1 - older)
}
