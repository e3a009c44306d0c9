//! Edits of a plan by hand: cells of the map are switched between computed and reused. Steps that
//! an edit does not concern keep their forecasts and corrections.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::caching::{Action, BranchPlan, Cell, Correction, Forecast, Segment, StepPlan};

/// The title of a plan made by hand.
pub const TITLE: &str = "my plan";

/// An edited plan, and its losses.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The plans of all steps.
    pub plans: Vec<StepPlan>,
    /// Number of steps whose forecast now holds the newest delta, because another delta that it was
    /// made from is no longer stored.
    pub held: usize,
    /// Number of corrections that were removed.
    pub uncorrected: usize,
}

impl Edit {
    /// Tells the losses in words; `None` if there are none.
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

/// Reuses all cells of a rectangle, or computes them all if the prompt's branch already reuses
/// them. The first step stays computed, because there is nothing to reuse yet. Both branches are
/// edited alike.
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

/// Whether a correction still fits: its own step, the skipped steps before it, and the steps that
/// it forecasts from did not change.
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

/// The number of steps whose forecast was made from several deltas, and now holds the newest one.
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

/// The action of a block in a step, with the steps whose deltas it uses, newest first.
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

    /// The step of the newest delta that is used.
    fn newest(&self) -> Option<usize> {
        match self {
            Self::Reuse(_, basis) => basis.first().copied(),
            _ => None,
        }
    }
}

/// The steps that stored each run of blocks, oldest first.
type Stored = HashMap<Range<usize>, Vec<usize>>;

fn newest_of(stored: &Stored, run: &Range<usize>, depth: usize) -> Vec<usize> {
    stored.get(run).into_iter().flat_map(|steps| steps.iter().rev()).take(depth).copied().collect()
}

/// The action of every block in every step.
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

/// One branch of all steps. A delta belongs to a run of blocks, and only the same run can use it.
/// If one step cuts a run, the step that stored the run's newest delta and all steps that use this
/// delta are cut at the same place. The parts of a cut run give the same sum as the whole run.
struct Branch {
    cells: Vec<Vec<Does>>,
    /// Whether a run of blocks begins or ends before a block: `blocks + 1` values a step.
    cuts: Vec<Vec<bool>>,
    /// Whether a step is planned again. Other steps stay as they were.
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

    /// Cuts a run at the same places in the step that stores it and in the steps that use it.
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

    /// The steps and first blocks of the stored runs whose delta is used.
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

    /// The plans after the edit, made from the plans before.
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
        // The planner stores all blocks of every computed step. A correction needs them.
        let whole = BranchPlan::whole(self.cells[step].len(), Action::Store);
        let action = |run: &Range<usize>| match &self.cells[step][run.start] {
            Does::Reuse(forecast, _) => Action::Reuse(forecast.clone()),
            _ if used.contains(&(step, run.start)) => Action::Store,
            _ if *before == whole && run.len() == self.cells[step].len() => Action::Store,
            _ => Action::Compute,
        };
        BranchPlan::Blocks(self.runs(step).map(|run| Segment { action: action(&run), blocks: run }).collect())
    }

    /// Replaces forecasts whose steps changed: they hold the newest value.
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

/// Sets the action of the selected blocks of a step. The steps that they use are found later.
fn set(row: &mut [Does], selected: Range<usize>, reuse: bool) {
    if !reuse && matches!(row.first(), Some(Does::Output(_))) && !selected.is_empty() {
        // Blocks run: the forecast of the output becomes a forecast of the other blocks.
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

/// Lets cells use the last step that computes their block, if the step that they used no longer
/// computes it, or if a later step now does.
fn rebase(cells: &mut [Vec<Does>], before: &[Vec<Does>]) {
    for block in 0..cells.first().map_or(0, Vec::len) {
        // The last step that computes the block, and the last such step that did not before.
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

/// Marks the steps whose cells changed, the steps that they use or used, and all other users of
/// these steps.
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

/// The places where neighbouring blocks act differently.
fn cell_cuts(row: &[Does]) -> Vec<bool> {
    (0..=row.len()).map(|cut| cut == 0 || cut == row.len() || row[cut - 1] != row[cut]).collect()
}

/// The places where the runs of a plan begin and end.
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
mod tests;
