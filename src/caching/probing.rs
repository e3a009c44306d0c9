//! Rules that run the first blocks and decide by what these did: DBCache (the library cache-dit; FBCache with one block) and DiCache (arXiv 2508.17356).

use serde::{Deserialize, Serialize};

use super::{
    Action, BranchPlan, CacheError, Decision, Forecast, ProbeResult, Segment, StepContext, StepPlan, Strategy,
};

/// Settings of DBCache's rule. Defaults are cache-dit's, the numbers of blocks scaled from its 30 to 60 block models.
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
    /// Reused steps in a row at most; none if 0.
    pub max_skips: usize,
}

impl Default for DbCache {
    fn default() -> Self {
        Self { threshold: 0.08, front: 2, back: 0, warm_up: 8, max_skips: 0 }
    }
}

/// Settings of DiCache's rule. Defaults are the method's for Wan2.1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiCache {
    /// Accumulated relative change of the probe at which a step is computed again.
    pub threshold: f64,
    /// Blocks of the probe.
    pub probe: usize,
    /// Share of the steps at the start that is computed.
    pub retention: f64,
}

impl Default for DiCache {
    fn default() -> Self {
        Self { threshold: 0.08, probe: 1, retention: 0.2 }
    }
}

#[derive(Debug)]
enum Rule {
    Db { settings: DbCache, skips: usize },
    Di { settings: DiCache, accumulated: f64 },
}

/// A probing rule at work.
#[derive(Debug)]
pub struct Probing {
    rule: Rule,
    blocks: usize,
    front: usize,
    back: usize,
}

impl Probing {
    /// DBCache for a model of `blocks` blocks.
    ///
    /// # Errors
    /// No block would be left between front and back.
    pub fn db_cache(settings: DbCache, blocks: usize) -> Result<Self, CacheError> {
        let (front, back) = (settings.front, settings.back);
        Self::checked(Rule::Db { settings, skips: 0 }, blocks, front, back)
    }

    /// DiCache for a model of `blocks` blocks.
    ///
    /// # Errors
    /// The probe is the whole model, or nothing.
    pub fn di_cache(settings: DiCache, blocks: usize) -> Result<Self, CacheError> {
        let front = settings.probe;
        Self::checked(Rule::Di { settings, accumulated: 0.0 }, blocks, front, 0)
    }

    fn checked(rule: Rule, blocks: usize, front: usize, back: usize) -> Result<Self, CacheError> {
        if front == 0 || front.saturating_add(back) >= blocks {
            let message = format!("{front} blocks in front and {back} at the back leave none of {blocks} to reuse");
            return Err(CacheError::Settings(message));
        }
        Ok(Self { rule, blocks, front, back })
    }

    fn middle(&self, action: Action) -> StepPlan {
        let mut segments = vec![
            Segment { blocks: 0..self.front, action: Action::Compute },
            Segment { blocks: self.front..self.blocks - self.back, action },
        ];
        if self.back > 0 {
            segments.push(Segment { blocks: self.blocks - self.back..self.blocks, action: Action::Compute });
        }
        StepPlan::both(BranchPlan::Blocks(segments))
    }
}

impl Rule {
    /// The forecast with which the middle is reused, or `None` to compute it.
    fn reuse(&mut self, now: &StepContext, probe: &ProbeResult) -> Option<Forecast> {
        match self {
            Self::Db { settings, skips } => {
                let capped = settings.max_skips > 0 && *skips >= settings.max_skips;
                let small = probe.since_computed.is_some_and(|change| change < settings.threshold);
                let reuse = now.step >= settings.warm_up && small && !capped;
                *skips = if reuse { *skips + 1 } else { 0 };
                reuse.then(Forecast::hold)
            }
            Self::Di { settings, accumulated } => {
                *accumulated += probe.since_last_step.unwrap_or(f64::INFINITY);
                let full = (now.steps as f64 * settings.retention) as usize;
                if now.step < full || now.step < 2 || *accumulated >= settings.threshold || accumulated.is_nan() {
                    *accumulated = 0.0;
                    return None;
                }
                // r = r'' + g (r' - r''): how far the probe went beyond the older one, in units of the last two.
                Some(match probe.progress {
                    Some(progress) if progress.is_finite() => {
                        let gain = progress.clamp(1.0, 2.0) as f32;
                        Forecast(vec![gain, 1.0 - gain])
                    }
                    _ => Forecast::hold(),
                })
            }
        }
    }
}

