//! Everything that happens beside the window's thread: the engine, files, and what `dialogs` asks for. Each tells the window by one channel and wakes it,
//! so the window neither waits nor repaints for nothing.

pub mod job;
pub mod pace;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::caching::StrategyConfig;
use crate::engine::capture::file;
use crate::engine::{Capture, Engine, Event, Facts, Frames, GenerateRequest, Record};
use crate::media;
use crate::metrics;
use crate::profiling::mask;

use crate::app::data::state::{FactsKey, Likeness, LikenessOf};
use crate::app::dialogs::{Choose, Chosen, Dialog};
use crate::app::panes::strategy::custom;
use crate::app::panes::strategy::target::ModelEvidence;

/// Opens the device and starts the engine on it.
pub type OpenEngine = Arc<dyn Fn() -> anyhow::Result<Engine> + Send + Sync>;

/// What was read of a model for a request.
#[derive(Clone, Debug)]
pub struct Learned {
    /// What was asked for.
    pub of: FactsKey,
    /// Sizes and costs, or why there are none.
    pub facts: Result<Facts, String>,
    /// The model's facts and profile for strategies.
    pub known: Option<ModelEvidence>,
}

/// What the window is told.
pub enum Told {
    /// The engine is there, or why not.
    Opened(Result<Engine, String>),
    /// The engine's event, and what captures keep of it: frames become bytes before the window hears of them.
    Event(Box<Event>, Vec<Record>),
    /// The engine of this number has ended: it was closed, or it broke.
    Ended(u64),
    /// What is known of a request, and what the model's profile says for it.
    Learned(Box<Learned>),
    /// How alike two clips are, where they can be compared.
    Likeness(LikenessOf, Option<Likeness>),
    /// A capture was read, or why not.
    Loaded(PathBuf, Result<Box<file::Loaded>, String>),
    /// A mask for a run was read, one bit a token.
    Mask(u64, Vec<bool>),
    /// A model's folder was chosen.
    Model(PathBuf),
    /// A strategy was read.
    Strategy(StrategyConfig),
    /// The capture of a run was saved.
    Saved(u64, PathBuf),
    /// The clip of a run was saved.
    ClipSaved(u64, PathBuf),
    /// Something was done, in plain words.
    Done(String),
    /// Something did not work, in plain words.
    Failed(String),
}

/// The window's end of it. The receiver is dropped before the engine, so that no event holds the engine up when it ends.
pub struct Link {
    told: Receiver<Told>,
    /// What the window's own thread has to tell itself.
    own: Receiver<Told>,
    pub(in crate::app) teller: Teller,
    open: OpenEngine,
    engine: Option<Engine>,
    /// How many engines there were.
    engines: u64,
    /// The engine is being opened.
    opening: bool,
    /// The job that waits for it.
    pending: Option<GenerateRequest>,
}

/// The other end: goes into threads.
#[derive(Clone)]
pub(in crate::app) struct Teller {
    to: Sender<Told>,
    /// Without a limit, for the window's own thread: it must not wait for itself.
    own: Sender<Told>,
    ctx: egui::Context,
    choose: Choose,
    /// Files that are being written.
    saving: Arc<AtomicUsize>,
}

/// A file that is being written. The window is woken when it begins and when it is done.
pub(in crate::app) struct Writing(Teller);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.saving.fetch_sub(1, Ordering::Relaxed);
        self.0.ctx.request_repaint();
    }
}

/// An answer that the window waits for. Where none is given, because the work broke or no thread was to be had, it is `otherwise`.
struct Owed<F: FnOnce() -> Told> {
    teller: Teller,
    otherwise: Option<F>,
}

impl<F: FnOnce() -> Told> Owed<F> {
    fn give(mut self, answer: Told) {
        self.otherwise = None;
        self.teller.tell(answer);
    }
}

impl<F: FnOnce() -> Told> Drop for Owed<F> {
    fn drop(&mut self) {
        let Some(otherwise) = self.otherwise.take() else { return };
        if std::thread::panicking() {
            self.teller.tell(otherwise());
        } else {
            self.teller.tell_own(otherwise());
        }
    }
}

