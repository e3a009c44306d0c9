//! File dialogs: what is asked for, in plain words, and what is done with the answer. Who answers is the system's dialog, or a test in
//! the user's place.

pub mod files;
pub mod quit;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::Capture;
use crate::engine::capture::file;
use crate::media::figure::Svg;
use crate::media::{self, Clip};

use crate::app::link::{Link, Teller, Told, read_capture, read_mask, read_strategy};

/// Time in which nobody can have seen a dialog and closed it.
const FASTEST_HAND: Duration = Duration::from_millis(300);

/// A kind of file: its name, and how such files end.
pub type Filter = (&'static str, &'static [&'static str]);

/// What a dialog is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A file to read.
    Open,
    /// A folder to read.
    Folder,
    /// A file to write, by this name if the user wants no other.
    Save(String),
}

/// A question for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    /// What it says on top.
    pub title: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Kinds of files.
    pub filters: Vec<Filter>,
}

/// A path that is being chosen; `None` if the user wants none.
pub type Chosen = Pin<Box<dyn Future<Output = Option<PathBuf>> + Send>>;

/// Who is asked, on the window's thread.
pub type Choose = Arc<dyn Fn(Dialog) -> Chosen + Send + Sync>;

/// The system's dialogs.
pub fn system() -> Choose {
    Arc::new(|dialog| {
        let mut shown = rfd::AsyncFileDialog::new().set_title(dialog.title);
        for (name, endings) in dialog.filters {
            shown = shown.add_filter(name, endings);
        }
        // Asked here and now: some systems show dialogs from the window's thread alone.
        match dialog.purpose {
            Purpose::Open => path(shown.pick_file()),
            Purpose::Folder => path(shown.pick_folder()),
            Purpose::Save(name) => path(shown.set_file_name(name).save_file()),
        }
    })
}

fn path(chosen: impl Future<Output = Option<rfd::FileHandle>> + Send + 'static) -> Chosen {
    Box::pin(async move { chosen.await.map(|file| file.path().to_owned()) })
}

impl Dialog {
    fn new(title: &str, purpose: Purpose, filters: &[Filter]) -> Self {
        Self { title: title.into(), purpose, filters: filters.into() }
    }

    fn open(title: &str, filters: &[Filter]) -> Self {
        Self::new(title, Purpose::Open, filters)
    }

    fn folder(title: &str) -> Self {
        Self::new(title, Purpose::Folder, &[])
    }

    fn save(title: &str, name: &str, filters: &[Filter]) -> Self {
        Self::new(title, Purpose::Save(name.into()), filters)
    }
}

