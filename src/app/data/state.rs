//! What the window knows: panes draw it and change it, nothing else is shared between them.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::caching::{Needs, StrategyConfig};
use crate::engine::{ClipSettings, Facts, Stage};

use crate::app::data::form::{Form, Listed, Prediction, Trouble};
use crate::app::data::runs::{Closed, Run, Runs};
use crate::app::data::scores::Scores;
use crate::app::draw::figures::{Figure, Shots};
use crate::app::layout::Pane;
use crate::app::panes::map::colouring::Colouring;
use crate::app::panes::preview::Pictures;
use crate::app::panes::preview::brush::Brush;
use crate::app::panes::strategy::target::ModelEvidence;

/// What a pane asks of the window.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start the generation of the form.
    Generate,
    /// Hold it.
    Pause,
    /// Go on.
    Resume,
    /// End it.
    Cancel,
    /// Choose a capture to open.
    OpenCapture,
    /// Open this one.
    Open(PathBuf),
    /// Choose a model's folder.
    ChooseModel,
    /// Use this one.
    UseModel(PathBuf),
    /// Read what is known of the form's model anew.
    ReadModel,
    /// Save the current run's capture.
    SaveCapture,
    /// Save the current run's clip.
    SaveClip,
    /// Save the map as SVG, or its values as CSV.
    SaveMap,
    /// Save a picture of a pane, or of the whole window.
    SavePicture(Option<Pane>),
    /// Save a figure of the current run.
    SaveFigure(Figure),
    /// Choose pictures of a mask to open.
    ChooseMask,
    /// Open these.
    OpenMask(PathBuf),
    /// Save the mask in use.
    SaveMask,
    /// Save the chosen strategy.
    SaveStrategy,
    /// Save the model's profile with the blocks that the chosen strategy reuses as its background.
    ExportProfile,
    /// Choose a strategy's file to open.
    ChooseStrategy,
    /// Open this one.
    OpenStrategy(PathBuf),
    /// Take back what was thrown away last.
    Undo,
    /// The layout as it was at first.
    ResetLayout,
}

/// What was thrown away last.
#[derive(Clone, Debug)]
pub enum Undo {
    /// A run was closed.
    Run(Box<Closed>),
    /// A plan of the user's was removed.
    Plan(StrategyConfig),
    /// Settings were replaced.
    Form {
        /// By what was done.
        what: &'static str,
        /// All of them, as they were.
        form: Box<Form>,
    },
}

impl Undo {
    /// What was done.
    pub fn name(&self) -> String {
        match self {
            Self::Run(closed) => format!("close {}", closed.run().title()),
            Self::Plan(plan) => format!("remove \"{}\"", plan.name()),
            Self::Form { what, .. } => (*what).into(),
        }
    }
}

/// Where the engine is.
#[derive(Clone, Debug, Default)]
pub enum Job {
    /// Nothing runs.
    #[default]
    Idle,
    /// The device is being opened.
    Opening,
    /// A job runs.
    Running {
        /// Its run, once it has started to denoise.
        run: Option<u64>,
        /// What it does.
        stage: Option<Stage>,
        /// What the user wished of it since.
        wish: Wish,
        /// When its stage began, put off by the time that it was held.
        since: Instant,
        /// Since when it is held.
        held: Option<Instant>,
    },
}

/// What the user wishes of the running job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// That it goes on.
    #[default]
    GoOn,
    /// That it is held.
    Pause,
    /// That it ends: it does after the work that is on the GPU.
    Cancel,
}

impl Job {
    /// A job that has just begun.
    pub fn begun() -> Self {
        Self::Running { run: None, stage: None, wish: Wish::GoOn, since: Instant::now(), held: None }
    }

    /// Whether a job runs or is about to.
    pub fn busy(&self) -> bool {
        !matches!(self, Self::Idle)
    }

    /// What the user wishes of it.
    pub fn wish(&self) -> Wish {
        match self {
            Self::Running { wish, .. } => *wish,
            _ => Wish::GoOn,
        }
    }

