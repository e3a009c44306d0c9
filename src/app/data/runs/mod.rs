//! The runs of this session: live, finished, and opened from files.

use std::path::PathBuf;
use std::sync::Arc;

use crate::caching::StepPlan;
use crate::engine::{BlockRecord, Capture, Record, RequestInfo, StepRecord};

/// The most runs side by side: a baseline and three others.
pub const MOST_SHOWN: usize = 4;

/// One run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Number within the session, from 1.
    pub id: u64,
    /// Its capture so far. Threads that save it or compare its clip share it.
    pub capture: Arc<Capture>,
    /// Grows with every change of the capture. Textures and comparisons are kept until it changes.
    pub version: u64,
    /// Whether it is still going on.
    pub live: bool,
    /// Whether it was made in this session, on this machine.
    pub made_here: bool,
    /// The file that it was opened from or saved to.
    pub path: Option<PathBuf>,
    /// Its file among the runs that last from one session to the next.
    pub kept: Option<PathBuf>,
    /// The user's name for it; empty for none.
    pub name: String,
    /// The user's note.
    pub note: String,
    /// Whether its clip is in a file.
    pub clip_saved: bool,
    /// Whether it is shown beside the current run.
    pub beside: bool,
    /// The mask that the user painted, one bit a token. It replaces the estimated mask.
    pub painted: Option<Vec<bool>>,
    /// The painted mask before the last stroke, for undo.
    pub painted_before: Option<Option<Vec<bool>>>,
    /// Grows with every change of the painted mask.
    pub mask_version: u64,
}

/// The time that a run saves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saving {
    /// Denoising time of the baseline divided by that of the run.
    pub speedup: f64,
    /// Seconds saved.
    pub seconds: f64,
}

impl Run {
    /// A short name: number, and the user's name for it or the strategy.
    pub fn title(&self) -> String {
        let name = if self.name.is_empty() { self.capture.run.strategy.name() } else { &self.name };
        format!("#{} {name}", self.id)
    }

    /// Whether a file holds its capture.
    pub fn is_in(&self, file: &std::path::Path) -> bool {
        [&self.path, &self.kept].into_iter().any(|path| path.as_deref() == Some(file))
    }

    /// Prompt, seed, steps and strategy in a line.
    pub fn subtitle(&self) -> String {
        let info = &self.capture.run;
        format!("\"{}\", seed {}, {} steps, {}", info.prompt, info.clip.seed, info.steps(), info.strategy.name())
    }

    /// The foreground mask in use, one bit a token: the painted one, else the newest estimate.
    pub fn mask(&self) -> Option<&[bool]> {
        let tokens = self.capture.run.tokens();
        let estimate = || self.estimated_mask();
        self.painted.as_deref().or_else(estimate).filter(|bits| bits.len() == tokens && tokens > 0)
    }

    /// The newest estimate of the foreground, one bit a token.
    pub fn estimated_mask(&self) -> Option<&[bool]> {
        self.capture.masks.last().map(|mask| mask.tokens.as_slice())
    }

    /// A step's record by its number.
    pub fn step(&self, step: usize) -> Option<&StepRecord> {
        self.capture.steps.iter().find(|record| record.step == step)
    }

    /// The step on show: the selected step if it was recorded, else the newest one.
    pub fn shown_step(&self, wished: Option<usize>) -> Option<usize> {
        let newest = self.capture.steps.last().map(|step| step.step);
        wished.filter(|step| self.step(*step).is_some()).or(newest)
    }

    /// Whether it is done, and neither its capture nor its clip is in a file.
    pub fn unsaved(&self) -> bool {
        !self.live && self.path.is_none() && self.kept.is_none() && !self.clip_saved
    }

    /// A block's record in one branch of one step.
    pub fn block(&self, step: usize, block: usize, uncond: bool) -> Option<&BlockRecord> {
        self.step(step)?.branch(uncond).get(block)
    }

    /// Seconds of all steps so far.
    pub fn denoise_seconds(&self) -> f64 {
        self.capture.steps.iter().map(|step| step.seconds).sum()
    }

