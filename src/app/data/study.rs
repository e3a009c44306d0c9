//! Studies of the window: the one that runs, and the newest comparison.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::media::Clip;
use crate::study::compare::{Case, Compared, Entry, Folder, Row, Settings, sheet};
use crate::study::queue::Queue;
use crate::study::{Cancel, Progress, StudyError};

/// Contact sheets that the window keeps. All sheets are in the comparison's folder.
const MOST_SHEETS: usize = 24;

/// A kind of study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StudyKind {
    /// A profile of the model.
    Profile,
    /// A comparison of strategies.
    Comparison,
}

/// The study that runs.
#[derive(Clone, Debug)]
pub struct RunningStudy {
    /// Its kind.
    pub kind: StudyKind,
    /// How far it is.
    pub progress: Progress,
    /// Ends it.
    pub cancel: Cancel,
}

/// A comparison of strategies, while it runs and afterwards.
#[derive(Clone, Debug)]
pub struct StrategyComparison {
    /// The conditions, and the strategies with their settings.
    pub settings: Settings,
    /// The rows so far.
    pub rows: Vec<Row>,
    /// What is done and what is still to be done.
    pub queue: Queue<Case>,
    /// The newest contact sheets.
    pub sheets: VecDeque<Sheet>,
    /// The folder with everything. It goes with the window.
    folder: Arc<tempfile::TempDir>,
}

/// The frame in the middle of what all strategies made of a prompt and seed.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// The prompt and seed.
    pub title: String,
    /// Width and height in pixels.
    pub size: [usize; 2],
    /// RGB.
    pub pixels: Arc<[u8]>,
}

/// The studies of the window.
#[derive(Default)]
pub struct Studies {
    /// The study that runs.
    pub running: Option<RunningStudy>,
    /// The newest comparison.
    pub comparison: Option<StrategyComparison>,
}

impl Studies {
    /// The running study of a kind.
    pub fn running(&self, kind: StudyKind) -> Option<&RunningStudy> {
        self.running.as_ref().filter(|running| running.kind == kind)
    }

    /// Whether there are rows to show and to save.
    pub fn has_rows(&self) -> bool {
        self.comparison.as_ref().is_some_and(|comparison| !comparison.rows.is_empty())
    }
}

impl StrategyComparison {
    /// A comparison that begins, with the folder that it writes to.
    pub fn new(settings: Settings, queue: Queue<Case>, folder: Arc<tempfile::TempDir>) -> Self {
        Self { settings, rows: Vec::new(), queue, sheets: VecDeque::new(), folder }
    }

    /// Adds what was made of a prompt and seed.
    pub fn add(&mut self, rows: Vec<Row>, sheet: Option<Sheet>) {
        self.rows.extend(rows);
        self.sheets.extend(sheet);
        while self.sheets.len() > MOST_SHEETS {
            self.sheets.pop_front();
        }
    }

    /// Copies the comparison's files to another folder, with the report. It can be called on any
    /// thread.
    pub fn exporter(&self) -> impl FnOnce(&Path) -> Result<(), StudyError> + Send + 'static {
        let (from, settings, rows) = (self.folder.clone(), self.settings.clone(), self.rows.clone());
        move |path| Folder::new(from.path()).export(&Folder::new(path), &settings, &rows)
    }
}

impl Sheet {
    /// The sheet of what was made of a prompt and seed; `None` for clips that fit no sheet.
    pub fn of(compared: &Compared, entries: &[Entry]) -> Option<Self> {
        let sheet = sheet(compared, entries).ok()?;
        let title = compared.case.caption();
        Some(Self {
            title,
            size: size(&sheet),
            pixels: sheet.frames().get(sheet.frames().len() / 2)?.as_slice().into(),
        })
    }
}

fn size(clip: &Clip) -> [usize; 2] {
    [clip.width() as usize, clip.height() as usize]
}
