//! A plan changed by hand: cells of the map switched between computed and reused. What an edit does
//! not touch stays as it is, with its forecasts and corrections.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::caching::{Action, BranchPlan, Cell, Correction, Forecast, Segment, StepPlan};

/// What the plan made by hand is called.
pub const TITLE: &str = "my plan";

/// An edited plan, and what it lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// Every step.
    pub plans: Vec<StepPlan>,
    /// Steps in which a forecast became "as it was last": what it was made from is no longer
    /// stored.
    pub held: usize,
    /// Corrections that are gone.
    pub uncorrected: usize,
}

impl Edit {
    /// What got simpler, in plain words; `None` if nothing did.
    pub fn simplified(&self) -> Option<String> {
        let count = |count: usize, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            more => Some(format!("{more} {many}")),
        };
        let held = count(self.held, "step holds its newest delta", "steps hold their newest delta");
        let held = held.map(|held| format!("{held} in place of a forecast"));
        let gone = count(self.uncorrected, "correction is left out", "corrections are left out");
        let all: Vec<String> = held.into_iter().chain(gone).collect();
        (!all.is_empty()).then(|| format!("The edit changed what others are made from: {}.", all.join(", and ")))
    }
}

/// Reuses all cells of a rectangle, or computes them all if the prompt's branch reuses them
/// already. The first step stays computed: there is nothing to reuse yet. Both branches are edited
/// alike.
pub fn toggle(plans: &[StepPlan], blocks: usize, steps: Range<usize>, selected: Range<usize>) -> Edit {
    let steps = steps.start.max(1)..steps.end.min(plans.len());
    let selected = selected.start..selected.end.min(blocks);
    let reused = |step: usize| {
        let cells = plans[step].cond.cells(blocks);
        selected.clone().all(|block| cells[block] == Cell::Reused)
    };
    let reuse = !steps.clone().all(reused);
    let edit = |branch: fn(&StepPlan) -> &BranchPlan| {
        let plans: Vec<BranchPlan> = plans.iter().map(|plan| branch(plan).clone()).collect();
        Branch::edited(&plans, blocks, steps.clone(), selected.clone(), reuse).plans(&plans)
    };
    let branches = edit(|plan| &plan.cond).into_iter().zip(edit(|plan| &plan.uncond));
    let mut edited: Vec<StepPlan> =
        branches.map(|(cond, uncond)| StepPlan { cond, uncond, correction: None }).collect();
    for (step, plan) in plans.iter().enumerate() {
        if let Some(correction) = &plan.correction
            && still_right(plans, &edited, blocks, step, correction)
        {
            edited[step].correction = plan.correction.clone();
        }
    }
    let corrections = |plans: &[StepPlan]| plans.iter().filter(|plan| plan.correction.is_some()).count();
    let uncorrected = corrections(plans) - corrections(&edited);
    Edit { held: held(plans, &edited, blocks), uncorrected, plans: edited }
}

/// Whether a correction finds what it was made for: its own step, the skipped ones before it, and
/// what it forecasts from.
fn still_right(before: &[StepPlan], after: &[StepPlan], blocks: usize, step: usize, correction: &Correction) -> bool {
    let Some(first) = step.checked_sub(correction.shares.len()) else { return false };
    let same = |step: usize| before[step].cond == after[step].cond && before[step].uncond == after[step].uncond;
    let whole = |plan: &BranchPlan| *plan == BranchPlan::whole(blocks, Action::Store);
    let basis = |plans: &[StepPlan], branch: fn(&StepPlan) -> &BranchPlan| -> Vec<usize> {
        (0..step).rev().filter(|step| whole(branch(&plans[*step]))).take(correction.expected.depth()).collect()
    };
    let kept = |branch| basis(before, branch) == basis(after, branch);
    (first..=step).all(same) && kept(|plan| &plan.cond) && kept(|plan| &plan.uncond)
}

