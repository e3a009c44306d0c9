use super::*;
use crate::caching::{Origin, OutputKind, StrategyConfig, StrategyInputs};
use proptest::prelude::*;

fn accepted(plans: Vec<StepPlan>, blocks: usize) -> Result<(), String> {
    let inputs = StrategyInputs { steps: plans.len(), blocks, signal_changes: Vec::new() };
    let plan = StrategyConfig::plan(TITLE, Origin::Hand, plans);
    plan.build(&inputs).map(drop).map_err(|error| error.to_string())
}

fn reused(plans: &[StepPlan], blocks: usize) -> Vec<bool> {
    plans.iter().flat_map(|plan| plan.cond.cells(blocks)).map(|cell| cell == Cell::Reused).collect()
}

/// Plans like the planner's: forecasts from the last two computed steps, and a correction after
/// each gap.
fn planner_like(computed: &[bool], blocks: usize) -> Vec<StepPlan> {
    let mut basis = 0;
    let mut gap = 0;
    let mut plan = |(step, computed): (usize, &bool)| {
        let forecast = || match basis {
            1 => Forecast(vec![0.97]),
            _ => Forecast(vec![1.5 + step as f32, -0.5 - step as f32]),
        };
        if !*computed && basis > 0 {
            gap += 1;
            return StepPlan::both(BranchPlan::whole(blocks, Action::Reuse(forecast())));
        }
        let correction = (gap > 0).then(|| Correction { expected: forecast(), shares: vec![0.5; gap] });
        (basis, gap) = ((basis + 1).min(2), 0);
        StepPlan { correction, ..StepPlan::both(BranchPlan::whole(blocks, Action::Store)) }
    };
    computed.iter().enumerate().map(&mut plan).collect()
}

#[test]
fn a_rectangle_is_reused_and_computed_again() {
    let full = vec![StepPlan::compute(6); 5];
    let edit = toggle(&full, 6, 0..3, 2..4);
    use Cell::{Computed, Reused, Stored};
    assert_eq!(edit.plans[0].cond.cells(6), [Computed, Computed, Stored, Stored, Computed, Computed]);
    assert_eq!(edit.plans[2].cond.cells(6), [Computed, Computed, Reused, Reused, Computed, Computed]);
    assert_eq!(edit.plans[3].cond.cells(6), [Computed; 6]);
    assert_eq!(edit.simplified(), None);
    accepted(edit.plans.clone(), 6).unwrap();
    assert_eq!(toggle(&edit.plans, 6, 1..3, 2..4).plans, full);
}

/// The computed steps are 0, 1, 4, 7, 10 and 12. The edit of step 5 changes what step 4 stores.
/// Only the users of step 4 hold their newest delta.
#[test]
fn an_edit_of_the_planner_s_plan_leaves_the_rest_as_it_was() {
    let computed: Vec<bool> = (0..14).map(|step| [0, 1, 4, 7, 10, 12].contains(&step)).collect();
    let plans = planner_like(&computed, 6);
    accepted(plans.clone(), 6).unwrap();
    let edit = toggle(&plans, 6, 5..6, 2..3);
    accepted(edit.plans.clone(), 6).unwrap();
    for step in [0, 1, 2, 3, 11, 12, 13] {
        assert_eq!(edit.plans[step], plans[step], "step {step}");
    }
    let hold = |step: usize| edit.plans[step].cond == BranchPlan::whole(6, Action::Reuse(Forecast::hold()));
    assert!(hold(8) && hold(9));
    assert_eq!(edit.plans[5].cond.computed(6), 1);
    assert_eq!(edit.plans[6].cond.computed(6), 0);
    // Of the corrections at 4, 7, 10 and 12 the last remains: 4 is cut, 7 and 10 lost what they
    // are made from.
    assert_eq!((edit.held, edit.uncorrected), (4, 3));
    assert!(edit.simplified().is_some_and(|text| text.contains("4 steps") && text.contains("3 corrections")));
}

#[test]
fn computing_a_whole_step_keeps_other_gaps() {
    let computed: Vec<bool> = (0..14).map(|step| step % 3 == 0).collect();
    let plans = planner_like(&computed, 6);
    let edit = toggle(&plans, 6, 7..8, 0..6);
    accepted(edit.plans.clone(), 6).unwrap();
    for step in (0..7).chain([13]) {
        assert_eq!(edit.plans[step], plans[step], "step {step}");
    }
    assert!(edit.plans[7].cond.is_full(6));
    // 9 ends the gap that was edited, and 10 and 11 were forecast from 9 and 6: now 7 lies
    // between.
    assert_eq!((edit.held, edit.uncorrected), (3, 2));
}

fn mostly_planned() -> impl Strategy<Value = Vec<StepPlan>> {
    let output = StepPlan::both(BranchPlan::Output(OutputKind::Velocity, Forecast(vec![1.5, -0.5])));
    (proptest::collection::vec(any::<bool>(), 8), 0usize..4).prop_map(move |(computed, kind)| {
        let mut plans = match kind {
            0 => vec![StepPlan::compute(6); 8],
            _ => planner_like(&computed, 6),
        };
        if kind == 1 {
            // Two outputs are known at any rate; what is corrected after them must not be
            // forecast otherwise.
            plans[5] = output.clone();
            plans.iter_mut().for_each(|plan| plan.correction = None);
            plans[1] = StepPlan::both(BranchPlan::whole(6, Action::Store));
            plans[6] = StepPlan::compute(6);
        }
        plans
    })
}

proptest! {
    /// Whatever is clicked, the engine takes the plan, it reuses what was clicked, and nothing
    /// else.
    #[test]
    fn every_edit_makes_a_plan_that_runs(
        start in mostly_planned(),
        edits in proptest::collection::vec((0usize..9, 0usize..9, 0usize..7, 0usize..7), 1..8),
    ) {
        prop_assume!(accepted(start.clone(), 6).is_ok());
        let mut plans = start;
        for (a, b, c, d) in edits {
            let (steps, blocks) = (a.min(b).max(1)..a.max(b), c.min(d)..c.max(d));
            let mut wanted = reused(&plans, 6);
            let cells: Vec<usize> =
                steps.clone().flat_map(|step| blocks.clone().map(move |block| step * 6 + block)).collect();
            let all = cells.iter().all(|cell| wanted[*cell]);
            cells.iter().for_each(|cell| wanted[*cell] = !all);
            plans = toggle(&plans, 6, steps, blocks).plans;
            prop_assert_eq!(reused(&plans, 6), wanted);
            prop_assert_eq!(accepted(plans.clone(), 6), Ok(()));
        }
    }
}