    /// Median seconds of the steps that computed every block. The first step is left out if there
    /// are others, because it also compiles.
    pub fn full_step_seconds(&self) -> Option<f64> {
        let run = &self.capture.run;
        let full = |step: &&StepRecord| {
            let plan = step.plan.as_ref();
            plan.is_some_and(|plan| plan.branches(run.guided()).all(|branch| branch.is_full(run.blocks)))
        };
        let mut times: Vec<f64> = self.capture.steps.iter().filter(full).map(|step| step.seconds).collect();
        if times.len() > 1 {
            times.remove(0);
        }
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    }

    /// Seconds of all steps so far, without the time for compiling kernels: no step counts more
    /// than a full step.
    fn steady_seconds(&self) -> f64 {
        let full = self.full_step_seconds().unwrap_or(f64::INFINITY);
        self.capture.steps.iter().map(|step| step.seconds.min(full)).sum()
    }

    /// The time saved against a complete run of the same job, or against the run's own full steps
    /// if there is no such run.
    pub fn saving(&self, baseline: Option<&Run>) -> Option<Saving> {
        let (steps, all) = (self.capture.steps.len(), self.capture.run.steps());
        let comparable = |other: &&Run| other.id != self.id && self.times_like(other);
        let theirs = match baseline.filter(comparable) {
            Some(other) => {
                let complete = other.capture.steps.len() == other.capture.run.steps();
                complete.then(|| other.steady_seconds() * steps as f64 / all.max(1) as f64)?
            }
            // Without reuse nothing is saved: steps differ by chance.
            None if self.capture.hit_rate() == 0.0 => return None,
            None => self.full_step_seconds()? * steps as f64,
        };
        let mine = self.steady_seconds();
        (mine > 0.0).then(|| Saving { speedup: theirs / mine, seconds: theirs - mine })
    }

    /// Whether the seconds of both runs can be compared: both were measured in this session, or
    /// both come from files of the same adapter.
    pub fn times_like(&self, other: &Run) -> bool {
        let adapter = |run: &Run| run.capture.run.adapter.clone();
        self.made_here == other.made_here && (self.made_here || adapter(self) == adapter(other))
    }

    /// The seconds that a unit of work takes in this session, and the seconds of text and decoding.
    fn pace(&self) -> Option<(f64, f64)> {
        let run = &self.capture.run;
        let outcome = self.capture.outcome.as_ref().filter(|_| self.made_here && self.capture.steps.len() > 2)?;
        let cost = run.cost.as_ref()?;
        let plans = self.capture.steps.iter().filter_map(|step| step.plan.as_ref());
        let work: f64 = plans.flat_map(|plan| plan.branches(run.guided())).map(|branch| cost.of(branch)).sum();
        (work > 0.0).then(|| (self.steady_seconds() / work, outcome.seconds.text + outcome.seconds.decode))
    }

    /// An estimate of the remaining seconds, from the remaining work and the time of the work so
    /// far.
    pub fn eta(&self) -> Option<f64> {
        let run = &self.capture.run;
        let done = self.capture.steps.len();
        // The first step also compiles kernels, so it alone says little about later steps.
        if !self.live || done < 2 {
            return None;
        }
        let work = |plan: &StepPlan| -> f64 {
            let branches = plan.branches(run.guided());
            match &run.cost {
                Some(cost) => branches.map(|branch| cost.of(branch)).sum(),
                None => branches.map(|branch| 1.0 + branch.computed(run.blocks) as f64).sum(),
            }
        };
        let seconds = self.steady_seconds();
        if run.expected.len() == run.steps() {
            let (before, after) = run.expected.split_at(done.min(run.steps()));
            let sum = |plans: &[StepPlan]| plans.iter().map(work).sum::<f64>();
            return Some(seconds * sum(after) / sum(before));
        }
        Some(seconds / done as f64 * run.steps().saturating_sub(done) as f64)
    }
}

/// All runs, and the roles they play.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    list: Vec<Run>,
    last_id: u64,
    current: Option<u64>,
    baseline: Option<u64>,
}