impl Strategy for Probing {
    fn depth(&self) -> usize {
        match self.rule {
            Rule::Db { .. } => 1,
            Rule::Di { .. } => 2,
        }
    }

    /// Of the last step, of the last two that were computed, and the one that is being measured.
    fn probes(&self) -> usize {
        4
    }

    fn plan(&mut self, _now: &StepContext) -> Decision {
        Decision::Probe { blocks: self.front }
    }

    fn decide(&mut self, now: &StepContext, probe: &ProbeResult) -> Result<StepPlan, CacheError> {
        Ok(match self.rule.reuse(now, probe) {
            Some(forecast) => self.middle(Action::Reuse(forecast)),
            None => self.middle(Action::Store),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn computed(mut run: Probing, steps: usize, probe: impl Fn(usize, usize) -> ProbeResult) -> Vec<usize> {
        let mut computed = Vec::new();
        for step in 0..steps {
            let now = StepContext { step, steps, latent_step: None };
            assert_eq!(run.plan(&now), Decision::Probe { blocks: run.front });
            let plan = run.decide(&now, &probe(step, computed.last().copied().unwrap_or(0))).unwrap();
            assert!(plan.cond.fits(run.blocks));
            if plan.cond.is_full(run.blocks) {
                computed.push(step);
            }
        }
        computed
    }

    #[test]
    fn db_cache_compares_with_the_last_computed_step() {
        let settings = DbCache { threshold: 0.1, front: 2, back: 1, warm_up: 3, max_skips: 0 };
        let drift = |step: usize, last: usize| ProbeResult {
            since_computed: (step > 0).then_some(0.04 * (step - last) as f64),
            ..Default::default()
        };
        let run = Probing::db_cache(settings.clone(), 8).unwrap();
        assert_eq!(computed(run, 12, drift), [0, 1, 2, 5, 8, 11]);
        let capped = Probing::db_cache(DbCache { max_skips: 1, ..settings }, 8).unwrap();
        assert_eq!(computed(capped, 10, drift), [0, 1, 2, 4, 6, 8]);
    }

    #[test]
    fn di_cache_accumulates_between_steps() {
        let settings = DiCache { threshold: 0.1, probe: 1, retention: 0.2 };
        let steady = |step: usize, _| ProbeResult {
            since_last_step: (step > 0).then_some(0.04),
            progress: Some(5.0),
            ..Default::default()
        };
        let run = Probing::di_cache(settings.clone(), 8).unwrap();
        assert_eq!(computed(run, 15, steady), [0, 1, 2, 5, 8, 11, 14]);
        let mut rule = Rule::Di { settings, accumulated: 0.0 };
        let now = StepContext { step: 9, steps: 10, latent_step: None };
        assert_eq!(rule.reuse(&now, &steady(9, 0)), Some(Forecast(vec![2.0, -1.0])), "the gain is clipped to 2");
    }

    #[test]
    fn a_probe_of_the_whole_model_is_refused() {
        assert!(Probing::db_cache(DbCache { front: 4, back: 4, ..Default::default() }, 8).is_err());
        assert!(Probing::di_cache(DiCache { probe: 0, ..Default::default() }, 8).is_err());
        assert!(Probing::db_cache(DbCache { back: usize::MAX, ..Default::default() }, 8).is_err());
    }
}
