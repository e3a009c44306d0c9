//! The plan of one denoising step: which blocks run, which runs of blocks are replaced by a stored
//! delta, or whether the whole output is forecast.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::CacheError;
use crate::sampling::limits::{MOST_BLOCKS, MOST_STORED_STEPS};

/// The weights that forecast a value from stored values, newest first. `[1]` holds the newest
/// value; `[1 + k, -k]` extrapolates from the last two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast(pub Vec<f32>);

impl Forecast {
    /// The newest value as it is (ProfilingDiT eq. 9 and most other methods).
    pub fn hold() -> Self {
        Self(vec![1.0])
    }

    /// First-order extrapolation by `k` intervals between the two newest values.
    pub fn extrapolate(k: f32) -> Self {
        Self(vec![1.0 + k, -k])
    }

    /// How many stored values it needs.
    pub fn depth(&self) -> usize {
        self.0.len()
    }
}

/// What one segment of blocks does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Runs.
    Compute,
    /// Runs, and its delta (output minus input of the segment) is stored.
    Store,
    /// Is skipped; the forecast of its delta is added instead.
    Reuse(Forecast),
}

impl Action {
    /// A computed step stores, any other step reuses what was stored last.
    pub fn store_or_hold(compute: bool) -> Self {
        if compute { Self::Store } else { Self::Reuse(Forecast::hold()) }
    }
}

/// Consecutive blocks that act as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Which blocks.
    pub blocks: Range<usize>,
    /// What they do.
    pub action: Action,
}

/// What a forecast of the output is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// The predicted velocity.
    Velocity,
    /// The velocity minus the latents of its step. The forecast adds this to the latents of the
    /// current step (EasyCache).
    Offset,
}

/// Outputs that a forecast combines at most: so many are kept.
pub const MOST_OUTPUTS: usize = 4;

/// What one branch (cond or uncond) does in one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchPlan {
    /// The transformer runs; the segments cover all blocks in order.
    Blocks(Vec<Segment>),
    /// The transformer does not run.
    Output(OutputKind, Forecast),
}

/// What a block did, for maps and statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cell {
    /// Computed.
    Computed,
    /// Computed, and its run's delta kept.
    Stored,
    /// Replaced by a stored delta, or by a forecast of the whole output.
    Reused,
}

impl BranchPlan {
    /// All `count` blocks run and nothing is stored.
    pub fn compute(count: usize) -> Self {
        Self::whole(count, Action::Compute)
    }

    /// All `count` blocks as one segment.
    pub fn whole(count: usize, action: Action) -> Self {
        Self::Blocks(vec![Segment { blocks: 0..count, action }])
    }

    /// The `cached` runs do `action`; the blocks between them are computed. Runs must be sorted and
    /// disjoint. Blocks beyond `count` are cut off.
    pub fn runs(count: usize, cached: &[Range<usize>], action: &Action) -> Self {
        let mut segments = Vec::new();
        let mut next = 0;
        for run in cached {
            let (start, end) = (run.start.clamp(next, count), run.end.min(count));
            if start >= end {
                continue;
            }
            if next < start {
                segments.push(Segment { blocks: next..start, action: Action::Compute });
            }
            segments.push(Segment { blocks: start..end, action: action.clone() });
            next = end;
        }
        if next < count {
            segments.push(Segment { blocks: next..count, action: Action::Compute });
        }
        Self::Blocks(segments)
    }

    /// The segments; none where the output is forecast.
    fn segments(&self) -> &[Segment] {
        match self {
            Self::Blocks(segments) => segments,
            Self::Output(..) => &[],
        }
    }

    /// The weights of all forecasts.
    fn weights(&self) -> impl Iterator<Item = f32> {
        let output = match self {
            Self::Output(_, forecast) => Some(forecast),
            Self::Blocks(_) => None,
        };
        let reused = self.segments().iter().filter_map(|segment| match &segment.action {
            Action::Reuse(forecast) => Some(forecast),
            _ => None,
        });
        output.into_iter().chain(reused).flat_map(|forecast| forecast.0.iter().copied())
    }

    /// What each of `count` blocks does.
    pub fn cells(&self, count: usize) -> Vec<Cell> {
        let Self::Blocks(segments) = self else {
            return vec![Cell::Reused; count];
        };
        let mut cells = vec![Cell::Computed; count];
        for segment in segments {
            let cell = match segment.action {
                Action::Compute => Cell::Computed,
                Action::Store => Cell::Stored,
                Action::Reuse(_) => Cell::Reused,
            };
            // A plan from a file may name any blocks.
            for block in segment.blocks.start..segment.blocks.end.min(count) {
                if let Some(slot) = cells.get_mut(block) {
                    *slot = cell;
                }
            }
        }
        cells
    }

