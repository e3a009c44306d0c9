//! `ditscope plan`: the planner's plan, and what it is expected to do.

use std::path::PathBuf;

use crate::caching::{CacheError, Evidence, Goal, Outlook, Planned, PlannedStep, StrategyConfig};
use crate::engine::{GenerateRequest, RequestInfo};
use crate::profiling::profile::Profile;
use crate::study::evidence_of;

use super::strategy::StrategyArgs;
use super::{ModelArgs, WrongUse};

/// Arguments of `ditscope plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Plan from this profile alone, for the steps that it was made with
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "steps"])]
    profile: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Denoising steps [default: the model's]
    #[arg(long)]
    steps: Option<usize>,
    /// Do not use what earlier runs told of the model
    #[arg(long)]
    no_learning: bool,
    /// Speed-up of the denoising
    #[arg(long, value_name = "X", conflicts_with = "min_psnr", required_unless_present = "min_psnr")]
    speedup: Option<f64>,
    /// Keep this many dB to the clip without reuse, in the expected mean over prompts
    #[arg(long, value_name = "DB")]
    min_psnr: Option<f64>,
    /// Write the strategy as JSON, for `ditscope generate --strategy FILE.json`; it holds for this
    /// number of steps
    #[arg(short, long, value_name = "FILE.json")]
    output: Option<PathBuf>,
}

impl Args {
    /// What is known of the model.
    fn evidence(&self) -> anyhow::Result<Evidence> {
        if let Some(file) = &self.profile {
            let profile = Profile::read(file)?;
            let calibration = profile.calibration.as_ref().ok_or(CacheError::Uncalibrated("the planner"))?;
            return Ok(profile.evidence(calibration.sigmas.clone()));
        }
        let (model, files) = self.model.place()?;
        let mut request = GenerateRequest::of_files(&model, &files, "")?;
        request.clip.num_inference_steps = self.steps.unwrap_or(request.clip.num_inference_steps);
        let facts = RequestInfo::of(&request)?;
        let asked = StrategyArgs { no_learning: self.no_learning, ..StrategyArgs::default() };
        let profile = asked.fitting_profile(&model, &facts)?;
        Ok(evidence_of(&facts, profile.as_ref(), &asked.learnt(&facts)))
    }
}

/// Plans and prints.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let evidence = args.evidence()?;
    let goal = match (args.speedup, args.min_psnr) {
        (Some(speedup), _) => Goal::Speedup(speedup),
        (None, Some(psnr)) => Goal::Psnr(psnr),
        (None, None) => return Err(WrongUse("name a --speedup or a --min-psnr".into()).into()),
    };
    let Outlook { planned, psnr } = evidence.plans()?.choose(goal)?;
    let steps = evidence.steps();
    let line = |step: usize| if matches!(planned.steps[step], PlannedStep::Compute(_)) { '#' } else { '.' };
    if let Some(path) = &args.output {
        let mut config = StrategyConfig::planner(goal);
        config.calibrate(&evidence)?;
        crate::media::write_bytes(path, config.to_json().as_bytes())?;
    }
    out!("{}", (0..steps).map(line).collect::<String>());
    out!("{}", outlook(planned, *psnr));
    out!("planned from {}", evidence.known().words());
    if let (true, Some(psnr)) = (planned.computed.len() == steps, args.min_psnr) {
        note!("warning: no plan that reuses anything is expected to keep {psnr} dB; a lower --min-psnr gives one");
    }
    Ok(())
}

/// What a plan saves, and what it is expected to keep.
fn outlook(planned: &Planned, psnr: Option<f64>) -> String {
    let (computed, steps) = (planned.computed.len(), planned.steps.len());
    if computed == steps {
        return format!(
            "all {steps} steps computed (#): nothing is reused, and the clip is identical to that without reuse"
        );
    }
    let kept = match psnr {
        Some(psnr) => format!("expected: {psnr:.1} dB PSNR to the clip without reuse"),
        None => format!("expected error of the latents: {:.2e} (squared, per value)", planned.error),
    };
    let work = steps as f64 / computed as f64;
    format!(
        "{computed} of {steps} steps computed (#), {work:.2} times less work; the others forecast from the last two of these and corrected by the next\n{kept}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_without_reuse_claims_no_decibels() {
        let full = Planned { computed: vec![0, 1], steps: vec![PlannedStep::Compute(None); 2], error: 0.0 };
        let text = outlook(&full, Some(f64::INFINITY));
        assert!(text.contains("identical") && !text.contains("dB"), "{text}");
    }
}
