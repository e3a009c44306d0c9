//! The link to everything that runs beside the window's thread: the engine, files and dialogs. Each
//! sends messages on one channel and wakes the window, so the window neither waits nor repaints for
//! nothing.

pub mod job;
pub mod messenger;
pub mod pace;
pub mod study;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};

use crate::app::data::history::{self, KeptRun};
use crate::app::data::likeness::{ClipPair, Likeness};
use crate::app::data::model::{ModelAnswer, ModelEvidence, ModelQuery};
use crate::app::data::strategy_file;
use crate::app::data::study::StudyKind;
use crate::app::dialogs::Choose;
use crate::app::dialogs::typed_path::PathQuestion;
use crate::app::save::Saved;
use crate::caching::{RunMeasurement, StrategyConfig};
use crate::engine::capture::file;
use crate::engine::{Capture, Engine, Event, Frames, GenerateRequest, Record, RequestInfo};
use crate::media;
use crate::metrics;
use crate::profiling::mask;
use crate::study::{Cancel, LearntFile};

use messenger::BROKEN;
pub use messenger::Messenger;
use study::{StudyGuard, StudyNews, StudyOrder, Work};

/// Opens the device with this label, or the strongest one that works, and starts the engine on it.
/// Also returns warnings.
pub type OpenEngine = Arc<dyn Fn(Option<&str>) -> anyhow::Result<(Engine, Vec<String>)> + Send + Sync>;

/// Lists the labels of all GPUs.
pub type ListGpus = Arc<dyn Fn() -> anyhow::Result<Vec<String>> + Send + Sync>;

/// A message to the window.
pub enum Message {
    /// The engine was opened, with warnings, or why not.
    Opened(Result<(Engine, Vec<String>), String>),
    /// The labels of all GPUs, or why they cannot be listed.
    Gpus(Result<Vec<String>, String>),
    /// An event of the engine with its records for the capture. Frames already became bytes.
    Event {
        /// The event.
        event: Box<Event>,
        /// Its records.
        records: Vec<Record>,
    },
    /// The engine with this number has ended: it was closed, or its thread panicked.
    Ended(u64),
    /// News of the running study.
    Study(StudyNews),
    /// The answer to a query about a model.
    Model(Box<ModelAnswer>),
    /// Two clips were compared.
    Compared {
        /// Their runs.
        pair: ClipPair,
        /// Their likeness; `None` if they cannot be compared.
        likeness: Option<Likeness>,
    },
    /// A capture was read.
    Loaded {
        /// Its file.
        path: PathBuf,
        /// The capture.
        loaded: Box<file::Loaded>,
    },
    /// A mask was read.
    Mask {
        /// The run that it is for.
        run: u64,
        /// One bit a token.
        bits: Vec<bool>,
    },
    /// What a run told of its model was kept.
    Learnt,
    /// A model's folder was chosen.
    ModelChosen(PathBuf),
    /// A strategy was read.
    Strategy(StrategyConfig),
    /// The system shows no file dialog: the window asks for the path.
    AskPath(Box<PathQuestion>),
    /// Something was saved.
    Saved {
        /// What was saved.
        what: Saved,
        /// Its file.
        path: PathBuf,
    },
    /// The runs that last from one session to the next.
    History(Vec<KeptRun>),
    /// A run was kept.
    Kept {
        /// The run.
        run: u64,
        /// Its summary, with its file.
        kept: Box<KeptRun>,
    },
    /// Something did not work. The text is for the user.
    Failed(String),
}

/// The window's link to the engine and to other threads. The receiver is dropped before the engine,
/// so that no event holds the engine up when it ends.
pub struct Link {
    received: Receiver<Message>,
    /// Messages from the window's own thread.
    own: Receiver<Message>,
    /// The other end.
    pub messenger: Messenger,
    open: OpenEngine,
    list_gpus: ListGpus,
    /// The GPU to open.
    gpu: Option<String>,
    /// The study that runs. It is dropped before the engine, and no longer uses it then.
    study: Option<StudyGuard>,
    engine: Option<Arc<Engine>>,
    /// Takes work to the thread that forwards the engine's events.
    work: Option<Sender<Work>>,
    /// Number of engines so far.
    engines: u64,
    /// The engine is being opened.
    opening: bool,
    /// What waits for it.
    pending: Option<Order>,
}

/// What the user wants the engine to do.
enum Order {
    Job(Box<GenerateRequest>),
    Study(Box<StudyOrder>),
}

/// What has started on the engine.
pub enum Started {
    /// A job.
    Job,
    /// A study, and the token that ends it.
    Study(StudyKind, Cancel),
}

impl Link {
    /// Number of messages that are kept for a busy window. Then the senders wait.
    const MESSAGES: usize = 64;

    /// A link that opens the engine with `open` when the first job comes.
    pub fn new(ctx: egui::Context, open: OpenEngine, list_gpus: ListGpus, choose: Choose) -> Self {
        let (to, received) = bounded(Self::MESSAGES);
        let (own_to, own) = unbounded();
        let messenger = Messenger::new(to, own_to, ctx, choose);
        Self {
            received,
            own,
            messenger,
            open,
            list_gpus,
            gpu: None,
            study: None,
            engine: None,
            work: None,
            engines: 0,
            opening: false,
            pending: None,
        }
    }

