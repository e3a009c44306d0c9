//! Everything that happens beside the window's thread: the engine, files, dialogs. Each tells the window by one channel and wakes it,
//! so the window neither waits nor repaints for nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::caching::StrategyConfig;
use crate::engine::capture::file;
use crate::engine::{Capture, Engine, Event, Facts, Frames, GenerateRequest};
use crate::media::figure::Svg;
use crate::media::{self, Clip};
use crate::metrics;
use crate::profiling::mask;

use super::custom;
use super::state::{FactsKey, Likeness, LikenessOf};
use super::target::{Known, Profiled};

/// Time in which nobody can have seen a dialog and closed it.
const FASTEST_HAND: Duration = Duration::from_millis(300);

/// Opens the device and starts the engine on it; with the adapter's name.
pub type OpenEngine = Arc<dyn Fn() -> anyhow::Result<(Engine, String)> + Send + Sync>;

/// What the window is told.
pub enum Told {
    /// The engine is there, or why not.
    Opened(Result<(Engine, String), String>),
    /// The engine's event.
    Event(Box<Event>),
    /// The engine of this number has ended: it was closed, or it broke.
    Ended(u64),
    /// What is known of a request, and what the model's profile says for it.
    Facts(FactsKey, Result<Facts, String>, Known),
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
    /// A capture was saved.
    Saved(PathBuf),
    /// Something was done, in plain words.
    Done(String),
    /// Something did not work, in plain words.
    Failed(String),
}

/// The window's end of it. The receiver is dropped before the engine, so that no event holds the engine up when it ends.
pub struct Link {
    told: Receiver<Told>,
    teller: Teller,
    open: OpenEngine,
    engine: Option<Engine>,
    /// How many engines there were.
    engines: u64,
    pending: Option<GenerateRequest>,
}

/// The other end: goes into threads.
#[derive(Clone)]
struct Teller {
    to: Sender<Told>,
    ctx: egui::Context,
}

impl Teller {
    /// Whether the window still listens.
    fn tell(&self, what: Told) -> bool {
        let heard = self.to.send(what).is_ok();
        self.ctx.request_repaint();
        heard
    }

    /// Does something on a thread of its own.
    fn spawn(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let teller = self.clone();
        let spawned = std::thread::Builder::new().name("window helper".into()).spawn(move || work(&teller));
        if let Err(error) = spawned {
            // Nobody else listens to this thread's own messages, so the channel cannot be full of them.
            self.to.try_send(Told::Failed(format!("the system refuses another thread: {error}"))).ok();
        }
    }

    /// Waits for a dialog on a thread of its own.
    fn ask(
        &self,
        dialog: impl Future<Output = Option<rfd::FileHandle>> + Send + 'static,
        then: impl FnOnce(&Self, PathBuf) + Send + 'static,
    ) {
        self.spawn(move |teller| {
            let asked = Instant::now();
            match pollster::block_on(dialog) {
                Some(chosen) => then(teller, chosen.path().to_owned()),
                // Nobody dismisses a dialog that fast: there was none. The library does not say so.
                None if cfg!(target_os = "linux") && asked.elapsed() < FASTEST_HAND => {
                    let text = "No file dialog could be opened: install zenity, or xdg-desktop-portal with a backend. \
                                Captures also open by drop and from the command line.";
                    teller.tell(Told::Failed(text.into()));
                }
                None => {}
            }
        });
    }
}

impl Link {
    /// Messages kept for a window that is busy; then the tellers wait.
    const MESSAGES: usize = 64;

    /// A link that opens the engine with `open` when the first job comes.
    pub fn new(ctx: egui::Context, open: OpenEngine) -> Self {
        let (to, told) = bounded(Self::MESSAGES);
        Self { told, teller: Teller { to, ctx }, open, engine: None, engines: 0, pending: None }
    }

    /// The next message, if there is one.
    pub fn next(&self) -> Option<Told> {
        self.told.try_recv().ok()
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
        let open = self.open.clone();
        self.teller.spawn(move |teller| {
            let opened = open().map_err(|error| format!("{error:#}"));
            teller.tell(Told::Opened(opened));
        });
        Ok(false)
    }

