//! Runs with reuse, which are compared with clips without reuse. They give the part of a
//! calibration that full runs cannot give.

use crate::caching::{Action, BranchPlan, Calibration, Forecast, Origin, Planner, StepPlan, StrategyConfig};
use crate::engine::{GenerateRequest, Observe};
use crate::metrics;

use super::measured::Reference;
use super::{Session, Size, StudyError};
use crate::study::session::Finished;

/// Speed-ups at which plans are tried. The loss at other speed-ups is predicted from these.
const TRIED: [f64; 3] = [1.5, 2.5, 5.0];
/// Speed-up of the only plan that is tried where the study is not thorough.
const QUICK: f64 = 5.0;
/// Steps at which an error is made on purpose, as shares of all steps.
const PROBED: [f64; 7] = [0.02, 0.08, 0.16, 0.3, 0.5, 0.75, 0.95];
/// Largest number of prompts for these probes. Many prompts are necessary, because the effect of an
/// error varies a hundredfold between prompts at steps where the content of a clip is decided.
pub(super) const PROBED_PROMPTS: usize = 8;
/// Largest number of prompts on which plans are tried.
pub(super) const TRIED_PROMPTS: usize = 4;

/// The trials of a study.
pub(super) struct Trials<'a, 's> {
    pub session: &'a Session<'s>,
    pub request: &'a GenerateRequest,
    /// Number of blocks of the model.
    pub blocks: usize,
    pub references: &'a [Reference],
}

impl Trials<'_, '_> {
    /// The size of the trials after `prompts` prompts were measured.
    pub fn size(steps: usize, prompts: usize) -> Size {
        let probes = Size::run(steps, 1.0).times(prompts.min(PROBED_PROMPTS) * PROBED.len());
        let plans = TRIED.iter().map(|speedup| Size::run(steps, *speedup).times(prompts.min(TRIED_PROMPTS)));
        plans.fold(probes, |all, plans| all + plans)
    }

    /// The size of the only trial of a study that is not thorough.
    pub fn quick_size(steps: usize) -> Size {
        Size::run(steps, QUICK)
    }

    /// Tries one plan on the first prompt, so that the expected PSNR agrees with it.
    pub fn quick(&self, calibration: &mut Calibration) -> Result<(), StudyError> {
        let planner = Planner::new(calibration)?;
        let known = self.references.first().and_then(|known| Some((&known.prompt, known.frames.as_ref()?)));
        let Some((prompt, reference)) = known.filter(|_| QUICK <= planner.steps() as f64) else { return Ok(()) };
        self.session.phase("trying a plan");
        let planned = planner.with_computed(Planner::budget(planner.steps(), QUICK));
        let strategy = StrategyConfig::plan("trial", Origin::Probe, planned.plans(self.blocks));
        let psnr = metrics::clip_psnr(reference, &self.run(prompt, &strategy, QUICK)?.frames()?)?;
        calibration.agree_with(planned.error, psnr);
        Ok(())
    }

    /// Adds the results of the trials: the amplification of errors, and the PSNR of plans.
    pub fn calibrate(&self, calibration: &mut Calibration) -> Result<(), StudyError> {
        self.session.phase("sensitivity");
        calibration.amplification = self.amplification(calibration)?;
        self.session.phase("trying plans");
        calibration.outcomes = self.outcomes(calibration)?;
        Ok(())
    }

    fn run(&self, prompt: &str, strategy: &StrategyConfig, speedup: f64) -> Result<Finished, StudyError> {
        let (strategy, observe) = (strategy.clone(), Observe::default());
        let size = Size::run(self.request.clip.num_inference_steps, speedup);
        let request = GenerateRequest { strategy, observe, ..self.request.with_prompt(prompt, 0) };
        self.session.run(request, size, |_| {})
    }

