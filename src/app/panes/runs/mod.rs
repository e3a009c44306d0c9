//! Pane "Runs": the runs of this session and of earlier ones, as a table or as a plot of speed
//! against likeness.

mod plot;

use egui::accesskit::Role;
use egui::{Button, RichText, TextureOptions, Ui, vec2};

use crate::app::actions::{Action, Actions};
use crate::app::data::history::{THUMBNAIL, thumbnail};
use crate::app::data::run_table::{Column, Row, Source, rows, sort};
use crate::app::data::runs::Run;
use crate::app::data::shared::Shared;
use crate::app::draw::textures::Textures;
use crate::app::draw::theme::{self, Palette};
use crate::app::panes::{Pane, Place};
use crate::app::save::{self, Saveable};

/// The settings of the pane.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Settings {
    /// The column that the table is sorted by.
    column: Column,
    /// Whether the largest is on top.
    falling: bool,
    /// Whether the plot is shown in place of the table.
    plot: bool,
}

impl Default for Settings {
    /// Newest first.
    fn default() -> Self {
        Self { column: Column::Number, falling: true, plot: false }
    }
}

/// The picture of a row: a run of this session with its version, or a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Picture {
    Run(u64),
    Kept(std::path::PathBuf),
}

/// The pane.
#[derive(Default)]
pub struct RunsPane {
    settings: Settings,
    thumbnails: Textures<Picture, u64>,
}

impl Pane for RunsPane {
    fn key(&self) -> &'static str {
        "runs"
    }

    fn title(&self) -> &'static str {
        "Runs"
    }

    fn place(&self) -> Place {
        Place::BelowRight
    }

    fn saves(&self) -> Vec<&'static Saveable> {
        vec![&save::RUNS]
    }

    fn settings(&self) -> Option<String> {
        serde_json::to_string(&self.settings).ok()
    }

    fn restore(&mut self, settings: &str) {
        self.settings = serde_json::from_str(settings).unwrap_or_default();
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        let mut rows = rows(shared);
        if rows.is_empty() {
            theme::empty(ui, "No runs yet", "Generated clips and opened captures are listed here.");
            return;
        }
        sort(&mut rows, self.settings.column, self.settings.falling);
        ui.horizontal_wrapped(|ui| {
            ui.selectable_value(&mut self.settings.plot, false, "Table");
            let tip = "Speed-up against likeness to the baseline: a point for each run that was compared";
            ui.selectable_value(&mut self.settings.plot, true, "Plot").on_hover_text(tip);
            history_menu(ui, shared, actions);
            if let Some(run) = shared.runs.current().filter(|_| !self.settings.plot) {
                name_and_note(ui, run, actions);
            }
        });
        if self.settings.plot {
            return plot::ui(ui, shared, &rows, actions);
        }
        egui::ScrollArea::both().id_salt("runs").auto_shrink(false).show(ui, |ui| {
            let grid = egui::Grid::new("runs grid").spacing([12.0, 3.0]).striped(true);
            grid.show(ui, |ui| {
                self.heads(ui);
                for row in &rows {
                    self.row(ui, shared, row, actions);
                }
            });
        });
    }
}

impl RunsPane {
    fn heads(&mut self, ui: &mut Ui) {
        let weak = Palette::of(ui).weak;
        let word = |text: &str| RichText::new(text).size(11.5).color(weak);
        for head in ["show", "base", "beside", "", ""] {
            ui.label(word(head));
        }
        for column in Column::ALL {
            let sorted = self.settings.column == column;
            let arrow = match (sorted, self.settings.falling) {
                (false, _) => "",
                (true, true) => " v",
                (true, false) => " ^",
            };
            let head = ui.add(Button::new(word(&format!("{}{arrow}", column.head()))).frame(false));
            theme::named(&head, Role::Button, format!("Sort runs by {}", column.head()));
            if head.on_hover_text("Sorts by this column; once more turns the order round").clicked() {
                self.settings.falling = if sorted { !self.settings.falling } else { true };
                self.settings.column = column;
            }
        }
        ui.end_row();
    }

    fn row(&mut self, ui: &mut Ui, shared: &Shared, row: &Row, actions: &mut Actions) {
        match &row.source {
            Source::Run(id) => {
                let Some(run) = shared.runs.get(*id) else { return };
                roles(ui, shared, run, actions);
                let version = if run.live { 0 } else { run.version + 1 };
                self.thumbnail(ui, Picture::Run(*id), version, || thumbnail(&run.capture));
                let close = ui.add_enabled(!run.live, Button::new("Close").small());
                theme::named(&close, Role::Button, format!("Close run {}", run.title()));
                if close.clicked() {
                    actions.ask(Action::CloseRun(*id));
                }
            }
            Source::Kept(path) => {
                let open = ui.button("Open").on_hover_text("A run of an earlier session");
                theme::named(&open, Role::Button, format!("Open the kept run {}", row.title));
                if open.clicked() {
                    actions.ask(Action::OpenCapture(path.clone()));
                }
                ui.label("");
                ui.label("");
                let kept = shared.history.iter().find(|kept| kept.path == *path);
                let pixels = || kept.map(|kept| kept.thumbnail.clone()).unwrap_or_default();
                self.thumbnail(ui, Picture::Kept(path.clone()), 0, pixels);
                ui.label("");
            }
        }
        for column in Column::ALL {
            ui.label(text(row, column)).on_hover_text(full(row, column));
        }
        ui.end_row();
    }