    /// What it does, in a word or two.
    pub fn doing(&self) -> &'static str {
        match self {
            Self::Idle => "",
            Self::Opening => "opening the GPU",
            Self::Running { wish: Wish::Pause, .. } => "paused",
            Self::Running { wish: Wish::Cancel, .. } => "cancelling",
            Self::Running { stage, .. } => match stage {
                None => "starting",
                Some(Stage::Load) => "loading",
                Some(Stage::Text) => "reading the prompt",
                Some(Stage::Denoise) => "denoising",
                Some(Stage::Decode) => "decoding",
            },
        }
    }

    /// How long its stage has gone on; `None` of one that is held or ends.
    pub fn elapsed(&self) -> Option<Duration> {
        match self {
            Self::Running { since, wish: Wish::GoOn, .. } => Some(since.elapsed()),
            _ => None,
        }
    }

    /// The same in whole seconds, from the first one on.
    pub fn seconds(&self) -> Option<u64> {
        self.elapsed().map(|time| time.as_secs()).filter(|seconds| *seconds > 0)
    }
}

/// What computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapter {
    /// Its name.
    pub name: String,
    /// Its own memory in bytes, where the driver tells.
    pub memory: Option<u64>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For information.
    Note,
    /// Worth knowing.
    Warning,
    /// Something did not work.
    Error,
}

/// Newest messages.
#[derive(Clone, Debug, Default)]
pub struct Log(VecDeque<(Level, String)>);

impl Log {
    const MOST: usize = 500;

    /// Adds a message.
    pub fn add(&mut self, level: Level, text: impl Into<String>) {
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back((level, text.into()));
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &(Level, String)> {
        self.0.iter()
    }
}

/// How the preview compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Compare {
    /// The current run alone.
    #[default]
    Single,
    /// Baseline left, current right of a line that can be moved.
    Split,
    /// What differs, amplified.
    Difference,
    /// All shown runs.
    SideBySide,
}

/// What is looked at, and how. Lasts.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct View {
    /// The step on show; the clip, or the newest step, if `None`.
    #[serde(skip)]
    pub step: Option<usize>,
    /// The block whose attention is shown.
    #[serde(skip)]
    pub block: Option<usize>,
    /// Selected cells of the map: steps and blocks, both with their ends.
    #[serde(skip)]
    pub selection: Option<[usize; 4]>,
    /// The frame on show, from 0.
    #[serde(skip)]
    pub frame: usize,
    /// Step and block of the cell that others are compared with.
    #[serde(skip)]
    pub pinned: Option<[usize; 2]>,
    /// The attention of the pinned cell is subtracted.
    pub minus_pinned: bool,
    /// Attention paid to the subject's words in place of attention received.
    pub paid: bool,
    /// Steps go by in place of frames.
    pub through_steps: bool,
    /// Frames go by.
    #[serde(skip)]
    pub playing: bool,
    /// When the frame on show came up, in the context's seconds.
    #[serde(skip)]
    pub frame_since: f64,
    /// From the last frame on to the first.
    pub looping: bool,
    /// The negative prompt's branch.
    pub uncond: bool,
    /// What the map's colours mean.
    pub colouring: Colouring,
    /// The map shows the plan of the next run in place of what was recorded.
    pub plan: bool,
    /// The map shows the difference to the baseline.
    pub subtract: bool,
    /// Opacity of the attention over the frame; 0 for none.
    pub opacity: f32,
    /// Outline of the mask.
    pub outline: bool,
    /// How the preview compares.
    pub compare: Compare,
    /// Place of the split line, 0 to 1.
    pub split: f32,
}

impl Default for View {
    fn default() -> Self {
        Self {
            step: None,
            block: None,
            selection: None,
            frame: 0,
            pinned: None,
            minus_pinned: false,
            paid: false,
            through_steps: false,
            playing: false,
            frame_since: 0.0,
            looping: true,
            uncond: false,
            colouring: Colouring::Reuse,
            plan: false,
            subtract: false,
            opacity: 0.6,
            outline: true,
            compare: Compare::Single,
            split: 0.5,
        }
    }
}

