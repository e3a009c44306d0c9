//! Strategies on the command line: `--strategy NAME[:KEY=VALUE,...]`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::caching::{Calibration, Carry, Intervals, Lists, Planner, ProfilingSettings, StepSchedule, StrategyConfig};
use crate::engine::Facts;
use crate::engine::limits::MOST_BLOCKS;
use crate::profiling::controls;
use crate::profiling::partition::{Partition, TauRule, parse_blocks};
use crate::profiling::profile::Profile;

use super::WrongUse;

/// Names, for help and messages.
pub const STRATEGIES: &str =
    "off, profiling, uniform, teacache, magcache, easycache, dbcache, dicache, deltadit, fewer-steps";

/// What `--help` says of `--strategy`.
const STRATEGY_HELP: &str = "\
How features are reused: NAME or NAME:KEY=VALUE,KEY=VALUE, or a .json file that holds a strategy (`ditscope plan -o`)
  off          nothing is reused
  profiling    list=background|foreground|split|alternate|random|depth|stable, count and seed, or blocks=0-5/9;
               warm-up, last, max, min, every, carry=hold|extrapolate|scale
  uniform      every, warm-up, last
  teacache     threshold, ret
  magcache     threshold, skips, retention
  easycache    threshold, first, last
  dbcache      threshold, front, back, warm-up, skips
  dicache      threshold, probe, retention
  deltadit     share, boundary, every, warm-up, last
  fewer-steps  steps
For example: --strategy uniform:every=3,warm-up=5";

