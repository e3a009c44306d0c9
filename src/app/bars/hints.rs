//! Hints for the first start, above the panes.

use egui::{RichText, Ui};

use crate::app::actions::{Action, Actions};
use crate::app::data::shared::Shared;
use crate::app::draw::theme::{self, Palette};

/// Draws the hints until they are dismissed.
pub fn ui(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    if shared.prefs.hints_seen {
        return;
    }
    let palette = Palette::of(ui);
    let first = match shared.ready() {
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
                    actions.prefs(|prefs| prefs.hints_seen = true);
                }
                if !shared.job.busy() && ui.button("Open a capture...").clicked() {
                    actions.ask(Action::ChooseCapture);
                }
            });
        },
    );
}
