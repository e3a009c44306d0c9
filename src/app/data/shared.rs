//! The data that panes share. Panes read it; they change it by
//! [`Actions`](crate::app::actions::Actions) alone.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::app::data::change::{Change, Undo};
use crate::app::data::form::{Form, Listed};
use crate::app::data::history::KeptRun;
use crate::app::data::job::{Adapter, Job};
use crate::app::data::likeness::{ClipPair, Comparison, Likeness};
use crate::app::data::log::Log;
use crate::app::data::model::{ModelQuery, ModelStatus};
use crate::app::data::prediction::{Prediction, Trouble};
use crate::app::data::prefs::Prefs;
use crate::app::data::runs::{Run, Runs};
use crate::app::data::selection::Selection;
use crate::app::data::study::Studies;
use crate::caching::{Needs, Shape};

/// The data that panes share.
#[derive(Default)]
pub struct Shared {
    /// The settings of the next job.
    pub form: Form,
    /// The runs.
    pub runs: Runs,
    /// The step, block and branch on show.
    pub selection: Selection,
    /// Preferences.
    pub prefs: Prefs,
    /// Messages.
    pub log: Log,
    /// The running job.
    pub job: Job,
    /// The study that runs, and what studies found.
    pub studies: Studies,
    /// The adapter, once the engine has opened it.
    pub adapter: Option<Adapter>,
    /// The labels of all GPUs, once the menu has asked for them.
    pub gpus: Option<Vec<String>>,
    /// What is known about the form's model and size.
    pub model: ModelStatus,
    /// What the form's strategy is expected to do.
    pub prediction: Prediction,
    /// The comparisons of clips that were asked for in this session.
    pub likeness: HashMap<ClipPair, Comparison>,
    /// The last action that can be undone.
    pub undo: Option<Undo>,
    /// Number of files that are being written.
    pub saving: usize,
    /// Runs that last from one session to the next, newest first.
    pub history: Vec<KeptRun>,
    /// The folder of their captures; `None` if nothing is kept.
    pub history_folder: Option<PathBuf>,
    /// The model that ships with the program.
    pub demo_model: Option<PathBuf>,
    /// The folder for what runs tell of models. `None` learns nothing.
    pub learnt: Option<PathBuf>,
}

impl Shared {
    /// Number of blocks of the form's model. Of the run on show while the model is not known.
    pub fn blocks(&self) -> usize {
        match self.model.facts() {
            Some(facts) => facts.blocks,
            None => self.runs.current().map_or(0, |run| run.capture.run.blocks),
        }
    }

    /// Steps and blocks of the next job.
    pub fn shape(&self) -> Shape {
        Shape { steps: self.form.clip.num_inference_steps, blocks: self.blocks() }
    }

    /// Whether the model and its profile are still being read for the form.
    pub fn reading(&self) -> bool {
        let query = ModelQuery::of(&self.form);
        !query.model().as_os_str().is_empty() && !self.model.query.as_ref().is_some_and(|of| of.plans_like(&query))
    }

    /// Whether the chosen strategy cannot run before the model's profile is read.
    pub fn waits_for_profile(&self) -> bool {
        let waits = |listed: &Listed| listed.waits_for_profile(self.form.clip.num_inference_steps);
        self.form.listed().is_some_and(waits) && self.reading()
    }

    /// Whether a job can start. The error is a text for the user.
    pub fn ready(&self) -> Result<(), String> {
        match &self.model.facts {
            _ if self.form.model.as_os_str().is_empty() => Err("Choose a model first.".into()),
            Some(Err(why)) => Err(why.clone()),
            _ if self.waits_for_profile() => {
                Err("The model's profile is still being read for these settings: generate again in a moment.".into())
            }
            Some(Ok(_)) => self.trouble().map_or(Ok(()), Err),
            // The number of blocks is not known yet: the job finds out whether it can run.
            None => Ok(()),
        }
    }

    /// Why the chosen strategy cannot work, in the words of the window. The advice in errors is for
    /// the command line.
    pub fn trouble(&self) -> Option<String> {
        let strategy = self.form.strategy();
        let label = strategy.label();
        Some(match self.prediction.trouble.as_ref()? {
            Trouble::Settings(why) => format!("{why}."),
            Trouble::Uncalibrated if strategy.learns_from_a_run() => format!(
                "{label} has no calibration yet. Run \"Off\" with block changes measured, then calibrate it in the \
                 strategy pane."
            ),
            Trouble::Uncalibrated if strategy.about().needs == Needs::Profile => {
                format!("{label} needs a profile of the model.")
            }
            Trouble::Uncalibrated => format!("{label} has no calibration for this model."),
        })
    }

    /// Forgets what is known about the form's model, so that it is read again.
    pub fn forget_model(&mut self) {
        self.model = ModelStatus::default();
    }

    /// The blocks that the chosen strategy takes for background: the blocks that it caches, or that
    /// its plan ever reuses.
    pub fn background(&self) -> Vec<usize> {
        self.form.strategy().background(self.blocks())
    }

    /// The state of the comparison of a run's clip with the baseline's, if both did the same job.
    pub fn comparison(&self, run: &Run) -> Option<Comparison> {
        self.likeness.get(&ClipPair::of(self.runs.reference_of(run)?, run)).copied()
    }

    /// The likeness of a run's clip to the baseline's, once it is known.
    pub fn known_likeness(&self, run: &Run) -> Option<Likeness> {
        match self.comparison(run)? {
            Comparison::Found(likeness) => Some(likeness),
            Comparison::Asked | Comparison::Cannot => None,
        }
    }

    /// The step on show: the selected step, or the newest one that was recorded.
    pub fn shown_step(&self) -> Option<usize> {
        self.runs.current()?.shown_step(self.selection.step)
    }

    /// Applies a change that a pane asked for.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Form(change) => change(&mut self.form),
            Change::Runs(change) => change(&mut self.runs),
            Change::Selection(change) => change(&mut self.selection),
            Change::Prefs(change) => change(&mut self.prefs),
            Change::Log(level, text) => self.log.add(level, text),
        }
    }

    /// Leaves the branch of the negative prompt if the run on show has no guidance: it has no such
    /// branch, and no button to leave it.
    pub fn leave_missing_branch(&mut self) {
        let guided = self.runs.current().is_none_or(|run| run.capture.run.guided());
        self.selection.uncond &= guided;
    }
}
