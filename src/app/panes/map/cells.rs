//! The numbers behind the map of blocks and steps.

use std::collections::HashMap;

use crate::caching::{Cell, StepPlan};
use crate::engine::{BlockRecord, StepRecord};
use crate::media::Colormap;

use crate::app::data::runs::Run;
use crate::app::data::scores::{Scores, masked};
use crate::app::data::state::State;
use crate::app::panes::map::colouring::Colouring;
use crate::app::panes::map::range;

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// What the block does.
    pub cell: Cell,
    /// What was measured, in the unit of the colouring.
    pub value: Option<f32>,
    /// Not done yet.
    pub planned: bool,
}

/// All cells, steps slowest.
#[derive(Clone, Debug, PartialEq)]
pub struct Cells {
    /// Number of steps.
    pub steps: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// What the values are.
    pub colouring: Colouring,
    /// Whether the baseline's values were subtracted.
    pub subtracted: bool,
    /// Whether they are of the negative prompt's branch.
    pub uncond: bool,
    /// Whether some are planned only.
    pub planned: bool,
    /// The colours of values.
    pub map: Colormap,
    /// Values at both ends of the colours.
    pub range: [f32; 2],
    /// The value in the middle of the colours, where both sides have scales of their own.
    pub middle: Option<f32>,
    cells: Vec<Option<Value>>,
}

impl Cells {
    /// What the map shows: the plan of the next run, or the current run.
    pub fn of(state: &State) -> Self {
        match state.runs.current() {
            Some(run) if !state.shows_plan() => Self::of_run(state, run),
            _ => Self::of_plan(&state.prediction.plans, state.blocks()),
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

    fn of_run(state: &State, run: &Run) -> Self {
        let (info, view) = (&run.capture.run, &state.view);
        let mut all = Self { uncond: view.uncond, ..Self::empty(info.steps(), info.blocks, view.colouring) };
        let baseline = state.runs.comparable().map(|(baseline, _)| baseline).filter(|_| view.subtract);
        let theirs: HashMap<usize, &StepRecord> =
            baseline.iter().flat_map(|run| &run.capture.steps).map(|record| (record.step, record)).collect();
        all.subtracted = baseline.is_some() && view.colouring != Colouring::Reuse;
        let mine: HashMap<usize, &StepRecord> = run.capture.steps.iter().map(|record| (record.step, record)).collect();
        for step in 0..all.steps {
            let record = mine.get(&step).copied();
            let other = theirs.get(&step).copied();
            let expected = info.expected.get(step);
            all.push_step(record, other, expected, view.uncond);
        }
        if view.colouring.is_score() {
            all.put_scores(state, run, baseline);
        }
        let values = all.cells.iter().flatten().filter_map(|cell| cell.value);
        let middle = all.neutral();
        (all.map, all.range) = range(values, middle);
        if view.colouring == Colouring::Lift && !all.subtracted {
            // A lift is never negative: chance stays in the middle of the colours, and each side has its own scale.
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

    fn put_scores(&mut self, state: &State, run: &Run, baseline: Option<&Run>) {
        let uncond = state.view.uncond;
        for record in &run.capture.steps {
            for block in 0..self.blocks {
                let of = |scores: &Scores, runs: (&Run, &Run)| {
                    scores.get(runs, uncond, record.step, block).and_then(|score| self.colouring.of_score(score))
                };
                let mine = of(&state.scores, (run, run));
                let value = match baseline {
                    Some(baseline) => {
                        let theirs = of(&state.scores_of_baseline, (baseline, masked(baseline, run)));
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

    /// The value that says nothing: chance, or no difference.
    pub fn neutral(&self) -> Option<f32> {
        if self.subtracted { Some(0.0) } else { self.colouring.middle() }
    }

    /// One cell, where something is known of it.
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

    /// Share of a block's executions that are avoided, of those that are known.
    pub fn hit_rate(&self, block: usize) -> f64 {
        let known: Vec<Cell> = (0..self.steps).filter_map(|step| Some(self.get(step, block)?.cell)).collect();
        let reused = known.iter().filter(|cell| **cell == Cell::Reused).count();
        reused as f64 / known.len().max(1) as f64
    }
}

fn word(cell: Cell) -> &'static str {
    match cell {
        Cell::Computed => "computed",
        Cell::Stored => "computed, delta stored",
        Cell::Reused => "reused",
    }
}

/// What is known of a cell, one line a fact.
pub fn details(state: &State, cells: &Cells, step: usize, block: usize) -> Vec<String> {
    let Some(value) = cells.get(step, block) else { return vec!["not known yet".into()] };
    let mut lines =
        vec![if value.planned { format!("planned: {}", word(value.cell)) } else { word(value.cell).into() }];
    if state.shows_plan() {
        return lines;
    }
    let record = state.runs.current().and_then(|run| run.block(step, block, state.view.uncond));
    if let Some(record) = record {
        lines.extend(record.change.map(|change| format!("relative change of its delta: {change:.4}")));
        lines.extend(record.seconds.map(|seconds| format!("GPU time: {:.3} ms", seconds * 1e3)));
        let run = state.runs.current();
        if let Some(score) = run.and_then(|run| state.scores.get((run, run), state.view.uncond, step, block)) {
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
pub fn describe(state: &State, cells: &Cells) -> String {
    match state.view.selection {
        Some([s0, s1, b0, b1]) if (s0, b0) == (s1, b1) => {
            format!("Block {b0}, step {s0}: {}", details(state, cells, s0, b0).join(", "))
        }
        Some([s0, s1, b0, b1]) => format!("Blocks {b0} to {b1}, steps {s0} to {s1} selected"),
        None => format!("{} blocks, {} steps, nothing selected", cells.blocks, cells.steps),
    }
}
