//! Pane "Blocks x steps": one cell a block and step, coloured by what was measured or is planned. A
//! click shows a block's attention, a drag selects cells, space switches reuse in the plan of the
//! next run.

pub mod cells;
pub mod class;
pub mod colouring;
pub mod export;
mod grid;
pub mod scores;

use egui::{Align2, FontId, Rect, Sense, Ui, pos2, vec2};

use crate::app::actions::{Action, Actions};
use crate::app::data::shared::Shared;
use crate::app::draw::cell::{cell_color, cell_mark};
use crate::app::draw::legend::{self, Legend};
use crate::app::draw::theme::{self, Palette};
use crate::app::panes::{News, Pane, Place};
use crate::app::save::{self, Saveable};
use crate::caching::Cell;

use cells::Cells;
use colouring::Colouring;
use scores::{Scores, masked};

/// The settings of the pane.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The meaning of the colours.
    pub colouring: Colouring,
    /// Whether the plan of the next run is shown in place of the recorded run.
    pub plan: bool,
    /// Whether the values of the baseline are subtracted.
    pub subtract: bool,
}

/// The pane.
#[derive(Default)]
pub struct MapPane {
    /// Its settings.
    pub settings: Settings,
    /// The scores of the run on show.
    pub scores: Scores,
    /// The scores of the baseline.
    pub baseline_scores: Scores,
}

impl Pane for MapPane {
    fn key(&self) -> &'static str {
        "map"
    }

    fn title(&self) -> &'static str {
        "Blocks x steps"
    }

    fn place(&self) -> Place {
        Place::BelowMiddle
    }

    fn saves(&self) -> Vec<&'static Saveable> {
        vec![&save::MAP]
    }

    fn settings(&self) -> Option<String> {
        serde_json::to_string(&self.settings).ok()
    }

    fn restore(&mut self, settings: &str) {
        self.settings = serde_json::from_str(settings).unwrap_or_default();
    }

    fn notice(&mut self, news: News) {
        if let News::RunOpened { .. } = news {
            self.settings.plan = false;
        }
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        self.advance_scores(ui, shared);
        self.controls(ui, shared, actions);
        let cells = Cells::of(self, shared);
        if cells.steps == 0 || cells.blocks == 0 {
            let first = match shared.ready() {
                Ok(()) => "Press Generate, or choose a strategy whose plan is known.".to_owned(),
                Err(why) => why,
            };
            theme::empty(ui, "No blocks and steps yet", &format!("{first} Blocks and steps then appear here."));
            return;
        }
        if !cells.any() && cells.colouring != Colouring::Reuse {
            let colouring = self.settings.colouring;
            let title = format!("Nothing was measured for \"{}\"", colouring.name());
            theme::empty(ui, &title, colouring.how_to(shared.runs.current()));
            return;
        }
        self.cells_ui(ui, shared, actions, &cells);
    }
}

/// Points for a block's name and its F/B button.
const LEFT: f32 = 66.0;
/// Points for a block's hit rate, or the mean of its values.
const RIGHT: f32 = 46.0;
/// Height of the axis of steps.
const AXIS: f32 = 16.0;
/// Height of the legend.
const LEGEND: f32 = legend::LINE;
/// Least height of a row. If the rows do not fit even so, they scroll.
const LOWEST_ROW: f32 = 10.0;
/// Greatest height of a row.
const HIGHEST_ROW: f32 = 34.0;

/// The part of an area in which the columns of the map lie.
fn columns(area: Rect) -> Rect {
    Rect::from_x_y_ranges(area.left() + LEFT..=(area.right() - RIGHT).max(area.left() + LEFT + 8.0), area.y_range())
}

impl MapPane {
    /// Whether the map shows the plan of the next run: by the user's choice, or because no run is
    /// on show.
    pub fn shows_plan(&self, shared: &Shared) -> bool {
        self.settings.plan || shared.runs.current().is_none()
    }

    /// Works on the scores for a while, if the map shows them.
    fn advance_scores(&mut self, ui: &Ui, shared: &Shared) {
        let Some(run) = shared.runs.current().filter(|_| self.settings.colouring.is_score()) else { return };
        let uncond = shared.selection.uncond;
        let mut more = self.scores.advance(run, run, uncond);
        if let (true, Some(baseline)) = (self.settings.subtract, shared.runs.shown_baseline()) {
            more |= self.baseline_scores.advance(baseline, masked(baseline, run), uncond);
        }
        if more {
            ui.ctx().request_repaint();
        }
    }

    fn controls(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        let run = shared.runs.current();
        let (recorded, guided) = (run.is_some(), run.is_some_and(|run| run.capture.run.guided()));
        // The pane's menu and the window's have the export too.
        let narrow = ui.available_width() < 780.0;
        let plan = self.shows_plan(shared);
        ui.horizontal_wrapped(|ui| {
            let button = ui.add_enabled(recorded, egui::Button::selectable(!plan, "Recorded"));
            let button =
                button.on_hover_text("What the run on show did").on_disabled_hover_text("Nothing was recorded yet");
            if button.clicked() {
                self.settings.plan = false;
            }
            let tip = "What the next run will do; space edits it";
            if ui.selectable_label(plan, "Next plan").on_hover_text(tip).clicked() {
                self.settings.plan = true;
            }
            ui.separator();
            self.colouring_buttons(ui, plan);
            if guided && !plan {
                ui.separator();
                branch_buttons(ui, shared, actions);
            }
            if shared.runs.shown_baseline().is_some() && !plan && self.settings.colouring != Colouring::Reuse {
                ui.checkbox(&mut self.settings.subtract, "Minus baseline");
            }
            let tip = "The map as SVG, its values as CSV";
            if recorded && !narrow && ui.button("Export...").on_hover_text(tip).clicked() {
                actions.ask(Action::Save(&save::MAP));
            }
        });
    }

