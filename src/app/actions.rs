//! Actions: the only way in which panes and bars change what they share.
//!
//! A frame of the window collects actions. The window applies them after the frame: first the
//! changes of shared data, then the commands. A number that was typed in a frame therefore counts
//! for a job that is started in the same frame.

use std::path::PathBuf;

use crate::app::data::change::Change;
use crate::app::data::form::Form;
use crate::app::data::log::Level;
use crate::app::data::prefs::Prefs;
use crate::app::data::runs::Runs;
use crate::app::data::selection::Selection;
use crate::app::link::study::StudyOrder;
use crate::app::save::Saveable;

/// A command to the window.
#[derive(Clone, Debug)]
pub enum Action {
    /// Start a job with the settings of the form.
    Generate,
    /// Pause the job.
    Pause,
    /// Let the paused job go on.
    Resume,
    /// End the job.
    Cancel,
    /// Start a study.
    StartStudy(Box<StudyOrder>),
    /// Move a prompt and seed that waits in the queue of the comparison to another place.
    MoveQueued {
        /// Its number.
        id: u64,
        /// Its new place in the list.
        place: usize,
    },
    /// Cancel a prompt and seed in the queue of the comparison; the others go on.
    CancelQueued(u64),
    /// Let the user choose a capture to open.
    ChooseCapture,
    /// Open a capture.
    OpenCapture(PathBuf),
    /// Let the user choose a model's folder.
    ChooseModel,
    /// Use the model in a folder.
    UseModel(PathBuf),
    /// Read the form's model and its profile again.
    ReadModel,
    /// List the GPUs, for the menu.
    ListGpus,
    /// Let the user choose pictures of a mask to open.
    ChooseMask,
    /// Open pictures of a mask.
    OpenMask(PathBuf),
    /// Let the user choose a strategy's file to open.
    ChooseStrategy,
    /// Open a strategy's file.
    OpenStrategy(PathBuf),
    /// Let the user save something.
    Save(&'static Saveable),
    /// Let the user save a picture of the pane with this key, or of the whole window.
    SavePicture(Option<&'static str>),
    /// Write the name and note of a run to its file.
    DescribeRun(u64),
    /// Delete all runs that last from one session to the next.
    ClearHistory,
    /// Take a run off the list. Can be undone.
    CloseRun(u64),
    /// Remove the chosen plan of the user's. Can be undone.
    RemovePlan,
    /// Give all strategies their default settings. Can be undone.
    DefaultSettings,
    /// Undo the last action that can be undone.
    Undo,
    /// Take note that an error was read, by its place among those that were not.
    ReadNotice(usize),
    /// Take note that all errors were read.
    ReadAllNotices,
    /// Restore the default layout.
    ResetLayout,
}

/// The actions of a frame, in the order in which they were asked for.
#[derive(Default)]
pub struct Actions {
    /// Changes of shared data. They are applied first.
    pub changes: Vec<Change>,
    /// Commands. They are applied after the changes.
    pub commands: Vec<Action>,
}

impl Actions {
    /// Asks for a command.
    pub fn ask(&mut self, action: Action) {
        self.commands.push(action);
    }

    /// Asks for a change of the form.
    pub fn form(&mut self, change: impl FnOnce(&mut Form) + 'static) {
        self.changes.push(Change::Form(Box::new(change)));
    }

    /// Asks for a change of the runs.
    pub fn runs(&mut self, change: impl FnOnce(&mut Runs) + 'static) {
        self.changes.push(Change::Runs(Box::new(change)));
    }

    /// Asks for another selection.
    pub fn select(&mut self, change: impl FnOnce(&mut Selection) + 'static) {
        self.changes.push(Change::Selection(Box::new(change)));
    }

    /// Asks for other preferences.
    pub fn prefs(&mut self, change: impl FnOnce(&mut Prefs) + 'static) {
        self.changes.push(Change::Prefs(Box::new(change)));
    }

    /// Tells the user something.
    pub fn log(&mut self, level: Level, text: impl Into<String>) {
        self.changes.push(Change::Log(level, text.into()));
    }
}
