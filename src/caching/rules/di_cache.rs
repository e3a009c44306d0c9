//! DiCache (arXiv 2508.17356): a probe of few blocks decides on the rest, and says how far to
//! extrapolate.

use serde::{Deserialize, Serialize};

use super::probing::{Decide, Probing};
use crate::caching::rule::{About, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::setting::Setting;
use crate::caching::{CacheError, Forecast, ProbeResult, StepContext, Strategy};

/// Settings of DiCache. Defaults are the method's for Wan2.1.
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
struct Running {
    settings: DiCache,
    accumulated: f64,
}

impl Decide for Running {
    const DEPTH: usize = 2;

    fn reuse(&mut self, now: &StepContext, probe: &ProbeResult) -> Option<Forecast> {
        self.accumulated += probe.since_last_step.unwrap_or(f64::INFINITY);
        let full = (now.steps as f64 * self.settings.retention) as usize;
        let changed = self.accumulated >= self.settings.threshold || self.accumulated.is_nan();
        if now.step < full || now.step < 2 || changed {
            self.accumulated = 0.0;
            return None;
        }
        // r = r'' + g (r' - r''), where the gain g says how far the probe went beyond the older of
        // the last two computed steps, in units of their distance.
        Some(match probe.progress {
            Some(progress) if progress.is_finite() => {
                let gain = progress.clamp(1.0, 2.0) as f32;
                Forecast(vec![gain, 1.0 - gain])
            }
            _ => Forecast::hold(),
        })
    }
}

impl DiCache {
    fn running(&self, blocks: usize) -> Result<Probing<Running>, CacheError> {
        Probing::new(Running { settings: self.clone(), accumulated: 0.0 }, blocks, self.probe, 0)
    }
}

impl Rule for DiCache {
    const ABOUT: About = About {
        key: "dicache",
        label: "DiCache",
        summary: "A probe of few blocks decides on the rest.",
        source: "arXiv 2508.17356",
        group: Group::Published,
        needs: Needs::Steps,
    };

    fn defaults(_steps: usize) -> Self {
        Self::default()
    }

    fn settings(&self, Shape { blocks, .. }: Shape) -> Vec<Setting<Self>> {
        let threshold = ("threshold", "threshold", "Accumulated change of the probe that computes again");
        let probe = ("probe", "probe blocks", "Blocks that always run");
        let retention = ("retention", "computed first", "Share of the steps at the start that is computed");
        vec![
            Setting::real(threshold, 0.0..=0.5, |rule: &mut Self| &mut rule.threshold).threshold(),
            Setting::count(probe, 1..=blocks.max(2) - 1, |rule: &mut Self| &mut rule.probe).unit("blocks"),
            Setting::real(retention, 0.0..=1.0, |rule: &mut Self| &mut rule.retention),
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
        Self { retention: target.share_at_most("retention", self.retention, 0.4), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::probing::computed;
    use super::*;

    #[test]
    fn changes_accumulate_between_steps() {
        let settings = DiCache { threshold: 0.1, probe: 1, retention: 0.2 };
        let steady = |step: usize, _| ProbeResult {
            since_last_step: (step > 0).then_some(0.04),
            progress: Some(5.0),
            ..Default::default()
        };
        assert_eq!(computed(settings.running(8).unwrap(), 15, steady), [0, 1, 2, 5, 8, 11, 14]);
        let mut rule = Running { settings, accumulated: 0.0 };
        let now = StepContext { step: 9, steps: 10, latent_step: None };
        assert_eq!(rule.reuse(&now, &steady(9, 0)), Some(Forecast(vec![2.0, -1.0])), "the gain is clipped to 2");
    }

    #[test]
    fn a_probe_of_nothing_is_refused() {
        assert!(DiCache { probe: 0, ..Default::default() }.running(8).is_err());
        assert!(DiCache { probe: 8, ..Default::default() }.running(8).is_err());
    }
}