/// Options about reuse.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StrategyArgs {
    /// How features are reused: NAME or NAME:KEY=VALUE,..., for example uniform:every=3,warm-up=5 (--help lists them)
    #[arg(long, value_name = "STRATEGY", long_help = STRATEGY_HELP, conflicts_with_all = ["speedup", "min_psnr"])]
    pub strategy: Option<String>,
    /// Plan the least loss at this speed-up of the denoising
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

    /// Whether a PSNR is expected of the plan.
    pub fn expects(&self) -> bool {
        self.speedup.is_some() || self.min_psnr.is_some()
    }

    /// The steps that a plan in a file is made for.
    ///
    /// # Errors
    /// The file holds no strategy.
    pub fn planned_steps(&self) -> anyhow::Result<Option<usize>> {
        let file = self.strategy.as_deref().filter(|text| text.ends_with(".json"));
        let config = file.map(|file| StrategyConfig::read(Path::new(file))).transpose()?;
        Ok(match config {
            Some(StrategyConfig::Plan { plans, .. }) => Some(plans.len()),
            _ => None,
        })
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

    /// The same, if it is of this model. One that the model brings and that does not fit (weights that were tuned since, perhaps) or
    /// cannot be read is left alone with a warning: many strategies need none.
    ///
    /// # Errors
    /// One that was named cannot be read as a profile, or does not fit.
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

    /// The strategy that is asked for, for a run over these sigmas; and what it is expected to keep, in dB.
    ///
    /// # Errors
    /// An impossible request, or a calibration that is missing.
    pub fn resolve(
        &self,
        sigmas: &[f64],
        blocks: usize,
        profile: Option<&Profile>,
    ) -> anyhow::Result<(StrategyConfig, Option<f64>)> {
        if self.speedup.is_none() && self.min_psnr.is_none() {
            return Ok((parse(self.strategy.as_deref().unwrap_or("off"), sigmas, profile)?, None));
        }
        let calibration = calibration(profile, sigmas)?;
        let planner = Planner::new(&calibration)?;
        let planned = match (self.speedup, self.min_psnr) {
            (Some(speedup), _) => planner.for_speedup(speedup)?,
            (None, Some(psnr)) => planner.for_psnr(psnr)?,
            (None, None) => return Ok((StrategyConfig::Off, None)),
        };
        let expected = calibration.expected_psnr(planned.error);
        Ok((planned.strategy(blocks), expected))
    }
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

/// A profile's calibration for these sigmas.
///
/// # Errors
/// There is no profile, or it was made without a calibration.
pub fn calibration(profile: Option<&Profile>, sigmas: &[f64]) -> anyhow::Result<Calibration> {
    let missing = "a plan needs the model's profile: make one with `ditscope profile --model FOLDER -o profile.json` and name it with --profile profile.json";
    let calibration = profile.and_then(|profile| profile.calibration.as_ref()).ok_or(WrongUse(missing.into()))?;
    calibration.resampled(sigmas).context("the profile's calibration does not fit this sampler")
}

/// `KEY=VALUE` pairs that are taken one by one; what is left over is a mistake.
struct Settings<'a> {
    name: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Settings<'a> {
    fn parse(name: &'a str, text: &'a str) -> Result<Self, WrongUse> {
        let pair = |part: &'a str| {
            part.split_once('=')
                .ok_or_else(|| WrongUse(format!("\"{part}\" in the settings of {name} is no KEY=VALUE")))
        };
        let pairs = text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect::<Result<_, _>>()?;
        Ok(Self { name, pairs })
    }

    /// The value of a key, or the default.
    fn take<T: std::str::FromStr>(&mut self, key: &str, default: T) -> Result<T, WrongUse> {
        let Some(index) = self.pairs.iter().position(|(name, _)| name.trim() == key) else { return Ok(default) };
        let (_, value) = self.pairs.remove(index);
        let endless = value.trim().parse::<f64>().is_ok_and(|number| !number.is_finite());
        let parsed = value.trim().parse().ok().filter(|_| !endless);
        parsed.ok_or_else(|| WrongUse(format!("\"{value}\" is no value for {key} of {}", self.name)))
    }

    fn is_set(&self, key: &str) -> bool {
        self.pairs.iter().any(|(name, _)| name.trim() == key)
    }

    /// Fails where a key is set together with one that it would make meaningless.
    fn one_of(&self, key: &str, others: &[&str]) -> Result<(), WrongUse> {
        match others.iter().find(|other| self.is_set(key) && self.is_set(other)) {
            Some(other) => Err(WrongUse(format!("{} takes {key} or {other}, not both", self.name))),
            None => Ok(()),
        }
    }

    /// Takes a key's value over, where it is set.
    fn replace<T: std::str::FromStr + Clone>(&mut self, key: &str, value: &mut T) -> Result<(), WrongUse> {
        *value = self.take(key, value.clone())?;
        Ok(())
    }

    /// Takes `every`, or `max` and `min`, `warm-up` and `last` over.
    fn schedule(&mut self, schedule: &mut StepSchedule) -> Result<(), WrongUse> {
        if matches!(schedule.intervals, Intervals::Decreasing { .. }) {
            self.one_of("every", &["max", "min"])?;
        }
        self.replace("warm-up", &mut schedule.warm_up)?;
        self.replace("last", &mut schedule.last)?;
        let every = if self.is_set("every") { Some(self.take("every", NonZeroUsize::MIN)?) } else { None };
        match &mut schedule.intervals {
            intervals if let Some(every) = every => *intervals = Intervals::Uniform(every.get()),
            Intervals::Decreasing { max, min, .. } => {
                self.replace("max", max)?;
                self.replace("min", min)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<(), WrongUse> {
        match self.pairs.first() {
            Some((key, _)) => Err(WrongUse(format!("{} has no setting called {key}", self.name))),
            None => Ok(()),
        }
    }
}

/// `0-5/9/12` as a list of blocks: `/` where other places write a comma, which separates settings here.
fn block_list(text: &str) -> Result<Vec<usize>, WrongUse> {
    parse_blocks(&text.replace('/', ","), MOST_BLOCKS)
        .map_err(|_| WrongUse(format!("\"{text}\" is no list of blocks: write for example 0-5/9/12")))
}

/// The name of a strategy, and the keys that its text sets.
pub fn name_and_keys(text: &str) -> (&str, Vec<&str>) {
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    (name, settings.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.trim())).collect())
}

