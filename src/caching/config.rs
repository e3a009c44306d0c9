//! Strategies by name and setting, as requests, captures and files of their own hold them.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::easy_cache::EasyCacheRun;
use super::probing::Probing;
use super::step_skip::stack_plans;
use super::strategy::Fixed;
use super::{
    CacheError, Carry, DbCache, DeltaDit, DiCache, EasyCache, Intervals, MagCache, ProfilingSettings, StepPlan,
    StepSchedule, Strategy, tea_cache,
};

/// A strategy with its settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum StrategyConfig {
    /// Everything is computed.
    #[default]
    Off,
    /// ProfilingDiT.
    Profiling(ProfilingSettings),
    /// Every k-th step is computed, the stack's residual is reused in between.
    Uniform(StepSchedule),
    /// TeaCache.
    TeaCache {
        /// The change at which a step is computed again.
        threshold: f64,
        /// The variant with the time projection as its signal and five computed steps first.
        ret_steps: bool,
        /// Calibrated polynomial, highest power first; the published one for Wan2.1 if `None`.
        coefficients: Option<[f64; 5]>,
    },
    /// MagCache.
    MagCache(MagCache),
    /// EasyCache.
    EasyCache(EasyCache),
    /// DBCache's rule.
    DbCache(DbCache),
    /// DiCache's rule.
    DiCache(DiCache),
    /// Delta-DiT's rule.
    DeltaDit(DeltaDit),
    /// No reuse, but fewer steps: the control that papers leave out.
    FewerSteps {
        /// Denoising steps in place of the request's.
        steps: usize,
    },
    /// A plan made by hand or by the planner.
    Plan {
        /// What it is called.
        title: String,
        /// One plan a step.
        plans: Vec<StepPlan>,
    },
}

/// Bytes of a strategy's file at most: a plan of 1000 steps for 100 blocks is far below.
const MOST_BYTES: u64 = 32 << 20;

/// What strategies may need to know of the job.
#[derive(Clone, Debug, Default)]
pub struct StrategyInputs {
    /// Denoising steps.
    pub steps: usize,
    /// Blocks of the transformer.
    pub blocks: usize,
    /// Relative change of TeaCache's signal from each step to the next; filled for TeaCache alone.
    pub signal_changes: Vec<f64>,
}

impl StrategyConfig {
    /// Every strategy but plans, with good settings for a number of steps. What a profile knows is missing, the list of blocks among it.
    pub fn defaults(steps: usize) -> Vec<Self> {
        let scaled = |of_fifty: usize| (of_fifty * steps / 50).max(1);
        let every_second = StepSchedule { warm_up: scaled(6), last: 1, intervals: Intervals::Uniform(2) };
        let profiling = ProfilingSettings {
            blocks: vec![Vec::new()],
            schedule: StepSchedule::for_steps(steps),
            ..ProfilingSettings::default()
        };
        vec![
            Self::Off,
            Self::Profiling(profiling),
            Self::Uniform(every_second),
            Self::TeaCache { threshold: 0.05, ret_steps: false, coefficients: None },
            Self::MagCache(MagCache::default()),
            Self::EasyCache(EasyCache { first: scaled(10), ..EasyCache::default() }),
            Self::DbCache(DbCache { warm_up: scaled(8), ..DbCache::default() }),
            Self::DiCache(DiCache::default()),
            Self::DeltaDit(DeltaDit::default()),
            Self::FewerSteps { steps: (steps / 2).max(1) },
        ]
    }

