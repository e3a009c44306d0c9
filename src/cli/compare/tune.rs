//! Strategies tuned to a speed-up by FLOPs. Where the plan is known before the run, arithmetic
//! finds the settings; where a rule decides on the way, trial runs on a prompt of their own do.

use std::cell::OnceCell;

use anyhow::Context;
use indicatif::ProgressBar;

use crate::caching::{
    Evidence, Signal, SpeedupTarget, StepPlan, StrategyConfig, StrategyInputs, Tuning, Value, catalogue, name_and_keys,
    parse,
};
use crate::engine::{Engine, Facts, GenerateRequest, Observe};

use super::super::WrongUse;
use super::super::generate::bar_style;
use super::super::job::run_job;
use super::super::strategy::check_runs;
use super::{Entry, MOST_PSNR};

/// Halvings of a threshold's range.
const TRIALS: usize = 8;
/// The same where the plan is known beforehand, so that a trial costs nothing.
const FREE_TRIALS: usize = 40;
/// The range of thresholds that is searched.
const THRESHOLDS: (f64, f64) = (1e-4, 1e2);
/// A tuned strategy may miss its speed-up by this share.
const TOLERANCE: f64 = 0.08;

/// Whether a strategy is tuned by runs on a prompt.
pub fn by_trial(text: &str) -> bool {
    let known = catalogue::find(name_and_keys(text).0).map(|entry| entry.defaults(1));
    known.is_some_and(|config| config.tuning() == Tuning::Threshold && !config.is_planned_ahead())
}

/// Fails for strategies and speed-ups that cannot be, before anything runs. Gives the bytes of
/// deltas that one of the strategies keeps at most.
///
/// # Errors
/// Names, settings and files that are wrong; a profile that is missing; settings that would be lost.
pub fn check(
    names: &[&str],
    speedups: &[f64],
    request: &GenerateRequest,
    facts: &Facts,
    evidence: &Evidence,
) -> anyhow::Result<u64> {
    let (steps, guided) = (request.clip.num_inference_steps, request.clip.guided());
    let mut kept = 0;
    if let Some(wrong) = speedups.iter().find(|speedup| !(1.0..=steps as f64).contains(*speedup)) {
        return Err(WrongUse(format!("--speedups {wrong}: choose 1 to {steps} for {steps} steps")).into());
    }
    for text in names {
        let config = parse(text, evidence)?;
        check_runs(&config, evidence)?;
        if !speedups.is_empty() {
            check_tunable(text, &config, evidence)?;
        }
        kept = kept.max(facts.strategy_memory(&config, steps, guided));
    }
    Ok(kept)
}

/// Fails where tuning would find nothing to turn, or would lose a setting that the user gave.
fn check_tunable(text: &str, config: &StrategyConfig, evidence: &Evidence) -> Result<(), WrongUse> {
    let wrong = |why: String| Err(WrongUse(format!("{text} cannot be tuned to --speedups: {why}")));
    if text.ends_with(".json") {
        return wrong("a file says all of its settings; compare it without them".into());
    }
    let keys = name_and_keys(text).1;
    let chosen = match config.tuning() {
        Tuning::Fixed(why) => return wrong(format!("{why}; compare it without them")),
        Tuning::Threshold => vec![threshold_key(config, evidence)],
        Tuning::Candidates { chosen } => chosen.to_vec(),
    };
    match keys.iter().find(|key| chosen.contains(key)) {
        Some(key) => wrong(format!("tuning chooses {key}; leave out one of the two")),
        None => Ok(()),
    }
}

/// The setting that a rule decides by.
fn threshold_key(config: &StrategyConfig, evidence: &Evidence) -> &'static str {
    let settings = config.settings(evidence.shape());
    settings.into_iter().find(|setting| setting.threshold).map_or("", |setting| setting.key)
}

/// Finds settings that meet a speed-up.
pub struct Tuner<'a> {
    engine: &'a Engine,
    request: GenerateRequest,
    facts: &'a Facts,
    evidence: &'a Evidence,
    /// Changes of both signals of the time embedding. The first question for them takes a run.
    signals: OnceCell<Vec<[f64; 2]>>,
}

