//! Pane "Runs": the runs of the session and their roles.

use egui::accesskit::Role;
use egui::{RichText, Ui};

use crate::app::actions::{Action, Actions};
use crate::app::data::runs::Run;
use crate::app::data::shared::Shared;
use crate::app::draw::theme::{self, Palette};
use crate::app::panes::{Pane, Place};

/// The pane.
#[derive(Default)]
pub struct RunsPane;

impl Pane for RunsPane {
    fn key(&self) -> &'static str {
        "runs"
    }

    fn title(&self) -> &'static str {
        "Runs"
    }

    fn place(&self) -> Place {
        Place::Bottom
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        if shared.runs.len() == 0 {
            theme::empty(ui, "No runs yet", "Generated clips and opened captures are listed here.");
            return;
        }
        egui::ScrollArea::both().id_salt("runs").auto_shrink(false).show(ui, |ui| {
            let grid = egui::Grid::new("runs grid").num_columns(COLUMNS.len()).spacing([14.0, 3.0]).striped(true);
            grid.show(ui, |ui| {
                let weak = Palette::of(ui).weak;
                for title in COLUMNS {
                    ui.label(RichText::new(title).size(11.5).color(weak));
                }
                ui.end_row();
                for run in shared.runs.iter() {
                    run_row(ui, shared, run, actions);
                }
            });
        });
    }
}

const COLUMNS: [&str; 10] =
    ["show", "baseline", "beside", "strategy", "hit rate", "denoising", "speed-up", "PSNR", "prompt", ""];

fn run_row(ui: &mut Ui, shared: &Shared, run: &Run, actions: &mut Actions) {
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
    let file = run.path.as_ref().map_or_else(|| "not saved".into(), |path| path.display().to_string());
    ui.label(&title).on_hover_text(file);
    ui.label(format!("{:.0} %", run.capture.hit_rate() * 100.0));
    ui.label(theme::seconds(run.denoise_seconds()));
    // A dash stands for what is not known.
    let saving = run.saving(shared.runs.reference_of(run));
    ui.label(saving.map_or("-".into(), |saving| format!("{:.2}x", saving.speedup)));
    ui.label(shared.known_likeness(run).map_or("-".into(), |likeness| theme::decibels(likeness.psnr)));
    ui.label(shorten(&run.capture.run.prompt, 48));
    let close = ui.add_enabled(!run.live, egui::Button::new("Close").small());
    theme::named(&close, Role::Button, format!("Close run {title}"));
    if close.clicked() {
        actions.ask(Action::CloseRun(id));
    }
    ui.end_row();
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.into() } else { text.chars().take(most - 1).chain(['\u{2026}']).collect() }
}
