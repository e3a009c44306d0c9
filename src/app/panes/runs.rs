//! Pane "Runs": the runs of the session and their roles.

use egui::accesskit::Role;
use egui::{RichText, Ui};

use crate::app::data::runs::Run;
use crate::app::data::state::{State, Undo};
use crate::app::draw::theme::{self, Palette};

/// Draws the list of runs and their roles.
pub fn ui(ui: &mut Ui, state: &mut State) {
    if state.runs.len() == 0 {
        theme::empty(ui, "No runs yet", "Generated clips and opened captures are listed here.");
        return;
    }
    let palette = Palette::of(ui);
    let (current, baseline) = (state.runs.current().map(|run| run.id), state.runs.baseline().map(|run| run.id));
    let mut wish = None;
    egui::ScrollArea::both().id_salt("runs").auto_shrink(false).show(ui, |ui| {
        egui::Grid::new("runs grid").num_columns(COLUMNS.len()).spacing([14.0, 3.0]).striped(true).show(ui, |ui| {
            for title in COLUMNS {
                ui.label(RichText::new(title).size(11.5).color(palette.weak));
            }
            ui.end_row();
            for run in state.runs.iter() {
                let title = run.title();
                let show = ui.radio(current == Some(run.id), "");
                theme::named(&show, Role::RadioButton, format!("Show run {title}"));
                let base = ui.radio(baseline == Some(run.id), "");
                theme::named(&base, Role::RadioButton, format!("Run {title} is the baseline"));
                let mut beside = run.beside;
                let side = ui.checkbox(&mut beside, "");
                theme::named(&side, Role::CheckBox, format!("Show run {title} beside the current one"));
                let file = run.path.as_ref().map_or_else(|| "not saved".into(), |path| path.display().to_string());
                ui.label(&title).on_hover_text(file);
                ui.label(format!("{:.0} %", run.capture.hit_rate() * 100.0));
                ui.label(theme::seconds(run.denoise_seconds()));
                let [speedup, psnr] = against_baseline(state, run);
                ui.label(speedup);
                ui.label(psnr);
                ui.label(shorten(&run.capture.run.prompt, 48));
                let close = ui.add_enabled(!run.live, egui::Button::new("Close").small());
                theme::named(&close, Role::Button, format!("Close run {title}"));
                ui.end_row();
                if show.clicked() {
                    wish = Some((run.id, Wish::Show));
                } else if base.clicked() {
                    wish = Some((run.id, Wish::Baseline(baseline != Some(run.id))));
                } else if side.clicked() {
                    wish = Some((run.id, Wish::Beside(beside)));
                } else if close.clicked() {
                    wish = Some((run.id, Wish::Close));
                }
            }
        });
    });
    match wish {
        Some((id, Wish::Show)) => state.runs.show(id),
        Some((id, Wish::Baseline(yes))) => state.runs.set_baseline(yes.then_some(id)),
        Some((id, Wish::Beside(yes))) => state.runs.put_beside(id, yes),
        Some((id, Wish::Close)) => state.undo = state.runs.close(id).map(|closed| Undo::Run(Box::new(closed))),
        None => {}
    }
}

const COLUMNS: [&str; 10] =
    ["show", "baseline", "beside", "strategy", "hit rate", "denoising", "speed-up", "PSNR", "prompt", ""];

/// A run's measured speed-up and its likeness to the baseline; a dash for what is not known.
fn against_baseline(state: &State, run: &Run) -> [String; 2] {
    let saving = run.saving(state.runs.reference_of(run));
    [
        saving.map_or("-".into(), |saving| format!("{:.2}x", saving.speedup)),
        state.known_likeness(run).map_or("-".into(), |likeness| theme::decibels(likeness.psnr)),
    ]
}

enum Wish {
    Show,
    Baseline(bool),
    Beside(bool),
    Close,
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.into() } else { text.chars().take(most - 1).chain(['\u{2026}']).collect() }
}