/// Steps that were forecast in another way than by the newest delta, and no longer are.
fn held(before: &[StepPlan], after: &[StepPlan], blocks: usize) -> usize {
    let cells = |plans: &[StepPlan]| -> Vec<Vec<Does>> {
        let plans: Vec<BranchPlan> = plans.iter().map(|plan| plan.cond.clone()).collect();
        cells_of(&plans, blocks)
    };
    let simpler = |(before, after): (&Does, &Does)| {
        after.forecast() == Some(&Forecast::hold()) && before.forecast().is_some_and(|was| *was != Forecast::hold())
    };
    let (before, after) = (cells(before), cells(after));
    before.iter().zip(&after).filter(|(before, after)| before.iter().zip(*after).any(simpler)).count()
}

/// What a block does in a step, and the steps whose deltas it uses, newest first.
#[derive(Clone, Debug, PartialEq)]
enum Does {
    Compute,
    Reuse(Forecast, Vec<usize>),
    Output(Forecast),
}

impl Does {
    fn hold(basis: Vec<usize>) -> Self {
        Self::Reuse(Forecast::hold(), basis)
    }

    fn forecast(&self) -> Option<&Forecast> {
        match self {
            Self::Compute => None,
            Self::Reuse(forecast, _) | Self::Output(forecast) => Some(forecast),
        }
    }

    /// The step whose delta is the newest used.
    fn newest(&self) -> Option<usize> {
        match self {
            Self::Reuse(_, basis) => basis.first().copied(),
            _ => None,
        }
    }
}

/// Steps that stored each run of blocks, oldest first.
type Stored = HashMap<Range<usize>, Vec<usize>>;

fn newest_of(stored: &Stored, run: &Range<usize>, depth: usize) -> Vec<usize> {
    stored.get(run).into_iter().flat_map(|steps| steps.iter().rev()).take(depth).copied().collect()
}

/// What every block does in every step.
fn cells_of(plans: &[BranchPlan], blocks: usize) -> Vec<Vec<Does>> {
    let mut stored = Stored::new();
    let mut of_step = |(step, plan): (usize, &BranchPlan)| {
        let segments = match plan {
            BranchPlan::Blocks(segments) => segments,
            BranchPlan::Output(_, forecast) => return vec![Does::Output(forecast.clone()); blocks],
        };
        let mut cells = vec![Does::Compute; blocks];
        for Segment { blocks: run, action } in segments {
            match action {
                Action::Compute => {}
                Action::Store => stored.entry(run.clone()).or_default().push(step),
                Action::Reuse(forecast) => {
                    let does = Does::Reuse(forecast.clone(), newest_of(&stored, run, forecast.depth()));
                    cells.iter_mut().take(run.end).skip(run.start).for_each(|cell| *cell = does.clone());
                }
            }
        }
        cells
    };
    plans.iter().enumerate().map(&mut of_step).collect()
}

/// One branch of all steps. A delta belongs to a run of blocks and is used by the same run only:
/// where one step cuts a run, the step that stored its newest delta and all that use that one are
/// cut there too. A cut run adds up to what it was whole.
struct Branch {
    cells: Vec<Vec<Does>>,
    /// Where runs of blocks begin and end: `blocks + 1` a step.
    cuts: Vec<Vec<bool>>,
    /// Steps to be written anew; the others stay as they were.
    anew: Vec<bool>,
}

impl Branch {
    fn edited(plans: &[BranchPlan], blocks: usize, steps: Range<usize>, selected: Range<usize>, reuse: bool) -> Self {
        let before = cells_of(plans, blocks);
        let mut cells = before.clone();
        for row in cells.iter_mut().take(steps.end).skip(steps.start) {
            set(row, selected.clone(), reuse);
        }
        rebase(&mut cells, &before);
        let anew = touched(&before, &cells);
        let old_cuts: Vec<Vec<bool>> = plans.iter().map(|plan| plan_cuts(plan, blocks)).collect();
        let fresh = |(step, anew): (usize, &bool)| if *anew { cell_cuts(&cells[step]) } else { old_cuts[step].clone() };
        let cuts = anew.iter().enumerate().map(fresh).collect();
        let mut branch = Self { cells, cuts, anew };
        branch.spread_cuts();
        for (step, old) in old_cuts.iter().enumerate() {
            branch.anew[step] |= branch.cuts[step] != *old;
        }
        branch
    }

