//! ProfilingDiT (arXiv 2504.03140): runs of chosen blocks are computed on scheduled steps and
//! replaced by their delta on the others.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::block_controls as controls;
use crate::caching::evidence::{BlockFindings, Evidence};
use crate::caching::rule::{About, Advice, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::schedule::{self, StepSchedule};
use crate::caching::setting::{Choice, Kind, Setting, Value};
use crate::caching::strategy::Fixed;
use crate::caching::{Action, BranchPlan, CacheError, Forecast, StepPlan, Strategy};
use crate::sampling::limits::MOST_BLOCKS;

/// Which of the lists is in force when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lists {
    /// The first list throughout.
    #[default]
    One,
    /// The first list in the first half of the steps, the second list after it (the paper's
    /// "split").
    Split,
    /// The lists take turns from one computed step to the next (the paper's "alternate").
    Alternate,
}

/// Where the cached blocks come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockList {
    /// Somebody chose the blocks. Files without a source have such lists.
    #[default]
    Own,
    /// The profile's background blocks.
    Background,
    /// The profile's foreground blocks.
    Foreground,
    /// Foreground blocks in the first half of the steps, background blocks after it.
    Split,
    /// Foreground and background blocks in turns.
    Alternate,
    /// A control: as many blocks, drawn by a seed.
    Random,
    /// A control: as many blocks of each third of the depth, drawn by a seed.
    Depth,
    /// A control: as many blocks, those whose deltas change least.
    Stable,
}

const LISTS: &[Choice] = &[
    Choice { key: "own", label: "own", help: "Blocks of your own choice" },
    Choice { key: "background", label: "background", help: "Blocks that attended to the background (the paper)" },
    Choice { key: "foreground", label: "foreground", help: "Blocks that attended to the foreground" },
    Choice { key: "split", label: "split", help: "Foreground blocks in the first half of the steps, then background" },
    Choice { key: "alternate", label: "alternate", help: "Foreground and background blocks in turns" },
    Choice { key: "random", label: "random", help: "A control: as many blocks, drawn by a seed" },
    Choice {
        key: "depth",
        label: "depth",
        help: "A control: as many blocks of each third of the depth, drawn by a seed",
    },
    Choice { key: "stable", label: "stable", help: "A control: as many blocks, those whose deltas change least" },
];

impl BlockList {
    const ALL: [Self; 8] = [
        Self::Own,
        Self::Background,
        Self::Foreground,
        Self::Split,
        Self::Alternate,
        Self::Random,
        Self::Depth,
        Self::Stable,
    ];

    fn key(self) -> &'static str {
        LISTS[self as usize].key
    }

    fn of_key(key: &str) -> Self {
        Self::ALL.into_iter().find(|list| list.key() == key).unwrap_or_default()
    }

    fn is_drawn(self) -> bool {
        matches!(self, Self::Random | Self::Depth)
    }
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
    /// Times how much the whole residual grows from the one step to the other, by these measured
    /// ratios of each step's magnitude to that of the step before
    /// ([`Calibration::magnitude_ratios`](crate::caching::Calibration)).
    Scale(Vec<f64>),
}

const CARRIES: &[Choice] = &[
    Choice { key: "hold", label: "hold", help: "As it is (the paper)" },
    Choice { key: "extrapolate", label: "extrapolate", help: "From the last two" },
    Choice { key: "scale", label: "scale", help: "Times how much the residual grows, as measured" },
];

impl Carry {
    fn key(&self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Extrapolate => "extrapolate",
            Self::Scale(_) => "scale",
        }
    }

    fn of_key(key: &str) -> Self {
        match key {
            "extrapolate" => Self::Extrapolate,
            "scale" => Self::Scale(Vec::new()),
            _ => Self::Hold,
        }
    }
}

/// Settings of ProfilingDiT.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfilingDit {
    /// Where the cached blocks come from.
    pub list: BlockList,
    /// So many background blocks, those with the least lift, in place of those below the
    /// profile's tau.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// Seed of lists that are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Cached blocks; see `lists` for when a second list counts.
    pub blocks: Vec<Vec<usize>>,
    /// Which list when.
    pub lists: Lists,
    /// Computed steps.
    pub schedule: StepSchedule,
    /// How deltas are carried.
    pub carry: Carry,
}

/// Lists of blocks in a file at most.
const MOST_LISTS: usize = 16;

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

impl ProfilingDit {
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

    /// Chooses blocks by hand.
    pub fn choose_blocks(&mut self, blocks: Vec<usize>) {
        (self.list, self.lists, self.blocks) = (BlockList::Own, Lists::One, vec![blocks]);
        (self.count, self.seed) = (None, None);
    }