    fn thumbnail(&mut self, ui: &mut Ui, of: Picture, version: u64, pixels: impl FnOnce() -> Vec<u8>) {
        let make = || {
            let rgb = pixels();
            let size = [THUMBNAIL, THUMBNAIL];
            if rgb.len() == 3 * THUMBNAIL * THUMBNAIL {
                egui::ColorImage::from_rgb(size, &rgb)
            } else {
                egui::ColorImage::filled(size, egui::Color32::TRANSPARENT)
            }
        };
        let texture = self.thumbnails.get(ui.ctx(), of, version, TextureOptions::LINEAR, make);
        let (rect, _) = ui.allocate_exact_size(vec2(24.0, 24.0), egui::Sense::hover());
        ui.painter().image(texture, rect, crate::app::draw::textures::UV, egui::Color32::WHITE);
    }
}

/// Whether a run is on show, the baseline, or beside.
fn roles(ui: &mut Ui, shared: &Shared, run: &Run, actions: &mut Actions) {
    let (id, title) = (run.id, run.title());
    let is = |other: Option<&Run>| other.is_some_and(|other| other.id == id);
    let (current, baseline) = (is(shared.runs.current()), is(shared.runs.baseline()));
    let show = ui.radio(current, "");
    theme::named(&show, Role::RadioButton, format!("Show run {title}"));
    if show.clicked() {
        actions.runs(move |runs| runs.show(id));
    }
    let base = ui.radio(baseline, "");
    theme::named(&base, Role::RadioButton, format!("Run {title} is the baseline"));
    if base.clicked() {
        actions.runs(move |runs| runs.set_baseline((!baseline).then_some(id)));
    }
    let mut beside = run.beside;
    let side = ui.checkbox(&mut beside, "");
    theme::named(&side, Role::CheckBox, format!("Show run {title} beside the current one"));
    if side.clicked() {
        actions.runs(move |runs| runs.put_beside(id, beside));
    }
}

/// Fields for the name and the note of the run on show.
fn name_and_note(ui: &mut Ui, run: &Run, actions: &mut Actions) {
    let id = run.id;
    type Set = fn(&mut Run, String);
    let fields: [(&str, &String, Set); 2] =
        [("name", &run.name, |run, text| run.name = text), ("note", &run.note, |run, text| run.note = text)];
    for (what, now, set) in fields {
        let label = ui.label(format!("{what} of #{id}"));
        let mut text = now.clone();
        let field = egui::TextEdit::singleline(&mut text).desired_width(90.0).char_limit(200);
        let field = ui.add(field).labelled_by(label.id);
        if field.changed() {
            actions.runs(move |runs| runs.describe(id, |run| set(run, text)));
        }
        if field.lost_focus() {
            actions.ask(Action::DescribeRun(id));
        }
    }
}

/// The menu of the runs that last.
fn history_menu(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    ui.menu_button("History", |ui| {
        let bytes: u64 = shared.history.iter().map(|kept| kept.bytes).sum();
        let what = format!(
            "{} runs of earlier sessions and this one are kept, {}.",
            shared.history.len(),
            theme::bytes(bytes)
        );
        ui.label(what);
        if let Some(folder) = &shared.history_folder {
            ui.label(RichText::new(folder.display().to_string()).color(Palette::of(ui).weak));
        }
        ui.label("The oldest go when there are more than 200, or 1 GiB.");
        if ui.add_enabled(!shared.history.is_empty(), Button::new("Delete all kept runs")).clicked() {
            actions.ask(Action::ClearHistory);
        }
    });
}

/// A cell of the table.
fn text(row: &Row, column: Column) -> String {
    let dash = || "-".to_owned();
    match column {
        Column::Number => row.number().map_or_else(String::new, |number| number.to_string()),
        Column::Strategy => shorten(&row.title, 24),
        Column::Goal if row.goal.is_empty() => dash(),
        Column::Goal => row.goal.clone(),
        Column::Size => format!("{}x{}x{}", row.size[0], row.size[1], row.size[2]),
        Column::Seed => row.seed.to_string(),
        Column::Steps => row.steps.to_string(),
        Column::HitRate => format!("{:.0} %", row.hit_rate * 100.0),
        Column::Denoising => theme::seconds(row.seconds),
        Column::Speedup => row.speedup.map_or_else(dash, |speedup| format!("{speedup:.2}x")),
        Column::Psnr => row.psnr.map_or_else(dash, theme::decibels),
        Column::Prompt => shorten(&row.prompt, 48),
        Column::Note => shorten(&row.note, 32),
    }
}

/// A cell in full, for its tip.
fn full(row: &Row, column: Column) -> String {
    match column {
        Column::Strategy => row.title.clone(),
        Column::Prompt => row.prompt.clone(),
        Column::Note => row.note.clone(),
        _ => text(row, column),
    }
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.into() } else { text.chars().take(most - 1).chain(['\u{2026}']).collect() }
}