/// What is said of work that broke.
const BROKEN: &str = "this part of the program broke, which is a bug of it; the terminal says more";

impl Teller {
    /// Whether the window still listens.
    pub(in crate::app) fn tell(&self, what: Told) -> bool {
        let heard = self.to.send(what).is_ok();
        self.ctx.request_repaint();
        heard
    }

    /// The same on the window's own thread.
    fn tell_own(&self, what: Told) {
        self.own.send(what).ok();
        self.ctx.request_repaint();
    }

    /// Who is asked for files.
    pub(in crate::app) fn choose(&self, dialog: Dialog) -> Chosen {
        (self.choose)(dialog)
    }

    /// A file is being written for as long as this is kept.
    pub(in crate::app) fn writing(&self) -> Writing {
        self.saving.fetch_add(1, Ordering::Relaxed);
        self.ctx.request_repaint();
        Writing(self.clone())
    }

    /// Does something on a thread of its own.
    pub(in crate::app) fn spawn(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let teller = self.clone();
        let spawned = std::thread::Builder::new().name("window helper".into()).spawn(move || work(&teller));
        if let Err(error) = spawned {
            self.tell_own(Told::Failed(format!("the system refuses another thread: {error}")));
        }
    }

    /// Works out an answer that the window waits for, on a thread of its own; `otherwise` is told where the work breaks.
    fn answer(&self, otherwise: impl FnOnce() -> Told + Send + 'static, work: impl FnOnce() -> Told + Send + 'static) {
        let owed = Owed { teller: self.clone(), otherwise: Some(otherwise) };
        self.spawn(move |_| owed.give(work()));
    }
}

impl Link {
    /// Messages kept for a window that is busy; then the tellers wait.
    const MESSAGES: usize = 64;

    /// A link that opens the engine with `open` when the first job comes.
    pub fn new(ctx: egui::Context, open: OpenEngine, choose: Choose) -> Self {
        let (to, told) = bounded(Self::MESSAGES);
        let (own_to, own) = unbounded();
        let teller = Teller { to, own: own_to, ctx, choose, saving: Arc::default() };
        Self { told, own, teller, open, engine: None, engines: 0, opening: false, pending: None }
    }

    /// The next message, if there is one.
    pub fn next(&self) -> Option<Told> {
        self.own.try_recv().or_else(|_| self.told.try_recv()).ok()
    }

    /// How many files are being written.
    pub fn saving(&self) -> usize {
        self.teller.saving.load(Ordering::Relaxed)
    }

    /// The engine, once it is open.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// Starts a job, after the engine was opened; whether it was.
    pub fn generate(&mut self, request: GenerateRequest) -> Result<bool, String> {
        if let Some(engine) = &self.engine {
            return engine.generate(request).map(|()| true).map_err(|error| error.to_string());
        }
        self.pending = Some(request);
        if !std::mem::replace(&mut self.opening, true) {
            let open = self.open.clone();
            let broken = || Told::Opened(Err(BROKEN.into()));
            self.teller.answer(broken, move || Told::Opened(open().map_err(|error| format!("{error:#}"))));
        }
        Ok(false)
    }

    /// Takes an opened engine over, forwards its events, and starts the job that waited for it; whether one did.
    pub fn opened(&mut self, engine: Engine) -> Result<bool, String> {
        self.engines += 1;
        let (events, number) = (engine.events().clone(), self.engines);
        let ended = Owed { teller: self.teller.clone(), otherwise: Some(move || Told::Ended(number)) };
        self.teller.spawn(move |teller| {
            for event in events {
                let records = event.records();
                if !teller.tell(Told::Event(Box::new(event), records)) {
                    break;
                }
            }
            ended.give(Told::Ended(number));
        });
        self.opening = false;
        let waited = self.pending.take();
        let started = waited.map(|request| engine.generate(request).map_err(|error| error.to_string()));
        self.engine = Some(engine);
        started.transpose().map(|started| started.is_some())
    }