/// A strategy from its text, for a run over these sigmas.
///
/// # Errors
/// An unknown name or setting, a value that does not parse, or a file that holds no strategy.
pub fn parse(text: &str, sigmas: &[f64], profile: Option<&Profile>) -> anyhow::Result<StrategyConfig> {
    let steps = sigmas.len().saturating_sub(1);
    if text.ends_with(".json") {
        return Ok(StrategyConfig::read(Path::new(text))?.calibrated(profile, sigmas));
    }
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    let mut set = Settings::parse(name, settings)?;
    let unknown = || WrongUse(format!("there is no strategy called {name}: choose one of {STRATEGIES}"));
    let mut config =
        StrategyConfig::defaults(steps).into_iter().find(|known| known.name() == name).ok_or_else(unknown)?;
    match &mut config {
        StrategyConfig::Off | StrategyConfig::Plan { .. } => {}
        StrategyConfig::Profiling(settings) => profiling(&mut set, settings, profile)?,
        StrategyConfig::Uniform(schedule) => set.schedule(schedule)?,
        StrategyConfig::TeaCache { threshold, ret_steps, .. } => {
            set.replace("threshold", threshold)?;
            set.replace("ret", ret_steps)?;
        }
        StrategyConfig::MagCache(settings) => {
            set.replace("threshold", &mut settings.threshold)?;
            set.replace("skips", &mut settings.max_skips)?;
            set.replace("retention", &mut settings.retention)?;
        }
        StrategyConfig::EasyCache(settings) => {
            set.replace("threshold", &mut settings.threshold)?;
            set.replace("first", &mut settings.first)?;
            set.replace("last", &mut settings.last)?;
        }
        StrategyConfig::DbCache(settings) => {
            set.replace("threshold", &mut settings.threshold)?;
            set.replace("front", &mut settings.front)?;
            set.replace("back", &mut settings.back)?;
            set.replace("warm-up", &mut settings.warm_up)?;
            set.replace("skips", &mut settings.max_skips)?;
        }
        StrategyConfig::DiCache(settings) => {
            set.replace("threshold", &mut settings.threshold)?;
            set.replace("probe", &mut settings.probe)?;
            set.replace("retention", &mut settings.retention)?;
        }
        StrategyConfig::DeltaDit(settings) => {
            set.replace("share", &mut settings.share)?;
            set.replace("boundary", &mut settings.boundary)?;
            set.schedule(&mut settings.schedule)?;
        }
        StrategyConfig::FewerSteps { steps: fewer } => {
            set.replace("steps", fewer)?;
            if *fewer > steps {
                return Err(WrongUse(format!("fewer-steps of {steps} cannot be {fewer}")).into());
            }
        }
    }
    set.finish()?;
    Ok(config.calibrated(profile, sigmas))
}

/// The settings of ProfilingDiT.
fn profiling(set: &mut Settings, settings: &mut ProfilingSettings, profile: Option<&Profile>) -> anyhow::Result<()> {
    set.one_of("blocks", &["list", "count", "seed"])?;
    let given = block_list(&set.take("blocks", String::new())?)?;
    let list = set.take("list", "background".to_string())?;
    if set.is_set("seed") && !matches!(list.as_str(), "random" | "depth") {
        return Err(WrongUse(format!("seed is of lists that are drawn, random and depth, not of list={list}")).into());
    }
    let (count, seed) = (set.take("count", 0usize)?, set.take("seed", 0u64)?);
    (settings.blocks, settings.lists) =
        if given.is_empty() { block_lists(&list, count, seed, profile)? } else { (vec![given], Lists::One) };
    settings.carry = match set.take("carry", "hold".to_string())?.as_str() {
        "hold" => Carry::Hold,
        "extrapolate" => Carry::Extrapolate,
        "scale" => Carry::Scale(Vec::new()),
        other => return Err(WrongUse(format!("carry is hold, extrapolate or scale, not {other}")).into()),
    };
    Ok(set.schedule(&mut settings.schedule)?)
}

/// What a profile knows that a strategy needs and has not.
trait Calibrated {
    fn calibrated(self, profile: Option<&Profile>, sigmas: &[f64]) -> Self;
}

impl Calibrated for StrategyConfig {
    fn calibrated(mut self, profile: Option<&Profile>, sigmas: &[f64]) -> Self {
        let Some(known) = profile.and_then(|profile| profile.calibration.as_ref()) else { return self };
        match &mut self {
            Self::TeaCache { ret_steps, coefficients: coefficients @ None, .. } => {
                *coefficients = known.tea_coefficients(*ret_steps);
            }
            Self::MagCache(settings) if settings.ratios.is_empty() => settings.ratios = known.magnitude_ratios.clone(),
            // These are applied, so they must be of this run's steps. MagCache's are thresholds, taken by the nearest index as published.
            Self::Profiling(ProfilingSettings { carry: Carry::Scale(ratios), .. })
                if ratios.len() + 1 != sigmas.len() =>
            {
                *ratios = known.resampled(sigmas).map_or_else(Vec::new, |here| here.magnitude_ratios);
            }
            _ => {}
        }
        self
    }
}

