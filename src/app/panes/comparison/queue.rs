//! The queue of a comparison: what is done, what runs, and what comes next.

use egui::accesskit::Role;
use egui::{RichText, Ui};

use crate::app::actions::{Action, Actions};
use crate::app::draw::theme::{self, Palette};
use crate::study::compare::Case;
use crate::study::queue::{Item, ItemState, Queue};

/// Draws the queue. A prompt and seed that waits can be moved up; one that waits or runs can be
/// cancelled.
pub fn ui(ui: &mut Ui, queue: &Queue<Case>, actions: &mut Actions) {
    let items = queue.list();
    egui::ScrollArea::both().id_salt("comparison queue").auto_shrink(false).show(ui, |ui| {
        egui::Grid::new("comparison queue grid").num_columns(4).spacing([14.0, 3.0]).striped(true).show(ui, |ui| {
            for (place, item) in items.iter().enumerate() {
                item_row(ui, item, place, actions);
                ui.end_row();
            }
        });
    });
}

fn item_row(ui: &mut Ui, item: &Item<Case>, place: usize, actions: &mut Actions) {
    let palette = Palette::of(ui);
    let (text, color) = match &item.state {
        ItemState::Waiting => ("waits", palette.weak),
        ItemState::Running => ("runs", palette.accent),
        ItemState::Done => ("done", palette.good),
        ItemState::Cancelled => ("cancelled", palette.weak),
        ItemState::Failed(_) => ("failed", palette.bad),
    };
    let state = ui.label(RichText::new(text).color(color));
    if let ItemState::Failed(why) = &item.state {
        state.on_hover_text(why);
    }
    ui.label(&item.label);
    let id = item.id;
    let mut button = |text: &str, what: &str, enabled: bool, action: Action| {
        let button = ui.add_enabled(enabled, egui::Button::new(text).small());
        theme::named(&button, Role::Button, format!("{what} {}", item.label));
        if button.clicked() {
            actions.ask(action);
        }
    };
    let waiting = item.state == ItemState::Waiting;
    button("Up", "Move up", waiting && place > 0, Action::MoveQueued { id, place: place.saturating_sub(1) });
    button("Cancel", "Cancel", waiting || item.state == ItemState::Running, Action::CancelQueued(id));
}
