//! ProfilingDiT (arXiv 2504.03140): runs of chosen blocks are computed on scheduled steps and replaced by their delta on the others.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Action, BranchPlan, Forecast, StepPlan, StepSchedule};

/// Which of the lists is in force when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lists {
    /// The first list throughout.
    #[default]
    One,
    /// The first list in the first half of the steps, the second one after it (the paper's "split").
    Split,
    /// The lists take turns from one computed step to the next (the paper's "alternate").
    Alternate,
}

/// How a delta is carried to later steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carry {
    /// As it is.
    #[default]
    Hold,
    /// First-order extrapolation from the last two deltas.
    Extrapolate,
    /// Times how much the whole residual grows from the one step to the other, by these measured ratios from each step's to the one
    /// before ([`Calibration::magnitude_ratios`](super::Calibration)).
    Scale(Vec<f64>),
}

/// Settings of ProfilingDiT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfilingSettings {
    /// Cached blocks; see `lists` for when a second list counts.
    pub blocks: Vec<Vec<usize>>,
    /// Which list when.
    pub lists: Lists,
    /// Computed steps.
    pub schedule: StepSchedule,
    /// How deltas are carried.
    pub carry: Carry,
}

impl Default for ProfilingSettings {
    fn default() -> Self {
        let (lists, carry) = (Lists::default(), Carry::default());
        Self { blocks: Vec::new(), lists, schedule: StepSchedule::default(), carry }
    }
}

/// Maximal runs of consecutive blocks in a list, which need not be sorted.
pub fn runs_of(blocks: &[usize], count: usize) -> Vec<Range<usize>> {
    let mut sorted: Vec<usize> = blocks.iter().copied().filter(|block| *block < count).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<Range<usize>> = Vec::new();
    for block in sorted {
        match runs.last_mut() {
            Some(run) if run.end == block => run.end += 1,
            _ => runs.push(block..block + 1),
        }
    }
    runs
}

impl ProfilingSettings {
    /// The plan of every step for a model of `blocks` blocks.
    pub fn plans(&self, steps: usize, blocks: usize) -> Vec<StepPlan> {
        let computed = self.schedule.computed(steps);
        let runs: Vec<_> = self.blocks.iter().map(|list| runs_of(list, blocks)).collect();
        let mut stores = vec![Stores::default(); runs.len().max(1)];
        let (mut plans, mut interval, mut list) = (Vec::with_capacity(steps), 0, 0);
        for (step, &compute) in computed.iter().enumerate() {
            if compute {
                list = self.list(step, steps, interval, runs.len());
                interval += 1;
                stores[list].push(step);
            }
            let action = if compute { Action::Store } else { Action::Reuse(self.forecast(step, stores[list])) };
            let cached = runs.get(list).map_or(&[][..], Vec::as_slice);
            plans.push(StepPlan::both(BranchPlan::runs(blocks, cached, &action)));
        }
        plans
    }

    fn list(&self, step: usize, steps: usize, interval: usize, lists: usize) -> usize {
        match self.lists {
            _ if lists < 2 => 0,
            Lists::One => 0,
            Lists::Split => usize::from(2 * step >= steps),
            Lists::Alternate => interval % 2,
        }
    }

    fn forecast(&self, step: usize, stores: Stores) -> Forecast {
        match (&self.carry, stores.newest, stores.previous) {
            (Carry::Extrapolate, Some(newest), Some(previous)) => {
                Forecast::extrapolate((step - newest) as f32 / (newest - previous) as f32)
            }
            (Carry::Scale(ratios), Some(newest), _) => {
                let ratio = |step: usize| ratios.get(step).copied().unwrap_or(1.0);
                Forecast(vec![(newest + 1..=step).map(ratio).product::<f64>() as f32])
            }
            _ => Forecast::hold(),
        }
    }
}

/// The last two steps that stored a list's deltas.
#[derive(Clone, Copy, Debug, Default)]
struct Stores {
    newest: Option<usize>,
    previous: Option<usize>,
}

impl Stores {
    fn push(&mut self, step: usize) {
        self.previous = self.newest.replace(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::{ForwardCost, Intervals};

    #[test]
    fn lists_become_runs() {
        assert_eq!(runs_of(&[3, 0, 4, 3, 9, 20], 12), [0..1, 3..5, 9..10]);
        assert!(runs_of(&[], 5).is_empty());
    }

    /// The authors' list for Wan2.1-14B and 14 computed steps: 2.016 times fewer FLOPs in blocks.
    #[test]
    fn speedup_of_the_papers_lists() {
        let list = [0, 2, 3, 4, 5, 6, 7].into_iter().chain(10..21).chain(25..33).chain([37, 38]).collect();
        let schedule = StepSchedule { last: 0, warm_up: 6, ..Default::default() };
        let settings = ProfilingSettings { blocks: vec![list], schedule, ..Default::default() };
        let plans = settings.plans(50, 40);
        let cost = ForwardCost::even(1.0, 0.0, 40);
        assert!((cost.speedup_to(50, &plans, true) - 2.016).abs() < 1e-3);
    }

    #[test]
    fn scaled_deltas_grow_by_the_ratios_since_they_were_stored() {
        let schedule = StepSchedule { warm_up: 0, last: 0, intervals: Intervals::Uniform(3) };
        let carry = Carry::Scale(vec![1.0, 0.5, 3.0, 7.0, 2.0, 0.25]);
        let settings = ProfilingSettings { blocks: vec![vec![0]], schedule, carry, ..Default::default() };
        let weight = |plan: &StepPlan| match &plan.cond {
            BranchPlan::Blocks(segments) => match &segments[0].action {
                Action::Reuse(Forecast(weights)) => Some(weights[0]),
                _ => None,
            },
            BranchPlan::Output(..) => panic!("blocks"),
        };
        let weights: Vec<_> = settings.plans(6, 1).iter().map(weight).collect();
        assert_eq!(weights, [None, Some(0.5), Some(1.5), None, Some(2.0), Some(0.5)]);
    }

    #[test]
    fn a_reused_run_was_stored_on_the_last_computed_step() {
        for lists in [Lists::One, Lists::Split, Lists::Alternate] {
            for carry in [Carry::Hold, Carry::Extrapolate, Carry::Scale(vec![1.0; 30])] {
                let schedule = StepSchedule { warm_up: 2, last: 1, intervals: Intervals::Uniform(4) };
                let settings = ProfilingSettings { blocks: vec![vec![0, 1, 4], vec![2, 3]], lists, schedule, carry };
                let mut stored: std::collections::HashMap<Range<usize>, usize> = Default::default();
                for plan in settings.plans(30, 6) {
                    let BranchPlan::Blocks(segments) = plan.cond else { panic!("blocks") };
                    for segment in segments {
                        match segment.action {
                            Action::Store => *stored.entry(segment.blocks).or_default() += 1,
                            Action::Reuse(forecast) => assert!(forecast.depth() <= stored[&segment.blocks]),
                            Action::Compute => {}
                        }
                    }
                }
            }
        }
    }
}