/// The cached blocks by name: lists of the profile, and controls of the same length, some of them drawn by a seed; `count`, unless 0, takes
/// so many blocks of the lowest lift for background, in place of those below the profile's tau.
fn block_lists(
    list: &str,
    count: usize,
    seed: u64,
    profile: Option<&Profile>,
) -> anyhow::Result<(Vec<Vec<usize>>, Lists)> {
    let profile = profile.ok_or_else(|| {
        WrongUse("profiling needs a profile (--profile, from `ditscope profile`) or a list such as blocks=2-9".into())
    })?;
    let blocks = profile.model.blocks;
    if count > blocks {
        return Err(WrongUse(format!("count={count} of profiling: the model has {blocks} blocks")).into());
    }
    let given = count > 0;
    let partition =
        if given { Partition::new(&profile.block_lift, TauRule::Lowest(count))? } else { profile.partition.clone() };
    let Partition { background, foreground, .. } = partition;
    Ok(match list {
        "background" => (vec![background], Lists::One),
        "foreground" if given => {
            return Err(WrongUse("count is of background blocks: list=foreground takes none".into()).into());
        }
        "foreground" => (vec![foreground], Lists::One),
        "split" => (vec![foreground, background], Lists::Split),
        "alternate" => (vec![foreground, background], Lists::Alternate),
        "random" => (vec![controls::random(background.len(), blocks, seed)], Lists::One),
        "depth" => (vec![controls::depth_matched(&background, blocks, seed)], Lists::One),
        "stable" => (vec![controls::stable(profile, background.len())], Lists::One),
        other => {
            let known = "background, foreground, split, alternate, random, depth, stable";
            return Err(WrongUse(format!("there is no list called {other}: choose one of {known}")).into());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of fifty steps.
    fn sigmas() -> Vec<f64> {
        (0..=50).rev().map(|step| f64::from(step) / 50.0).collect()
    }

    #[test]
    fn strategies_parse_with_their_settings() {
        assert_eq!(parse("off", &sigmas(), None).unwrap(), StrategyConfig::Off);
        let StrategyConfig::Profiling(profiling) = parse("profiling:blocks=0-2/5,max=8", &sigmas(), None).unwrap()
        else {
            panic!()
        };
        assert_eq!(profiling.blocks, [[0, 1, 2, 5]]);
        assert!(matches!(profiling.schedule.intervals, Intervals::Decreasing { max: 8.0, min: 3.0, .. }));
        let StrategyConfig::Uniform(schedule) = parse("uniform:every=3,warm-up=6", &sigmas(), None).unwrap() else {
            panic!()
        };
        assert_eq!(schedule, StepSchedule { warm_up: 6, last: 1, intervals: Intervals::Uniform(3) });
        assert_eq!(parse("fewer-steps:steps=20", &sigmas(), None).unwrap(), StrategyConfig::FewerSteps { steps: 20 });
        for name in STRATEGIES.split(", ").filter(|name| *name != "profiling") {
            assert_eq!(parse(name, &sigmas(), None).unwrap().name(), name);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, hint) in [
            ("turbo", "turbo"),
            ("easycache:treshold=1", "treshold"),
            ("easycache:threshold=much", "much"),
            ("uniform:3", "KEY=VALUE"),
            ("profiling:blocks=5-2", "5-2"),
            ("profiling", "--profile"),
            ("profiling:blocks=0-99999999", "list of blocks"),
            ("profiling:blocks=2-9,list=random", "blocks or list"),
            ("profiling:blocks=2-9,every=3,max=8", "every or max"),
            ("profiling:blocks=2-9,seed=1", "blocks or seed"),
            ("profiling:list=stable,seed=1", "not of list=stable"),
            ("uniform:every=0", "\"0\" is no value for every"),
            ("easycache:threshold=inf", "\"inf\" is no value"),
            ("fewer-steps:steps=20000", "cannot be 20000"),
        ] {
            let message = parse(text, &sigmas(), None).unwrap_err().to_string();
            assert!(message.contains(hint), "{text}: {message}");
        }
    }
}
