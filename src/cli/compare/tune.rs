//! Strategies tuned to a speed-up, by FLOPs: by arithmetic where the plan is known beforehand, by trial on a prompt of its own where a
//! rule decides on the way.

use std::cell::OnceCell;

use anyhow::Context;
use indicatif::ProgressBar;

use crate::caching::{Intervals, Planner, Rounding, StepPlan, StepSchedule, StrategyConfig, StrategyInputs};
use crate::engine::{Engine, Facts, GenerateRequest, Observe};
use crate::profiling::profile::Profile;

use super::super::WrongUse;
use super::super::generate::bar_style;
use super::super::job::run_job;
use super::super::strategy;
use super::{Entry, MOST_PSNR};

/// Halvings of a threshold's range.
const TRIALS: usize = 8;
/// A tuned strategy may miss its speed-up by this share.
const TOLERANCE: f64 = 0.08;

/// The planner's speed-up where none is asked for: it has no settings to take as they are.
const PLANNED: f64 = 2.0;

/// Settings that tuning chooses, so that a user's would be lost; `None` for what cannot be tuned.
fn chosen_by_tuning(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "planner" => &[],
        // The intervals that are given are stretched.
        "profiling" => &[],
        "uniform" => &["every", "warm-up", "last"],
        "fewer-steps" => &["steps"],
        "deltadit" => &["share", "every"],
        "teacache" | "magcache" | "easycache" | "dbcache" | "dicache" => &["threshold"],
        _ => return None,
    })
}

/// Whether a strategy is tuned by runs on a prompt.
pub fn by_trial(text: &str) -> bool {
    matches!(strategy::name_and_keys(text).0, "easycache" | "dbcache" | "dicache")
}

/// Fails for strategies and speed-ups that cannot be, before anything runs. Gives the bytes of deltas that one of them keeps at most.
///
/// # Errors
/// Names, settings and files that are wrong; a profile that is missing; settings that would be lost.
pub fn check(
    names: &[&str],
    speedups: &[f64],
    request: &GenerateRequest,
    facts: &Facts,
    profile: Option<&Profile>,
) -> anyhow::Result<u64> {
    let (steps, guided) = (request.clip.num_inference_steps, request.clip.guided());
    let mut kept = 0;
    if let Some(wrong) = speedups.iter().find(|speedup| !(1.0..=steps as f64).contains(*speedup)) {
        return Err(WrongUse(format!("--speedups {wrong}: choose 1 to {steps} for {steps} steps")).into());
    }
    for text in names {
        let (name, keys) = strategy::name_and_keys(text);
        if !speedups.is_empty() {
            let wrong = |why: String| WrongUse(format!("{text} cannot be tuned to --speedups: {why}"));
            let chosen = chosen_by_tuning(name);
            let why =
                if name.ends_with(".json") { "a file says all of its settings" } else { "it has nothing to tune" };
            let chosen = chosen.ok_or_else(|| wrong(format!("{why}; compare it without them")))?;
            if let Some(key) = keys.iter().find(|key| chosen.contains(key)) {
                return Err(wrong(format!("tuning chooses {key}; leave out one of the two")).into());
            }
        }
        if name == "planner" {
            planner_takes_nothing(text)?;
            let calibration = strategy::calibration(profile, &facts.sigmas)?;
            let planner = Planner::new(&calibration).context("planner cannot run")?;
            // All plans with gaps keep the same deltas.
            let gaps = planner.with_computed(steps / 2).strategy(facts.blocks);
            kept = kept.max(facts.strategy_memory(&gaps, steps, guided));
            continue;
        }
        let config = strategy::parse(text, &facts.sigmas, profile)?;
        let inputs = StrategyInputs { steps: config.steps(steps), blocks: facts.blocks, ..Default::default() };
        config.build(&inputs).with_context(|| format!("{text} cannot run"))?;
        kept = kept.max(facts.strategy_memory(&config, steps, guided));
    }
    Ok(kept)
}

