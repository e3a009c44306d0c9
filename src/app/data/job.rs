//! The running job as the window shows it, and the adapter it runs on.

use std::time::{Duration, Instant};

use crate::app::data::study::StudyKind;
use crate::engine::Stage;

/// The state of the engine.
#[derive(Clone, Debug, Default)]
pub enum Job {
    /// Nothing runs.
    #[default]
    Idle,
    /// The device is being opened.
    Opening,
    /// A study runs: a list of jobs.
    Study {
        /// Its kind.
        kind: StudyKind,
        /// The user has cancelled it.
        cancelling: bool,
    },
    /// A job runs.
    Running {
        /// Its run, once denoising has started.
        run: Option<u64>,
        /// Its stage, once the engine has told one.
        stage: Option<Stage>,
        /// What the user last asked of it.
        wanted: Wanted,
        /// When its stage began. Pauses move this time forward, so that they do not count.
        since: Instant,
        /// Since when it is paused.
        paused: Option<Instant>,
    },
}

/// What the user last asked of the running job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The job goes on.
    #[default]
    Run,
    /// The job is paused.
    Pause,
    /// The job ends as soon as the GPU has done the work that it already has.
    Cancel,
}

impl Job {
    /// A job that has just begun.
    pub fn begun() -> Self {
        Self::Running { run: None, stage: None, wanted: Wanted::Run, since: Instant::now(), paused: None }
    }

    /// Whether a job runs or is about to.
    pub fn busy(&self) -> bool {
        !matches!(self, Self::Idle)
    }

    /// What the user last asked of it.
    pub fn wanted(&self) -> Wanted {
        match self {
            Self::Running { wanted, .. } => *wanted,
            Self::Study { cancelling: true, .. } => Wanted::Cancel,
            _ => Wanted::Run,
        }
    }

    /// Its stage in a word or two.
    pub fn doing(&self) -> &'static str {
        match self {
            Self::Idle => "",
            Self::Opening => "opening the GPU",
            Self::Study { cancelling: true, .. } => "cancelling",
            Self::Study { kind: StudyKind::Profile, .. } => "making a profile",
            Self::Study { kind: StudyKind::Comparison, .. } => "comparing",
            Self::Running { wanted: Wanted::Pause, .. } => "paused",
            Self::Running { wanted: Wanted::Cancel, .. } => "cancelling",
            Self::Running { stage, .. } => match stage {
                None => "starting",
                Some(Stage::Load) => "loading",
                Some(Stage::Text) => "reading the prompt",
                Some(Stage::Denoise) => "denoising",
                Some(Stage::Decode) => "decoding",
            },
        }
    }

    /// The duration of its stage so far; `None` while it is paused or ends.
    pub fn elapsed(&self) -> Option<Duration> {
        match self {
            Self::Running { since, wanted: Wanted::Run, .. } => Some(since.elapsed()),
            _ => None,
        }
    }

    /// The duration of its stage in whole seconds, from the first second on.
    pub fn seconds(&self) -> Option<u64> {
        self.elapsed().map(|time| time.as_secs()).filter(|seconds| *seconds > 0)
    }
}

/// The GPU that computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapter {
    /// Its name.
    pub name: String,
    /// Its own memory in bytes, if the driver reports it.
    pub memory: Option<u64>,
}