    /// The engine could not be opened; whether a job waited for it.
    pub fn not_opened(&mut self) -> bool {
        self.opening = false;
        self.pending.take().is_some()
    }

    /// Whether the engine of this number is in use: if it has ended, nobody asked it to.
    pub fn uses(&self, number: u64) -> bool {
        self.engine.is_some() && self.engines == number
    }

    /// Gives up an engine whose device is lost: the next job opens another. It ends on a thread of its own.
    pub fn close_engine(&mut self) {
        if let Some(engine) = self.engine.take() {
            self.teller.spawn(move |_| drop(engine));
        }
    }

    /// Forgets a job that waits for the engine.
    pub fn forget_pending(&mut self) {
        self.pending = None;
    }

    /// Finds out what is known of a request, and plans for it where no plans are `known`.
    pub fn facts(&self, key: FactsKey, request: GenerateRequest, known: Option<ModelEvidence>) {
        let of = key.clone();
        self.teller.answer(
            move || Told::Learned(Box::new(Learned { of, facts: Err(BROKEN.into()), known: None })),
            move || {
                let facts = Facts::of(&request).map_err(|error| error.to_string());
                let read = || facts.as_ref().ok().map(|facts| ModelEvidence::of(&request.model, facts));
                let known = known.or_else(read);
                Told::Learned(Box::new(Learned { of: key, facts, known }))
            },
        );
    }

    /// Compares the clips of two runs.
    pub fn compare(&self, of: LikenessOf, baseline: Arc<Capture>, current: Arc<Capture>) {
        let alike = move || likeness(baseline.clip.as_ref()?, current.clip.as_ref()?);
        self.teller.answer(move || Told::Likeness(of, None), move || Told::Likeness(of, alike()));
    }

    /// Reads a capture.
    pub fn load(&self, path: PathBuf) {
        self.teller.spawn(move |teller| {
            teller.tell(read_capture(path));
        });
    }

    /// Reads a mask for a run of a token grid.
    pub fn load_mask(&self, path: PathBuf, run: u64, grid: [usize; 3]) {
        self.teller.spawn(move |teller| {
            teller.tell(read_mask(&path, run, grid));
        });
    }

    /// Reads a strategy.
    pub fn load_strategy(&self, path: PathBuf) {
        self.teller.spawn(move |teller| {
            teller.tell(read_strategy(&path));
        });
    }
}

/// PSNR of the squared error over all frames, and the mean SSIM; `None` for clips that cannot be compared.
fn likeness(a: &Frames, b: &Frames) -> Option<Likeness> {
    let clip = |frames: &Frames| metrics::Frames::from_bytes(frames.width, frames.height, &frames.frames).ok();
    let (a, b) = (clip(a)?, clip(b)?);
    let psnr = metrics::clip_psnr(&a, &b).ok()?;
    let ssim: Option<f64> = a.frames().zip(b.frames()).map(|(a, b)| metrics::ssim(a, b).ok()).sum();
    Some(Likeness { psnr, ssim: ssim? / a.len() as f64 })
}

pub(in crate::app) fn read_capture(path: PathBuf) -> Told {
    let loaded = file::open(&path).map(Box::new).map_err(|error| error.to_string());
    Told::Loaded(path, loaded)
}

pub(in crate::app) fn read_strategy(path: &Path) -> Told {
    custom::read(path).map_or_else(Told::Failed, Told::Strategy)
}

pub(in crate::app) fn read_mask(path: &Path, run: u64, grid: [usize; 3]) -> Told {
    let pictures = media::read_gray(path).map_err(|error| error.to_string());
    let mask = pictures.and_then(|pictures| mask::file(&pictures, grid).map_err(|error| error.to_string()));
    match mask {
        Ok(found) => Told::Mask(run, found.mask.bits().to_vec()),
        Err(error) => Told::Failed(format!("The mask cannot be used: {error}")),
    }
}
