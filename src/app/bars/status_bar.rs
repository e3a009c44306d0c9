//! The bar at the bottom: the newest message, undo, and the adapter.

use egui::{RichText, Ui};

use crate::app::actions::{Action, Actions};
use crate::app::data::change::Undo;
use crate::app::data::log::Level;
use crate::app::data::shared::Shared;
use crate::app::draw::theme::{self, Palette};

/// Draws the bar.
pub fn ui(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let palette = Palette::of(ui);
    ui.horizontal(|ui| {
        let newest = shared.log.iter().next_back();
        let text = newest.map_or("Ready", |line| line.text.as_str());
        let color = match newest.map(|line| line.level) {
            Some(Level::Warning) => palette.warn,
            Some(Level::Error) => palette.bad,
            Some(Level::Note) | None => palette.weak,
        };
        let run = shared.runs.current();
        let adapter = match (&shared.adapter, run) {
            (Some(adapter), _) => adapter.name.clone(),
            (None, Some(run)) if !run.capture.run.adapter.is_empty() => {
                format!("recorded on {}", run.capture.run.adapter)
            }
            _ => "the GPU is opened with the first run".into(),
        };
        let memory = run.and_then(|run| run.capture.steps.last()).map(|step| theme::bytes(step.memory));
        let undo = shared.undo.as_ref().map(Undo::name);
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
                    actions.ask(Action::Undo);
                }
                if shared.saving > 0 {
                    ui.label(RichText::new("Saving...").size(12.0).strong());
                }
                let label = egui::Label::new(RichText::new(text).size(12.0).color(color)).truncate();
                ui.add(label).on_hover_text(text);
            });
        });
    });
}
