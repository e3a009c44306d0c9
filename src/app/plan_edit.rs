//! A plan made by hand: cells of the map switched between computed and reused.

use std::ops::Range;

use crate::caching::{Action, BranchPlan, Cell, Forecast, Segment, StepPlan};

/// What the plan made by hand is called.
pub const TITLE: &str = "my plan";

/// Which cells are reused, steps slowest.
#[derive(Clone, Debug, PartialEq)]
pub struct ReuseGrid {
    blocks: usize,
    reused: Vec<bool>,
}

impl ReuseGrid {
    /// What the cond branches of plans reuse.
    pub fn of(plans: &[StepPlan], blocks: usize) -> Self {
        let reused = plans.iter().flat_map(|plan| plan.cond.cells(blocks)).map(|cell| cell == Cell::Reused).collect();
        Self { blocks, reused }
    }

    fn steps(&self) -> usize {
        self.reused.len().checked_div(self.blocks).unwrap_or(0)
    }

    fn get(&self, step: usize, block: usize) -> bool {
        self.reused.get(step * self.blocks + block).copied().unwrap_or(false)
    }

    /// Reuses all cells of a rectangle, or computes them all if they are reused already. The first step stays computed: there is
    /// nothing to reuse yet.
    pub fn toggle(&mut self, steps: Range<usize>, blocks: Range<usize>) {
        let steps = steps.start.max(1)..steps.end.min(self.steps());
        let blocks = blocks.start..blocks.end.min(self.blocks);
        let cells: Vec<usize> = steps
            .flat_map(|step| blocks.clone().map(move |block| (step, block)))
            .map(|(s, b)| s * self.blocks + b)
            .collect();
        let all = cells.iter().all(|cell| self.reused[*cell]);
        cells.into_iter().for_each(|cell| self.reused[cell] = !all);
    }

    /// Runs of blocks that are reused at the same steps: each shares one delta.
    fn runs(&self) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for block in 0..self.blocks {
            let like_last =
                |run: &Range<usize>| (0..self.steps()).all(|s| self.get(s, run.start) == self.get(s, block));
            match runs.last_mut() {
                Some(run) if like_last(run) => run.end = block + 1,
                _ => runs.push(block..block + 1),
            }
        }
        runs
    }

    /// The plan: a run's delta is stored by the last step that computes it before it is reused.
    pub fn plans(&self) -> Vec<StepPlan> {
        let runs = self.runs();
        let plan = |step: usize| {
            let mut segments: Vec<Segment> = Vec::new();
            for run in &runs {
                let action = match (self.get(step, run.start), self.get(step + 1, run.start)) {
                    (true, _) => Action::Reuse(Forecast::hold()),
                    (false, true) => Action::Store,
                    (false, false) => Action::Compute,
                };
                match segments.last_mut() {
                    Some(last) if action == Action::Compute && last.action == Action::Compute => {
                        last.blocks.end = run.end
                    }
                    _ => segments.push(Segment { blocks: run.clone(), action }),
                }
            }
            StepPlan::both(BranchPlan::Blocks(segments))
        };
        (0..self.steps()).map(plan).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::{StrategyConfig, StrategyInputs};
    use proptest::prelude::*;

    fn accepted(plans: Vec<StepPlan>, blocks: usize) -> bool {
        let inputs = StrategyInputs { steps: plans.len(), blocks, signal_changes: Vec::new() };
        StrategyConfig::Plan { title: TITLE.into(), plans }.build(&inputs).is_ok()
    }

    #[test]
    fn a_rectangle_is_reused_and_computed_again() {
        let full = vec![StepPlan::compute(6); 5];
        let mut grid = ReuseGrid::of(&full, 6);
        grid.toggle(0..3, 2..4);
        let plans = grid.plans();
        use Cell::{Computed, Reused, Stored};
        assert_eq!(plans[0].cond.cells(6), [Computed, Computed, Stored, Stored, Computed, Computed]);
        assert_eq!(plans[2].cond.cells(6), [Computed, Computed, Reused, Reused, Computed, Computed]);
        assert_eq!(plans[3].cond.cells(6), [Computed; 6]);
        assert!(accepted(plans, 6));
        grid.toggle(1..3, 2..4);
        assert_eq!(grid.plans(), full);
    }

    proptest! {
        /// Whatever is clicked, the engine takes the plan, and it reuses what was clicked.
        #[test]
        fn every_edit_makes_a_plan_that_runs(
            edits in proptest::collection::vec((0usize..9, 0usize..9, 0usize..7, 0usize..7), 1..8),
        ) {
            let mut grid = ReuseGrid::of(&vec![StepPlan::compute(6); 8], 6);
            for (a, b, c, d) in edits {
                grid.toggle(a.min(b)..a.max(b), c.min(d)..c.max(d));
            }
            let plans = grid.plans();
            prop_assert_eq!(ReuseGrid::of(&plans, 6), grid);
            prop_assert!(accepted(plans, 6));
        }
    }
}
