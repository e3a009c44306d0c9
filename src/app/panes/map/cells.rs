//! The numbers behind the map of blocks and steps.

use std::collections::HashMap;

use super::MapPane;
use super::colouring::Colouring;
use super::scores::{Scores, masked};
use crate::app::data::runs::Run;
use crate::app::data::selection::{CellArea, MapCell, Selection};
use crate::app::data::shared::Shared;
use crate::caching::{Cell, StepPlan};
use crate::engine::{BlockRecord, StepRecord};
use crate::media::Colormap;

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// The action of the block.
    pub cell: Cell,
    /// The measured value, in the unit of the colouring.
    pub value: Option<f32>,
    /// Whether the step is still to be done.
    pub planned: bool,
}

/// All cells, steps slowest.
#[derive(Clone, Debug, PartialEq)]
pub struct Cells {
    /// Number of steps.
    pub steps: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// The quantity of the values.
    pub colouring: Colouring,
    /// Whether the baseline's values were subtracted.
    pub subtracted: bool,
    /// Whether the values belong to the branch of the negative prompt.
    pub uncond: bool,
    /// Whether some cells are only planned.
    pub planned: bool,
    /// The colours of values.
    pub map: Colormap,
    /// Values at both ends of the colours.
    pub range: [f32; 2],
    /// The value in the middle of the colours, if both sides have scales of their own.
    pub middle: Option<f32>,
    cells: Vec<Option<Value>>,
}

impl Cells {
    /// The cells on show: of the plan of the next run, or of the current run.
    pub fn of(map: &MapPane, shared: &Shared) -> Self {
        match shared.runs.current() {
            Some(run) if !map.shows_plan(shared) => Self::of_run(map, shared, run),
            _ => Self::of_plan(&shared.prediction.plans, shared.blocks()),
        }
    }

    fn of_plan(plans: &[StepPlan], blocks: usize) -> Self {
        let value = |cell| Some(Value { cell, value: None, planned: false });
        let cells = plans.iter().flat_map(|plan| plan.cond.cells(blocks)).map(value).collect();
        Self { cells, ..Self::empty(plans.len(), blocks, Colouring::Reuse) }
    }

    fn empty(steps: usize, blocks: usize, colouring: Colouring) -> Self {
        let (map, range) = (Colormap::Sequential, [0.0, 1.0]);
        Self {
            steps,
            blocks,
            colouring,
            subtracted: false,
            uncond: false,
            planned: false,
            map,
            range,
            middle: None,
            cells: Vec::new(),
        }
    }

    fn of_run(map: &MapPane, shared: &Shared, run: &Run) -> Self {
        let (info, settings, uncond) = (&run.capture.run, &map.settings, shared.selection.uncond);
        let mut all = Self { uncond, ..Self::empty(info.steps(), info.blocks, settings.colouring) };
        let baseline = shared.runs.shown_baseline().filter(|_| settings.subtract);
        let theirs: HashMap<usize, &StepRecord> =
            baseline.iter().flat_map(|run| &run.capture.steps).map(|record| (record.step, record)).collect();
        all.subtracted = baseline.is_some() && settings.colouring != Colouring::Reuse;
        let mine: HashMap<usize, &StepRecord> = run.capture.steps.iter().map(|record| (record.step, record)).collect();
        for step in 0..all.steps {
            let record = mine.get(&step).copied();
            let other = theirs.get(&step).copied();
            let expected = info.expected.get(step);
            all.push_step(record, other, expected, uncond);
        }
        if settings.colouring.is_score() {
            all.put_scores(map, run, baseline);
        }
        let values = all.cells.iter().flatten().filter_map(|cell| cell.value);
        let middle = all.neutral();
        (all.map, all.range) = range(values, middle);
        if settings.colouring == Colouring::Lift && !all.subtracted {
            // A lift is never negative. Chance stays in the middle of the colours, and each side
            // has its own scale.
            (all.range, all.middle) = ([0.0, all.range[1].max(2.0)], middle);
        }
        all
    }

    fn push_step(
        &mut self,
        record: Option<&StepRecord>,
        other: Option<&StepRecord>,
        expected: Option<&StepPlan>,
        uncond: bool,
    ) {
        let plan = record.and_then(|record| record.plan.as_ref()).or(expected);
        let planned = plan.map(|plan| if uncond { &plan.uncond } else { &plan.cond }.cells(self.blocks));
        for block in 0..self.blocks {
            let done = record.and_then(|record| record.branch(uncond).get(block));
            let cell = done.map(|done| done.cell).or(planned.as_ref().and_then(|cells| cells.get(block).copied()));
            let mut value = done.and_then(|done| self.measured(done));
            if self.subtracted {
                let theirs = other.and_then(|record| self.measured(record.branch(uncond).get(block)?));
                value = value.zip(theirs).map(|(mine, theirs)| mine - theirs);
            }
            let planned = record.is_none();
            self.planned |= planned && cell.is_some();
            self.cells.push(cell.map(|cell| Value { cell, value, planned }));
        }
    }