impl Runs {
    /// Adds a run and shows it.
    pub fn add(&mut self, capture: Capture, live: bool, path: Option<PathBuf>) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.list.push(Run { id, capture: Arc::new(capture), live, path, ..Run::default() });
        self.current = Some(id);
        id
    }

    /// Adds a run that begins.
    pub fn start(&mut self) -> u64 {
        let id = self.add(Capture::default(), true, None);
        self.describe(id, |run| run.made_here = true);
        id
    }

    /// Adds records to a run.
    pub fn observe(&mut self, id: u64, records: Vec<Record>) {
        self.change(id, |run| {
            let capture = Arc::make_mut(&mut run.capture);
            records.into_iter().for_each(|record| capture.push(record));
        });
    }

    /// Takes note that a run has ended.
    pub fn end(&mut self, id: u64) {
        self.change(id, |run| run.live = false);
    }

    /// Shows a run beside the current one, or no longer.
    pub fn put_beside(&mut self, id: u64, beside: bool) {
        if let Some(run) = self.list.iter_mut().find(|run| run.id == id) {
            run.beside = beside;
        }
    }

    /// Takes note of the file of a run's capture.
    pub fn saved(&mut self, id: u64, path: PathBuf) {
        if let Some(run) = self.list.iter_mut().find(|run| run.id == id) {
            run.path = Some(path);
        }
    }

    /// Changes name, note or file of a run. Its version stays, because its capture does.
    pub fn describe(&mut self, id: u64, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.list.iter_mut().find(|run| run.id == id) {
            change(run);
        }
    }

    /// Takes note that no run lasts any more.
    pub fn forget_kept(&mut self) {
        self.list.iter_mut().for_each(|run| run.kept = None);
    }

    /// Takes note that a run's clip is in a file.
    pub fn clip_saved(&mut self, id: u64) {
        if let Some(run) = self.list.iter_mut().find(|run| run.id == id) {
            run.clip_saved = true;
        }
    }

    /// Makes a run without reuse the baseline if there is none of its job. Returns whether it did.
    pub fn promote(&mut self, id: u64) -> bool {
        let Some(run) = self.get(id).filter(|run| run.capture.run.strategy.is_off()) else {
            return false;
        };
        let new = self.baseline().is_none_or(|baseline| baseline.id != id && differs(baseline, run).is_some());
        if new {
            self.baseline = Some(id);
        }
        new
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Run> {
        self.list.iter()
    }

    /// The number of runs.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The run with a number.
    pub fn get(&self, id: u64) -> Option<&Run> {
        self.list.iter().find(|run| run.id == id)
    }

    /// Changes a run. Its version grows.
    pub fn change(&mut self, id: u64, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.list.iter_mut().find(|run| run.id == id) {
            change(run);
            run.version += 1;
        }
    }

    /// Gives a run a painted mask, or takes it away.
    pub fn paint(&mut self, id: u64, mask: Option<Vec<bool>>) {
        if let Some(run) = self.list.iter_mut().find(|run| run.id == id)
            && run.painted != mask
        {
            run.painted = mask;
            run.mask_version += 1;
        }
    }

    /// Keeps the painted mask for undo, before a stroke or another mask.
    pub fn keep_mask(&mut self, id: u64) {
        if let Some(run) = self.list.iter_mut().find(|run| run.id == id) {
            run.painted_before = Some(run.painted.clone());
        }
    }

    /// Swaps the painted mask with the one that was kept: undo, and redo.
    pub fn undo_mask(&mut self, id: u64) {
        if let Some(run) = self.list.iter_mut().find(|run| run.id == id)
            && let Some(before) = run.painted_before.take()
        {
            run.painted_before = Some(std::mem::replace(&mut run.painted, before));
            run.mask_version += 1;
        }
    }

    /// The run on show.
    pub fn current(&self) -> Option<&Run> {
        self.get(self.current?)
    }

    /// Shows a run.
    pub fn show(&mut self, id: u64) {
        self.current = Some(id);
    }

    /// An estimate of the seconds of a job, from the newest run of this session with the same
    /// model: its plans with the cost of a step, and whether it has guidance. Text and decoding are
    /// those of that run.
    pub fn seconds_of(&self, facts: &RequestInfo, plans: &[StepPlan], guided: bool) -> Option<f64> {
        let same = |run: &&Run| run.capture.run.model_id == facts.model_id;
        let (pace, rest) = self.list.iter().rev().filter(same).find_map(Run::pace)?;
        let work: f64 = plans.iter().flat_map(|plan| plan.branches(guided)).map(|branch| facts.cost.of(branch)).sum();
        (work > 0.0).then_some(work * pace + rest)
    }

    /// The run that others are measured against.
    pub fn baseline(&self) -> Option<&Run> {
        self.get(self.baseline?)
    }

    /// Makes a run the baseline, or none.
    pub fn set_baseline(&mut self, id: Option<u64>) {
        self.baseline = id;
    }

    /// The baseline, if the run on show can be laid over it: another run of the same size.
    pub fn shown_baseline(&self) -> Option<&Run> {
        let current = self.current()?;
        self.baseline().filter(|baseline| baseline.id != current.id && same_clip(baseline, current))
    }

    /// The baseline of a run, if both did the same job. Otherwise time and likeness mean nothing.
    pub fn reference_of(&self, run: &Run) -> Option<&Run> {
        self.baseline().filter(|baseline| baseline.id != run.id && differs(baseline, run).is_none())
    }

    /// The runs of the preview: the baseline, the run on show and the runs beside it, at most
    /// [`MOST_SHOWN`].
    pub fn shown(&self) -> Vec<&Run> {
        let Some(current) = self.current() else { return Vec::new() };
        let baseline = self.shown_baseline();
        let beside = self.list.iter().filter(|run| {
            run.beside && run.id != current.id && Some(run.id) != baseline.map(|run| run.id) && same_clip(run, current)
        });
        baseline.into_iter().chain([current]).chain(beside).take(MOST_SHOWN).collect()
    }

    /// Takes a run off the list. The result can bring it back.
    pub fn close(&mut self, id: u64) -> Option<Closed> {
        let place = self.list.iter().position(|run| run.id == id)?;
        let run = self.list.remove(place);
        let baseline = self.baseline == Some(id);
        if baseline {
            self.baseline = None;
        }
        if self.current == Some(id) {
            self.current = self.list.last().map(|run| run.id);
        }
        Some(Closed { run, place, baseline })
    }

    /// Brings a closed run back, and shows it.
    pub fn reopen(&mut self, closed: Closed) {
        let Closed { run, place, baseline } = closed;
        self.current = Some(run.id);
        if baseline {
            self.baseline = Some(run.id);
        }
        self.list.insert(place.min(self.list.len()), run);
    }
}