    /// Takes an opened engine over: forwards its events and starts the job that waited for it.
    pub fn opened(&mut self, engine: Engine) -> Result<(), String> {
        self.engines += 1;
        let (events, number) = (engine.events().clone(), self.engines);
        self.teller.spawn(move |teller| {
            for event in events {
                if !teller.tell(Told::Event(Box::new(event))) {
                    return;
                }
            }
            teller.tell(Told::Ended(number));
        });
        let started = match self.pending.take() {
            Some(request) => engine.generate(request).map_err(|error| error.to_string()),
            None => Ok(()),
        };
        self.engine = Some(engine);
        started
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
    pub fn facts(&self, key: FactsKey, request: GenerateRequest, known: Known) {
        self.teller.spawn(move |teller| {
            let facts = Facts::of(&request).map_err(|error| error.to_string());
            let plan = || facts.as_ref().ok().and_then(|facts| Profiled::of(&request.model, facts));
            let known = known.or_else(plan);
            teller.tell(Told::Facts(key, facts, known));
        });
    }

    /// Compares two clips.
    pub fn compare(&self, of: LikenessOf, baseline: Frames, current: Frames) {
        self.teller.spawn(move |teller| {
            teller.tell(Told::Likeness(of, likeness(&baseline, &current)));
        });
    }

    /// Reads a capture.
    pub fn load(&self, path: PathBuf) {
        self.teller.spawn(move |teller| {
            let loaded = file::open(&path).map(Box::new).map_err(|error| error.to_string());
            teller.tell(Told::Loaded(path, loaded));
        });
    }

    /// Lets the user choose a capture.
    pub fn choose_capture(&self) {
        let dialog =
            rfd::AsyncFileDialog::new().set_title("Open a capture").add_filter("Captures", &["capture", "partial"]);
        self.ask(dialog.pick_file(), |teller, path| {
            let loaded = file::open(&path).map(Box::new).map_err(|error| error.to_string());
            teller.tell(Told::Loaded(path, loaded));
        });
    }

    /// Reads a mask for a run of a token grid.
    pub fn load_mask(&self, path: PathBuf, run: u64, grid: [usize; 3]) {
        self.teller.spawn(move |teller| {
            teller.tell(read_mask(&path, run, grid));
        });
    }

    /// Lets the user choose pictures of a mask for a run of a token grid.
    pub fn choose_mask(&self, run: u64, grid: [usize; 3]) {
        let dialog =
            rfd::AsyncFileDialog::new().set_title("Load a mask").add_filter("Pictures", &["png", "apng", "gif"]);
        self.ask(dialog.pick_file(), move |teller, path| {
            teller.tell(read_mask(&path, run, grid));
        });
    }

    /// Lets the user save a mask.
    pub fn save_mask(&self, clip: Clip) {
        let dialog =
            rfd::AsyncFileDialog::new().set_title("Save the mask").add_filter("Animated PNG", &["png", "apng"]);
        self.ask(dialog.set_file_name("mask.png").save_file(), move |teller, path| {
            teller.tell(done(&path, media::write(&path, &clip, "")));
        });
    }

    /// Lets the user choose a model's folder.
    pub fn choose_model(&self) {
        let dialog = rfd::AsyncFileDialog::new().set_title("Choose a model folder");
        self.ask(dialog.pick_folder(), |teller, path| {
            teller.tell(Told::Model(path));
        });
    }

    /// Reads a strategy.
    pub fn load_strategy(&self, path: PathBuf) {
        self.teller.spawn(move |teller| {
            teller.tell(read_strategy(&path));
        });
    }

    /// Lets the user choose a strategy's file.
    pub fn choose_strategy(&self) {
        let dialog = rfd::AsyncFileDialog::new().set_title("Open a strategy").add_filter("Strategies", &["json"]);
        self.ask(dialog.pick_file(), |teller, path| {
            teller.tell(read_strategy(&path));
        });
    }

    /// Lets the user save something that is JSON.
    pub fn save_json(&self, title: &str, name: &str, json: impl FnOnce() -> Result<String, String> + Send + 'static) {
        let dialog = rfd::AsyncFileDialog::new().set_title(title).add_filter("JSON", &["json"]);
        self.ask(dialog.set_file_name(name).save_file(), move |teller, path| {
            teller.tell(match json() {
                Ok(json) => done(&path, media::write_bytes(&path, json.as_bytes())),
                Err(error) => Told::Failed(error),
            });
        });
    }

    /// Lets the user save a capture.
    pub fn save_capture(&self, capture: Capture) {
        let dialog = rfd::AsyncFileDialog::new().set_title("Save the capture").add_filter("Captures", &["capture"]);
        self.ask(dialog.set_file_name("run.capture").save_file(), move |teller, path| {
            teller.tell(match file::save(&path, &capture) {
                Ok(()) => Told::Saved(path),
                Err(error) => Told::Failed(error.to_string()),
            });
        });
    }

    /// Lets the user save a clip; `settings` go into it.
    pub fn save_clip(&self, clip: Clip, settings: String) {
        let dialog = rfd::AsyncFileDialog::new()
            .set_title("Save the clip")
            .add_filter("MP4", &["mp4"])
            .add_filter("Animated PNG", &["png", "apng"])
            .add_filter("GIF", &["gif"])
            .add_filter("Y4M", &["y4m"]);
        self.ask(dialog.set_file_name("clip.mp4").save_file(), move |teller, path| {
            teller.tell(done(&path, media::write(&path, &clip, &settings)));
        });
    }

    /// What takes a picture of the window and lets the user save it.
    pub fn picture_saver(&self) -> impl FnOnce(Result<Clip, String>) + Send + 'static {
        let teller = self.teller.clone();
        move |picture| {
            let dialog = rfd::AsyncFileDialog::new().set_title("Save the picture").add_filter("PNG", &["png"]);
            match picture {
                Ok(clip) => teller.ask(dialog.set_file_name("pane.png").save_file(), move |teller, path| {
                    teller.tell(done(&path, media::write(&path, &clip, "")));
                }),
                Err(error) => teller.spawn(move |teller| {
                    teller.tell(Told::Failed(error));
                }),
            }
        }
    }