    fn put_scores(&mut self, map: &MapPane, run: &Run, baseline: Option<&Run>) {
        let uncond = self.uncond;
        for record in &run.capture.steps {
            for block in 0..self.blocks {
                let cell = MapCell { step: record.step, block };
                let of = |scores: &Scores, run: &Run, masked: &Run| {
                    scores.get(run, masked, uncond, cell).and_then(|score| self.colouring.of_score(score))
                };
                let mine = of(&map.scores, run, run);
                let value = match baseline {
                    Some(baseline) => {
                        let theirs = of(&map.baseline_scores, baseline, masked(baseline, run));
                        mine.zip(theirs).map(|(a, b)| a - b)
                    }
                    None => mine,
                };
                if let Some(Some(cell)) = self.cells.get_mut(record.step * self.blocks + block) {
                    cell.value = value;
                }
            }
        }
    }

    fn measured(&self, block: &BlockRecord) -> Option<f32> {
        match self.colouring {
            Colouring::Reuse | Colouring::Lift | Colouring::Recall | Colouring::Auc => None,
            Colouring::Change => block.change,
            Colouring::Time => block.seconds.map(|seconds| seconds * 1e3),
        }
    }

    /// The neutral value: chance, or no difference.
    pub fn neutral(&self) -> Option<f32> {
        if self.subtracted { Some(0.0) } else { self.colouring.middle() }
    }

    /// One cell, if something is known about it.
    pub fn get(&self, step: usize, block: usize) -> Option<Value> {
        if block >= self.blocks { None } else { self.cells.get(step * self.blocks + block).copied().flatten() }
    }

    /// Whether anything was measured.
    pub fn any(&self) -> bool {
        self.cells.iter().flatten().any(|cell| cell.value.is_some())
    }

    /// The place of a value in the colours, 0 to 1.
    pub fn scale(&self, value: f32) -> (Colormap, f32) {
        let [low, high] = self.range;
        let share = |low: f32, high: f32| (value - low) / (high - low).max(f32::MIN_POSITIVE);
        let place = match self.middle {
            Some(middle) if value < middle => 0.5 * share(low, middle),
            Some(middle) => 0.5 + 0.5 * share(middle, high),
            None => share(low, high),
        };
        (self.map, place)
    }

    /// The mean of a block's values.
    pub fn mean(&self, block: usize) -> Option<f32> {
        let values: Vec<f32> = (0..self.steps).filter_map(|step| self.get(step, block)?.value).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f32>() / values.len() as f32)
    }

    /// The step on which a reused cell's block ran last.
    pub fn source(&self, step: usize, block: usize) -> Option<usize> {
        (0..step).rev().find(|earlier| self.get(*earlier, block).is_some_and(|value| value.cell != Cell::Reused))
    }

    /// The share of a block's known executions that are avoided.
    pub fn hit_rate(&self, block: usize) -> f64 {
        let known: Vec<Cell> = (0..self.steps).filter_map(|step| Some(self.get(step, block)?.cell)).collect();
        let reused = known.iter().filter(|cell| **cell == Cell::Reused).count();
        reused as f64 / known.len().max(1) as f64
    }
}

fn word(cell: Cell) -> &'static str {
    match cell {
        Cell::Computed => "computed",
        Cell::Stored => "computed, and its result kept for later steps",
        Cell::Reused => "reused",
    }
}

/// What is known about a cell, one line a fact.
pub fn details(map: &MapPane, shared: &Shared, cells: &Cells, step: usize, block: usize) -> Vec<String> {
    let Some(value) = cells.get(step, block) else { return vec!["not known yet".into()] };
    let what = match cells.source(step, block).filter(|_| value.cell == Cell::Reused) {
        Some(source) => format!("reused from step {source}"),
        None => word(value.cell).into(),
    };
    let mut lines = vec![if value.planned { format!("planned: {what}") } else { what }];
    if map.shows_plan(shared) {
        return lines;
    }
    let uncond = shared.selection.uncond;
    if let Some(run) = shared.runs.current()
        && let Some(record) = run.block(step, block, uncond)
    {
        lines.extend(record.change.map(|change| format!("relative change of its delta: {change:.4}")));
        lines.extend(record.seconds.map(|seconds| format!("GPU time: {:.3} ms", seconds * 1e3)));
        if let Some(score) = map.scores.get(run, run, uncond, MapCell { step, block }) {
            lines.push(format!("lift {:.3}, R_attn {:.3}, AUC {:.3}", score.lift, score.recall, score.auc));
        }
        if record.received.is_some() {
            lines.push("attention received: click to see it over the frame".into());
        }
    }
    if let (true, Some(value)) = (cells.subtracted, value.value) {
        lines.push(format!("minus the baseline's: {value:+.4}"));
    }
    lines
}

/// The selection in words, for screen readers.
pub fn describe(map: &MapPane, shared: &Shared, selection: &Selection, cells: &Cells) -> String {
    let Some(selected) = selection.cells else {
        return format!("{} blocks, {} steps, nothing selected", cells.blocks, cells.steps);
    };
    if let Some(cell) = selected.single() {
        let details = details(map, shared, cells, cell.step, cell.block).join(", ");
        return format!("Block {}, step {}: {details}", cell.block, cell.step);
    }
    let CellArea { first, last } = selected;
    format!("Blocks {} to {}, steps {} to {} selected", first.block, last.block, first.step, last.step)
}

/// The colours for values, and the values at their ends.
fn range(values: impl Iterator<Item = f32>, middle: Option<f32>) -> (Colormap, [f32; 2]) {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for value in values {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    match middle {
        Some(middle) => {
            let reach = (high - middle).max(middle - low).max(1e-6);
            (Colormap::Diverging, [middle - reach, middle + reach])
        }
        None => (Colormap::Sequential, [0.0, high.max(1e-9)]),
    }
}
