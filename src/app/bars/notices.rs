//! Notices over the lower right corner: errors until they are read, and hints for the first start.

use egui::{Align2, Area, Color32, Frame, Id, RichText, Stroke, Ui, vec2};

use crate::app::actions::{Action, Actions};
use crate::app::data::shared::Shared;
use crate::app::draw::theme::{self, Palette};

/// Width of a notice, in points.
const WIDTH: f32 = 380.0;
/// Most errors that are shown at once. Earlier ones are in the log.
const MOST: usize = 3;

/// Draws the notices.
pub fn ui(ui: &Ui, shared: &Shared, actions: &mut Actions) {
    let unread = shared.log.unread().len();
    if shared.prefs.hints_seen && unread == 0 {
        return;
    }
    let area = Area::new(Id::unique("notices")).anchor(Align2::RIGHT_BOTTOM, vec2(-12.0, -36.0));
    area.show(ui.ctx(), |ui| {
        ui.set_width(WIDTH);
        // The newest error is the lowest.
        for index in unread.saturating_sub(MOST)..unread {
            error(ui, shared, actions, index);
        }
        if !shared.prefs.hints_seen {
            hints(ui, shared, actions);
        }
    });
}

fn card(ui: &mut Ui, edge: Color32, content: impl FnOnce(&mut Ui)) {
    let fill = theme::mix(Palette::of(ui).pane, edge, 0.14);
    let frame = Frame::new().fill(fill).stroke(Stroke::new(1.5, edge)).inner_margin(10.0).corner_radius(6.0);
    frame.show(ui, |ui| {
        ui.set_width(WIDTH - 20.0);
        content(ui);
    });
    ui.add_space(6.0);
}

fn error(ui: &mut Ui, shared: &Shared, actions: &mut Actions, index: usize) {
    let Some(text) = shared.log.unread().get(index) else { return };
    let palette = Palette::of(ui);
    card(ui, palette.bad, |ui| {
        ui.label(RichText::new("This did not work").strong().color(palette.bad));
        ui.add(egui::Label::new(text).wrap().selectable(true));
        ui.horizontal(|ui| {
            let ok = ui.button("OK");
            theme::named(&ok, egui::accesskit::Role::Button, format!("OK: {text}"));
            if ok.clicked() {
                actions.ask(Action::ReadNotice(index));
            }
            if shared.log.unread().len() > 1 && ui.button("All read").clicked() {
                actions.ask(Action::ReadAllNotices);
            }
        });
    });
}

fn hints(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let palette = Palette::of(ui);
    let first = match shared.ready() {
        Ok(()) => "Press Generate to watch the model work".to_owned(),
        Err(why) => format!("{why} Generate then shows it at work"),
    };
    card(ui, palette.accent, |ui| {
        ui.label(RichText::new("Welcome").strong());
        ui.label(format!(
            "{first}. Each row of the map is a block, each column a step. A click on a cell shows what that block \
             attends to. The Planner skips work that hardly changes the clip."
        ));
        ui.horizontal(|ui| {
            if ui.button("Got it").clicked() {
                actions.prefs(|prefs| prefs.hints_seen = true);
            }
            if !shared.job.busy() && ui.button("Open a capture...").clicked() {
                actions.ask(Action::ChooseCapture);
            }
        });
    });
}
