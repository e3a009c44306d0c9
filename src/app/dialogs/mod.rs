//! File dialogs: questions for a path, and what is done with the answer. The system's dialogs
//! answer, or a test in the user's place.

pub mod dropped;
pub mod quit;
pub mod typed_path;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use typed_path::PathQuestion;

use crate::app::link::{Link, Message, Messenger, read_capture, read_mask, read_strategy};

/// A dialog that is dismissed faster than this was never on screen.
const FASTEST_HAND: Duration = Duration::from_millis(300);

/// A kind of file: its name, and the endings of such files.
pub type Filter = (&'static str, &'static [&'static str]);

/// The purpose of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A file to read.
    Open,
    /// A folder to read.
    Folder,
    /// A file to write, with the name that is suggested.
    Save(String),
}

/// A question for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    /// Its title.
    pub title: String,
    /// Its purpose.
    pub purpose: Purpose,
    /// The kinds of files that can be chosen.
    pub filters: Vec<Filter>,
}

/// A path that is being chosen; `None` if the user dismisses the dialog.
pub type Chosen = Pin<Box<dyn Future<Output = Option<PathBuf>> + Send>>;

/// Shows a dialog. It is called on the window's thread.
pub type Choose = Arc<dyn Fn(Dialog) -> Chosen + Send + Sync>;

/// The system's dialogs.
pub fn system() -> Choose {
    Arc::new(|dialog| {
        let mut shown = rfd::AsyncFileDialog::new().set_title(dialog.title);
        for (name, endings) in dialog.filters {
            shown = shown.add_filter(name, endings);
        }
        // The dialog is opened here: some systems open dialogs from the window's thread only.
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

    /// Asks for a file to write.
    pub fn save(title: &str, name: &str, filters: &[Filter]) -> Self {
        Self::new(title, Purpose::Save(name.into()), filters)
    }
}

impl Messenger {
    /// Shows a dialog, and calls `then` with the chosen path on a thread of its own.
    pub fn ask(&self, dialog: Dialog, then: impl FnOnce(&Self, PathBuf) + Send + 'static) {
        let writes = matches!(dialog.purpose, Purpose::Save(_));
        let chosen = self.choose(dialog.clone());
        self.spawn(move |messenger| {
            let asked = Instant::now();
            match pollster::block_on(chosen) {
                Some(path) => {
                    let _writing = writes.then(|| messenger.writing());
                    then(messenger, path);
                }
                // Nobody dismisses a dialog that fast: there was none. The library does not report
                // that. The window asks in its place.
                None if cfg!(target_os = "linux") && asked.elapsed() < FASTEST_HAND => {
                    messenger.send(Message::AskPath(Box::new(PathQuestion::new(dialog, then))));
                }
                None => {}
            }
        });
    }
}

impl Link {
    /// Lets the user choose a capture.
    pub fn choose_capture(&self) {
        self.messenger.ask(
            Dialog::open("Open a capture", &[("Captures", &["capture", "partial"])]),
            |messenger, path| {
                messenger.send(read_capture(path));
            },
        );
    }

    /// Lets the user choose pictures of a mask for a run with a token grid.
    pub fn choose_mask(&self, run: u64, grid: [usize; 3]) {
        self.messenger.ask(
            Dialog::open("Load a mask", &[("Pictures", &["png", "apng", "gif"])]),
            move |messenger, path| {
                messenger.send(read_mask(&path, run, grid));
            },
        );
    }

    /// Lets the user choose a model's folder.
    pub fn choose_model(&self) {
        self.messenger.ask(Dialog::folder("Choose a model folder"), |messenger, path| {
            messenger.send(Message::ModelChosen(path));
        });
    }

    /// Lets the user choose a strategy's file.
    pub fn choose_strategy(&self) {
        self.messenger.ask(Dialog::open("Open a strategy", &[("Strategies", &["json"])]), |messenger, path| {
            messenger.send(read_strategy(&path));
        });
    }
}
