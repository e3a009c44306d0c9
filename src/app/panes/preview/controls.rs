//! The controls of the preview: in a column beside the pictures, or in rows above them.

use egui::{Ui, Vec2};

use super::attention;
use super::compare;
use super::picture::frames;
use super::view::Compare;
use super::{PreviewPane, picture};
use crate::app::actions::{Action, Actions};
use crate::app::data::runs::Run;
use crate::app::data::selection::MapCell;
use crate::app::data::shared::Shared;
use crate::app::draw::legend::Legend;
use crate::app::draw::theme::{self, section};
use crate::app::save;

/// Width of the controls beside the pictures, in points.
pub const COLUMN: f32 = 190.0;
/// Height of the controls above the pictures, in points, with a row for attention and a legend.
const ROWS: f32 = 84.0;
/// Below this width, in points, controls that are elsewhere too are left out.
const NARROW: f32 = 520.0;
/// Least height of a column of controls, in points.
const LEAST_COLUMN: f32 = 200.0;

/// Whether pictures are larger with the controls beside them than with the controls above them.
pub fn fit_beside(room: Vec2, count: usize, aspect: f32) -> bool {
    let area = |width: f32, height: f32| {
        let size = egui::vec2(width.max(1.0), height.max(1.0));
        picture::grid(size, count, aspect).picture.x
    };
    room.y >= LEAST_COLUMN && area(room.x - COLUMN - 8.0, room.y) >= area(room.x, room.y - ROWS)
}

impl PreviewPane {
    /// The controls in a column, with the legend of the pictures.
    pub fn controls_in_column(
        &mut self,
        ui: &mut Ui,
        shared: &Shared,
        actions: &mut Actions,
        run: &Run,
        legend: Option<Legend<'_>>,
    ) {
        egui::ScrollArea::vertical().id_salt("preview controls").auto_shrink(false).show(ui, |ui| {
            theme::beside_scroll_bar(ui);
            // The name stands left of the slider.
            ui.spacing_mut().slider_width = (ui.available_width() - 76.0).max(40.0);
            let mode = self.view.mode(&shared.runs);
            let painting = self.brush.on && mode == Compare::Single;
            ui.horizontal_wrapped(|ui| self.source_controls(ui, shared, actions, run));
            // The tools in use come first: not all sections may fit.
            if painting {
                self.foreground_section(ui, actions, run, mode);
            }
            if shared.runs.shown().len() > 1 {
                section(ui, "COMPARE");
                let comparable = shared.runs.shown_baseline().is_some();
                ui.horizontal_wrapped(|ui| compare::controls(ui, &mut self.view.compare, comparable, false));
            }
            if self.attends(shared, run, mode) {
                section(ui, "ATTENTION");
                ui.horizontal_wrapped(|ui| self.attention_controls(ui, shared, actions, run, mode));
            }
            if let Some(legend) = legend {
                legend.column(ui);
            }
            if !painting {
                self.foreground_section(ui, actions, run, mode);
            }
            if run.capture.clip.is_some() {
                ui.add_space(6.0);
                self.save_button(ui, actions);
            }
        });
    }

    fn foreground_section(&mut self, ui: &mut Ui, actions: &mut Actions, run: &Run, mode: Compare) {
        section(ui, "FOREGROUND");
        ui.horizontal_wrapped(|ui| self.mask_controls(ui, run, mode));
        if self.brush.on && mode == Compare::Single {
            self.brush.controls(ui, run, actions);
        }
    }

    /// The controls in rows.
    pub fn controls_in_rows(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions, run: &Run) {
        let narrow = ui.available_width() < NARROW;
        let mode = self.view.mode(&shared.runs);
        // The settings of attention have a row of their own.
        let attends = self.attends(shared, run, mode);
        let below = narrow || attends;
        ui.horizontal_wrapped(|ui| {
            self.source_controls(ui, shared, actions, run);
            if shared.runs.shown().len() > 1 {
                if !narrow {
                    ui.separator();
                }
                compare::controls(ui, &mut self.view.compare, shared.runs.shown_baseline().is_some(), narrow);
            }
            if !below {
                self.mask_controls(ui, run, mode);
            }
            if run.capture.clip.is_some() && !narrow {
                self.save_button(ui, actions);
            }
        });
        if below {
            ui.horizontal_wrapped(|ui| {
                ui.spacing_mut().slider_width = if narrow { 60.0 } else { 110.0 };
                // A difference has neither a map nor a mask.
                if mode != Compare::Difference {
                    self.attention_controls(ui, shared, actions, run, mode);
                }
                self.mask_controls(ui, run, mode);
            });
        }
        if self.brush.on && mode == Compare::Single {
            self.brush.controls(ui, run, actions);
        }
    }