    /// The next message, if there is one.
    pub fn next(&self) -> Option<Message> {
        self.own.try_recv().or_else(|_| self.received.try_recv()).ok()
    }

    /// The number of files that are being written.
    pub fn saving(&self) -> usize {
        self.messenger.saving()
    }

    /// The engine, once it is open.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_deref()
    }

    /// Starts a job, and opens the engine first if necessary. `None` while the engine is being
    /// opened.
    pub fn generate(&mut self, request: GenerateRequest) -> Result<Option<Started>, String> {
        self.order(Order::Job(Box::new(request)))
    }

    /// Starts a study, and opens the engine first if necessary. `None` while the engine is being
    /// opened.
    pub fn study(&mut self, order: StudyOrder) -> Result<Option<Started>, String> {
        self.order(Order::Study(Box::new(order)))
    }

    fn order(&mut self, order: Order) -> Result<Option<Started>, String> {
        if let Some(engine) = self.engine.clone() {
            return self.start(engine, order).map(Some);
        }
        self.pending = Some(order);
        if !std::mem::replace(&mut self.opening, true) {
            let (open, gpu) = (self.open.clone(), self.gpu.clone());
            let broken = || Message::Opened(Err(BROKEN.into()));
            let opened = move || open(gpu.as_deref()).map_err(|error| format!("{error:#}"));
            self.messenger.answer(broken, move || Message::Opened(opened()));
        }
        Ok(None)
    }

    fn start(&mut self, engine: Arc<Engine>, order: Order) -> Result<Started, String> {
        match order {
            Order::Job(request) => engine.generate(*request).map(|()| Started::Job).map_err(|error| error.to_string()),
            Order::Study(order) => {
                let (kind, cancel) = (order.kind(), Cancel::default());
                let (work, guard) = order.work(engine, cancel.clone());
                let to = self.work.as_ref().ok_or(BROKEN)?;
                to.send(work).map_err(|_| BROKEN)?;
                self.study = Some(guard);
                Ok(Started::Study(kind, cancel))
            }
        }
    }

    /// Takes note that the study has ended.
    pub fn study_ended(&mut self) {
        self.study = None;
    }

    /// Takes over an opened engine, forwards its events, and starts what waited for it. `None` if
    /// nothing waited.
    pub fn opened(&mut self, engine: Engine) -> Result<Option<Started>, String> {
        self.engines += 1;
        let (events, number) = (engine.events().clone(), self.engines);
        let ended = self.messenger.pending(move || Message::Ended(number));
        let (to, work) = unbounded();
        self.messenger.spawn(move |messenger| {
            forward(&events, work, messenger);
            ended.give(Message::Ended(number));
        });
        self.opening = false;
        let engine = Arc::new(engine);
        (self.work, self.engine) = (Some(to), Some(engine.clone()));
        self.pending.take().map(|order| self.start(engine, order)).transpose()
    }

    /// Takes note that the engine could not be opened. Returns whether a job waited for it.
    pub fn not_opened(&mut self) -> bool {
        self.opening = false;
        self.pending.take().is_some()
    }

    /// Whether the engine with this number is in use. If such an engine has ended, its thread
    /// panicked.
    pub fn uses(&self, number: u64) -> bool {
        self.engine.is_some() && self.engines == number
    }

    /// Gives up an engine whose device is lost; the next job opens another one. The old engine ends
    /// on a thread of its own.
    pub fn close_engine(&mut self) {
        if let Some(engine) = self.engine.take() {
            self.work = None;
            self.messenger.spawn(move |_| drop(engine));
        }
    }

    /// Uses a GPU from the next job on, by its label, or the strongest one that works. An engine on
    /// another GPU is closed. Returns whether one was.
    pub fn use_gpu(&mut self, gpu: Option<&str>) -> bool {
        if self.gpu.as_deref() == gpu {
            return false;
        }
        self.gpu = gpu.map(str::to_owned);
        let open = self.engine.is_some();
        self.close_engine();
        open
    }

    /// Lists the GPUs.
    pub fn ask_gpus(&self) {
        let list = self.list_gpus.clone();
        let broken = || Message::Gpus(Err(BROKEN.into()));
        self.messenger.answer(broken, move || Message::Gpus(list().map_err(|error| format!("{error:#}"))));
    }

    /// Forgets a job that waits for the engine.
    pub fn forget_pending(&mut self) {
        self.pending = None;
    }

    /// Finds out what is known about a request's model. Reads its profile and what its runs told
    /// (in the folder `learnt`) too, unless the evidence is `known` already.
    pub fn ask_model(
        &self,
        query: ModelQuery,
        request: GenerateRequest,
        known: Option<ModelEvidence>,
        learnt: Option<PathBuf>,
    ) {
        let answer = |query, facts, evidence| Message::Model(Box::new(ModelAnswer { query, facts, evidence }));
        let asked = query.clone();
        self.messenger.answer(
            move || answer(asked, Err(BROKEN.into()), None),
            move || {
                let facts = RequestInfo::of(&request).map_err(|error| error.to_string());
                let read =
                    || facts.as_ref().ok().map(|facts| ModelEvidence::of(&request.model, facts, learnt.as_deref()));
                let evidence = known.or_else(read);
                answer(query, facts, evidence)
            },
        );
    }

    /// Keeps what a run told of its model.
    pub fn learn(&self, file: LearntFile, measured: RunMeasurement) {
        self.messenger.spawn(move |messenger| {
            messenger.send(match file.add(measured) {
                Ok(()) => Message::Learnt,
                Err(error) => Message::Failed(format!("Nothing is learnt from this run: {}.", error.full())),
            });
        });
    }

    /// Compares the clips of two runs.
    pub fn compare(&self, pair: ClipPair, baseline: Arc<Capture>, current: Arc<Capture>) {
        let alike = move || likeness(baseline.clip.as_ref()?, current.clip.as_ref()?);
        let compared = move |likeness| Message::Compared { pair, likeness };
        self.messenger.answer(move || compared(None), move || compared(alike()));
    }

    /// Lists the runs that last from one session to the next.
    pub fn list_kept(&self, folder: PathBuf) {
        self.messenger.spawn(move |messenger| {
            messenger.send(Message::History(history::list(&folder)));
        });
    }

    /// Keeps a run.
    pub fn keep(&self, folder: PathBuf, run: u64, summary: KeptRun, capture: Arc<Capture>) {
        self.messenger.spawn(move |messenger| {
            let _writing = messenger.writing();
            let kept = history::keep(&folder, &summary, &capture).map(|path| {
                let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
                Message::Kept { run, kept: Box::new(KeptRun { path, bytes, ..summary }) }
            });
            messenger.send(kept.unwrap_or_else(Message::Failed));
        });
    }

    /// Writes the summary of a kept run.
    pub fn describe_kept(&self, kept: KeptRun) {
        self.messenger.spawn(move |messenger| {
            if let Err(error) = history::write_summary(&kept.path, &kept) {
                messenger.send(Message::Failed(error));
            }
        });
    }

    /// Removes captures of kept runs.
    pub fn remove_kept(&self, captures: Vec<PathBuf>) {
        self.messenger.spawn(move |_| captures.iter().for_each(|capture| history::remove(capture)));
    }

    /// Reads a capture.
    pub fn load(&self, path: PathBuf) {
        self.messenger.spawn(move |messenger| {
            messenger.send(read_capture(path));
        });
    }

    /// Reads a mask for a run with a token grid.
    pub fn load_mask(&self, path: PathBuf, run: u64, grid: [usize; 3]) {
        self.messenger.spawn(move |messenger| {
            messenger.send(read_mask(&path, run, grid));
        });
    }

    /// Reads a strategy.
    pub fn load_strategy(&self, path: PathBuf) {
        self.messenger.spawn(move |messenger| {
            messenger.send(read_strategy(&path));
        });
    }
}

