//! Strategies on the command line: `--strategy NAME[:KEY=VALUE,...]`, or a goal.

use std::path::{Path, PathBuf};

use crate::caching::{Evidence, Goal, Learnt, StrategyConfig, catalogue, parse};
use crate::engine::RequestInfo;
use crate::profiling::profile::Profile;
use crate::study::compare::check_runs;
use crate::study::{LearntFile, find_profile};

use super::{WrongUse, one_line};

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
    /// How features are reused: NAME or NAME:KEY=VALUE,..., for example uniform:every=3,warm-up=5
    /// (--help lists them)
    #[arg(long, value_name = "STRATEGY", long_help = strategy_help(), conflicts_with_all = ["speedup", "min_psnr"])]
    pub strategy: Option<String>,
    /// Plan the least loss at this speed-up of the denoising: --strategy planner:speedup=X
    #[arg(long, value_name = "X", conflicts_with = "min_psnr")]
    pub speedup: Option<f64>,
    /// Plan the greatest speed-up that is expected to keep this many dB to the clip without reuse
    /// (a mean over prompts: single clips vary)
    #[arg(long, value_name = "DB")]
    pub min_psnr: Option<f64>,
    /// Profile of the model, made by `ditscope profile` [default: profile.json in the model's
    /// folder]
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Neither use what earlier runs told of the model, nor keep what this run tells
    /// (`ditscope learning` shows and clears it)
    #[arg(long)]
    pub no_learning: bool,
}

impl StrategyArgs {
    /// Whether the user asks for anything but a full run. Only then a profile matters.
    pub fn wants_reuse(&self) -> bool {
        self.strategy.is_some() || self.speedup.is_some() || self.min_psnr.is_some()
    }

    /// The number of steps that a plan in a file is made for.
    ///
    /// # Errors
    /// The file holds no strategy.
    pub fn planned_steps(&self) -> anyhow::Result<Option<usize>> {
        let file = self.strategy.as_deref().filter(|text| text.ends_with(".json"));
        let config = file.map(|file| StrategyConfig::read(Path::new(file))).transpose()?;
        Ok(config.and_then(|config| config.planned_steps()))
    }

    /// The profile, if it fits the model. The model's own profile may not fit, for example after
    /// the weights were tuned, or may be unreadable. Many strategies need no profile, so this is
    /// only a warning.
    ///
    /// # Errors
    /// A profile that the user named cannot be read, or does not fit.
    pub fn fitting_profile(&self, model: &Path, facts: &RequestInfo) -> anyhow::Result<Option<Profile>> {
        match find_profile(model, self.profile.as_deref(), facts) {
            Err(error) if self.profile.is_none() => {
                let error = anyhow::Error::from(error);
                note!("warning: the model's own profile is not used: {}", one_line(&error));
                Ok(None)
            }
            Err(error) if error.is_wrong_use() => {
                let hint = format!("`ditscope profile --model \"{}\" -o profile.json` makes one", model.display());
                Err(WrongUse(format!("{}: {hint}", one_line(&error.into()))).into())
            }
            other => Ok(other?),
        }
    }

    /// The file of what runs of the model told, unless learning is switched off or the user has no
    /// data folder.
    pub fn learnt_file(&self, facts: &RequestInfo) -> Option<LearntFile> {
        (!self.no_learning).then(|| LearntFile::of_model(&facts.model_id)).flatten()
    }

    /// What earlier runs of the model told.
    pub fn learnt(&self, facts: &RequestInfo) -> Learnt {
        self.learnt_file(facts).map(|file| file.read()).unwrap_or_default()
    }

    /// The strategy that the user asks for, calibrated with the evidence about the model.
    ///
    /// # Errors
    /// The request is impossible, or a calibration is missing.
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

/// A planner for a goal.
fn planner(goal: Goal, evidence: &Evidence) -> anyhow::Result<StrategyConfig> {
    let mut config = StrategyConfig::planner(goal);
    config.calibrate(evidence)?;
    Ok(config)
}