    /// Whether there is attention to set up.
    fn attends(&self, shared: &Shared, run: &Run, mode: Compare) -> bool {
        let look = self.view.look(&shared.selection);
        let any = shared.selection.pinned.is_some() || attention::selected(Some(run), look).is_some() || self.view.paid;
        any && mode != Compare::Difference
    }

    /// The choice between the finished clip and the estimate of the step on show.
    fn source_controls(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions, run: &Run) {
        let has_clip = run.capture.clip.is_some();
        let look = self.view.look(&shared.selection);
        let step = frames(run, look.step(run)).and_then(|shown| shown.step);
        let marked = look.marks(run);
        if has_clip && ui.selectable_label(step.is_none(), "Clip").on_hover_text("The decoded frames").clicked() {
            (self.view.over_clip, self.view.through_steps) = (true, false);
            // A marked cell stays marked: its attention lies over the clip.
            if !marked {
                actions.select(|selection| selection.step = None);
            }
        }
        if marked && has_clip {
            let tip = "What the run expected of the clip after the step of the marked cell";
            if ui.selectable_label(step.is_some(), "Estimate").on_hover_text(tip).clicked() {
                self.view.over_clip = false;
            }
        }
        if let Some(step) = step {
            ui.label(format!("estimate after step {step}"));
        }
    }

    fn save_button(&self, ui: &mut Ui, actions: &mut Actions) {
        if ui.button("Save clip...").on_hover_text("MP4, APNG, GIF or PNG frames").clicked() {
            actions.ask(Action::Save(&save::CLIP));
        }
    }

    fn mask_controls(&mut self, ui: &mut Ui, run: &Run, mode: Compare) {
        if run.mask().is_some() && mode != Compare::Difference {
            ui.checkbox(&mut self.view.outline, "Mask outline");
        }
        if run.capture.run.tokens() == 0 {
            return;
        }
        let tip = "Paint the foreground by hand; block scores follow at once, without running again";
        let painting = self.brush.on && mode == Compare::Single;
        if ui.add(egui::Button::selectable(painting, "Paint mask")).on_hover_text(tip).clicked() {
            self.brush.on = !painting;
            self.view.compare = Compare::Single;
            // Strokes belong into the frame that the user sees.
            self.view.playing &= !self.brush.on;
        }
    }

    /// Opacity and kind of the attention, and the cell that it is compared with.
    fn attention_controls(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions, run: &Run, mode: Compare) {
        let map = attention::selected(Some(run), self.view.look(&shared.selection));
        let selected = map.map(|map| MapCell { step: map.step, block: map.block });
        let paid = attention::has_paid(run);
        self.view.paid &= paid;
        if selected.is_none() && shared.selection.pinned.is_none() && !self.view.paid {
            return;
        }
        let label = ui.label("Attention");
        let slider = egui::Slider::new(&mut self.view.opacity, 0.0..=1.0).show_value(false);
        ui.add(slider).labelled_by(label.id).on_hover_text("Opacity of the attention map over the frame");
        if paid {
            let tip = "Self-attention that a token receives";
            ui.selectable_value(&mut self.view.paid, false, "received").on_hover_text(tip);
            let tip = "Cross-attention that a token pays to the words of the prompt's subject";
            ui.selectable_value(&mut self.view.paid, true, "to subject").on_hover_text(tip);
        }
        // A pinned cell is compared with another cell of the same run: not beside other runs as
        // well.
        if mode == Compare::Single {
            self.pin_controls(ui, actions, shared.selection.pinned, selected);
        }
    }

    fn pin_controls(&mut self, ui: &mut Ui, actions: &mut Actions, pinned: Option<MapCell>, selected: Option<MapCell>) {
        let tip = "Keep this cell's map on show and click another cell of the map to compare";
        let button = egui::Button::selectable(pinned.is_some(), "Pin cell");
        let button = ui.add_enabled(selected.is_some() || pinned.is_some(), button);
        if button.on_hover_text(tip).clicked() {
            actions.select(move |selection| selection.pinned = if pinned.is_some() { None } else { selected });
        }
        if pinned.is_some() {
            ui.checkbox(&mut self.view.minus_pinned, "Minus pinned")
                .on_hover_text("The selected cell's map minus the pinned one's");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egui::vec2;

    #[test]
    fn controls_stand_where_pictures_stay_larger() {
        let wide = vec2(760.0, 430.0);
        assert!(fit_beside(wide, 1, 1.0), "a square picture leaves room at its side");
        assert!(!fit_beside(wide, 2, 1.0), "two square pictures need the width");
        assert!(!fit_beside(vec2(460.0, 420.0), 1, 1.0));
        assert!(!fit_beside(vec2(760.0, 120.0), 1, 1.0), "a column needs height");
    }
}
