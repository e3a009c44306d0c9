//! The runs of this session: live, finished, and opened from files.

use std::path::PathBuf;

use crate::engine::{BlockRecord, Capture, StepRecord};

/// Most runs shown side by side: a baseline and three others.
pub const MOST_SHOWN: usize = 4;

/// One run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Number within the session, from 1.
    pub id: u64,
    /// What it did so far.
    pub capture: Capture,
    /// Grows with every change of the capture, so that what is made from it can be kept until then.
    pub version: u64,
    /// Whether it is still going on.
    pub live: bool,
    /// Where it was opened from or saved to.
    pub path: Option<PathBuf>,
    /// Shown beside the current run.
    pub beside: bool,
    /// The foreground as the user painted it, one bit a token; in place of the estimated mask.
    pub painted: Option<Vec<bool>>,
    /// The same before the last stroke, for undo.
    pub painted_before: Option<Option<Vec<bool>>>,
    /// Grows with every change of the painted mask.
    pub mask_version: u64,
}

/// What differs between two clips of the same size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saving {
    /// Denoising time of the baseline divided by that of the run.
    pub speedup: f64,
    /// Seconds less.
    pub seconds: f64,
}

impl Run {
    /// A short name: number and strategy.
    pub fn title(&self) -> String {
        format!("#{} {}", self.id, self.capture.run.strategy.name())
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

    /// A block's record in one branch of one step.
    pub fn block(&self, step: usize, block: usize, uncond: bool) -> Option<&BlockRecord> {
        let step = self.step(step)?;
        if uncond { step.uncond.get(block) } else { step.cond.get(block) }
    }

    /// Seconds of all steps so far.
    pub fn denoise_seconds(&self) -> f64 {
        self.capture.steps.iter().map(|step| step.seconds).sum()
    }

    /// Median seconds of steps that computed every block; the first step is left out where there are others: it also compiles.
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

    /// Seconds of all steps so far. Those that compiled kernels took long for a reason that no reuse changes and that does not come
    /// again: none counts more than a full step.
    fn steady_seconds(&self) -> f64 {
        let full = self.full_step_seconds().unwrap_or(f64::INFINITY);
        self.capture.steps.iter().map(|step| step.seconds.min(full)).sum()
    }

    /// What was saved against a baseline of as many steps; without one against the run's own full steps.
    pub fn saving(&self, baseline: Option<&Run>) -> Option<Saving> {
        let steps = self.capture.steps.len();
        let (mine, theirs) = match baseline {
            Some(other) if other.id != self.id => {
                let all = other.capture.run.steps();
                let theirs = other.denoise_seconds() * steps as f64 / self.capture.run.steps().max(1) as f64;
                (self.denoise_seconds(), (all == other.capture.steps.len()).then_some(theirs)?)
            }
            // Without reuse there is nothing to save: steps differ by chance alone.
            _ if self.capture.hit_rate() == 0.0 => return None,
            _ => (self.steady_seconds(), self.full_step_seconds()? * steps as f64),
        };
        (mine > 0.0).then(|| Saving { speedup: theirs / mine, seconds: theirs - mine })
    }

    /// Seconds to go, from the steps that are to come and what such steps took.
    pub fn eta(&self) -> Option<f64> {
        let run = &self.capture.run;
        let done = self.capture.steps.len();
        if !self.live || done == 0 {
            return None;
        }
        let computed = |index: usize| {
            let plan = run.expected.get(index)?;
            Some(plan.branches(run.guided()).map(|branch| branch.computed(run.blocks)).sum::<usize>() as f64)
        };
        let left = run.steps().saturating_sub(done);
        let seconds = self.steady_seconds();
        let work_done: Option<f64> = (0..done).map(computed).sum();
        let work_left: Option<f64> = (done..run.steps()).map(computed).sum();
        match (work_done, work_left) {
            (Some(before), Some(after)) if before > 0.0 => Some(seconds * after / before),
            _ => Some(seconds / done as f64 * left as f64),
        }
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
    /// Adds a run and shows it. The first complete run without reuse becomes the baseline by itself.
    pub fn add(&mut self, capture: Capture, live: bool, path: Option<PathBuf>) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.list.push(Run { id, capture, live, path, ..Run::default() });
        self.current = Some(id);
        id
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Run> {
        self.list.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Option<&Run> {
        self.list.iter().find(|run| run.id == id)
    }

    /// One of them, to change; its version grows.
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

    /// Keeps the painted mask as it is for undo: a stroke begins, or another mask comes.
    pub fn keep_mask(&mut self, id: u64) {
        if let Some(run) = self.list.iter_mut().find(|run| run.id == id) {
            run.painted_before = Some(run.painted.clone());
        }
    }

    /// Takes back what was painted since the mask was kept; once more, and it is painted again.
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

    /// The run that others are measured against.
    pub fn baseline(&self) -> Option<&Run> {
        self.get(self.baseline?)
    }

    /// Makes a run the baseline, or none.
    pub fn set_baseline(&mut self, id: Option<u64>) {
        self.baseline = id;
    }

    /// A baseline for the current run: of the same clip, and not the run itself.
    pub fn comparable(&self) -> Option<(&Run, &Run)> {
        let (baseline, current) = (self.baseline()?, self.current()?);
        (baseline.id != current.id && same_clip(baseline, current)).then_some((baseline, current))
    }

    /// The runs of the preview: the baseline, the current one and those beside it, at most [`MOST_SHOWN`].
    pub fn shown(&self) -> Vec<&Run> {
        let Some(current) = self.current() else { return Vec::new() };
        let baseline = self.comparable().map(|(baseline, _)| baseline);
        let beside = self.list.iter().filter(|run| {
            run.beside && run.id != current.id && Some(run.id) != baseline.map(|run| run.id) && same_clip(run, current)
        });
        baseline.into_iter().chain([current]).chain(beside).take(MOST_SHOWN).collect()
    }

    /// Takes a run off the list.
    pub fn close(&mut self, id: u64) {
        self.list.retain(|run| run.id != id);
        if self.baseline == Some(id) {
            self.baseline = None;
        }
        if self.current == Some(id) {
            self.current = self.list.last().map(|run| run.id);
        }
    }
}

/// Whether two runs make clips that can be laid over each other.
pub fn same_clip(a: &Run, b: &Run) -> bool {
    let key = |run: &Run| {
        let info = &run.capture.run;
        (info.width, info.height, info.num_frames, info.latent_shape)
    };
    key(a) == key(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::sample;

    #[test]
    fn roles_follow_the_runs() {
        let mut runs = Runs::default();
        assert!(runs.current().is_none() && runs.shown().is_empty());
        let first = runs.add(sample::capture(sample::Kind::Off), false, None);
        runs.set_baseline(Some(first));
        assert!(runs.comparable().is_none(), "a run is no baseline of itself");
        let second = runs.add(sample::capture(sample::Kind::Uniform), false, None);
        assert_eq!(runs.comparable().map(|(a, b)| (a.id, b.id)), Some((first, second)));
        runs.close(second);
        assert_eq!(runs.current().map(|run| run.id), Some(first));
        runs.close(first);
        assert!(runs.baseline().is_none() && runs.current().is_none());
    }

    #[test]
    fn savings_and_times() {
        let mut runs = Runs::default();
        let off = runs.add(sample::capture(sample::Kind::Off), false, None);
        let uniform = runs.add(sample::capture(sample::Kind::Uniform), false, None);
        let (off, uniform) = (runs.get(off).unwrap(), runs.get(uniform).unwrap());
        let saving = uniform.saving(Some(off)).unwrap();
        assert!(saving.speedup > 1.2 && saving.seconds > 0.0, "{saving:?}");
        let own = uniform.saving(None).unwrap();
        assert!((own.speedup - saving.speedup).abs() < 0.3, "{own:?}");
        assert_eq!((off.eta(), off.saving(None)), (None, None));
        let mut live = uniform.clone();
        live.live = true;
        live.capture.steps.truncate(6);
        let eta = live.eta().unwrap();
        assert!(eta > 0.0 && eta < uniform.denoise_seconds());
        // A first step that compiles shaders says nothing of those to come.
        live.capture.steps[0].seconds += 100.0;
        assert!(live.eta().unwrap() < 1.1 * eta);
    }
}
