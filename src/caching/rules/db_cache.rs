//! DBCache, of the library cache-dit (FBCache with one block in front): the first blocks run, and
//! the middle is reused while these changed little since the last computed step.

use serde::{Deserialize, Serialize};

use super::probing::{Decide, Probing};
use crate::caching::rule::{About, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::schedule::scaled;
use crate::caching::setting::Setting;
use crate::caching::{CacheError, Forecast, ProbeResult, StepContext, Strategy};

/// Settings of DBCache. Defaults are cache-dit's, the numbers of blocks scaled from its models of
/// 30 to 60 blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DbCache {
    /// Relative change of the first blocks' delta below which the middle blocks are reused.
    pub threshold: f64,
    /// Fn: blocks at the front that always run.
    pub front: usize,
    /// Bn: blocks at the back that always run.
    pub back: usize,
    /// Steps at the start that are computed.
    pub warm_up: usize,
    /// Reused steps in a row at most; no limit if 0.
    pub max_skips: usize,
}

impl Default for DbCache {
    fn default() -> Self {
        Self { threshold: 0.08, front: 2, back: 0, warm_up: 8, max_skips: 0 }
    }
}

#[derive(Debug)]
struct Running {
    settings: DbCache,
    skips: usize,
}

impl Decide for Running {
    const DEPTH: usize = 1;

    fn reuse(&mut self, now: &StepContext, probe: &ProbeResult) -> Option<Forecast> {
        let Self { settings, skips } = self;
        let capped = settings.max_skips > 0 && *skips >= settings.max_skips;
        let small = probe.since_computed.is_some_and(|change| change < settings.threshold);
        let reuse = now.step >= settings.warm_up && small && !capped;
        *skips = if reuse { *skips + 1 } else { 0 };
        reuse.then(Forecast::hold)
    }
}

impl DbCache {
    fn running(&self, blocks: usize) -> Result<Probing<Running>, CacheError> {
        Probing::new(Running { settings: self.clone(), skips: 0 }, blocks, self.front, self.back)
    }
}

impl Rule for DbCache {
    const ABOUT: About = About {
        key: "dbcache",
        label: "DBCache",
        summary: "The first blocks run; the middle is reused while they changed little.",
        source: "cache-dit",
        group: Group::Published,
        needs: Needs::Steps,
    };

    fn defaults(steps: usize) -> Self {
        Self { warm_up: scaled(8, steps), ..Self::default() }
    }

    fn settings(&self, Shape { steps, blocks }: Shape) -> Vec<Setting<Self>> {
        let most = blocks.max(2) - 1;
        let threshold = ("threshold", "threshold", "Change of the first blocks below which the middle is reused");
        let front = ("front", "front blocks", "Fn: blocks at the front that always run");
        let back = ("back", "back blocks", "Bn: blocks at the back that always run");
        let warm_up = ("warm-up", "warm-up", "Steps at the start that are computed");
        let skips = ("skips", "most in a row", "Reused steps in a row; 0 for no limit");
        vec![
            Setting::real(threshold, 0.0..=0.5, |rule: &mut Self| &mut rule.threshold).threshold(),
            Setting::count(front, 1..=most, |rule: &mut Self| &mut rule.front).unit("blocks"),
            Setting::count(back, 0..=most, |rule: &mut Self| &mut rule.back).unit("blocks"),
            Setting::count(warm_up, 0..=steps, |rule: &mut Self| &mut rule.warm_up).unit("steps"),
            Setting::count(skips, 0..=steps, |rule: &mut Self| &mut rule.max_skips).unit("steps"),
        ]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        Ok(Box::new(self.running(inputs.blocks)?))
    }

    fn is_planned_ahead(&self) -> bool {
        false
    }

    fn tuning(&self) -> Tuning {
        Tuning::Threshold
    }

    fn loosened(&self, target: &SpeedupTarget) -> Self {
        Self { warm_up: target.at_most("warm-up", self.warm_up, 0.4), ..self.clone() }
    }

    fn skip_limit(&self) -> Option<usize> {
        Some(self.max_skips)
    }
}

#[cfg(test)]
mod tests {
    use super::super::probing::computed;
    use super::*;

    #[test]
    fn the_last_computed_step_is_compared() {
        let settings = DbCache { threshold: 0.1, front: 2, back: 1, warm_up: 3, max_skips: 0 };
        let drift = |step: usize, last: usize| ProbeResult {
            since_computed: (step > 0).then_some(0.04 * (step - last) as f64),
            ..Default::default()
        };
        assert_eq!(computed(settings.running(8).unwrap(), 12, drift), [0, 1, 2, 5, 8, 11]);
        let capped = DbCache { max_skips: 1, ..settings }.running(8).unwrap();
        assert_eq!(computed(capped, 10, drift), [0, 1, 2, 4, 6, 8]);
    }

    #[test]
    fn a_probe_of_the_whole_model_is_refused() {
        assert!(DbCache { front: 4, back: 4, ..Default::default() }.running(8).is_err());
        assert!(DbCache { back: usize::MAX, ..Default::default() }.running(8).is_err());
    }
}