    /// How many of `count` blocks run.
    pub fn computed(&self, count: usize) -> usize {
        self.cells(count).iter().filter(|cell| **cell != Cell::Reused).count()
    }

    /// Whether nothing is reused.
    pub fn is_full(&self, count: usize) -> bool {
        self.computed(count) == count
    }

    /// Whether the segments cover blocks `0..count` in order, without gaps. A forecast of the
    /// output always fits.
    pub fn fits(&self, count: usize) -> bool {
        let Self::Blocks(segments) = self else { return true };
        let mut next = 0;
        for segment in segments {
            if segment.blocks.start != next || segment.blocks.end <= next {
                return false;
            }
            next = segment.blocks.end;
        }
        next == count
    }
}

/// The correction of skipped steps by the computed step that ends them.
///
/// The residuals of the skipped steps were forecast. The same kind of forecast is made for the
/// computed step, and the guided velocity minus the forecast velocity is the surprise. A share of
/// the surprise corrects what each skipped step did to the latents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correction {
    /// The forecast of the computed step's residual of all blocks, from the computed steps before.
    pub expected: Forecast,
    /// The share of each skipped step, oldest first.
    pub shares: Vec<f32>,
}

/// What both branches do in one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepPlan {
    /// The prompt's branch.
    pub cond: BranchPlan,
    /// The negative prompt's branch; ignored without guidance.
    pub uncond: BranchPlan,
    /// How the skipped steps before this one are corrected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<Correction>,
}

impl StepPlan {
    /// Both branches do the same.
    pub fn both(plan: BranchPlan) -> Self {
        Self { cond: plan.clone(), uncond: plan, correction: None }
    }

    /// All `count` blocks of both branches run, and nothing is stored.
    pub fn compute(count: usize) -> Self {
        Self::both(BranchPlan::compute(count))
    }

    /// The plans of a run in which all `blocks` blocks are reused together between computed steps.
    pub fn stack(computed: &[bool], blocks: usize) -> Vec<Self> {
        let plan = |compute: &bool| Self::both(BranchPlan::whole(blocks, Action::store_or_hold(*compute)));
        computed.iter().map(plan).collect()
    }

    /// The number of blocks that the segments cover; 0 where both outputs are forecast.
    pub fn blocks(&self) -> usize {
        let end = |branch: &BranchPlan| branch.segments().last().map_or(0, |segment| segment.blocks.end);
        end(&self.cond).max(end(&self.uncond))
    }

    /// Fails unless the plan, from a file, is for a model of `blocks` blocks and has sane sizes.
    ///
    /// # Errors
    /// The reason, as the end of the sentence "the file is damaged: ...".
    pub fn check_sizes(&self, blocks: usize) -> Result<(), String> {
        let shallow = |forecast: &Forecast| forecast.depth() <= MOST_DELTAS;
        let sane = |branch: &BranchPlan| {
            let shallow = match branch {
                BranchPlan::Output(_, forecast) => shallow(forecast),
                BranchPlan::Blocks(segments) => segments.iter().all(|segment| match &segment.action {
                    Action::Reuse(forecast) => shallow(forecast),
                    _ => true,
                }),
            };
            shallow && branch.fits(blocks)
        };
        let corrected =
            |correction: &Correction| shallow(&correction.expected) && correction.shares.len() <= MOST_STORED_STEPS;
        let sane =
            blocks <= MOST_BLOCKS && self.correction.as_ref().is_none_or(corrected) && self.branches(true).all(sane);
        if sane { Ok(()) } else { Err("a plan is not for its model".into()) }
    }

    /// The branches that run: both with guidance, one without.
    pub fn branches(&self, guided: bool) -> impl Iterator<Item = &BranchPlan> {
        std::iter::once(&self.cond).chain(guided.then_some(&self.uncond))
    }
}

/// Deltas of one run of blocks that a plan may ask for: far more than any rule uses, and few enough
/// for the memory of a GPU.
const MOST_DELTAS: usize = 16;

