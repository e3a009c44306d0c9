//! The bar at the bottom: the newest message, undo, and what computes.

use egui::{RichText, Ui};

use crate::app::data::state::{Action, Level, State, Undo};
use crate::app::draw::theme::{self, Palette};

/// Draws the bar.
pub fn ui(ui: &mut Ui, state: &mut State) {
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