    /// The first list of cached blocks.
    pub fn cached(&self) -> &[usize] {
        self.blocks.first().map_or(&[], Vec::as_slice)
    }

    fn choose_list(&mut self, list: BlockList) {
        if self.list != list {
            self.list = list;
            // Own blocks begin with those of the list before.
            Rule::uncalibrate(self);
        }
    }

    /// Fails for settings of lists that mean nothing for the chosen one.
    fn check_list(&self, blocks: usize) -> Result<(), CacheError> {
        let wrong = |message: String| Err(CacheError::Settings(message));
        match self {
            Self { seed: Some(_), list, .. } if !list.is_drawn() => {
                wrong(format!("seed is of lists that are drawn, random and depth, not of list={}", list.key()))
            }
            Self { count: Some(count), .. } if *count > blocks => {
                wrong(format!("count={count} of profiling: the model has {blocks} blocks"))
            }
            Self { count: Some(_), list: BlockList::Foreground, .. } => {
                wrong("count is of background blocks: list=foreground takes none".into())
            }
            _ => Ok(()),
        }
    }

    /// The lists that a profile's findings give.
    fn lists_from(&self, found: &BlockFindings) -> (Vec<Vec<usize>>, Lists) {
        let blocks = found.lift.len();
        let (background, foreground) = match self.count {
            Some(count) => {
                let mut order: Vec<usize> = (0..blocks).collect();
                order.sort_by(|a, b| found.lift[*a].total_cmp(&found.lift[*b]));
                let mut parts = [order[..count.min(blocks)].to_vec(), order[count.min(blocks)..].to_vec()];
                parts.iter_mut().for_each(|part| part.sort_unstable());
                let [background, foreground] = parts;
                (background, foreground)
            }
            None => (found.background.clone(), found.foreground.clone()),
        };
        let seed = self.seed.unwrap_or(0);
        match self.list {
            BlockList::Own => (self.blocks.clone(), self.lists),
            BlockList::Background => (vec![background], Lists::One),
            BlockList::Foreground => (vec![foreground], Lists::One),
            BlockList::Split => (vec![foreground, background], Lists::Split),
            BlockList::Alternate => (vec![foreground, background], Lists::Alternate),
            BlockList::Random => (vec![controls::random(background.len(), blocks, seed)], Lists::One),
            BlockList::Depth => (vec![controls::depth_matched(&background, blocks, seed)], Lists::One),
            BlockList::Stable => (vec![controls::stable(&found.by_change, background.len())], Lists::One),
        }
    }

    /// Settings of which blocks are cached.
    fn list_settings(&self, blocks: usize) -> Vec<Setting<Self>> {
        let list = Setting::new(
            ("list", "list", "Which blocks are cached"),
            Kind::Choice(LISTS),
            |rule: &Self| Value::Choice(rule.list.key()),
            |rule, value| match value {
                Value::Choice(key) => {
                    rule.choose_list(BlockList::of_key(key));
                    Ok(())
                }
                other => Err(format!("there is no list called {other}")),
            },
        );
        let cached = Setting::new(
            ("blocks", "cached", "Background blocks: the B buttons of the map, or a list such as 0-5,9"),
            Kind::Blocks(blocks),
            |rule: &Self| Value::Blocks(rule.cached().to_vec()),
            |rule, value| match value {
                Value::Blocks(list) => {
                    rule.choose_blocks(list);
                    Ok(())
                }
                other => Err(format!("{other} is no list of blocks")),
            },
        );
        let count = Setting::count_by(
            ("count", "count", "So many blocks with the least lift, in place of the profile's background"),
            0..=blocks,
            |rule: &Self| rule.count.unwrap_or_else(|| rule.cached().len()),
            |rule, count| {
                Rule::uncalibrate(rule);
                rule.count = (count > 0).then_some(count);
            },
        );
        let seed = Setting::count_by(
            ("seed", "seed", "Seed of a list that is drawn"),
            0..=100,
            |rule: &Self| rule.seed.unwrap_or(0) as usize,
            |rule, seed| {
                Rule::uncalibrate(rule);
                rule.seed = Some(seed as u64);
            },
        );
        vec![
            list,
            cached.excludes(&["list", "count", "seed"]),
            count.unit("blocks").shown(false),
            seed.shown(self.list.is_drawn()),
        ]
    }
}

impl Rule for ProfilingDit {
    const ABOUT: About = About {
        key: "profiling",
        label: "ProfilingDiT",
        summary: "Blocks that attend to the background are reused between computed steps.",
        source: "arXiv 2504.03140",
        group: Group::Published,
        needs: Needs::Profile,
    };

    fn defaults(steps: usize) -> Self {
        let (list, schedule) = (BlockList::Background, StepSchedule::for_steps(steps));
        Self { list, schedule, ..Self::default() }
    }