    /// Reads a strategy from a JSON file. Whether it can work is found out by [`StrategyConfig::build`].
    ///
    /// # Errors
    /// [`CacheError::Io`]; [`CacheError::File`] for anything else than a strategy, in one line.
    pub fn read(path: &Path) -> Result<Self, CacheError> {
        let name = || path.display().to_string();
        let io = |source| CacheError::Io { path: name(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(CacheError::File { path: name(), reason: format!("more than {} MiB", MOST_BYTES >> 20) });
        }
        serde_json::from_slice(&bytes).map_err(|error| CacheError::File {
            path: name(),
            reason: error.to_string().chars().filter(|c| !c.is_control()).take(300).collect(),
        })
    }

    /// The strategy as JSON, as [`StrategyConfig::read`] takes it.
    pub fn to_json(&self) -> String {
        // Numbers, texts and lists: nothing that JSON cannot hold.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The name in commands, files and figures.
    pub fn name(&self) -> &str {
        match self {
            Self::Off => "off",
            Self::Profiling(_) => "profiling",
            Self::Uniform(_) => "uniform",
            Self::TeaCache { .. } => "teacache",
            Self::MagCache(_) => "magcache",
            Self::EasyCache(_) => "easycache",
            Self::DbCache(_) => "dbcache",
            Self::DiCache(_) => "dicache",
            Self::DeltaDit(_) => "deltadit",
            Self::FewerSteps { .. } => "fewer-steps",
            Self::Plan { title, .. } => title,
        }
    }

    /// Whether it takes anything over from one step to another.
    pub fn caches(&self) -> bool {
        !matches!(self, Self::Off | Self::FewerSteps { .. })
    }

    /// Denoising steps of a job that asked for `requested`.
    pub fn steps(&self, requested: usize) -> usize {
        match self {
            // Never more of them, whatever was asked for when they were chosen.
            Self::FewerSteps { steps } => (*steps).min(requested),
            _ => requested,
        }
    }

    /// The strategy for one job.
    ///
    /// # Errors
    /// Settings that cannot work for the model, or a calibration that is missing.
    pub fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        let StrategyInputs { steps, blocks, .. } = *inputs;
        let plans = match self {
            Self::EasyCache(settings) => return Ok(Box::new(EasyCacheRun::new(settings.clone(), blocks))),
            Self::DbCache(settings) => return Ok(Box::new(Probing::db_cache(settings.clone(), blocks)?)),
            Self::DiCache(settings) => return Ok(Box::new(Probing::di_cache(settings.clone(), blocks)?)),
            Self::FewerSteps { steps: 0 } => return Err(CacheError::Settings("a run takes one step at least".into())),
            Self::Off | Self::FewerSteps { .. } => vec![StepPlan::compute(blocks); steps],
            Self::Profiling(settings) => {
                if settings.blocks.iter().flatten().any(|block| *block >= blocks) {
                    let message = format!("the list of cached blocks names one that a model of {blocks} does not have");
                    return Err(CacheError::Settings(message));
                }
                match &settings.carry {
                    Carry::Scale(ratios) if ratios.is_empty() => {
                        return Err(CacheError::Uncalibrated("scaling of deltas"));
                    }
                    Carry::Scale(ratios) if ratios.len() != steps => {
                        let there = ratios.len();
                        let message = format!(
                            "the ratios that deltas are scaled by are of {there} steps, the job has {steps}: ask for {there} steps"
                        );
                        return Err(CacheError::Settings(message));
                    }
                    _ => {}
                }
                settings.plans(steps, blocks)
            }
            Self::Uniform(schedule) => stack_plans(&schedule.computed(steps), blocks),
            Self::DeltaDit(settings) => settings.plans(steps, blocks),
            Self::TeaCache { threshold, ret_steps, coefficients } => {
                let known = coefficients.or_else(|| tea_cache::wan_coefficients(blocks, *ret_steps));
                let coefficients = known.ok_or(CacheError::Uncalibrated("TeaCache"))?;
                let rule = super::TeaCache { threshold: *threshold, coefficients, ret_steps: *ret_steps };
                stack_plans(&rule.computed(&inputs.signal_changes), blocks)
            }
            Self::MagCache(settings) if settings.ratios.is_empty() => return Err(CacheError::Uncalibrated("MagCache")),
            Self::MagCache(settings) => stack_plans(&settings.computed(steps), blocks),
            Self::Plan { plans, .. } => self.checked(plans, inputs)?,
        };
        Ok(Box::new(Fixed(plans)))
    }

    /// What a user should know before it caches over so many steps, in plain words.
    pub fn few_steps(&self, steps: usize) -> Option<String> {
        const FEW: usize = 12;
        (self.caches() && steps < FEW)
            .then(|| format!("{steps} steps are few for caching: each differs much from the last; try 20 or more"))
    }

    /// What a user should know about how it decides, from its plans of all steps.
    pub fn warning(&self, plans: &[StepPlan], blocks: usize) -> Option<String> {
        if !self.caches() || plans.is_empty() {
            return None;
        }
        let (name, (more, less)) = (self.name(), advice(self));
        if plans.iter().all(|plan| plan.cond.is_full(blocks)) {
            return Some(format!("{name} never reused anything: {more}"));
        }
        if let Some((first, last)) = reused_throughout(plans, blocks) {
            return Some(format!("{name} reused on every step from {first} to {last}: {less}"));
        }
        let limit = only_limit(self, plans, blocks)?;
        Some(format!("{name} always reused as many steps in a row as it may ({limit}): {less}, or allow more"))
    }

    /// A plan from a file: it must be for as many steps and blocks, and reuse only what it stored before.
    fn checked(&self, plans: &[StepPlan], inputs: &StrategyInputs) -> Result<Vec<StepPlan>, CacheError> {
        if plans.len() != inputs.steps {
            let (planned, asked) = (plans.len(), inputs.steps);
            let message = format!(
                "the plan is for {planned} steps, the job has {asked}: ask for {planned} steps, or plan for {asked}"
            );
            return Err(CacheError::Settings(message));
        }
        if !plans.iter().all(|plan| plan.cond.fits(inputs.blocks) && plan.uncond.fits(inputs.blocks)) {
            let message = format!("the plan is not for a model of {} blocks", inputs.blocks);
            return Err(CacheError::Settings(message));
        }
        super::plan::check_reuse(plans)?;
        Ok(plans.to_vec())
    }
}

/// The first and the last step with reuse, where every one between them has reuse too and they are half of all or more: whatever decides
/// did not decide anything.
fn reused_throughout(plans: &[StepPlan], blocks: usize) -> Option<(usize, usize)> {
    let reused = |plan: &StepPlan| !plan.cond.is_full(blocks);
    let (first, last) = (plans.iter().position(reused)?, plans.iter().rposition(reused)?);
    let span = &plans[first..=last];
    (span.iter().all(reused) && 2 * span.len() >= plans.len()).then_some((first, last))
}

/// The limit of skips in a row, where it alone decides from the first reuse on.
fn only_limit(config: &StrategyConfig, plans: &[StepPlan], blocks: usize) -> Option<usize> {
    let limit = match config {
        StrategyConfig::MagCache(settings) => settings.max_skips,
        StrategyConfig::DbCache(settings) => settings.max_skips,
        _ => return None,
    };
    let reused = |plan: &StepPlan| !plan.cond.is_full(blocks);
    let from_first = &plans[plans.iter().position(reused)?..];
    let period = limit.saturating_add(1);
    let periodic = from_first.iter().enumerate().all(|(i, plan)| reused(plan) == (i % period < limit));
    (periodic && from_first.len() / 2 > limit).then_some(limit)
}

/// How a strategy is made to reuse more, and less: by the settings that its kind has.
fn advice(config: &StrategyConfig) -> (&'static str, &'static str) {
    match config {
        StrategyConfig::Profiling(settings) if settings.blocks.iter().all(Vec::is_empty) => {
            ("its list of blocks is empty: name some", "compute every few steps")
        }
        StrategyConfig::Profiling(_) | StrategyConfig::Uniform(_) | StrategyConfig::DeltaDit(_) => (
            "compute fewer steps, by longer intervals or a shorter warm-up",
            "compute more steps, by shorter intervals",
        ),
        StrategyConfig::Plan { .. } => {
            ("plan for a higher speed-up or for fewer dB", "plan for a lower speed-up or for more dB")
        }
        _ => ("raise its threshold or compute fewer steps at the start", "lower its threshold"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::Intervals;

    fn fixed(every: usize) -> StrategyConfig {
        StrategyConfig::Uniform(StepSchedule { warm_up: 0, last: 0, intervals: Intervals::Uniform(every) })
    }

    /// Advice names settings that the strategy has.
    #[test]
    fn advice_fits_the_kind_of_strategy() {
        let plan = StrategyConfig::Plan { title: "planner".into(), plans: Vec::new() };
        let profiling = StrategyConfig::Profiling(ProfilingSettings::default());
        let threshold = StrategyConfig::EasyCache(EasyCache::default());
        let cases = [
            (&fixed(1), "longer intervals", "shorter intervals"),
            (&threshold, "raise its threshold", "lower its threshold"),
            (&plan, "higher speed-up", "lower speed-up"),
            (&profiling, "list of blocks", "compute every few"),
        ];
        let computed = stack_plans(&[true; 20], 4);
        let reused = stack_plans(&std::array::from_fn::<_, 20, _>(|step| step == 0), 4);
        for (config, more, less) in cases {
            for (plans, word) in [(&computed, more), (&reused, less)] {
                let found = config.warning(plans, 4).unwrap();
                assert!(found.contains(word), "{word}: {found}");
            }
        }
    }

    /// Rules compute some steps at both ends whatever their threshold is.
    #[test]
    fn a_threshold_that_never_binds_is_told() {
        let easy = StrategyConfig::EasyCache(EasyCache { threshold: 1e9, ..EasyCache::default() });
        let told = |computed: &[bool]| easy.warning(&stack_plans(computed, 4), 4);
        let all_but = |wanted: &dyn Fn(usize) -> bool| std::array::from_fn::<_, 50, _>(wanted);
        let found = told(&all_but(&|step| step < 10 || step == 49));
        assert!(found.is_some_and(|found| found.contains("from 10 to 48") && found.contains("lower")));
        assert_eq!(told(&all_but(&|step| step < 10 || step == 49 || step == 30)), None, "it decided once");
        assert_eq!(told(&all_but(&|step| !(20..40).contains(&step))), None, "less than half");
    }

    /// Where a rule reuses as often as it may, its threshold decides nothing; once it does, nothing is told.
    #[test]
    fn a_limit_that_decides_alone_is_told() {
        let mag = |threshold: f64| {
            let rule = MagCache { threshold, max_skips: 3, retention: 0.2, ratios: vec![0.99; 50] };
            let plans = stack_plans(&rule.computed(50), 4);
            StrategyConfig::MagCache(rule).warning(&plans, 4)
        };
        assert!(mag(9.0).is_some_and(|text| text.contains("(3)") && text.contains("lower its threshold")));
        assert_eq!(mag(0.05), None);
        let every_third = stack_plans(&std::array::from_fn::<_, 50, _>(|step| step % 3 == 0), 4);
        let db =
            |max_skips| StrategyConfig::DbCache(DbCache { max_skips, ..DbCache::default() }).warning(&every_third, 4);
        assert!(db(2).is_some_and(|text| text.contains("(2)")));
        assert_eq!([0, 1, 3, usize::MAX].map(db), [None, None, None, None]);
    }

    #[test]
    fn few_steps_are_told_of_what_caches() {
        assert!(fixed(2).few_steps(11).is_some_and(|text| text.contains("11 steps")));
        assert_eq!((fixed(2).few_steps(12), StrategyConfig::Off.few_steps(1)), (None, None));
    }

    #[test]
    fn a_plan_for_other_steps_says_what_to_ask_for() {
        let plan = StrategyConfig::Plan { title: "planner".into(), plans: stack_plans(&[true; 5], 2) };
        let inputs = StrategyInputs { steps: 9, blocks: 2, ..Default::default() };
        let message = plan.build(&inputs).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("ask for 5 steps") && message.contains("plan for 9"), "{message}");
    }
}