/// What lasts besides form and view.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Prefs {
    /// Dark, light, or the system's.
    pub theme: egui::ThemePreference,
    /// Everything larger or smaller.
    pub zoom: f32,
    /// The first-start hints were dismissed.
    pub hints_seen: bool,
    /// Captures opened or saved, newest first.
    pub recent: Vec<PathBuf>,
    /// Models used, newest first.
    pub models: Vec<PathBuf>,
}

impl Default for Prefs {
    fn default() -> Self {
        let theme = egui::ThemePreference::System;
        Self { theme, zoom: 1.0, hints_seen: false, recent: Vec::new(), models: Vec::new() }
    }
}

impl Prefs {
    const MOST: usize = 10;

    /// Puts a capture on top of the recent ones.
    pub fn remember_capture(&mut self, path: &Path) {
        remember(&mut self.recent, path);
    }

    /// Puts a model on top of the recent ones.
    pub fn remember_model(&mut self, path: &Path) {
        remember(&mut self.models, path);
    }
}

fn remember(list: &mut Vec<PathBuf>, path: &Path) {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    list.retain(|other| *other != path);
    list.insert(0, path);
    list.truncate(Prefs::MOST);
}

/// A baseline and a run with their versions.
pub type LikenessOf = [(u64, u64); 2];

/// The pair that a run is with its baseline.
pub fn pair(baseline: &Run, run: &Run) -> LikenessOf {
    [(baseline.id, baseline.version), (run.id, run.version)]
}

/// How far the comparison of two clips is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// It goes on.
    Asked,
    /// It is done.
    Found(Likeness),
    /// The clips have nothing that could be compared.
    Cannot,
}

/// Similarity of a run's clip to the baseline's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likeness {
    /// dB; infinite for equal clips.
    pub psnr: f64,
    /// 1 for equal clips.
    pub ssim: f64,
}

/// What the answers of a model hang on.
#[derive(Clone, Debug, PartialEq)]
pub struct FactsKey {
    model: PathBuf,
    /// Without what no answer hangs on.
    clip: ClipSettings,
    /// The prompt's words: work hangs on them, plans do not.
    words: usize,
    /// Whether changes are measured: memory hangs on it, plans do not.
    changes: bool,
}

impl FactsKey {
    /// For what a form asks.
    pub fn of(form: &Form) -> Self {
        let words = form.prompt.split_whitespace().count();
        let clip = ClipSettings { guidance_scale: 1.0, seed: 0, fps: 1, ..form.clip };
        Self { model: form.model.clone(), clip, words, changes: form.changes }
    }

    /// The model's folder.
    pub fn model(&self) -> &Path {
        &self.model
    }

    /// Whether the same can be planned for both.
    pub fn plans_like(&self, other: &Self) -> bool {
        Self { words: other.words, changes: other.changes, ..self.clone() } == *other
    }
}

/// Everything.
#[derive(Default)]
pub struct State {
    /// What to generate.
    pub form: Form,
    /// The runs.
    pub runs: Runs,
    /// What is looked at.
    pub view: View,
    /// What lasts.
    pub prefs: Prefs,
    /// Messages.
    pub log: Log,
    /// The engine.
    pub job: Job,
    /// The adapter, once it is open.
    pub adapter: Option<Adapter>,
    /// What is known of the form's model and size, or why nothing is.
    pub facts: Option<Result<Facts, String>>,
    /// What is known of the model for strategies: its facts and its profile.
    pub known: Option<ModelEvidence>,
    /// What facts and profile were asked for: not the form's as long as the model is read.
    pub facts_of: Option<FactsKey>,
    /// What the form's strategy is expected to do.
    pub prediction: Prediction,
    /// How alike clips are, of all pairs that were asked for in this session.
    pub likeness: HashMap<LikenessOf, Comparison>,
    /// How blocks attend to the foreground.
    pub scores: Scores,
    /// The same of the baseline, where it is subtracted.
    pub scores_of_baseline: Scores,
    /// Pictures of panes that are asked for.
    pub shots: Shots,
    /// What paints the mask.
    pub brush: Brush,
    /// Textures of the preview.
    pub pictures: Pictures,
    /// What was thrown away last, to be taken back.
    pub undo: Option<Undo>,
    /// Files that are being written.
    pub saving: usize,
    /// What panes asked for in this frame.
    pub actions: Vec<Action>,
    /// The model that ships with the program.
    pub demo_model: Option<PathBuf>,
}

