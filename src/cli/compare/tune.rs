//! Strategies tuned to a speed-up, by FLOPs: by arithmetic where the plan is known beforehand, by trial on a prompt of its own where a
//! rule decides on the way.

use indicatif::ProgressBar;

use crate::caching::{
    DbCache, DiCache, EasyCache, ForwardCost, Intervals, MagCache, Rounding, StepPlan, StepSchedule, StrategyConfig,
    StrategyInputs,
};
use crate::engine::{Capture, Engine, GenerateRequest, Observe};
use crate::profiling::profile::Profile;

use super::super::WrongUse;
use super::super::generate::bar_style;
use super::super::job::run_job;
use super::super::strategy::{self, StrategyArgs};
use super::Entry;

/// Halvings of a threshold's range.
const TRIALS: usize = 8;
/// A tuned strategy may miss its speed-up by this share.
const TOLERANCE: f64 = 0.08;

/// The planner's speed-up where none is asked for: it has no settings to take as they are.
const PLANNED: f64 = 2.0;

pub struct Tuner<'a> {
    engine: &'a Engine,
    request: GenerateRequest,
    profile: Option<&'a Profile>,
    /// A full run on the tuning prompt.
    full: Capture,
}

impl<'a> Tuner<'a> {
    /// Runs the tuning prompt once in full.
    pub fn new(engine: &'a Engine, mut request: GenerateRequest, profile: Option<&'a Profile>) -> anyhow::Result<Self> {
        request.observe = Observe { changes: true, ..Observe::default() };
        let full = run_job(engine, &request, |_| {})?.capture;
        request.observe = Observe::default();
        Ok(Self { engine, request, profile, full })
    }

