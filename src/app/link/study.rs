//! Studies on the window's engine. A study runs on the thread that forwards the engine's events,
//! so that it reads them alone while it runs.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::app::App;
use crate::app::data::job::Job;
use crate::app::data::log::Level;
use crate::app::data::study::{RunningStudy, Sheet, StrategyComparison, StudyKind};
use crate::app::link::messenger::Messenger;
use crate::app::link::{Message, Started};
use crate::engine::{Engine, EngineError, RequestInfo};
use crate::study::compare::{Case, CompareRequest, Folder, Row, Settings};
use crate::study::queue::Queue;
use crate::study::{Cancel, CompareStudy, ProfileStudy, Progress, Session, StudyError, StudyEvent, find_profile};

/// A study that the user asks for.
#[derive(Clone, Debug)]
pub enum StudyOrder {
    /// A profile of the model.
    Profile(ProfileStudy),
    /// A comparison of strategies.
    Comparison(CompareRequest),
}

/// News of the running study.
pub enum StudyNews {
    /// How far it is.
    Progress(Progress),
    /// Something that the user should know.
    Warning(String),
    /// The strategies of a comparison are tuned; these prompts and seeds are next.
    Queued(Box<Settings>, Queue<Case>, Arc<tempfile::TempDir>),
    /// All strategies were run on a prompt and seed.
    Compared(Vec<Row>, Option<Sheet>),
    /// The study has ended.
    Ended(Result<(), StudyError>),
}

/// Work for the thread that forwards the engine's events.
pub type Work = Box<dyn FnOnce(&Messenger) + Send>;

/// The study that runs. Dropping it cancels the study and waits for it, so that the engine can end.
pub struct StudyGuard {
    cancel: Cancel,
    done: Receiver<()>,
}

impl Drop for StudyGuard {
    fn drop(&mut self) {
        self.cancel.cancel();
        // Nothing is sent: the study drops the other end.
        self.done.recv().ok();
    }
}

impl StudyOrder {
    /// Its kind.
    pub fn kind(&self) -> StudyKind {
        match self {
            Self::Profile(_) => StudyKind::Profile,
            Self::Comparison(_) => StudyKind::Comparison,
        }
    }

    /// The study as work on an engine, and the guard of the running study.
    pub fn work(self, engine: Arc<Engine>, cancel: Cancel) -> (Work, StudyGuard) {
        let (alive, done) = bounded(0);
        let guard = StudyGuard { cancel: cancel.clone(), done };
        let work = move |messenger: &Messenger| {
            let result = self.run(&engine, &cancel, messenger);
            drop(engine);
            messenger.send(Message::Study(StudyNews::Ended(result)));
            end(alive);
        };
        (Box::new(work), guard)
    }

    fn run(self, engine: &Engine, cancel: &Cancel, messenger: &Messenger) -> Result<(), StudyError> {
        let tell = |news| messenger.send(Message::Study(news));
        match self {
            Self::Profile(study) => {
                let session = Session::new(engine, cancel, |event| match event {
                    StudyEvent::Progress(progress) => drop(tell(StudyNews::Progress(progress))),
                    StudyEvent::Warning(text) => drop(tell(StudyNews::Warning(text))),
                    _ => {}
                });
                study.run(&session).map(drop)
            }
            Self::Comparison(asked) => compare(&asked, engine, cancel, messenger),
        }
    }
}

/// Tells the guard that the study no longer uses the engine.
fn end(alive: Sender<()>) {
    drop(alive);
}

fn compare(asked: &CompareRequest, engine: &Engine, cancel: &Cancel, messenger: &Messenger) -> Result<(), StudyError> {
    let tell = |news| messenger.send(Message::Study(news));
    let facts = RequestInfo::of(&asked.request)?;
    // A profile that does not fit was told when the model was read.
    let profile = find_profile(&asked.request.model, None, &facts).unwrap_or_default();
    asked.check(&facts, profile.as_ref())?;
    let place = tempfile::tempdir()
        .map_err(|source| StudyError::Io { context: "cannot make a folder for the comparison".into(), source })?;
    let (place, listed) = (Arc::new(place), std::cell::RefCell::new(Vec::new()));
    let session = Session::new(engine, cancel, |event| match event {
        StudyEvent::Progress(progress) => drop(tell(StudyNews::Progress(progress))),
        StudyEvent::Warning(text) => drop(tell(StudyNews::Warning(text))),
        StudyEvent::Compared(compared) => {
            let sheet = Sheet::of(&compared, &listed.borrow());
            tell(StudyNews::Compared(compared.rows, sheet));
        }
        _ => {}
    });
    let mut study: CompareStudy = asked.tune(&session, &facts, profile.as_ref())?;
    listed.replace(study.settings.strategies.clone());
    let queue = study.queue();
    tell(StudyNews::Queued(Box::new(study.settings.clone()), queue.clone(), place.clone()));
    study.run(&session, &queue, Some(&Folder::new(place.path())))
}

impl App {
    /// Starts a study, unless a job or another study runs.
    pub(in crate::app) fn start_study(&mut self, order: StudyOrder) {
        if self.shared.job.busy() {
            return;
        }
        self.choose_gpu();
        match self.link.study(order) {
            Ok(Some(started)) => self.started(started),
            Ok(None) => self.shared.job = Job::Opening,
            Err(error) => self.fail(error),
        }
    }

    /// Takes note that something has started.
    pub(in crate::app) fn started(&mut self, started: Started) {
        match started {
            Started::Job => self.shared.job = Job::begun(),
            Started::Study(kind, cancel) => {
                self.shared.job = Job::Study { kind, cancelling: false };
                self.shared.studies.running = Some(RunningStudy { kind, progress: Progress::default(), cancel });
            }
        }
    }

    /// Takes over news of the running study.
    pub(in crate::app) fn study_news(&mut self, news: StudyNews) {
        let studies = &mut self.shared.studies;
        match news {
            StudyNews::Progress(progress) => {
                if let Some(running) = &mut studies.running {
                    running.progress = progress;
                }
            }
            StudyNews::Warning(text) => self.shared.log.add(Level::Warning, text),
            StudyNews::Queued(settings, queue, folder) => {
                studies.comparison = Some(StrategyComparison::new(*settings, queue, folder));
            }
            StudyNews::Compared(rows, sheet) => {
                if let Some(comparison) = &mut studies.comparison {
                    comparison.add(rows, sheet);
                }
            }
            StudyNews::Ended(result) => self.study_ended(result),
        }
    }

    fn study_ended(&mut self, result: Result<(), StudyError>) {
        self.link.study_ended();
        self.shared.job = Job::Idle;
        let kind = self.shared.studies.running.take().map(|running| running.kind);
        let profiled = kind == Some(StudyKind::Profile);
        if profiled {
            // The profile is read again, and is in use with the next frame.
            self.shared.forget_model();
        }
        let log = &mut self.shared.log;
        match result {
            Ok(()) if profiled => log.add(Level::Note, "The profile is made, and in use from now on."),
            Ok(()) => log.add(Level::Note, "The comparison is done."),
            Err(error) if error.is_cancelled() => {
                let kept = if profiled { error.full() } else { "Cancelled. The rows so far are kept.".into() };
                log.add(Level::Note, kept);
            }
            Err(error) => {
                log.add(Level::Error, error.full());
                if matches!(error.root(), StudyError::Engine(EngineError::Gpu(_) | EngineError::Stopped)) {
                    self.link.close_engine();
                }
            }
        }
    }
}
