//! What a plan costs: FLOPs of one forward pass, the speed-up of plans, and the share of blocks
//! that they avoid.

use serde::{Deserialize, Serialize};

use super::{BranchPlan, CacheError, Cell, StepPlan};
use crate::sampling::limits::MOST_BLOCKS;

/// Work of one forward pass in FLOPs, for speed-ups that are known before anything runs.
///
/// Files hold `{"outside": x, "block": y, "blocks": n}` where all blocks cost the same, else
/// `{"outside": x, "blocks": [y, ...]}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct ForwardCost {
    /// All that is not in a block: patch embedding and head. (Times are embedded once a run.)
    pub outside: f64,
    /// Each block.
    pub blocks: Vec<f64>,
}

impl ForwardCost {
    /// The cost of `count` blocks that cost the same.
    pub fn even(block: f64, outside: f64, count: usize) -> Self {
        Self { outside, blocks: vec![block; count] }
    }

    /// FLOPs of a branch's plan.
    pub fn of(&self, plan: &BranchPlan) -> f64 {
        match plan {
            BranchPlan::Blocks(_) => {
                let cells = plan.cells(self.blocks.len());
                let computed = cells.iter().zip(&self.blocks).filter(|(cell, _)| **cell != Cell::Reused);
                self.outside + computed.map(|(_, cost)| cost).sum::<f64>()
            }
            BranchPlan::Output(..) => 0.0,
        }
    }

    /// FLOPs of steps. A correction makes the head once more; what is outside the blocks is more
    /// than that.
    pub fn of_steps(&self, plans: &[StepPlan], guided: bool) -> f64 {
        let of_step = |plan: &StepPlan| {
            let correction = if plan.correction.is_some() { self.outside } else { 0.0 };
            plan.branches(guided).map(|branch| self.of(branch) + correction).sum::<f64>()
        };
        plans.iter().map(of_step).sum()
    }

    /// The FLOP speed-up: work of `requested_steps` uncached steps, divided by the work of the
    /// plans. Steps that a strategy leaves out count as saved.
    pub fn speedup_to(&self, requested_steps: usize, plans: &[StepPlan], guided: bool) -> f64 {
        let full = self.of_steps(&[StepPlan::compute(self.blocks.len())], guided);
        full * requested_steps as f64 / self.of_steps(plans, guided).max(f64::MIN_POSITIVE)
    }
}

/// [`ForwardCost`] in files.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block: Option<f64>,
    outside: f64,
    blocks: Blocks,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Blocks {
    Count(usize),
    Each(Vec<f64>),
}

impl TryFrom<Stored> for ForwardCost {
    type Error = CacheError;

    fn try_from(stored: Stored) -> Result<Self, CacheError> {
        let wrong = || CacheError::Settings("the cost of the model's blocks is missing or of too many blocks".into());
        let blocks = match (stored.blocks, stored.block) {
            (Blocks::Each(blocks), None) if blocks.len() <= MOST_BLOCKS => blocks,
            (Blocks::Count(count), Some(block)) if count <= MOST_BLOCKS => vec![block; count],
            _ => return Err(wrong()),
        };
        Ok(Self { outside: stored.outside, blocks })
    }
}

impl From<ForwardCost> for Stored {
    fn from(ForwardCost { outside, blocks }: ForwardCost) -> Self {
        match blocks.split_first() {
            Some((first, rest)) if rest.iter().all(|cost| cost == first) => {
                Self { block: Some(*first), outside, blocks: Blocks::Count(blocks.len()) }
            }
            _ => Self { block: None, outside, blocks: Blocks::Each(blocks) },
        }
    }
}

/// Share of block executions that were avoided, over all branches and steps: the hit rate.
pub fn hit_rate(plans: &[StepPlan], blocks: usize, guided: bool) -> f64 {
    let all: usize = plans.iter().flat_map(|plan| plan.branches(guided)).count() * blocks;
    let run: usize = plans.iter().flat_map(|plan| plan.branches(guided)).map(|plan| plan.computed(blocks)).sum();
    if all == 0 { 0.0 } else { 1.0 - run as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::{Action, Forecast};

    /// The paper's own arithmetic (Wan2.1-14B): 14 of 50 steps full, 28 of 40 blocks cached in the
    /// others: 2.016x.
    #[test]
    fn flop_speedup_of_the_paper() {
        let cost = ForwardCost::even(1.0, 0.0, 40);
        let reuse = BranchPlan::runs(40, &[0..1, 2..8, 10..21, 25..33, 37..39], &Action::Reuse(Forecast::hold()));
        let mut plans = vec![StepPlan::compute(40); 14];
        plans.resize(50, StepPlan::both(reuse));
        assert!((cost.speedup_to(50, &plans, true) - 2.016).abs() < 1e-3);
        assert!((hit_rate(&plans, 40, true) - 36.0 / 50.0 * 28.0 / 40.0).abs() < 1e-12);
    }

    #[test]
    fn steps_that_are_left_out_count_as_saved() {
        let cost = ForwardCost::even(3.0, 1.0, 4);
        assert_eq!(cost.speedup_to(50, &vec![StepPlan::compute(4); 25], false), 2.0);
    }

    #[test]
    fn blocks_may_cost_different_amounts() {
        let cost = ForwardCost { outside: 1.0, blocks: vec![4.0, 2.0, 1.0] };
        let plan = BranchPlan::runs(3, &[0..1, 2..3], &Action::Reuse(Forecast::hold()));
        assert_eq!(cost.of(&plan), 1.0 + 2.0);
        assert_eq!(cost.of(&BranchPlan::compute(3)), 8.0);
    }

    #[test]
    fn both_forms_of_files_are_read() {
        let read = |text: &str| serde_json::from_str::<ForwardCost>(text);
        let even = read(r#"{"block": 2.0, "outside": 1.0, "blocks": 3}"#).unwrap();
        assert_eq!(even, ForwardCost::even(2.0, 1.0, 3));
        assert_eq!(serde_json::to_string(&even).unwrap(), r#"{"block":2.0,"outside":1.0,"blocks":3}"#);
        let uneven = ForwardCost { outside: 1.0, blocks: vec![4.0, 2.0] };
        assert_eq!(read(&serde_json::to_string(&uneven).unwrap()).unwrap(), uneven);
        assert!(read(r#"{"block": 2.0, "outside": 1.0, "blocks": 18446744073709551615}"#).is_err());
        assert!(read(r#"{"outside": 1.0, "blocks": 3}"#).is_err());
    }
}
