//! What can be saved. A [`Saveable`] says all about it: its texts, its file, when it is available,
//! and how its bytes are made. Here are those of the first panes; a new pane has its own in its own
//! file. A pane lists them in [`Pane::saves`]. The entries of the File menu are in [`FILE_MENU`].

pub mod picture;

use std::path::{Path, PathBuf};

use egui::accesskit::Role;
use egui::{KeyboardShortcut, Ui};

use crate::app::actions::{Action, Actions};
use crate::app::bars::top_bar;
use crate::app::data::run_table;
use crate::app::data::runs::Run;
use crate::app::data::shared::Shared;
use crate::app::data::strategy_file;
use crate::app::data::study::StrategyComparison;
use crate::app::dialogs::{Dialog, Filter};
use crate::app::draw::theme;
use crate::app::link::{Link, Message, Messenger};
use crate::app::panes::map::{self, MapPane};
use crate::app::panes::preview::{PreviewPane, attention, brush};
use crate::app::panes::{Pane, Panes, steps};
use crate::engine::Capture;
use crate::engine::capture::file;
use crate::media::figure::Svg;
use crate::media::{self, Clip};
use crate::study::compare::report;

/// Something that can be saved.
pub struct Saveable {
    /// The text of its entry in a menu.
    pub label: &'static str,
    /// The title of the file dialog.
    pub title: &'static str,
    /// The file name that is suggested.
    pub name: &'static str,
    /// The kinds of files that it can be written as. The ending of the chosen name decides.
    pub kinds: &'static [Filter],
    /// Whether there is something to save now.
    pub available: fn(&Shared) -> bool,
    /// Collects what is to be saved. The error is a text for the user.
    pub make: fn(Source<'_>) -> Result<Content, String>,
}

impl std::fmt::Debug for Saveable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.title)
    }
}

/// The data that things to save are made from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// What panes share.
    pub shared: &'a Shared,
    /// The panes: maps and figures are saved as they show them.
    pub panes: &'a Panes,
}

impl Source<'_> {
    /// The run on show. The error is a text for the user.
    pub fn shown_run(&self) -> Result<&Run, String> {
        self.shared.runs.current().ok_or_else(|| "There is no run to save from.".into())
    }
}

/// What a file will hold.
pub struct Content {
    /// The file name that is suggested in place of the usual one.
    name: Option<String>,
    write: Write,
    saved: Saved,
}

/// Writes a file, on a thread of its own. The error is a text for the user.
type Write = Box<dyn FnOnce(&Path) -> Result<(), String> + Send>;

/// What the window takes note of after something was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The capture of a run.
    Capture(u64),
    /// The clip of a run.
    Clip(u64),
    /// Something else.
    Other,
}

impl Content {
    /// Content that a function writes.
    pub fn new<E: std::fmt::Display>(write: impl FnOnce(&Path) -> Result<(), E> + Send + 'static) -> Self {
        let told = |path: &Path, error: E| format!("{} could not be saved: {error}", path.display());
        let write = Box::new(move |path: &Path| write(path).map_err(|error| told(path, error)));
        Self { name: None, write, saved: Saved::Other }
    }

    /// A text.
    pub fn text(text: String) -> Self {
        Self::new(move |path| media::write_bytes(path, text.as_bytes()))
    }

    /// A figure.
    pub fn svg(svg: &Svg) -> Self {
        Self::text(svg.as_str().into())
    }

    /// Pictures with the settings that made them. The ending of the path decides the format.
    pub fn clip(clip: Clip, settings: String) -> Self {
        Self::new(move |path| media::write(path, &clip, &settings))
    }
}

const PNG: &[Filter] = &[("PNG", &["png"])];
const ANIMATED_PNG: &[Filter] = &[("Animated PNG", &["png", "apng"])];
const JSON: &[Filter] = &[("JSON", &["json"])];
const SVG: &[Filter] = &[("SVG figure", &["svg"])];

/// The capture of the run on show.
pub static CAPTURE: Saveable = Saveable {
    label: "Save capture...",
    title: "Save the capture",
    name: "run.capture",
    kinds: &[("Captures", &["capture"])],
    available: |shared| shared.runs.current().is_some_and(|run| !run.live),
    make: |source| {
        let run = source.shown_run()?;
        let (capture, saved) = (run.capture.clone(), Saved::Capture(run.id));
        // The error already names the file.
        let write = Box::new(move |path: &Path| file::save(path, &capture).map_err(|error| error.to_string()));
        Ok(Content { name: None, write, saved })
    },
};