impl Teller {
    /// Shows a dialog, waits for it on a thread of its own, and goes on there with what was chosen.
    fn ask(&self, dialog: Dialog, then: impl FnOnce(&Self, PathBuf) + Send + 'static) {
        let writes = matches!(dialog.purpose, Purpose::Save(_));
        let chosen = self.choose(dialog);
        self.spawn(move |teller| {
            let asked = Instant::now();
            match pollster::block_on(chosen) {
                Some(path) => {
                    let _writing = writes.then(|| teller.writing());
                    then(teller, path);
                }
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
    fn ask(&self, dialog: Dialog, then: impl FnOnce(&Teller, PathBuf) + Send + 'static) {
        self.teller.ask(dialog, then);
    }

    /// Lets the user choose a capture.
    pub fn choose_capture(&self) {
        self.ask(Dialog::open("Open a capture", &[("Captures", &["capture", "partial"])]), |teller, path| {
            teller.tell(read_capture(path));
        });
    }

    /// Lets the user choose pictures of a mask for a run of a token grid.
    pub fn choose_mask(&self, run: u64, grid: [usize; 3]) {
        self.ask(Dialog::open("Load a mask", &[("Pictures", &["png", "apng", "gif"])]), move |teller, path| {
            teller.tell(read_mask(&path, run, grid));
        });
    }

    /// Lets the user save a mask.
    pub fn save_mask(&self, clip: Clip) {
        let dialog = Dialog::save("Save the mask", "mask.png", &[("Animated PNG", &["png", "apng"])]);
        self.ask(dialog, move |teller, path| {
            teller.tell(done(&path, media::write(&path, &clip, "")));
        });
    }

    /// Lets the user choose a model's folder.
    pub fn choose_model(&self) {
        self.ask(Dialog::folder("Choose a model folder"), |teller, path| {
            teller.tell(Told::Model(path));
        });
    }

    /// Lets the user choose a strategy's file.
    pub fn choose_strategy(&self) {
        self.ask(Dialog::open("Open a strategy", &[("Strategies", &["json"])]), |teller, path| {
            teller.tell(read_strategy(&path));
        });
    }

    /// Lets the user save something that is JSON.
    pub fn save_json(&self, title: &str, name: &str, json: impl FnOnce() -> Result<String, String> + Send + 'static) {
        self.ask(Dialog::save(title, name, &[("JSON", &["json"])]), move |teller, path| {
            teller.tell(match json() {
                Ok(json) => done(&path, media::write_bytes(&path, json.as_bytes())),
                Err(error) => Told::Failed(error),
            });
        });
    }

    /// Lets the user save the capture of a run.
    pub fn save_capture(&self, run: u64, capture: Arc<Capture>) {
        let dialog = Dialog::save("Save the capture", "run.capture", &[("Captures", &["capture"])]);
        self.ask(dialog, move |teller, path| {
            teller.tell(match file::save(&path, &capture) {
                Ok(()) => Told::Saved(run, path),
                Err(error) => Told::Failed(error.to_string()),
            });
        });
    }

    /// Lets the user save the clip of a run, with its settings inside.
    pub fn save_clip(&self, run: u64, capture: Arc<Capture>) {
        let kinds: &[Filter] =
            &[("MP4", &["mp4"]), ("Animated PNG", &["png", "apng"]), ("GIF", &["gif"]), ("Y4M", &["y4m"])];
        self.ask(Dialog::save("Save the clip", "clip.mp4", kinds), move |teller, path| {
            let written = files::clip(&capture)
                .and_then(|clip| written(&path, media::write(&path, &clip, &capture.run.settings().to_string())));
            teller.tell(written.map_or_else(Told::Failed, |()| Told::ClipSaved(run, path)));
        });
    }

    /// What takes a picture of the window and lets the user save it.
    pub fn picture_saver(&self) -> impl FnOnce(Result<Clip, String>) + Send + 'static {
        let teller = self.teller.clone();
        move |picture| {
            let dialog = Dialog::save("Save the picture", "pane.png", &[("PNG", &["png"])]);
            match picture {
                Ok(clip) => teller.ask(dialog, move |teller, path| {
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
        self.ask(Dialog::save("Save the figure", name, &[("SVG figure", &["svg"])]), move |teller, path| {
            teller.tell(done(&path, media::write_bytes(&path, svg.as_str().as_bytes())));
        });
    }

    /// Lets the user save a map as a figure or a table, by the file's name.
    pub fn save_map(&self, svg: String, csv: String) {
        let kinds: &[Filter] = &[("SVG figure", &["svg"]), ("CSV table", &["csv"])];
        self.ask(Dialog::save("Export the map", "map.svg", kinds), move |teller, path| {
            let table = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
            let text = if table { csv } else { svg };
            teller.tell(done(&path, media::write_bytes(&path, text.as_bytes())));
        });
    }
}

fn done<E: std::fmt::Display>(path: &Path, result: Result<(), E>) -> Told {
    written(path, result).map_or_else(Told::Failed, |()| Told::Done(format!("Saved {}", path.display())))
}

/// Why a file could not be written, in plain words.
fn written<E: std::fmt::Display>(path: &Path, result: Result<(), E>) -> Result<(), String> {
    result.map_err(|error| format!("{} could not be saved: {error}", path.display()))
}
