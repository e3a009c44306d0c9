//! Goes on after the steps of an earlier run.
//!
//! A step's velocity is all that the solver needs of the model, so finished steps are replayed on
//! the CPU. What a plan stores on the GPU is gone. If later steps reuse it, the steps that stored
//! it are computed again, from the same latents and with the same result.

use crate::caching::{Action, BranchPlan, Forecast, StepPlan};

use super::{EngineError, RunInfo, StepRecord};

/// A warning if no step can be taken over.
pub(super) const ANEW: &str = "No step of the earlier run can be taken over, because its strategy decides \
     while it runs, or stored what is reused from the first step on: all steps are computed again.";

/// Checks that a run and an earlier run make the same clip.
///
/// # Errors
/// [`EngineError::Request`] with the first difference.
pub(super) fn check(earlier: &RunInfo, now: &RunInfo) -> Result<(), EngineError> {
    let differences = [
        ("model", earlier.model_id != now.model_id),
        ("prompt", earlier.prompt != now.prompt),
        ("negative prompt", earlier.negative_prompt != now.negative_prompt),
        ("seed", earlier.clip.seed != now.clip.seed || earlier.noise != now.noise),
        ("size", earlier.latent_shape != now.latent_shape),
        ("guidance", earlier.clip.guidance_scale != now.clip.guidance_scale),
        ("solver", earlier.scheduler != now.scheduler),
        ("number of steps or shift", earlier.sigmas != now.sigmas),
        ("strategy", earlier.strategy != now.strategy),
    ];
    match differences.into_iter().find(|(_, differs)| *differs) {
        Some((name, _)) => Err(EngineError::Request(format!("the run to go on with has another {name}"))),
        None => Ok(()),
    }
}

/// Number of steps at the start of a run that are taken over from `done`. `plans` are the plans of
/// all steps; a strategy that decides while it runs has none, and starts anew.
pub(super) fn taken_over(done: &[StepRecord], plans: &[StepPlan], depth: usize) -> usize {
    let same = |(step, (record, plan)): (usize, (&StepRecord, &StepPlan))| {
        record.step == step && record.state.is_some() && record.plan.as_ref() == Some(plan)
    };
    let finished = done.iter().zip(plans).enumerate().take_while(|pair| same(*pair)).count();
    let later = &plans[finished..];
    let branches = |plan: &StepPlan| [plan.cond.clone(), plan.uncond.clone()];
    let reuses = |action: &Action| matches!(action, Action::Reuse(_));
    let any = |branch: &BranchPlan, wanted: &dyn Fn(&Action) -> bool| match branch {
        BranchPlan::Blocks(segments) => segments.iter().any(|segment| wanted(&segment.action)),
        BranchPlan::Output(..) => false,
    };
    let from_deltas =
        |plan: &StepPlan| plan.correction.is_some() || branches(plan).iter().any(|branch| any(branch, &reuses));
    let outputs = |plan: &StepPlan| {
        let of = |branch: &BranchPlan| match branch {
            BranchPlan::Output(_, forecast) => Forecast::depth(forecast),
            BranchPlan::Blocks(_) => 0,
        };
        branches(plan).iter().map(of).max().unwrap_or(0)
    };
    let deltas = if later.iter().any(from_deltas) { depth } else { 0 };
    let outputs = later.iter().map(outputs).max().unwrap_or(0);
    let stores = |action: &Action| matches!(action, Action::Store);
    // Steps that compute all blocks, and store what is stored at all.
    let whole = |plan: &StepPlan| {
        branches(plan).iter().all(|branch| {
            matches!(branch, BranchPlan::Blocks(_)) && !any(branch, &reuses) && (deltas == 0 || any(branch, &stores))
        })
    };
    let mut needed = deltas.max(outputs);
    let mut from = finished;
    while needed > 0 && from > 0 {
        from -= 1;
        needed -= usize::from(whole(&plans[from]));
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::Segment;
    use crate::engine::StepState;

    fn plan(action: Action) -> StepPlan {
        StepPlan::both(BranchPlan::Blocks(vec![Segment { blocks: 0..2, action }]))
    }

    fn done(plans: &[StepPlan]) -> Vec<StepRecord> {
        let record = |(step, plan): (usize, &StepPlan)| {
            let (plan, state) = (Some(plan.clone()), Some(StepState::default()));
            StepRecord { step, plan, state, ..StepRecord::default() }
        };
        plans.iter().enumerate().map(record).collect()
    }

    #[test]
    fn steps_that_stored_what_is_reused_are_computed_again() {
        let (store, compute) = (plan(Action::Store), plan(Action::Compute));
        let reuse = plan(Action::Reuse(Forecast::hold()));
        let plans = [&compute, &store, &store, &reuse, &reuse, &store, &reuse].map(Clone::clone);
        let at = |finished: usize, depth: usize| taken_over(&done(&plans[..finished]), &plans, depth);
        assert_eq!([at(0, 1), at(1, 1), at(2, 1), at(3, 1), at(4, 1), at(5, 1), at(6, 1)], [0, 0, 1, 2, 2, 2, 5]);
        assert_eq!([at(3, 2), at(4, 2), at(6, 2), at(7, 2)], [1, 1, 2, 7]);
        let full = [&compute, &store, &compute].map(Clone::clone);
        assert_eq!(taken_over(&done(&full[..2]), &full, 1), 2, "nothing is reused");
        assert_eq!(taken_over(&done(&full[..2]), &[], 1), 0, "plans are made on the way");
        let mut other = done(&full[..2]);
        other[0].state = None;
        assert_eq!(taken_over(&other, &full, 1), 0, "no state");
        other = done(&plans[..2]);
        other[1].plan = Some(reuse);
        assert_eq!(taken_over(&other, &full, 1), 1, "another plan");
    }
}