/// The table of the runs.
pub static RUNS: Saveable = Saveable {
    label: "Save table of runs (CSV)...",
    title: "Save the table of runs",
    name: "runs.csv",
    kinds: &[("CSV table", &["csv"])],
    available: |shared| shared.runs.len() > 0 || !shared.history.is_empty(),
    make: |source| Ok(Content::text(run_table::csv(&run_table::rows(source.shared)))),
};

/// The clip of the run on show, with its settings inside.
pub static CLIP: Saveable = Saveable {
    label: "Save clip...",
    title: "Save the clip",
    name: "clip.mp4",
    kinds: media::KINDS,
    available: |shared| shared.runs.current().is_some_and(|run| run.capture.clip.is_some()),
    make: |source| {
        let run = source.shown_run()?;
        let settings = run.capture.run.settings().to_string();
        Ok(Content { saved: Saved::Clip(run.id), ..Content::clip(clip(&run.capture)?, settings) })
    },
};

/// The map of blocks and steps: a figure, or a table of its values.
pub static MAP: Saveable = Saveable {
    label: "Save figure (SVG) or table (CSV)...",
    title: "Export the map",
    name: "map.svg",
    kinds: &[("SVG figure", &["svg"]), ("CSV table", &["csv"])],
    available: |shared| shared.runs.current().is_some(),
    make: |source| {
        let map = source.panes.get::<MapPane>().ok_or("There is no map.")?;
        let (svg, csv) = map::export::figure_and_table(map, source.shared, source.shown_run()?);
        Ok(Content::new(move |path| {
            let table = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
            media::write_bytes(path, if table { csv } else { svg }.as_bytes())
        }))
    },
};

/// The mask in use, as pictures.
pub static MASK: Saveable = Saveable {
    label: "Save mask...",
    title: "Save the mask",
    name: "mask.png",
    kinds: ANIMATED_PNG,
    available: |shared| shared.runs.current().is_some_and(|run| run.mask().is_some()),
    make: |source| {
        let run = source.shown_run()?;
        let bits = run.mask().ok_or("This run has no mask.")?;
        Ok(Content::clip(brush::pictures(bits, run.capture.run.token_grid)?, String::new()))
    },
};

/// The attention maps of the selected block, one a latent frame.
pub static ATTENTION: Saveable = Saveable {
    label: "Save attention maps (SVG)...",
    title: "Save the figure",
    name: "attention.svg",
    kinds: SVG,
    available: |shared| shared.selection.block.is_some() || shared.selection.pinned.is_some(),
    make: |source| {
        let preview = source.panes.get::<PreviewPane>().ok_or("There is no preview.")?;
        let look = preview.view.look(&source.shared.selection);
        Ok(Content::svg(&attention::figure(source.shown_run()?, look)?.svg()))
    },
};

/// The change of the prediction from step to step.
pub static CHANGES: Saveable = Saveable {
    label: "Save curve of changes (SVG)...",
    title: "Save the figure",
    name: "changes.svg",
    kinds: SVG,
    available: |shared| shared.runs.current().is_some(),
    make: |source| Ok(Content::svg(&steps::changes(source.shown_run()?, source.shared.runs.shown_baseline()).svg())),
};

/// The time of each step.
pub static TIMES: Saveable = Saveable {
    label: "Save times (SVG)...",
    title: "Save the figure",
    name: "times.svg",
    kinds: SVG,
    available: |shared| shared.runs.current().is_some(),
    make: |source| Ok(Content::svg(&steps::times(source.shown_run()?, source.shared.runs.shown_baseline()).svg())),
};

/// The chosen strategy with its settings.
pub static STRATEGY: Saveable = Saveable {
    label: "Save strategy...",
    title: "Save the strategy",
    name: "strategy.json",
    kinds: JSON,
    available: |_| true,
    make: |source| {
        let strategy = source.shared.form.strategy();
        Ok(Content { name: Some(strategy_file::file_name(strategy)), ..Content::text(strategy.to_json()) })
    },
};

/// The model's profile, with the blocks that the chosen strategy reuses as its background.
pub static PROFILE: Saveable = Saveable {
    label: "Export profile...",
    title: "Export a profile",
    name: "profile-by-hand.json",
    kinds: JSON,
    available: |shared| shared.model.has_profile() && !shared.background().is_empty(),
    make: |source| {
        let (model, background) = (source.shared.form.model.clone(), source.shared.background());
        let write = Box::new(move |path: &Path| {
            let json = strategy_file::profile_json(&model, background)?;
            let written = media::write_bytes(path, json.as_bytes());
            written.map_err(|error| format!("{} could not be saved: {error}", path.display()))
        });
        Ok(Content { name: None, write, saved: Saved::Other })
    },
};

