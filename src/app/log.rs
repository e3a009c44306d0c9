//! Panes "Log" and "Runs".

use egui::accesskit::Role;
use egui::{RichText, Ui};

use super::runs::Run;
use super::state::{Action, Level, State, Undo};
use super::theme::{self, Palette};

/// Draws the messages, newest last.
pub fn ui(ui: &mut Ui, state: &mut State) {
    let palette = Palette::of(ui);
    egui::ScrollArea::vertical().id_salt("log").auto_shrink(false).stick_to_bottom(true).show(ui, |ui| {
        ui.spacing_mut().item_spacing.y = 2.0;
        if state.log.iter().next().is_none() {
            ui.label(RichText::new("Warnings and what to do about them appear here.").color(palette.weak));
        }
        for (level, text) in state.log.iter() {
            let (word, color) = match level {
                Level::Note => ("note", palette.weak),
                Level::Warning => ("warning", palette.warn),
                Level::Error => ("error", palette.bad),
            };
            ui.horizontal_wrapped(|ui| {
                ui.label(RichText::new(word).color(color).strong());
                ui.add(egui::Label::new(text.as_str()).selectable(true).wrap());
            });
        }
    });
}

/// Draws the list of runs and their roles.
pub fn runs_ui(ui: &mut Ui, state: &mut State) {
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

/// The line at the bottom of the window.
pub fn status_bar(ui: &mut Ui, state: &mut State) {
    let palette = Palette::of(ui);
    ui.horizontal(|ui| {
        let (text, color) = match state.log.iter().next_back() {
            Some((Level::Warning, text)) => (text.as_str(), palette.warn),
            Some((Level::Error, text)) => (text.as_str(), palette.bad),
            Some((Level::Note, text)) => (text.as_str(), palette.weak),
            None => ("Ready", palette.weak),
        };
        let run = state.runs.current();
        let adapter = match (&state.adapter, run) {
            (Some(adapter), _) => adapter.name.clone(),
            (None, Some(run)) if !run.capture.run.adapter.is_empty() => {
                format!("recorded on {}", run.capture.run.adapter)
            }
            _ => "the GPU is opened with the first run".into(),
        };
        let memory = run.and_then(|run| run.capture.steps.last()).map(|step| theme::bytes(step.memory));
        let undo = state.undo.as_ref().map(Undo::name);
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if let Some(memory) = memory {
                ui.label(RichText::new(format!("GPU memory {memory}")).size(11.5).color(palette.weak));
                ui.separator();
            }
            ui.label(RichText::new(adapter).size(11.5).color(palette.weak));
            ui.separator();
            ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                if let Some(name) = undo
                    && ui.small_button(format!("Undo: {name}")).clicked()
                {
                    state.actions.push(Action::Undo);
                }
                if state.saving > 0 {
                    ui.label(RichText::new("Saving...").size(12.0).strong());
                }
                let label = egui::Label::new(RichText::new(text).size(12.0).color(color)).truncate();
                ui.add(label).on_hover_text(text);
            });
        });
    });
}

/// What can be done first; dismissed for good.
pub fn hints(ui: &mut Ui, state: &mut State) {
    if state.prefs.hints_seen {
        return;
    }
    let palette = Palette::of(ui);
    let first = match state.ready() {
        Ok(()) => "Press Generate to watch the built-in model work".to_owned(),
        Err(why) => format!("{} Generate then shows it at work", why),
    };
    egui::Frame::new().fill(theme::mix(palette.pane, palette.accent, 0.12)).inner_margin(8.0).corner_radius(6.0).show(
        ui,
        |ui| {
            ui.horizontal_wrapped(|ui| {
                ui.label(RichText::new("Welcome.").strong());
                ui.label(format!(
                    "{first}: each row of the map is a block, each column a step. Click a cell to see what that block \
                     attends to; choose a strategy to reuse what hardly changes."
                ));
                if ui.button("Got it").clicked() {
                    state.prefs.hints_seen = true;
                }
                if !state.job.busy() && ui.button("Open a capture...").clicked() {
                    state.actions.push(Action::OpenCapture);
                }
            });
        },
    );
}