impl<'a> Tuner<'a> {
    /// A tuner on the prompt of a request.
    pub fn new(engine: &'a Engine, request: GenerateRequest, facts: &'a Facts, evidence: &'a Evidence) -> Self {
        Self { engine, request, facts, evidence, signals: OnceCell::new() }
    }

    /// Every strategy at every speed-up that it reaches. A speed-up that is not reached is told and left out.
    pub fn entries(&self, names: &[&str], speedups: &[f64]) -> anyhow::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let bar = ProgressBar::new((names.len() * speedups.len()) as u64);
        bar.set_style(bar_style()?);
        for name in names {
            if speedups.is_empty() {
                entries.push(entry(name, None, parse(name, self.evidence)?));
            }
            for &speedup in speedups {
                bar.set_message(format!("tuning {name}"));
                let Tuned { config, reached } = self.tuned(name, speedup)?;
                if (reached / speedup - 1.0).abs() <= TOLERANCE {
                    entries.push(entry(name, Some(speedup), config));
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
        let base = parse(text, self.evidence)?;
        let given = name_and_keys(text).1;
        let target = SpeedupTarget { speedup, steps: self.steps(), given: &given };
        match base.tuning() {
            Tuning::Fixed(why) => Err(WrongUse(format!("{text} cannot be tuned: {why}")).into()),
            Tuning::Candidates { .. } => self.nearest(base.candidates(&target), speedup),
            Tuning::Threshold => self.by_threshold(&base.loosened(&target), speedup),
        }
    }

    /// The configuration whose plan comes nearest to a speed-up.
    fn nearest(&self, candidates: Vec<StrategyConfig>, speedup: f64) -> anyhow::Result<Tuned> {
        let mut best: Option<Tuned> = None;
        for mut config in candidates {
            config.calibrate(self.evidence)?;
            let reached = self.speedup(&config)?;
            if best.as_ref().is_none_or(|best| miss(reached, speedup) < miss(best.reached, speedup)) {
                best = Some(Tuned { config, reached });
            }
        }
        best.context("a strategy without candidates")
    }

    /// Bisects a rule's threshold: a higher one reuses more.
    fn by_threshold(&self, base: &StrategyConfig, speedup: f64) -> anyhow::Result<Tuned> {
        let (mut low, mut high) = THRESHOLDS;
        let key = threshold_key(base, self.evidence);
        let mut best: Option<Tuned> = None;
        for _ in 0..if base.is_planned_ahead() { FREE_TRIALS } else { TRIALS } {
            let middle = (low * high).sqrt();
            let mut config = base.clone();
            config.set(self.evidence.shape(), key, Value::Real(middle))?;
            let reached = self.speedup(&config)?;
            if best.as_ref().is_none_or(|best| miss(reached, speedup) < miss(best.reached, speedup)) {
                best = Some(Tuned { config, reached });
            }
            if miss(reached, speedup) < 0.01 {
                break;
            }
            if reached < speedup { low = middle } else { high = middle }
        }
        best.context("a threshold was not tried")
    }

    /// The plans of a strategy that knows them beforehand.
    fn preview(&self, config: &StrategyConfig) -> anyhow::Result<Option<Vec<StepPlan>>> {
        let signal_changes = match config.signal() {
            Some(signal) => {
                self.signals()?.iter().map(|pair| pair[usize::from(signal == Signal::Projection)]).collect()
            }
            None => Vec::new(),
        };
        let steps = config.steps(self.steps());
        let inputs = StrategyInputs { steps, blocks: self.facts.blocks, signal_changes };
        Ok(config.build(&inputs)?.preview())
    }

    /// The signals, from a full run on the tuning prompt.
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

fn entry(name: &str, target: Option<f64>, config: StrategyConfig) -> Entry {
    let expected = config.expected_psnr().filter(|_| !config.is_off()).map(|psnr| psnr.min(MOST_PSNR));
    Entry { name: name.into(), target, expected, config }
}

/// A strategy, and the speed-up that it reaches.
struct Tuned {
    config: StrategyConfig,
    reached: f64,
}

/// How far a speed-up is from the one that is wanted.
fn miss(reached: f64, wanted: f64) -> f64 {
    (reached / wanted).ln().abs()
}
