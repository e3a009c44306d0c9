//! Pane "Log": messages.

use egui::{RichText, Ui};

use crate::app::actions::Actions;
use crate::app::data::log::Level;
use crate::app::data::shared::Shared;
use crate::app::draw::theme::Palette;
use crate::app::panes::{Pane, Place};

/// The pane.
#[derive(Default)]
pub struct LogPane;

impl Pane for LogPane {
    fn key(&self) -> &'static str {
        "log"
    }

    fn title(&self) -> &'static str {
        "Log"
    }

    fn place(&self) -> Place {
        Place::BelowRight
    }

    /// Draws the messages, newest last.
    fn ui(&mut self, ui: &mut Ui, shared: &Shared, _: &mut Actions) {
        let palette = Palette::of(ui);
        egui::ScrollArea::vertical().id_salt("log").auto_shrink(false).stick_to_bottom(true).show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            if shared.log.iter().next().is_none() {
                ui.label(RichText::new("Warnings and what to do about them appear here.").color(palette.weak));
            }
            for line in shared.log.iter() {
                let (word, color) = match line.level {
                    Level::Note => ("note", palette.weak),
                    Level::Warning => ("warning", palette.warn),
                    Level::Error => ("error", palette.bad),
                };
                ui.horizontal_wrapped(|ui| {
                    ui.label(RichText::new(word).color(color).strong());
                    ui.add(egui::Label::new(line.text.as_str()).selectable(true).wrap());
                });
            }
        });
    }
}
