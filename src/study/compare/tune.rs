//! Tunes strategies to a speed-up by FLOPs. If the plan is known before the run, arithmetic finds
//! the settings. If a rule decides during the run, trial runs on a separate prompt find them.

use std::cell::OnceCell;

use crate::caching::{
    Evidence, Signal, SpeedupTarget, StepPlan, StrategyConfig, StrategyInputs, Tuning, Value, catalogue, name_and_keys,
    parse,
};
use crate::engine::{GenerateRequest, Observe, RequestInfo};

use super::{Entry, MOST_PSNR};
use crate::study::session::Finished;
use crate::study::{Session, Size, StudyError};

/// Number of times that a threshold's range is halved by trial runs.
const TRIALS: usize = 8;
/// Number of times that the range is halved if the plan is known beforehand and a trial needs no
/// run.
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

/// Checks that a strategy can run, before anything is loaded.
///
/// # Errors
/// The error of building the strategy, with its name.
pub fn check_runs(config: &StrategyConfig, evidence: &Evidence) -> Result<(), StudyError> {
    let steps = config.steps(evidence.steps());
    let signal_changes = if config.signal().is_some() { vec![0.0; steps] } else { Vec::new() };
    let inputs = StrategyInputs { steps, blocks: evidence.blocks(), signal_changes };
    let built = config.build(&inputs).map(drop);
    built.map_err(|error| StudyError::from(error).within(format!("{} cannot run", config.name())))
}

/// Checks strategies and speed-ups before anything runs. Returns the largest number of bytes of
/// deltas that a strategy keeps.
///
/// # Errors
/// [`StudyError`] for wrong names, settings, files and speed-ups, for a missing profile, and for
/// settings that tuning would replace.
pub fn check(
    names: &[&str],
    speedups: &[f64],
    request: &GenerateRequest,
    facts: &RequestInfo,
    evidence: &Evidence,
) -> Result<u64, StudyError> {
    let (steps, guided) = (request.clip.num_inference_steps, request.clip.guided());
    if let Some(wrong) = speedups.iter().find(|speedup| !(1.0..=steps as f64).contains(*speedup)) {
        return Err(StudyError::Request(format!("a speed-up of {wrong}: choose 1 to {steps} for {steps} steps")));
    }
    let mut kept = 0;
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

/// Checks that a strategy has a setting to tune, and that tuning does not replace a setting of the
/// user.
fn check_tunable(text: &str, config: &StrategyConfig, evidence: &Evidence) -> Result<(), StudyError> {
    let wrong = |why: String| Err(StudyError::Request(format!("{text} cannot be tuned to speed-ups: {why}")));
    if text.ends_with(".json") {
        return wrong("a file says all of its settings; compare it without speed-ups".into());
    }
    let chosen = match config.tuning() {
        Tuning::Fixed(why) => return wrong(format!("{why}; compare it without speed-ups")),
        Tuning::Threshold => vec![threshold_key(config, evidence)],
        Tuning::Candidates { chosen } => chosen.to_vec(),
    };
    match name_and_keys(text).1.iter().find(|key| chosen.contains(key)) {
        Some(key) => wrong(format!("tuning chooses {key}; leave out one of the two")),
        None => Ok(()),
    }
}

/// The key of the setting that is the rule's threshold.
fn threshold_key(config: &StrategyConfig, evidence: &Evidence) -> &'static str {
    let settings = config.settings(evidence.shape());
    settings.into_iter().find(|setting| setting.threshold).map_or("", |setting| setting.key)
}

/// Finds settings that reach a speed-up.
pub struct Tuner<'a, 's> {
    session: &'a Session<'s>,
    request: GenerateRequest,
    facts: &'a RequestInfo,
    evidence: &'a Evidence,
    /// Changes of both signals of the time embedding. The first access needs a run.
    signals: OnceCell<Vec<[f64; 2]>>,
}

impl<'a, 's> Tuner<'a, 's> {
    /// A tuner on the prompt and seed of a request.
    pub fn new(
        session: &'a Session<'s>,
        request: GenerateRequest,
        facts: &'a RequestInfo,
        evidence: &'a Evidence,
    ) -> Self {
        Self { session, request, facts, evidence, signals: OnceCell::new() }
    }

    /// Every strategy at every speed-up that it reaches. A speed-up that is not reached gives a
    /// warning and is left out. Without speed-ups, the strategies keep their settings.
    ///
    /// # Errors
    /// The errors of `check`; [`StudyError::Cancelled`]; the error of a failed job.
    pub fn entries(&self, names: &[&str], speedups: &[f64]) -> Result<Vec<Entry>, StudyError> {
        let mut entries = Vec::new();
        let wanted = names.iter().flat_map(|name| speedups.iter().map(move |speedup| (*name, *speedup)));
        let sizes: Vec<Size> = wanted.clone().map(|(name, speedup)| self.size(name, speedup)).collect();
        if speedups.is_empty() {
            return names.iter().map(|name| Ok(entry(name, None, parse(name, self.evidence)?))).collect();
        }
        for (index, (name, speedup)) in wanted.enumerate() {
            self.session.phase(&format!("tuning {name}"));
            self.session.set_left(sizes[index..].iter().copied().sum());
            let Tuned { config, reached } = self.tuned(name, speedup)?;
            if (reached / speedup - 1.0).abs() <= TOLERANCE {
                entries.push(entry(name, Some(speedup), config));
            } else {
                self.session
                    .warn(format!("{name} is left out at {speedup}x: the nearest that it reaches is {reached:.2}x"));
            }
        }
        self.session.set_left(Size::default());
        Ok(entries)
    }