/// A run that was closed, with its roles.
#[derive(Clone, Debug)]
pub struct Closed {
    run: Run,
    place: usize,
    baseline: bool,
}

impl Closed {
    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }
}

/// Whether two runs make clips that can be laid over each other.
pub fn same_clip(a: &Run, b: &Run) -> bool {
    let key = |run: &Run| {
        let info = &run.capture.run;
        (info.clip.size(), info.clip.num_frames, info.latent_shape)
    };
    key(a) == key(b)
}

/// The first setting besides the strategy in which two runs differ. `None` if both did the same
/// job.
pub fn differs(a: &Run, b: &Run) -> Option<&'static str> {
    let (x, y) = (&a.capture.run, &b.capture.run);
    let fewer = |run: &Run| run.capture.run.strategy.steps(usize::MAX) != usize::MAX;
    let checks = [
        ("model", x.model_id == y.model_id),
        ("size", same_clip(a, b)),
        ("prompt", x.prompt == y.prompt),
        ("negative prompt", x.negative_prompt == y.negative_prompt),
        ("seed", x.clip.seed == y.clip.seed && x.noise == y.noise),
        ("guidance", x.clip.guidance_scale == y.clip.guidance_scale),
        ("sampler", x.scheduler == y.scheduler && x.flow_shift() == y.flow_shift()),
        // Fewer steps are a strategy.
        ("number of steps", x.steps() == y.steps() || fewer(a) || fewer(b)),
    ];
    checks.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
}

#[cfg(test)]
mod tests;