fn planner_takes_nothing(text: &str) -> Result<(), WrongUse> {
    match text {
        "planner" => Ok(()),
        _ => Err(WrongUse(format!("{text}: planner has no settings; --speedups are its targets"))),
    }
}

pub struct Tuner<'a> {
    engine: &'a Engine,
    request: GenerateRequest,
    facts: &'a Facts,
    profile: Option<&'a Profile>,
    /// TeaCache's two signals, once they are asked for: they take a run.
    signals: OnceCell<Vec<[f64; 2]>>,
}

impl<'a> Tuner<'a> {
    /// A tuner on the prompt of a request.
    pub fn new(engine: &'a Engine, request: GenerateRequest, facts: &'a Facts, profile: Option<&'a Profile>) -> Self {
        Self { engine, request, facts, profile, signals: OnceCell::new() }
    }

    /// Every name at every speed-up that it reaches; what it does not reach is said and left out.
    pub fn entries(&self, names: &[&str], speedups: &[f64]) -> anyhow::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let bar = ProgressBar::new((names.len() * speedups.len()) as u64);
        bar.set_style(bar_style()?);
        for name in names {
            if speedups.is_empty() {
                let (config, expected) = match *name {
                    "planner" => self.planned(self.count(PLANNED))?,
                    _ => (strategy::parse(name, &self.facts.sigmas, self.profile)?, None),
                };
                entries.push(Entry { name: (*name).into(), target: None, expected, config });
            }
            for &speedup in speedups {
                bar.set_message(format!("tuning {name}"));
                let Tuned { config, reached, expected } = self.tuned(name, speedup)?;
                if (reached / speedup - 1.0).abs() <= TOLERANCE {
                    entries.push(Entry { name: (*name).into(), target: Some(speedup), expected, config });
                } else {
                    bar.suspend(|| {
                        eprintln!("{name} is left out at {speedup}x: the nearest that it reaches is {reached:.2}x");
                    });
                }
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(entries)
    }

    fn steps(&self) -> usize {
        self.request.clip.num_inference_steps
    }

    fn tuned(&self, text: &str, speedup: f64) -> anyhow::Result<Tuned> {
        let (steps, count) = (self.steps(), self.count(speedup));
        let (name, keys) = strategy::name_and_keys(text);
        let candidates = match name {
            "planner" => {
                let (config, expected) = self.planned(count)?;
                return Ok(Tuned { reached: self.speedup(&config)?, config, expected });
            }
            "fewer-steps" => vec![StrategyConfig::FewerSteps { steps: count }],
            "uniform" => vec![StrategyConfig::Uniform(even(steps, count))],
            "profiling" => self.profiling(text)?,
            "deltadit" => self.delta_dit(text)?,
            _ => return self.by_threshold(&strategy::parse(text, &self.facts.sigmas, self.profile)?, &keys, speedup),
        };
        self.nearest(speedup, candidates)
    }

    /// The number of computed steps that comes nearest to a speed-up: the same for all that choose their steps freely.
    fn count(&self, speedup: f64) -> usize {
        ((self.steps() as f64 / speedup).round() as usize).clamp(1, self.steps())
    }

    /// The planner's strategy, and the PSNR in decibels that it expects.
    fn planned(&self, count: usize) -> anyhow::Result<(StrategyConfig, Option<f64>)> {
        let calibration = strategy::calibration(self.profile, &self.facts.sigmas)?;
        let planned = Planner::new(&calibration)?.with_computed(count);
        let expected = calibration.expected_psnr(planned.error).map(|psnr| psnr.min(MOST_PSNR));
        Ok((planned.strategy(self.facts.blocks), expected))
    }

    /// ProfilingDiT with the paper's intervals, or those that are given, stretched and shrunk.
    fn profiling(&self, name: &str) -> anyhow::Result<Vec<StrategyConfig>> {
        let StrategyConfig::Profiling(base) = strategy::parse(name, &self.facts.sigmas, self.profile)? else {
            return Ok(Vec::new());
        };
        let scaled = |share: f64| {
            let mut settings = base.clone();
            settings.schedule.intervals = match settings.schedule.intervals {
                Intervals::Decreasing { max, min, .. } => Intervals::Decreasing {
                    max: (max * share).max(1.0),
                    min: (min * share).max(1.0),
                    rounding: Rounding::Nearest,
                },
                Intervals::Uniform(every) => Intervals::Uniform((every as f64 * share).round().max(1.0) as usize),
                other => other,
            };
            StrategyConfig::Profiling(settings)
        };
        Ok((1..=60).map(|i| scaled(f64::from(i) / 15.0)).collect())
    }

    fn delta_dit(&self, name: &str) -> anyhow::Result<Vec<StrategyConfig>> {
        let StrategyConfig::DeltaDit(base) = strategy::parse(name, &self.facts.sigmas, self.profile)? else {
            return Ok(Vec::new());
        };
        let shares = [0.5, 0.6, 0.7, 0.8, 0.9];
        let all = shares.into_iter().flat_map(|share| (2..=12).map(move |every| (share, every)));
        let one = |(share, every)| {
            let mut settings = base.clone();
            settings.share = share;
            settings.schedule.intervals = Intervals::Uniform(every);
            StrategyConfig::DeltaDit(settings)
        };
        Ok(all.map(one).collect())
    }

    /// The configuration whose known plan comes nearest to a speed-up.
    fn nearest(&self, speedup: f64, configs: Vec<StrategyConfig>) -> anyhow::Result<Tuned> {
        let mut best = Tuned { config: StrategyConfig::Off, reached: 1.0, expected: None };
        for config in configs {
            let reached = self.speedup(&config)?;
            if best.config == StrategyConfig::Off || miss(reached, speedup) < miss(best.reached, speedup) {
                best = Tuned { config, reached, expected: None };
            }
        }
        Ok(best)
    }

    /// Bisects a rule's threshold: higher reuses more. `keys` are the settings that the user gave.
    fn by_threshold(&self, base: &StrategyConfig, keys: &[&str], speedup: f64) -> anyhow::Result<Tuned> {
        let (mut low, mut high) = (1e-4f64, 1e2f64);
        let mut best = Tuned { config: base.clone(), reached: 1.0, expected: None };
        let known = self.preview(base)?.is_some();
        for trial in 0..if known { 40 } else { TRIALS } {
            let middle = (low * high).sqrt();
            let config = with_threshold(base, keys, middle, (speedup, self.steps()));
            let reached = self.speedup(&config)?;
            if trial == 0 || miss(reached, speedup) < miss(best.reached, speedup) {
                best = Tuned { config, reached, expected: None };
            }
            if miss(reached, speedup) < 0.01 {
                break;
            }
            if reached < speedup { low = middle } else { high = middle }
        }
        Ok(best)
    }

    /// The plans of a strategy that knows them beforehand.
    fn preview(&self, config: &StrategyConfig) -> anyhow::Result<Option<Vec<StepPlan>>> {
        let signal_changes = match config {
            StrategyConfig::TeaCache { ret_steps, .. } => {
                self.signals()?.iter().map(|pair| pair[usize::from(*ret_steps)]).collect()
            }
            _ => Vec::new(),
        };
        let steps = config.steps(self.steps());
        let inputs = StrategyInputs { steps, blocks: self.facts.blocks, signal_changes };
        Ok(config.build(&inputs)?.preview())
    }

    /// TeaCache's signals, from a full run on the tuning prompt.
    fn signals(&self) -> anyhow::Result<&Vec<[f64; 2]>> {
        if let Some(known) = self.signals.get() {
            return Ok(known);
        }
        let observe = Observe { changes: true, ..Observe::default() };
        let full = run_job(self.engine, &GenerateRequest { observe, ..self.request.clone() }, |_| {})?;
        Ok(self.signals.get_or_init(|| full.capture.run.signal_changes))
    }

    /// The FLOP speed-up: by arithmetic where possible, else measured on the tuning prompt.
    fn speedup(&self, config: &StrategyConfig) -> anyhow::Result<f64> {
        let plans = match self.preview(config)? {
            Some(plans) => plans,
            None => {
                let request = GenerateRequest { strategy: config.clone(), ..self.request.clone() };
                run_job(self.engine, &request, |_| {})?.capture.plans()
            }
        };
        Ok(self.facts.cost.speedup_to(self.steps(), &plans, self.request.clip.guided()))
    }
}

/// A configuration, the speed-up that it reaches, and the planner's expectation in decibels.
struct Tuned {
    config: StrategyConfig,
    reached: f64,
    expected: Option<f64>,
}

/// How far a speed-up is from the one that is wanted.
fn miss(reached: f64, wanted: f64) -> f64 {
    (reached / wanted).ln().abs()
}

/// `count` computed steps: a tenth of the steps at the start, the last one, and the others evenly between them.
fn even(steps: usize, count: usize) -> StepSchedule {
    let first = (steps / 10).min(count.saturating_sub(1)).max(1);
    let rest = count.saturating_sub(first);
    let span = (steps - first) as f64;
    let list = (1..=rest).map(|i| first - 1 + (span * i as f64 / rest as f64).round() as usize).collect();
    StepSchedule { warm_up: first - 1, last: 0, intervals: Intervals::Explicit(list) }
}

/// The same rule with another threshold; limits that would bind first are loosened, but not those that the user gave.
fn with_threshold(
    base: &StrategyConfig,
    keys: &[&str],
    threshold: f64,
    (speedup, steps): (f64, usize),
) -> StrategyConfig {
    let given = |key: &str| keys.contains(&key);
    let of_steps = |share: f64| (share * steps as f64 / speedup) as usize;
    let count = |key, set: usize, most: f64| if given(key) { set } else { set.min(of_steps(most)) };
    let share = |set: f64, most: f64| if given("retention") { set } else { set.min(most / speedup) };
    let mut config = base.clone();
    match &mut config {
        StrategyConfig::TeaCache { threshold: own, .. } => *own = threshold,
        StrategyConfig::MagCache(settings) => {
            settings.threshold = threshold;
            settings.retention = share(settings.retention, 0.5);
            if !given("skips") {
                settings.max_skips = (2.0 * speedup).ceil() as usize;
            }
        }
        StrategyConfig::EasyCache(settings) => {
            settings.threshold = threshold;
            settings.first = count("first", settings.first, 0.5);
        }
        StrategyConfig::DbCache(settings) => {
            settings.threshold = threshold;
            settings.warm_up = count("warm-up", settings.warm_up, 0.4);
        }
        StrategyConfig::DiCache(settings) => {
            settings.threshold = threshold;
            settings.retention = share(settings.retention, 0.4);
        }
        _ => {}
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::indices;

    #[test]
    fn even_schedules_have_the_count_and_end_with_the_last_step() {
        for (steps, count) in [(50, 25), (50, 17), (50, 10), (30, 15), (10, 1), (12, 12)] {
            let computed = indices(&even(steps, count).computed(steps));
            assert_eq!(computed.len(), count, "{steps} {count}");
            assert!(count == 1 || *computed.last().unwrap() == steps - 1);
        }
    }

    /// Limits that were asked for stay; the methods' own give way.
    #[test]
    fn tuning_keeps_the_settings_that_were_given() {
        let sigmas: Vec<f64> = (0..=50).rev().map(|step| f64::from(step) / 50.0).collect();
        let limits = |text: &str| {
            let base = strategy::parse(text, &sigmas, None).unwrap();
            match with_threshold(&base, &strategy::name_and_keys(text).1, 0.3, (4.0, 50)) {
                StrategyConfig::MagCache(settings) => (settings.threshold, settings.max_skips),
                StrategyConfig::DbCache(settings) => (settings.threshold, settings.warm_up),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(limits("magcache:skips=1"), (0.3, 1));
        assert_eq!(limits("magcache"), (0.3, 8));
        assert_eq!(limits("dbcache:warm-up=8"), (0.3, 8));
        assert_eq!(limits("dbcache"), (0.3, 5));
    }
}