    /// Cuts a run alike in the step that stores it and in those that use it.
    fn spread_cuts(&mut self) {
        let links = self.cells.iter().enumerate().flat_map(|(step, row)| {
            row.iter().enumerate().filter_map(move |(block, cell)| Some((step, cell.newest()?, block)))
        });
        let links: Vec<(usize, usize, usize)> = links.collect();
        let mut more = true;
        while more {
            more = false;
            for &(user, source, block) in &links {
                for cut in [block, block + 1] {
                    if self.cuts[user][cut] != self.cuts[source][cut] {
                        (self.cuts[user][cut], self.cuts[source][cut], more) = (true, true, true);
                    }
                }
            }
        }
    }

    /// The runs of a step.
    fn runs(&self, step: usize) -> impl Iterator<Item = Range<usize>> {
        let cuts: Vec<usize> = (0..self.cuts[step].len()).filter(|cut| self.cuts[step][*cut]).collect();
        (1..cuts.len()).map(move |end| cuts[end - 1]..cuts[end])
    }

    /// First blocks of the runs whose delta is used, with the step that stores it.
    fn used(&self) -> HashSet<(usize, usize)> {
        let mut used = HashSet::new();
        for step in 0..self.cells.len() {
            for run in self.runs(step) {
                if let Does::Reuse(_, basis) = &self.cells[step][run.start] {
                    let same = |source: &&usize| self.runs(**source).any(|other| other == run);
                    used.extend(basis.iter().filter(same).map(|source| (*source, run.start)));
                }
            }
        }
        used
    }

    /// The plans, made from those before the edit.
    fn plans(&self, before: &[BranchPlan]) -> Vec<BranchPlan> {
        let used = self.used();
        let step = |(step, before): (usize, &BranchPlan)| {
            if self.anew[step] { self.step_anew(step, before, &used) } else { before.clone() }
        };
        let mut plans = before.iter().enumerate().map(step).collect::<Vec<_>>();
        self.hold_what_changed(&mut plans, before);
        plans
    }

    fn step_anew(&self, step: usize, before: &BranchPlan, used: &HashSet<(usize, usize)>) -> BranchPlan {
        if let Some(Does::Output(_)) = self.cells[step].first() {
            return before.clone();
        }
        // The planner stores all blocks of every computed step, and a correction needs it.
        let whole = BranchPlan::whole(self.cells[step].len(), Action::Store);
        let action = |run: &Range<usize>| match &self.cells[step][run.start] {
            Does::Reuse(forecast, _) => Action::Reuse(forecast.clone()),
            _ if used.contains(&(step, run.start)) => Action::Store,
            _ if *before == whole && run.len() == self.cells[step].len() => Action::Store,
            _ => Action::Compute,
        };
        BranchPlan::Blocks(self.runs(step).map(|run| Segment { action: action(&run), blocks: run }).collect())
    }

    /// Forecasts that would be made from other steps than they are meant for hold the newest value.
    fn hold_what_changed(&self, plans: &mut [BranchPlan], before: &[BranchPlan]) {
        let mut stored = Stored::new();
        let (mut outputs, mut outputs_before) = (Vec::new(), Vec::new());
        for (step, plan) in plans.iter_mut().enumerate() {
            match plan {
                BranchPlan::Output(_, forecast) => {
                    let last = |steps: &[usize]| steps[steps.len().saturating_sub(forecast.depth())..].to_vec();
                    if last(&outputs) != last(&outputs_before) {
                        *forecast = Forecast::hold();
                    }
                }
                BranchPlan::Blocks(segments) => {
                    for Segment { blocks: run, action } in segments {
                        match action {
                            Action::Compute => {}
                            Action::Store => stored.entry(run.clone()).or_default().push(step),
                            Action::Reuse(forecast) => {
                                let basis = newest_of(&stored, run, forecast.depth());
                                if !matches!(&self.cells[step][run.start], Does::Reuse(_, meant) if *meant == basis) {
                                    *forecast = Forecast::hold();
                                }
                            }
                        }
                    }
                    outputs.push(step);
                }
            }
            if let BranchPlan::Blocks(_) = &before[step] {
                outputs_before.push(step);
            }
        }
    }
}

