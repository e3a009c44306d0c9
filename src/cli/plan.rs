//! `ditscope plan`: the planner's plan, and what it is expected to do.

use std::path::PathBuf;

use crate::caching::{PlannedStep, Planner};
use crate::profiling::profile::Profile;

use super::{WrongUse, strategy};

/// Arguments of `ditscope plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Profile of the model, made by `ditscope profile`
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    /// Speed-up of the denoising
    #[arg(long, value_name = "X", conflicts_with = "min_psnr", required_unless_present = "min_psnr")]
    speedup: Option<f64>,
    /// Keep this many dB to the clip without reuse
    #[arg(long, value_name = "DB")]
    min_psnr: Option<f64>,
    /// Write the strategy as JSON, for `ditscope generate --strategy FILE.json`
    #[arg(short, long, value_name = "FILE.json")]
    output: Option<PathBuf>,
}

/// Plans and prints.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let profile = Profile::read(&args.profile)?;
    let sigmas = profile.calibration.as_ref().map(|calibration| calibration.sigmas.clone()).unwrap_or_default();
    let calibration = strategy::calibration(Some(&profile), &sigmas)?;
    let planner = Planner::new(&calibration)?;
    let planned = match (args.speedup, args.min_psnr) {
        (Some(speedup), _) => planner.for_speedup(speedup)?,
        (None, Some(psnr)) => planner.for_psnr(psnr)?,
        (None, None) => return Err(WrongUse("name a --speedup or a --min-psnr".into()).into()),
    };
    let steps = calibration.steps();
    let line = |step: usize| if matches!(planned.steps[step], PlannedStep::Compute(_)) { '#' } else { '.' };
    println!("{}", (0..steps).map(line).collect::<String>());
    println!(
        "{} of {steps} steps computed (#), {:.2} times less work; the others forecast from the last two of these and corrected by the next",
        planned.computed.len(),
        steps as f64 / planned.computed.len() as f64
    );
    match calibration.expected_psnr(planned.error) {
        Some(psnr) => println!("expected: {psnr:.1} dB PSNR to the clip without reuse"),
        None => println!("expected error of the latents: {:.2e} (squared, per value)", planned.error),
    }
    if let Some(path) = &args.output {
        let title = "planner".into();
        let config = crate::caching::StrategyConfig::Plan { title, plans: planned.plans(profile.model.blocks) };
        crate::media::write_bytes(path, config.to_json().as_bytes())?;
    }
    Ok(())
}
