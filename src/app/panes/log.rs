//! Pane "Log": messages.

use egui::{RichText, Ui};

use crate::app::data::state::{Level, State};
use crate::app::draw::theme::Palette;

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