impl State {
    /// Blocks of the form's model; of the current run while the model is not known.
    pub fn blocks(&self) -> usize {
        match &self.facts {
            Some(Ok(facts)) => facts.blocks,
            _ => self.runs.current().map_or(0, |run| run.capture.run.blocks),
        }
    }

    /// Whether it is still to be found out what model and profile say for the form.
    pub fn reading(&self) -> bool {
        let key = FactsKey::of(&self.form);
        !key.model().as_os_str().is_empty() && !self.facts_of.as_ref().is_some_and(|of| of.plans_like(&key))
    }

    /// Whether the model has a profile that fits.
    pub fn has_profile(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.profile == Ok(true))
    }

    /// Whether the chosen strategy cannot run before the model's profile is read.
    pub fn waits_for_profile(&self) -> bool {
        let waits = |listed: &Listed| listed.waits_for_profile(self.form.clip.num_inference_steps);
        self.form.listed().is_some_and(waits) && self.reading()
    }

    /// Whether a generation can start, or why not.
    pub fn ready(&self) -> Result<(), String> {
        match &self.facts {
            _ if self.form.model.as_os_str().is_empty() => Err("Choose a model first.".into()),
            Some(Err(why)) => Err(why.clone()),
            _ if self.waits_for_profile() => {
                Err("The model's profile is still being read for these settings: generate again in a moment.".into())
            }
            Some(Ok(_)) => self.trouble().map_or(Ok(()), Err),
            // How many blocks the model has is not known yet: the job itself finds out.
            None => Ok(()),
        }
    }

    /// Why the chosen strategy cannot work, in the window's words: an error's own advice is for the
    /// command line.
    pub fn trouble(&self) -> Option<String> {
        let strategy = self.form.strategy();
        let label = strategy.label();
        Some(match self.prediction.trouble.as_ref()? {
            Trouble::Settings(why) => format!("{why}."),
            Trouble::Uncalibrated if strategy.learns_from_a_run() => format!(
                "{label} has no calibration yet. Run \"Off\" with block changes measured, then calibrate it in the strategy pane."
            ),
            Trouble::Uncalibrated if strategy.about().needs == Needs::Profile => {
                format!("{label} needs a profile of the model.")
            }
            Trouble::Uncalibrated => format!("{label} has no calibration for this model."),
        })
    }

    /// Forgets what was known of the form's model.
    pub fn forget_model(&mut self) {
        (self.facts, self.known, self.facts_of) = (None, None, None);
    }

    /// How far the comparison of a run's clip with the baseline's is, where both did the same job.
    pub fn comparison(&self, run: &Run) -> Option<Comparison> {
        self.likeness.get(&pair(self.runs.reference_of(run)?, run)).copied()
    }

    /// How alike a run's clip and the baseline's are, once that is known.
    pub fn known_likeness(&self, run: &Run) -> Option<Likeness> {
        match self.comparison(run)? {
            Comparison::Found(likeness) => Some(likeness),
            Comparison::Asked | Comparison::Cannot => None,
        }
    }

    /// Whether the map shows the plan of the next run: it is asked for, or nothing was recorded.
    pub fn shows_plan(&self) -> bool {
        self.view.plan || self.runs.current().is_none()
    }

    /// Asks the window for something.
    pub fn ask(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// The step that is shown: the selected one, or the newest that was recorded.
    pub fn shown_step(&self) -> Option<usize> {
        self.runs.current()?.shown_step(self.view.step)
    }
}