/// Forwards the events of an engine until it has ended. Work that comes meanwhile is done on this
/// thread: it reads the engine's events alone.
fn forward(events: &Receiver<Event>, mut work: Receiver<Work>, messenger: &Messenger) {
    loop {
        select! {
            recv(events) -> event => {
                let Ok(event) = event else { return };
                let records = event.records();
                if !messenger.send(Message::Event { event: Box::new(event), records }) {
                    return;
                }
            }
            recv(work) -> next => match next {
                Ok(next) => next(messenger),
                Err(_) => work = never(),
            }
        }
    }
}

/// PSNR of the squared error over all frames, and the mean SSIM; `None` for clips that cannot be
/// compared.
fn likeness(a: &Frames, b: &Frames) -> Option<Likeness> {
    let clip = |frames: &Frames| metrics::FloatFrames::from_bytes(frames.width, frames.height, &frames.frames).ok();
    let (a, b) = (clip(a)?, clip(b)?);
    let psnr = metrics::clip_psnr(&a, &b).ok()?;
    let ssim: Option<f64> = a.frames().zip(b.frames()).map(|(a, b)| metrics::ssim(a, b).ok()).sum();
    Some(Likeness { psnr, ssim: ssim? / a.len() as f64 })
}

/// Reads a capture.
pub fn read_capture(path: PathBuf) -> Message {
    match file::open(&path) {
        Ok(loaded) => Message::Loaded { path, loaded: Box::new(loaded) },
        Err(error) => Message::Failed(error.to_string()),
    }
}

/// Reads a strategy.
pub fn read_strategy(path: &Path) -> Message {
    strategy_file::read(path).map_or_else(Message::Failed, Message::Strategy)
}

/// Reads a mask for a run with a token grid.
pub fn read_mask(path: &Path, run: u64, grid: [usize; 3]) -> Message {
    let pictures = media::read_gray(path).map_err(|error| error.to_string());
    let mask = pictures.and_then(|pictures| mask::file(&pictures, grid).map_err(|error| error.to_string()));
    match mask {
        Ok(found) => Message::Mask { run, bits: found.mask.bits().to_vec() },
        Err(error) => Message::Failed(format!("The mask cannot be used: {error}")),
    }
}