    /// The amplification of an error at each step. The newest residual is reused for a single step,
    /// and the clean latents are compared with those of a full run by the mean square over the
    /// prompts. Between the probed steps the logarithm is interpolated.
    fn amplification(&self, calibration: &Calibration) -> Result<Vec<f64>, StudyError> {
        let gram = &calibration.gram;
        let steps = gram.len();
        let mut probed: Vec<(usize, f64)> = Vec::new();
        for share in PROBED {
            let step = ((share * steps as f64).round() as usize).clamp(1, steps.saturating_sub(1).max(1));
            let h = calibration.sigmas[step] - calibration.sigmas[step + 1];
            let made = h * h * (gram[step][step] - 2.0 * gram[step][step - 1] + gram[step - 1][step - 1]);
            if made <= 0.0 || probed.iter().any(|(known, _)| *known == step) {
                continue;
            }
            probed.push((step, (self.error_of_holding(step, steps)? / made).max(1e-12)));
        }
        Ok((0..steps).map(|step| between(&probed, step)).collect())
    }

    /// The mean squared difference of the clean latents if one step reuses the residual of the
    /// previous step.
    fn error_of_holding(&self, step: usize, steps: usize) -> Result<f64, StudyError> {
        let action = |s| if s == step { Action::Reuse(Forecast::hold()) } else { Action::Store };
        let plans = (0..steps).map(|s| StepPlan::both(BranchPlan::whole(self.blocks, action(s)))).collect();
        let held = StrategyConfig::plan("probe", Origin::Probe, plans);
        let mut found = 0.0;
        for Reference { prompt, latents, .. } in self.references {
            let difference = self.run(prompt, &held, 1.0)?.generated.latents;
            let squares = difference.iter().zip(latents).map(|(a, b)| f64::from(a - b).powi(2));
            found += squares.sum::<f64>() / latents.len() as f64 / self.references.len() as f64;
        }
        Ok(found)
    }

    /// The predicted error and the mean measured PSNR of each tried plan.
    fn outcomes(&self, calibration: &Calibration) -> Result<Vec<(f64, f64)>, StudyError> {
        let planner = Planner::new(calibration)?;
        let tried = self.references.iter().filter_map(|known| Some((&known.prompt, known.frames.as_ref()?)));
        let mut outcomes = Vec::new();
        for speedup in TRIED {
            if speedup > planner.steps() as f64 {
                continue;
            }
            let planned = planner.with_computed(Planner::budget(planner.steps(), speedup));
            let strategy = StrategyConfig::plan("trial", Origin::Probe, planned.plans(self.blocks));
            let mut found = Vec::new();
            for (prompt, reference) in tried.clone() {
                found.push(metrics::clip_psnr(reference, &self.run(prompt, &strategy, speedup)?.frames()?)?);
            }
            let psnr = found.iter().sum::<f64>() / found.len() as f64;
            if psnr.is_finite() {
                outcomes.push((planned.error, psnr));
            }
        }
        Ok(outcomes)
    }
}

/// The value at `step`, interpolated by the logarithm between the measured values, whose steps
/// rise. Outside the measured steps the nearest value counts, and without values the result is 1.
fn between(measured: &[(usize, f64)], step: usize) -> f64 {
    let after = measured.iter().position(|(known, _)| *known >= step).unwrap_or(measured.len());
    match (after.checked_sub(1).and_then(|i| measured.get(i)), measured.get(after)) {
        (Some(low), Some(high)) => {
            let share = (step - low.0) as f64 / (high.0 - low.0) as f64;
            (low.1.ln() + share * (high.1.ln() - low.1.ln())).exp()
        }
        (Some(only), None) | (None, Some(only)) => only.1,
        (None, None) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_between_measured_steps_follow_the_logarithm() {
        let measured = [(2, 1.0), (4, 100.0)];
        let found: Vec<f64> = (0..6).map(|step| between(&measured, step)).collect();
        for (found, wanted) in found.iter().zip([1.0, 1.0, 1.0, 10.0, 100.0, 100.0]) {
            assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        }
        assert_eq!(between(&[], 3), 1.0);
    }
}