    /// Lets the user save a figure.
    pub fn save_figure(&self, svg: Svg, name: &str) {
        let dialog = rfd::AsyncFileDialog::new().set_title("Save the figure").add_filter("SVG figure", &["svg"]);
        self.ask(dialog.set_file_name(name).save_file(), move |teller, path| {
            teller.tell(done(&path, media::write_bytes(&path, svg.as_str().as_bytes())));
        });
    }

    /// Lets the user save a map as a figure or a table, by the file's name.
    pub fn save_map(&self, svg: String, csv: String) {
        let dialog = rfd::AsyncFileDialog::new()
            .set_title("Export the map")
            .add_filter("SVG figure", &["svg"])
            .add_filter("CSV table", &["csv"]);
        self.ask(dialog.set_file_name("map.svg").save_file(), move |teller, path| {
            let table = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
            let text = if table { csv } else { svg };
            teller.tell(done(&path, media::write_bytes(&path, text.as_bytes())));
        });
    }

    fn ask(
        &self,
        dialog: impl Future<Output = Option<rfd::FileHandle>> + Send + 'static,
        then: impl FnOnce(&Teller, PathBuf) + Send + 'static,
    ) {
        self.teller.ask(dialog, then);
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

fn read_strategy(path: &Path) -> Told {
    custom::read(path).map_or_else(Told::Failed, Told::Strategy)
}

fn read_mask(path: &Path, run: u64, grid: [usize; 3]) -> Told {
    let pictures = media::read_gray(path).map_err(|error| error.to_string());
    let mask = pictures.and_then(|pictures| mask::file(&pictures, grid).map_err(|error| error.to_string()));
    match mask {
        Ok(found) if found.mask.is_trivial() => Told::Failed(format!(
            "{} is no mask: all of it is of one brightness, or too small a part is bright",
            path.display()
        )),
        Ok(found) => Told::Mask(run, found.mask.bits().to_vec()),
        Err(error) => Told::Failed(format!("The mask cannot be used: {error}")),
    }
}

fn done<E: std::fmt::Display>(path: &Path, result: Result<(), E>) -> Told {
    match result {
        Ok(()) => Told::Done(format!("Saved {}", path.display())),
        Err(error) => Told::Failed(format!("{} could not be saved: {error}", path.display())),
    }
}