/// Sets the selected blocks of a step. Of what they use nothing is known yet.
fn set(row: &mut [Does], selected: Range<usize>, reuse: bool) {
    if !reuse && matches!(row.first(), Some(Does::Output(_))) && !selected.is_empty() {
        // Blocks run: what was a forecast of the output becomes one of the other blocks.
        row.fill(Does::hold(Vec::new()));
    }
    for cell in row.iter_mut().take(selected.end).skip(selected.start) {
        match (reuse, &cell) {
            (false, _) => *cell = Does::Compute,
            (true, Does::Compute) => *cell = Does::hold(Vec::new()),
            (true, _) => {}
        }
    }
}

/// Lets cells use the last step that computes their block, where the step that they used no longer
/// does, or a later one does now.
fn rebase(cells: &mut [Vec<Does>], before: &[Vec<Does>]) {
    for block in 0..cells.first().map_or(0, Vec::len) {
        // The last step that computes the block, and the last that did not before.
        let (mut last, mut new) = (None, None);
        for step in 0..cells.len() {
            let Does::Reuse(_, basis) = &cells[step][block] else {
                if cells[step][block] == Does::Compute {
                    last = Some(step);
                    new = if before[step][block] == Does::Compute { new } else { last };
                }
                continue;
            };
            let computes = |source: &usize| cells[*source][block] == Does::Compute;
            let newest =
                basis.first().copied().filter(|source| computes(source) && new.is_none_or(|new| new <= *source));
            if newest.is_some() && basis.iter().all(computes) {
                continue;
            }
            cells[step][block] = newest.or(last).map_or(Does::Compute, |source| Does::hold(vec![source]));
        }
    }
}

/// Steps whose cells changed, those that they use or used, and all that use the same.
fn touched(before: &[Vec<Does>], after: &[Vec<Does>]) -> Vec<bool> {
    let mut touched: Vec<bool> = before.iter().zip(after).map(|(before, after)| before != after).collect();
    let changed = (0..after.len()).filter(|step| touched[*step]);
    let sources: HashSet<usize> =
        changed.flat_map(|step| before[step].iter().chain(&after[step])).filter_map(Does::newest).collect();
    for (step, row) in after.iter().enumerate() {
        let uses = || row.iter().filter_map(Does::newest).any(|source| sources.contains(&source));
        touched[step] |= sources.contains(&step) || uses();
    }
    touched
}

/// Where neighbouring blocks do different things.
fn cell_cuts(row: &[Does]) -> Vec<bool> {
    (0..=row.len()).map(|cut| cut == 0 || cut == row.len() || row[cut - 1] != row[cut]).collect()
}

/// Where the runs of a plan begin and end.
fn plan_cuts(plan: &BranchPlan, blocks: usize) -> Vec<bool> {
    let mut cuts = vec![false; blocks + 1];
    (cuts[0], cuts[blocks]) = (true, true);
    if let BranchPlan::Blocks(segments) = plan {
        for segment in segments {
            if let Some(cut) = cuts.get_mut(segment.blocks.start) {
                *cut = true;
            }
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
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

    /// As the planner makes them: forecasts from the last two computed steps, and a correction
    /// after each gap.
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

    /// Computed steps 0, 1, 4, 7, 10 and 12: the edit of step 5 changes what 4 stores, so what uses
    /// 4 is held, and no more than that.
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
}