/// Checks that plans reuse no more than they stored or computed before.
pub(super) fn check_reuse(plans: &[StepPlan]) -> Result<(), CacheError> {
    let branches: [fn(&StepPlan) -> &BranchPlan; 2] = [|plan| &plan.cond, |plan| &plan.uncond];
    for branch in branches {
        let mut stored: HashMap<Range<usize>, usize> = HashMap::new();
        let mut outputs = 0;
        for (step, plan) in plans.iter().enumerate() {
            let missing = |what: String| Err(CacheError::NothingStored(format!("{what} in step {step}")));
            if let Some(correction) = &plan.correction {
                check_correction(correction, &plans[..step], branch(plan), &stored)?;
            }
            if !branch(plan).weights().all(|weight| weight.is_finite()) {
                return Err(CacheError::Settings(format!("step {step} has a weight that is no number")));
            }
            match branch(plan) {
                BranchPlan::Output(_, forecast) if !(1..=outputs.min(MOST_OUTPUTS)).contains(&forecast.depth()) => {
                    return missing(format!("{} outputs", forecast.depth()));
                }
                BranchPlan::Output(..) => {}
                BranchPlan::Blocks(segments) => {
                    for Segment { blocks, action } in segments {
                        let count = stored.entry(blocks.clone()).or_default();
                        match action {
                            Action::Store => *count += 1,
                            Action::Reuse(forecast) if !(1..=MOST_DELTAS.min(*count)).contains(&forecast.depth()) => {
                                return missing(format!("{} deltas of blocks {blocks:?}", forecast.depth()));
                            }
                            _ => {}
                        }
                    }
                    outputs += 1;
                }
            }
        }
    }
    Ok(())
}

/// A correction needs three things: its step stores all blocks as one run, enough deltas are stored
/// for its forecast, and the steps before are skipped.
fn check_correction(
    correction: &Correction,
    before: &[StepPlan],
    plan: &BranchPlan,
    stored: &HashMap<Range<usize>, usize>,
) -> Result<(), CacheError> {
    let (depth, shares, step) = (correction.expected.depth(), &correction.shares, before.len());
    let [Segment { blocks, action: Action::Store }] = plan.segments() else {
        return Err(CacheError::Settings(format!(
            "step {step} has a correction, but does not store all blocks as one"
        )));
    };
    let kept = stored.get(blocks).copied().unwrap_or(0);
    if !(1..=MOST_DELTAS.min(kept)).contains(&depth) {
        return Err(CacheError::NothingStored(format!("{depth} deltas for the correction in step {step}")));
    }
    let skipped = before.iter().rev().take_while(|plan| plan.cond.computed(blocks.end) == 0).count();
    if shares.is_empty()
        || shares.len() > skipped
        || !shares.iter().chain(&correction.expected.0).all(|weight| weight.is_finite())
    {
        let message = format!("the correction in step {step} has {} shares for {skipped} skipped steps", shares.len());
        return Err(CacheError::Settings(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_leave_the_blocks_between_them_computed() {
        let plan = BranchPlan::runs(6, &[0..2, 3..9], &Action::Store);
        assert!(plan.fits(6));
        assert_eq!(plan.computed(6), 6);
        let plan = BranchPlan::runs(6, &[1..2, 4..5, 7..8], &Action::Reuse(Forecast::hold()));
        use Cell::{Computed, Reused};
        assert_eq!(plan.cells(6), [Computed, Reused, Computed, Computed, Reused, Computed]);
        assert!(plan.fits(6) && !plan.fits(7));
    }

    #[test]
    fn reuse_before_storing_is_found() {
        let reuse = |forecast| StepPlan::both(BranchPlan::whole(2, Action::Reuse(forecast)));
        let store = StepPlan::both(BranchPlan::whole(2, Action::Store));
        let output = |depth| StepPlan::both(BranchPlan::Output(OutputKind::Velocity, Forecast(vec![0.5; depth])));
        assert!(check_reuse(&[store.clone(), reuse(Forecast::hold()), output(1)]).is_ok());
        assert!(check_reuse(&[StepPlan::compute(2), reuse(Forecast::hold())]).is_err());
        assert!(check_reuse(&[store.clone(), reuse(Forecast(vec![f32::INFINITY]))]).is_err());
        assert!(check_reuse(&[store.clone(), reuse(Forecast::extrapolate(1.0))]).is_err());
        assert!(check_reuse(&[store.clone(), output(2)]).is_err());
        assert!(check_reuse(&[store.clone(), output(0)]).is_err());
        assert!(check_reuse(&[output(1), store.clone()]).is_err());
        let deep = |depth| [vec![store.clone(); 20], vec![reuse(Forecast(vec![0.1; depth]))]].concat();
        assert!(check_reuse(&deep(16)).is_ok() && check_reuse(&deep(17)).is_err());
        let correction = |depth| Some(Correction { expected: Forecast(vec![1.0; depth]), shares: vec![0.5] });
        let corrected = |depth| StepPlan { correction: correction(depth), ..store.clone() };
        let held = || reuse(Forecast::hold());
        assert!(check_reuse(&[store.clone(), held(), corrected(1)]).is_ok());
        assert!(check_reuse(&[store.clone(), held(), corrected(2)]).is_err());
        assert!(check_reuse(&[corrected(1)]).is_err());
        assert!(check_reuse(&[store.clone(), StepPlan { correction: correction(1), ..held() }]).is_err());
    }
}
