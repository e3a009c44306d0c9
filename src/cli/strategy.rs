//! Strategies on the command line: `--strategy NAME[:KEY=VALUE,...]`, or a goal.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::caching::{Evidence, Goal, GoalPlan, StrategyConfig, StrategyInputs, catalogue, parse};
use crate::engine::Facts;
use crate::profiling::profile::Profile;

use super::WrongUse;

/// What `--help` says of `--strategy`.
fn strategy_help() -> String {
    format!(
        "How features are reused: NAME or NAME:KEY=VALUE,KEY=VALUE, or a .json file that holds a strategy \
         (`ditscope plan -o`)\n{}\nFor example: --strategy uniform:every=3,warm-up=5",
        catalogue::help()
    )
}

/// Options about reuse.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StrategyArgs {
    /// How features are reused: NAME or NAME:KEY=VALUE,..., for example uniform:every=3,warm-up=5 (--help lists them)
    #[arg(long, value_name = "STRATEGY", long_help = strategy_help(), conflicts_with_all = ["speedup", "min_psnr"])]
    pub strategy: Option<String>,
    /// Plan the least loss at this speed-up of the denoising: --strategy planner:speedup=X
    #[arg(long, value_name = "X", conflicts_with = "min_psnr")]
    pub speedup: Option<f64>,
    /// Plan the greatest speed-up that is expected to keep this many dB to the clip without reuse (a mean over prompts: single clips vary)
    #[arg(long, value_name = "DB")]
    pub min_psnr: Option<f64>,
    /// Profile of the model, made by `ditscope profile` [default: profile.json in the model's folder]
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
}

impl StrategyArgs {
    /// Whether anything but a full run is asked for, so that a profile counts.
    pub fn wants_reuse(&self) -> bool {
        self.strategy.is_some() || self.speedup.is_some() || self.min_psnr.is_some()
    }

    /// The steps that a plan in a file is made for.
    ///
    /// # Errors
    /// The file holds no strategy.
    pub fn planned_steps(&self) -> anyhow::Result<Option<usize>> {
        let file = self.strategy.as_deref().filter(|text| text.ends_with(".json"));
        let config = file.map(|file| StrategyConfig::read(Path::new(file))).transpose()?;
        Ok(config.and_then(|config| config.planned_steps()))
    }

    /// The profile that is named, or that the model brings.
    ///
    /// # Errors
    /// The file cannot be read as a profile.
    fn read_profile(&self, model: &Path) -> anyhow::Result<Option<Profile>> {
        let own = model.join("profile.json");
        let read = |path: &Path| Profile::read(path).with_context(|| format!("cannot use {}", path.display()));
        match &self.profile {
            Some(path) => read(path).map(Some),
            None if own.is_file() => read(&own).map(Some),
            None => Ok(None),
        }
    }

    /// The profile, if it is of this model. A profile that the model brings and that does not fit (the weights
    /// were tuned since, perhaps) or cannot be read is left alone with a warning: many strategies need none.
    ///
    /// # Errors
    /// A profile that was named cannot be read, or does not fit.
    pub fn fitting_profile(&self, model: &Path, facts: &Facts) -> anyhow::Result<Option<Profile>> {
        let fitting = self.read_profile(model).and_then(|profile| {
            profile.iter().try_for_each(|profile| check_fits(profile, model, facts))?;
            Ok(profile)
        });
        match fitting {
            Err(error) if self.profile.is_none() => {
                eprintln!("warning: the model's profile.json is not used: {error:#}");
                Ok(None)
            }
            other => other,
        }
    }

    /// The strategy that is asked for, calibrated by what is known of the model.
    ///
    /// # Errors
    /// An impossible request, or a calibration that is missing.
    pub fn resolve(&self, evidence: &Evidence) -> anyhow::Result<StrategyConfig> {
        let config = match (self.speedup, self.min_psnr) {
            (Some(speedup), _) => planner(Goal::Speedup(speedup), evidence)?,
            (None, Some(psnr)) => planner(Goal::Psnr(psnr), evidence)?,
            (None, None) => parse(self.strategy.as_deref().unwrap_or("off"), evidence)?,
        };
        check_runs(&config, evidence)?;
        Ok(config)
    }
}

/// The planner with a goal.
fn planner(goal: Goal, evidence: &Evidence) -> anyhow::Result<StrategyConfig> {
    let mut config = StrategyConfig::of(GoalPlan::new(goal));
    config.calibrate(evidence)?;
    Ok(config)
}

/// Fails for a strategy that cannot run, before anything is loaded.
///
/// # Errors
/// Those of building the strategy.
pub fn check_runs(config: &StrategyConfig, evidence: &Evidence) -> anyhow::Result<()> {
    let steps = config.steps(evidence.steps());
    let signal_changes = if config.signal().is_some() { vec![0.0; steps] } else { Vec::new() };
    let inputs = StrategyInputs { steps, blocks: evidence.blocks(), signal_changes };
    config.build(&inputs).map(|_| ()).with_context(|| format!("{} cannot run", config.name()))
}

/// Fails unless a profile is of the model, and says how one is made that is.
///
/// # Errors
/// [`WrongUse`].
fn check_fits(profile: &Profile, model: &Path, facts: &Facts) -> Result<(), WrongUse> {
    let hint =
        format!("`ditscope profile --model \"{}\" -o profile.json`, for --profile profile.json", model.display());
    let fits = profile.check_fits(&facts.model_id, facts.blocks);
    fits.map_err(|error| WrongUse(format!("{error}: {hint}")))
}

/// What is known of a model for a request: its own facts, and what a profile adds.
pub fn evidence(facts: &Facts, profile: Option<&Profile>) -> Evidence {
    match profile {
        Some(profile) => profile.evidence(facts.sigmas.clone()).with_published_tea(facts.published_tea),
        None => facts.evidence(),
    }
}
