//! The part that DBCache and DiCache share: the first blocks run, and what these did decides on
//! the rest.

use std::fmt::Debug;

use crate::caching::{
    Action, BranchPlan, CacheError, Decision, Forecast, ProbeResult, Segment, StepContext, StepPlan, Strategy,
};

/// How a probing rule decides.
pub(super) trait Decide: Debug + Send {
    /// How many deltas of the middle blocks a forecast may combine.
    const DEPTH: usize;

    /// The forecast with which the middle blocks are reused, or `None` to compute them.
    fn reuse(&mut self, now: &StepContext, probe: &ProbeResult) -> Option<Forecast>;
}

/// A probing rule at work.
#[derive(Debug)]
pub(super) struct Probing<D> {
    decide: D,
    blocks: usize,
    front: usize,
    back: usize,
}

impl<D: Decide> Probing<D> {
    /// For a model of `blocks` blocks, of which `front` are the probe and `back` always run.
    ///
    /// # Errors
    /// [`CacheError::Settings`] where no block would be left between front and back.
    pub fn new(decide: D, blocks: usize, front: usize, back: usize) -> Result<Self, CacheError> {
        if front == 0 || front.saturating_add(back) >= blocks {
            let message = format!("{front} blocks in front and {back} at the back leave none of {blocks} to reuse");
            return Err(CacheError::Settings(message));
        }
        Ok(Self { decide, blocks, front, back })
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

impl<D: Decide> Strategy for Probing<D> {
    fn depth(&self) -> usize {
        D::DEPTH
    }

    /// Deltas of the probe: of the last step, of the last two computed steps, and of this step.
    fn probes(&self) -> usize {
        4
    }

    fn plan(&mut self, _now: &StepContext) -> Decision {
        Decision::Probe { blocks: self.front }
    }

    fn decide(&mut self, now: &StepContext, probe: &ProbeResult) -> Result<StepPlan, CacheError> {
        Ok(match self.decide.reuse(now, probe) {
            Some(forecast) => self.middle(Action::Reuse(forecast)),
            None => self.middle(Action::Store),
        })
    }
}

/// The steps that a rule computes when the probe gives these results.
#[cfg(test)]
pub(super) fn computed<D: Decide>(
    mut run: Probing<D>,
    steps: usize,
    probe: impl Fn(usize, usize) -> ProbeResult,
) -> Vec<usize> {
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