/// The rows of the comparison of strategies.
pub static COMPARISON_CSV: Saveable = Saveable {
    label: "Save rows (CSV)...",
    title: "Save the rows of the comparison",
    name: "rows.csv",
    kinds: &[("CSV table", &["csv"])],
    available: |shared| shared.studies.has_rows(),
    make: |source| Ok(Content::text(report::csv(&comparison(source)?.rows))),
};

/// The folder of the comparison of strategies: report, rows, figures and contact sheets.
pub static COMPARISON_FOLDER: Saveable = Saveable {
    label: "Save report folder...",
    title: "Choose a name for the report's folder",
    name: "comparison",
    kinds: &[],
    available: |shared| shared.studies.has_rows(),
    make: |source| {
        let export = comparison(source)?.exporter();
        Ok(Content::new(move |path| export(path).map_err(|error| error.full())))
    },
};

/// A picture of a pane or of the window. The window takes it a few frames after it was asked for.
static PICTURE: Saveable = Saveable {
    label: "Save picture of the pane (PNG)...",
    title: "Save the picture",
    name: "pane.png",
    kinds: PNG,
    available: |_| true,
    make: |_| Err("A picture is taken by the window.".into()),
};

/// An entry of the File menu.
pub struct FileEntry {
    /// What it saves.
    pub saveable: &'static Saveable,
    /// Its text.
    pub text: &'static str,
    /// Its keys.
    pub shortcut: Option<KeyboardShortcut>,
}

/// The entries of the File menu.
pub static FILE_MENU: [FileEntry; 3] = [
    FileEntry { saveable: &CAPTURE, text: "Save capture...", shortcut: Some(top_bar::SAVE) },
    FileEntry { saveable: &CLIP, text: "Save clip...", shortcut: None },
    FileEntry { saveable: &MAP, text: "Export map...", shortcut: None },
];

/// The newest comparison of strategies.
fn comparison<'a>(source: Source<'a>) -> Result<&'a StrategyComparison, String> {
    source.shared.studies.comparison.as_ref().ok_or_else(|| "Nothing was compared yet.".into())
}

/// The clip of a run, as it is written.
fn clip(capture: &Capture) -> Result<Clip, String> {
    let frames = capture.clip.as_ref().ok_or("This run has no clip yet.")?;
    let (width, height) = (frames.width as u32, frames.height as u32);
    Clip::new(width, height, capture.run.clip.fps, frames.frames.clone()).map_err(|error| error.to_string())
}

/// The menu at the right end of a pane's tabs.
pub fn pane_menu(ui: &mut Ui, pane: &dyn Pane, shared: &Shared, actions: &mut Actions) {
    let button = ui.menu_button("\u{2026}", |ui| {
        for saveable in pane.saves() {
            if ui.add_enabled((saveable.available)(shared), egui::Button::new(saveable.label)).clicked() {
                actions.ask(Action::Save(saveable));
            }
        }
        if ui.button(PICTURE.label).clicked() {
            actions.ask(Action::SavePicture(Some(pane.key())));
        }
    });
    theme::named(&button.response, Role::Button, format!("Menu of the pane {}", pane.title()));
    button.response.on_hover_text("Pictures and figures of this pane");
}

impl Link {
    /// Lets the user choose a file, and writes content to it.
    pub fn save(&self, saveable: &Saveable, content: Content) {
        self.messenger.save(saveable, content);
    }

    /// Returns a function that lets the user save a picture of the window.
    pub fn picture_saver(&self) -> impl FnOnce(Result<Clip, String>) + Send + 'static {
        let messenger = self.messenger.clone();
        move |picture| match picture {
            Ok(clip) => messenger.save(&PICTURE, Content::clip(clip, String::new())),
            Err(error) => messenger.spawn(move |messenger| {
                messenger.send(Message::Failed(error));
            }),
        }
    }
}

impl Messenger {
    fn save(&self, saveable: &Saveable, content: Content) {
        let Content { name, write, saved } = content;
        let name = name.as_deref().unwrap_or(saveable.name);
        self.ask(Dialog::save(saveable.title, name, saveable.kinds), move |messenger, path: PathBuf| {
            let written = write(&path);
            messenger.send(written.map_or_else(Message::Failed, |()| Message::Saved { what: saved, path }));
        });
    }
}