    fn settings(&self, shape: Shape) -> Vec<Setting<Self>> {
        let mut settings = self.list_settings(shape.blocks);
        settings.extend(schedule::settings(&self.schedule, shape, |rule: &mut Self| &mut rule.schedule));
        settings.push(Setting::new(
            ("carry", "delta", "How a stored delta is carried to later steps"),
            Kind::Choice(CARRIES),
            |rule: &Self| Value::Choice(rule.carry.key()),
            |rule, value| match value {
                Value::Choice(key) => {
                    if rule.carry.key() != key {
                        rule.carry = Carry::of_key(key);
                    }
                    Ok(())
                }
                other => Err(format!("carry is hold, extrapolate or scale, not {other}")),
            },
        ));
        settings
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        let StrategyInputs { steps, blocks, .. } = *inputs;
        let wrong = |message: String| Err(CacheError::Settings(message));
        if !Rule::is_calibrated(self) {
            return Err(CacheError::Uncalibrated("ProfilingDiT (without a list of its own, such as blocks=2-9)"));
        }
        if self.blocks.iter().flatten().any(|block| *block >= blocks) {
            return wrong(format!("the list of cached blocks names one that a model of {blocks} does not have"));
        }
        match &self.carry {
            Carry::Scale(ratios) if ratios.is_empty() => {
                return Err(CacheError::Uncalibrated("scaling of deltas"));
            }
            Carry::Scale(ratios) if ratios.len() != steps => {
                let there = ratios.len();
                return wrong(format!(
                    "the ratios that deltas are scaled by are of {there} steps, the job has {steps}: ask for {there} steps"
                ));
            }
            _ => {}
        }
        Ok(Box::new(Fixed(self.plans(steps, blocks))))
    }

    fn check(&self) -> Result<(), String> {
        let lists = &self.blocks;
        let sane = lists.len() <= MOST_LISTS && lists.iter().all(|list| list.len() <= MOST_BLOCKS);
        if sane { Ok(()) } else { Err("its lists of blocks are too long".into()) }
    }

    fn calibrate(&mut self, evidence: &Evidence) -> Result<(), CacheError> {
        if let Carry::Scale(ratios) = &mut self.carry
            && ratios.len() != evidence.steps()
        {
            // The ratios are applied, so they must be of this run's steps.
            *ratios = evidence.calibration_here().map_or_else(Vec::new, |here| here.magnitude_ratios.clone());
        }
        self.check_list(evidence.blocks())?;
        if let (false, Some(found)) = (Rule::is_calibrated(self), evidence.findings()) {
            (self.blocks, self.lists) = self.lists_from(found);
        }
        Ok(())
    }

    fn uncalibrate(&mut self) {
        if self.list != BlockList::Own {
            (self.blocks, self.lists) = (Vec::new(), Lists::One);
        }
        if let Carry::Scale(ratios) = &mut self.carry {
            ratios.clear();
        }
    }

    fn is_calibrated(&self) -> bool {
        self.list == BlockList::Own || !self.blocks.is_empty()
    }

    fn tuning(&self) -> Tuning {
        // The intervals that are given are stretched.
        Tuning::Candidates { chosen: &[] }
    }

    fn candidates(&self, _target: &SpeedupTarget) -> Vec<Self> {
        let stretched = |i: u32| Self { schedule: self.schedule.stretched(f64::from(i) / 15.0), ..self.clone() };
        (1..=60).map(stretched).collect()
    }

    fn advice(&self) -> Advice {
        if self.blocks.iter().all(Vec::is_empty) {
            return Advice { more: "its list of blocks is empty: name some", less: "compute every few steps" };
        }
        Advice::SCHEDULE
    }

    fn background(&self, _blocks: usize) -> Vec<usize> {
        self.cached().to_vec()
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
        let settings = ProfilingDit { blocks: vec![list], schedule, ..Default::default() };
        let plans = settings.plans(50, 40);
        let cost = ForwardCost::even(1.0, 0.0, 40);
        assert!((cost.speedup_to(50, &plans, true) - 2.016).abs() < 1e-3);
    }

    #[test]
    fn scaled_deltas_grow_by_the_ratios_since_they_were_stored() {
        let schedule = StepSchedule { warm_up: 0, last: 0, intervals: Intervals::Uniform(3) };
        let carry = Carry::Scale(vec![1.0, 0.5, 3.0, 7.0, 2.0, 0.25]);
        let settings = ProfilingDit { blocks: vec![vec![0]], schedule, carry, ..Default::default() };
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
                let blocks = vec![vec![0, 1, 4], vec![2, 3]];
                let settings = ProfilingDit { blocks, lists, schedule, carry, ..Default::default() };
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