    /// The largest size of tuning a strategy.
    fn size(&self, text: &str, speedup: f64) -> Size {
        if by_trial(text) { Size::run(self.steps(), speedup).times(TRIALS) } else { Size::default() }
    }

    fn steps(&self) -> usize {
        self.request.clip.num_inference_steps
    }

    fn run(&self, request: GenerateRequest, speedup: f64) -> Result<Finished, StudyError> {
        self.session.run(request, Size::run(self.steps(), speedup), |_| {})
    }

    fn tuned(&self, text: &str, speedup: f64) -> Result<Tuned, StudyError> {
        let base = parse(text, self.evidence)?;
        let given = name_and_keys(text).1;
        let target = SpeedupTarget { speedup, steps: self.steps(), given: &given };
        match base.tuning() {
            Tuning::Fixed(why) => Err(StudyError::Request(format!("{text} cannot be tuned: {why}"))),
            Tuning::Candidates { .. } => self.nearest(base.candidates(&target), speedup),
            Tuning::Threshold => self.by_threshold(&base.loosened(&target), speedup),
        }
    }

    /// The candidate whose speed-up is nearest to the wanted one.
    fn nearest(&self, candidates: Vec<StrategyConfig>, speedup: f64) -> Result<Tuned, StudyError> {
        let mut best: Option<Tuned> = None;
        for mut config in candidates {
            config.calibrate(self.evidence)?;
            self.keep_nearer(&mut best, config, speedup)?;
        }
        best.ok_or_else(|| StudyError::Failed("a strategy without candidates".into()))
    }

    /// Bisects a rule's threshold. A higher threshold reuses more.
    fn by_threshold(&self, base: &StrategyConfig, speedup: f64) -> Result<Tuned, StudyError> {
        let (mut low, mut high) = THRESHOLDS;
        let key = threshold_key(base, self.evidence);
        let mut best: Option<Tuned> = None;
        for _ in 0..if base.is_planned_ahead() { FREE_TRIALS } else { TRIALS } {
            let middle = (low * high).sqrt();
            let mut config = base.clone();
            config.set(self.evidence.shape(), key, Value::Real(middle))?;
            let reached = self.keep_nearer(&mut best, config, speedup)?;
            if miss(reached, speedup) < 0.01 {
                break;
            }
            if reached < speedup { low = middle } else { high = middle }
        }
        best.ok_or_else(|| StudyError::Failed("a threshold was not tried".into()))
    }

    /// Returns the speed-up that a strategy reaches, and keeps the strategy in `best` if it is
    /// nearer to the wanted speed-up.
    fn keep_nearer(&self, best: &mut Option<Tuned>, config: StrategyConfig, speedup: f64) -> Result<f64, StudyError> {
        let reached = self.speedup(&config, speedup)?;
        if best.as_ref().is_none_or(|best| miss(reached, speedup) < miss(best.reached, speedup)) {
            *best = Some(Tuned { config, reached });
        }
        Ok(reached)
    }

    /// The speed-up by FLOPs, computed if the plan is known and measured on the tuning prompt
    /// otherwise.
    fn speedup(&self, config: &StrategyConfig, wanted: f64) -> Result<f64, StudyError> {
        let plans = match self.preview(config)? {
            Some(plans) => plans,
            None => {
                let request = GenerateRequest { strategy: config.clone(), ..self.request.clone() };
                self.run(request, wanted)?.capture.plans()
            }
        };
        Ok(self.facts.cost.speedup_to(self.steps(), &plans, self.request.clip.guided()))
    }

    /// The plans of a strategy, or `None` if they are not known beforehand.
    fn preview(&self, config: &StrategyConfig) -> Result<Option<Vec<StepPlan>>, StudyError> {
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
    fn signals(&self) -> Result<&Vec<[f64; 2]>, StudyError> {
        if let Some(known) = self.signals.get() {
            return Ok(known);
        }
        let observe = Observe { changes: true, ..Observe::default() };
        let full = self.run(GenerateRequest { observe, ..self.request.clone() }, 1.0)?;
        Ok(self.signals.get_or_init(|| full.capture.run.signal_changes))
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

/// The distance of a speed-up from the wanted one.
fn miss(reached: f64, wanted: f64) -> f64 {
    (reached / wanted).ln().abs()
}