    fn colouring_buttons(&mut self, ui: &mut Ui, plan: bool) {
        // Nothing is measured of a plan.
        let drawn = if plan { Colouring::Reuse } else { self.settings.colouring };
        for colouring in Colouring::ALL {
            let button = egui::Button::selectable(drawn == colouring, colouring.name());
            let enabled = !plan || colouring == Colouring::Reuse;
            if ui.add_enabled(enabled, button).on_hover_text(colouring.meaning()).clicked() {
                self.settings.colouring = colouring;
            }
        }
    }

    fn cells_ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions, cells: &Cells) {
        ui.spacing_mut().item_spacing.y = 2.0;
        let space = ui.available_size();
        let room = space.y - AXIS - LEGEND - 2.0 * ui.spacing().item_spacing.y;
        let row = (room / cells.blocks as f32).clamp(LOWEST_ROW, HIGHEST_ROW);
        let height = (row * cells.blocks as f32).min(room).max(LOWEST_ROW);
        let scroll = egui::ScrollArea::vertical().id_salt("map rows").max_height(height).auto_shrink([false, true]);
        scroll.show_viewport(ui, |ui, viewport| {
            let size = vec2(ui.available_width(), row * cells.blocks as f32);
            let (area, _) = ui.allocate_exact_size(size, Sense::hover());
            grid::Grid { map: self, shared, cells, area, row, viewport }.ui(ui, actions);
        });
        let (axis_rect, _) = ui.allocate_exact_size(vec2(space.x, AXIS), Sense::hover());
        axis(ui, cells, columns(axis_rect));
        let (legend_rect, _) = ui.allocate_exact_size(vec2(space.x, LEGEND), Sense::hover());
        self.legend(ui, cells, legend_rect);
    }

    fn legend(&self, ui: &mut Ui, cells: &Cells, area: Rect) {
        let palette = Palette::of(ui);
        if cells.colouring != Colouring::Reuse {
            let text = match (cells.subtracted, cells.colouring.meaning()) {
                (true, meaning) => format!("{meaning}, minus the baseline's"),
                (false, meaning) => meaning.into(),
            };
            let format = |value: f32| cells.colouring.format(value);
            let (map, range, middle) = (cells.map, cells.range, cells.neutral());
            return Legend { map, text, range, middle, format: Box::new(format) }.line(ui, area);
        }
        let mut ui =
            ui.new_child(egui::UiBuilder::new().max_rect(area).layout(egui::Layout::left_to_right(egui::Align::Min)));
        for (cell, text) in
            [(Cell::Computed, "computed"), (Cell::Stored, "computed and kept"), (Cell::Reused, "reused")]
        {
            legend::swatch(&mut ui, cell_color(&palette, cell), text, |mesh, rect| {
                cell_mark(mesh, &palette, rect, cell);
            });
        }
        if cells.planned && !self.settings.plan {
            ui.label(egui::RichText::new("(faint: planned)").size(11.5).color(palette.weak));
        }
        let classes = "F, B: foreground, background by ProfilingDiT";
        ui.add(egui::Label::new(egui::RichText::new(classes).size(11.5).color(palette.weak)).truncate());
    }
}

/// The buttons of the two branches of guidance.
fn branch_buttons(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let mut uncond = shared.selection.uncond;
    ui.selectable_value(&mut uncond, false, "Prompt").on_hover_text("The branch of the prompt (cond)");
    ui.selectable_value(&mut uncond, true, "Negative").on_hover_text("The branch of the negative prompt (uncond)");
    if uncond != shared.selection.uncond {
        actions.select(move |selection| selection.uncond = uncond);
    }
}

fn axis(ui: &Ui, cells: &Cells, area: Rect) {
    let palette = Palette::of(ui);
    let width = area.width() / cells.steps as f32;
    let every =
        [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].into_iter().find(|n| *n as f32 * width >= 26.0).unwrap_or(2000);
    for step in (0..cells.steps).step_by(every) {
        let at = pos2(area.left() + (step as f32 + 0.5) * width, area.top() + 2.0);
        ui.painter().text(at, Align2::CENTER_TOP, step.to_string(), FontId::proportional(11.0), palette.weak);
    }
    let left = pos2(area.left() - 8.0, area.top() + 2.0);
    ui.painter().text(left, Align2::RIGHT_TOP, "step", FontId::proportional(11.0), palette.weak);
    let right = pos2(area.right() + RIGHT - 4.0, area.top() + 2.0);
    let what = if cells.colouring == Colouring::Reuse { "hit rate" } else { "mean" };
    ui.painter().text(right, Align2::RIGHT_TOP, what, FontId::proportional(11.0), palette.weak);
}