    /// Every name at every speed-up that it reaches; what it does not reach is said and left out.
    pub fn entries(&mut self, names: &[&str], speedups: &[f64]) -> anyhow::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let bar = ProgressBar::new((names.len() * speedups.len()) as u64);
        bar.set_style(bar_style()?);
        for name in names {
            if speedups.is_empty() {
                let config = match *name {
                    "planner" => self.tuned(name, PLANNED)?,
                    _ => strategy::parse(name, self.steps(), self.profile)?,
                };
                entries.push(Entry { name: (*name).into(), target: None, config });
            }
            for &speedup in speedups {
                bar.set_message(format!("tuning {name}"));
                let config = self.tuned(name, speedup)?;
                let reached = self.speedup(&config)?;
                if (reached / speedup - 1.0).abs() <= TOLERANCE {
                    entries.push(Entry { name: (*name).into(), target: Some(speedup), config });
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
        self.request.num_inference_steps
    }

    fn tuned(&self, name: &str, speedup: f64) -> anyhow::Result<StrategyConfig> {
        let steps = self.steps();
        let count = ((steps as f64 / speedup).round() as usize).clamp(1, steps);
        match name.split_once(':').map_or(name, |(name, _)| name) {
            "planner" => {
                let args = StrategyArgs { speedup: Some(speedup), ..Default::default() };
                Ok(args.resolve(&self.full.run.sigmas, self.full.run.blocks, self.profile)?.0)
            }
            "fewer-steps" => Ok(StrategyConfig::FewerSteps { steps: count }),
            "uniform" => Ok(StrategyConfig::Uniform(even(steps, count))),
            "profiling" => self.nearest(speedup, self.profiling(name)?),
            "deltadit" => self.nearest(speedup, self.delta_dit(name)?),
            "teacache" | "magcache" | "easycache" | "dbcache" | "dicache" => {
                let base = strategy::parse(name, steps, self.profile)?;
                self.by_threshold(&base, speedup)
            }
            other => Err(WrongUse(format!("{other} cannot be tuned to a speed-up")).into()),
        }
    }

    /// ProfilingDiT with the paper's intervals, stretched and shrunk.
    fn profiling(&self, name: &str) -> anyhow::Result<Vec<StrategyConfig>> {
        let StrategyConfig::Profiling(base) = strategy::parse(name, self.steps(), self.profile)? else {
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
                other => other,
            };
            StrategyConfig::Profiling(settings)
        };
        Ok((1..=60).map(|i| scaled(f64::from(i) / 15.0)).collect())
    }

    fn delta_dit(&self, name: &str) -> anyhow::Result<Vec<StrategyConfig>> {
        let StrategyConfig::DeltaDit(base) = strategy::parse(name, self.steps(), self.profile)? else {
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
    fn nearest(&self, speedup: f64, configs: Vec<StrategyConfig>) -> anyhow::Result<StrategyConfig> {
        let mut best = (f64::INFINITY, StrategyConfig::Off);
        for config in configs {
            let miss = (self.speedup(&config)? / speedup).ln().abs();
            if miss < best.0 {
                best = (miss, config);
            }
        }
        Ok(best.1)
    }

    /// Bisects a rule's threshold: higher reuses more.
    fn by_threshold(&self, base: &StrategyConfig, speedup: f64) -> anyhow::Result<StrategyConfig> {
        let (mut low, mut high) = (1e-4f64, 1e2f64);
        let mut best = (f64::INFINITY, base.clone());
        let known = self.preview(base)?.is_some();
        for _ in 0..if known { 40 } else { TRIALS } {
            let middle = (low * high).sqrt();
            let config = with_threshold(base, middle, speedup);
            let reached = self.speedup(&config)?;
            let miss = (reached / speedup).ln().abs();
            if miss < best.0 {
                best = (miss, config);
            }
            if miss < 0.01 {
                break;
            }
            if reached < speedup { low = middle } else { high = middle }
        }
        Ok(best.1)
    }

    /// The plans of a strategy that knows them beforehand.
    fn preview(&self, config: &StrategyConfig) -> anyhow::Result<Option<Vec<StepPlan>>> {
        let ret = matches!(config, StrategyConfig::TeaCache { ret_steps: true, .. });
        let inputs = StrategyInputs {
            steps: config.steps(self.steps()),
            blocks: self.full.run.blocks,
            signal_changes: self.full.run.signal_changes.iter().map(|pair| pair[usize::from(ret)]).collect(),
        };
        Ok(config.build(&inputs)?.preview())
    }

    /// The FLOP speed-up: by arithmetic where possible, else measured on the tuning prompt.
    fn speedup(&self, config: &StrategyConfig) -> anyhow::Result<f64> {
        let cost = self.full.run.cost.unwrap_or(ForwardCost { block: 1.0, outside: 0.0, blocks: self.full.run.blocks });
        let guided = self.full.run.guided();
        let plans = match self.preview(config)? {
            Some(plans) => plans,
            None => {
                let request = GenerateRequest { strategy: config.clone(), ..self.request.clone() };
                run_job(self.engine, &request, |_| {})?.capture.plans()
            }
        };
        Ok(cost.of_steps(&self.full.plans(), guided) / cost.of_steps(&plans, guided).max(1.0))
    }
}

/// `count` computed steps: a tenth of the steps at the start, the last one, and the others evenly between them.
fn even(steps: usize, count: usize) -> StepSchedule {
    let first = (steps / 10).min(count.saturating_sub(1)).max(1);
    let rest = count.saturating_sub(first);
    let span = (steps - first) as f64;
    let list = (1..=rest).map(|i| first - 1 + (span * i as f64 / rest as f64).round() as usize).collect();
    StepSchedule { warm_up: first - 1, last: 0, intervals: Intervals::Explicit(list) }
}

/// The same rule with another threshold; limits on consecutive skips are raised so that they do not bind first.
fn with_threshold(base: &StrategyConfig, threshold: f64, speedup: f64) -> StrategyConfig {
    let skips = (2.0 * speedup).ceil() as usize;
    match base.clone() {
        StrategyConfig::TeaCache { ret_steps, coefficients, .. } => {
            StrategyConfig::TeaCache { threshold, ret_steps, coefficients }
        }
        StrategyConfig::MagCache(settings) => {
            let retention = settings.retention.min(0.5 / speedup);
            StrategyConfig::MagCache(MagCache { threshold, max_skips: skips, retention, ..settings })
        }
        StrategyConfig::EasyCache(settings) => {
            let first = settings.first.min((25.0 / speedup) as usize);
            StrategyConfig::EasyCache(EasyCache { threshold, first, ..settings })
        }
        StrategyConfig::DbCache(settings) => {
            let warm_up = settings.warm_up.min((20.0 / speedup) as usize);
            StrategyConfig::DbCache(DbCache { threshold, warm_up, ..settings })
        }
        StrategyConfig::DiCache(settings) => {
            let retention = settings.retention.min(0.4 / speedup);
            StrategyConfig::DiCache(DiCache { threshold, retention, ..settings })
        }
        other => other,
    }
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
}
