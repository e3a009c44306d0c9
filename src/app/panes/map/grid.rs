//! The cells of the map: how they are drawn, and how they are worked with pointer and keys.

use egui::accesskit::Role;
use egui::{Align2, EventFilter, FontId, Key, Mesh, Rect, Response, Sense, Stroke, StrokeKind, Ui, pos2, vec2};

use super::cells::{self, Cells, Value};
use super::class::Class;
use super::colouring::Colouring;
use super::{LEFT, MapPane, columns};
use crate::app::actions::Actions;
use crate::app::data::log::Level;
use crate::app::data::plan_edit;
use crate::app::data::selection::{CellArea, MapCell, Selection};
use crate::app::data::shared::Shared;
use crate::app::draw::cell::{Pixels, draw_kind};
use crate::app::draw::theme::{self, Palette};
use crate::caching::{Cell, Origin, StepPlan, StrategyConfig};
use crate::engine::limits;

/// The cells of the map in their place.
pub struct Grid<'a> {
    /// The pane.
    pub map: &'a mut MapPane,
    /// What panes share.
    pub shared: &'a Shared,
    /// The cells.
    pub cells: &'a Cells,
    /// The area of all rows, with the names of the blocks and their hit rates.
    pub area: Rect,
    /// The height of a row in points.
    pub row: f32,
    /// The part of the area that can be seen, from the area's upper left corner.
    pub viewport: Rect,
}

impl Grid<'_> {
    /// Draws the cells, and handles pointer and keys.
    pub fn ui(mut self, ui: &mut Ui, actions: &mut Actions) {
        let inner = columns(self.area);
        let id = ui.scope_id().with("map grid");
        let response = ui.interact(inner, id, Sense::click_and_drag());
        let width = inner.width() / self.cells.steps as f32;
        let place = Geometry { inner, top: self.area.top(), width, row: self.row };
        self.draw(ui, &place, actions);
        // Pointer and keys may change the selection more than once in a frame.
        let mut selection = self.shared.selection.clone();
        self.pointer(ui, &mut selection, &response, &place);
        self.keys(ui, &mut selection, &response, &place, actions);
        let name = cells::describe(self.map, self.shared, &selection, self.cells);
        theme::named(&response, Role::Canvas, format!("Blocks by steps map. {name}"));
        self.hover(response, &place);
        if selection != self.shared.selection {
            actions.select(move |shared| *shared = selection);
        }
    }

    fn draw(&self, ui: &mut Ui, place: &Geometry, actions: &mut Actions) {
        let (palette, cells, row) = (Palette::of(ui), self.cells, self.row);
        let first = (self.viewport.top() / row).floor().max(0.0) as usize;
        let last = ((self.viewport.bottom() / row).ceil() as usize).min(cells.blocks);
        // A cell is at least 2 points wide. If the columns are narrower, some steps are left out.
        let stride = (cells.steps as f32 * 2.0 / place.inner.width()).ceil().max(1.0) as usize;
        let painter = ui.painter_at(place.inner);
        painter.rect_filled(place.inner, 2.0, palette.well);
        let pixels = Pixels::of(ui, place.width);
        let mut mesh = Mesh::default();
        for block in first..last {
            let top = place.top + block as f32 * row;
            for step in (0..cells.steps).step_by(stride) {
                let left = place.inner.left() + step as f32 * place.width;
                let rect = Rect::from_min_size(pos2(left, top), vec2(place.width * stride as f32, row));
                draw_cell(&mut mesh, &palette, cells, pixels.inside(rect), step, block);
            }
            let label = Rect::from_min_size(pos2(self.area.left(), top), vec2(LEFT, row));
            block_label(ui, self.shared, actions, block, label);
            let whole = match cells.colouring {
                Colouring::Reuse => format!("{:.0} %", cells.hit_rate(block) * 100.0),
                colouring => cells.mean(block).map_or_else(String::new, |mean| colouring.format(mean)),
            };
            let at = pos2(self.area.right() - 4.0, top + row / 2.0);
            let font = FontId::proportional(row.clamp(9.0, 11.5));
            ui.painter().text(at, Align2::RIGHT_CENTER, whole, font, palette.weak);
        }
        painter.add(mesh);
        self.marks(&painter, &palette, place);
    }

    /// Draws the marks of the step on show and of the selected cells.
    fn marks(&self, painter: &egui::Painter, palette: &Palette, place: &Geometry) {
        if !self.map.shows_plan(self.shared)
            && let Some(step) = self.shared.shown_step()
        {
            let x = place.inner.left() + (step as f32 + 0.5) * place.width;
            let tip = pos2(x, place.inner.bottom());
            let triangle = vec![tip + vec2(-5.0, 0.0), tip + vec2(5.0, 0.0), tip + vec2(0.0, -6.0)];
            painter.add(egui::Shape::convex_polygon(triangle, palette.text, Stroke::new(1.0, palette.pane)));
        }
        if let Some(selected) = self.shared.selection.cells {
            let rect = place.rect(selected).expand(0.5);
            painter.rect_stroke(rect, 2.0, Stroke::new(4.0, palette.pane), StrokeKind::Inside);
            painter.rect_stroke(rect, 2.0, Stroke::new(2.0, palette.text), StrokeKind::Inside);
        }
    }

    fn pointer(&self, ui: &Ui, selection: &mut Selection, response: &Response, place: &Geometry) {
        let Some(at) = response.interact_pointer_pos() else { return };
        if response.clicked() || response.drag_started() {
            response.request_focus();
            // A drag is recognized after the pointer has moved. The drag began where the button was
            // pressed.
            let from = ui.input(|input| input.pointer.press_origin()).unwrap_or(at);
            selection.select(place.cell(from, self.cells));
        }
        if response.dragged()
            && let (Some(step), Some(block)) = (selection.step, selection.block)
        {
            selection.cells = Some(CellArea::between(MapCell { step, block }, place.cell(at, self.cells)));
        }
    }

    fn keys(
        &mut self,
        ui: &Ui,
        selection: &mut Selection,
        response: &Response,
        place: &Geometry,
        actions: &mut Actions,
    ) {
        if !response.has_focus() {
            return;
        }
        let filter = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..EventFilter::default() };
        ui.memory_mut(|memory| memory.set_focus_lock_filter(response.id, filter));
        let (dx, dy, extend, space) = ui.input(|input| {
            let one = |key| i64::from(input.key_pressed(key));
            let across = one(Key::ArrowRight) - one(Key::ArrowLeft);
            (across, one(Key::ArrowDown) - one(Key::ArrowUp), input.modifiers.shift, input.key_pressed(Key::Space))
        });
        if (dx, dy) != (0, 0) {
            move_selection(selection, [dx, dy], extend, self.cells);
            // The selection stays in sight if the rows do not all fit.
            if let Some(selected) = selection.cells {
                ui.scroll_to_rect(place.rect(selected), None);
            }
        }
        if space {
            self.toggle_reuse(selection.cells, actions);
        }
    }

    /// Switches reuse of the selected cells in the plan of the next run.
    fn toggle_reuse(&mut self, selected: Option<CellArea>, actions: &mut Actions) {
        let Some(CellArea { first, last }) = selected else {
            return actions.log(Level::Note, "Select cells of the map first: click, drag or use the arrow keys.");
        };
        if last.step == 0 {
            return actions.log(Level::Note, FIRST_STEP);
        }
        let (shared, blocks) = (self.shared, self.shared.blocks());
        let mut plans = shared.prediction.plans.clone();
        let steps = shared.form.clip.num_inference_steps;
        if plans.len() != steps || blocks != self.cells.blocks {
            // The strategy decides while it runs, or makes fewer steps: the plan starts without
            // reuse.
            plans = vec![StepPlan::compute(blocks); steps.min(limits::MOST_STEPS)];
        }
        let edit = plan_edit::toggle(&plans, blocks, first.step..last.step + 1, first.block..last.block + 1);
        if let Some(text) = edit.simplified() {
            actions.log(Level::Note, text);
        }
        use_edited(shared, actions, edit.plans);
        if !std::mem::replace(&mut self.map.settings.plan, true) {
            let text = "The map now shows the plan of the next run: space switches reuse of the selection.";
            actions.log(Level::Note, text);
        }
        if first.step == 0 {
            actions.log(Level::Note, FIRST_STEP);
        }
    }

    fn hover(&self, response: Response, place: &Geometry) {
        let Some(at) = response.hover_pos() else { return };
        let MapCell { step, block } = place.cell(at, self.cells);
        response.on_hover_ui_at_pointer(|ui| {
            // A tip keeps the width that it had over another cell: lines must not wrap at that.
            ui.style_mut().wrap_mode = Some(egui::TextWrapMode::Extend);
            ui.label(egui::RichText::new(format!("block {block}, step {step}")).strong());
            for line in cells::details(self.map, self.shared, self.cells, step, block) {
                ui.label(line);
            }
        });
    }
}

/// Positions of cells.
struct Geometry {
    inner: Rect,
    top: f32,
    width: f32,
    row: f32,
}

impl Geometry {
    fn cell(&self, at: egui::Pos2, cells: &Cells) -> MapCell {
        let step = ((at.x - self.inner.left()) / self.width).max(0.0) as usize;
        let block = ((at.y - self.top) / self.row).max(0.0) as usize;
        MapCell { step: step.min(cells.steps - 1), block: block.min(cells.blocks - 1) }
    }

    fn rect(&self, CellArea { first, last }: CellArea) -> Rect {
        let x = |step: usize| self.inner.left() + step as f32 * self.width;
        let y = |block: usize| self.top + block as f32 * self.row;
        Rect::from_min_max(pos2(x(first.step), y(first.block)), pos2(x(last.step + 1), y(last.block + 1)))
    }
}

fn draw_cell(mesh: &mut Mesh, palette: &Palette, cells: &Cells, rect: Rect, step: usize, block: usize) {
    let Some(Value { cell, value, planned }) = cells.get(step, block) else { return };
    match value {
        Some(value) => {
            let (map, t) = cells.scale(value);
            mesh.add_colored_rect(rect, theme::mapped(map, t));
        }
        None if cells.colouring == Colouring::Reuse => {
            draw_kind(mesh, palette, rect, cell, if planned { 0.45 } else { 1.0 });
        }
        None if cell == Cell::Reused => {
            let y = rect.center().y.floor();
            mesh.add_colored_rect(Rect::from_x_y_ranges(rect.x_range(), y..=y + 1.0), palette.reused);
        }
        None => {}
    }
}

fn block_label(ui: &mut Ui, shared: &Shared, actions: &mut Actions, block: usize, rect: Rect) {
    let palette = Palette::of(ui);
    let selected = shared.selection.block == Some(block);
    let color = if selected { palette.accent } else { palette.text };
    let at = pos2(rect.left() + 2.0, rect.center().y);
    ui.painter().text(
        at,
        Align2::LEFT_CENTER,
        format!("b{block}"),
        FontId::monospace(rect.height().clamp(9.0, 12.0)),
        color,
    );
    let class = Class::of(shared, block);
    let cached = class == Class::Background;
    let gap = if rect.height() < 16.0 { 0.5 } else { 1.5 };
    let place =
        Rect::from_min_max(pos2(rect.right() - 32.0, rect.top() + gap), pos2(rect.right() - 7.0, rect.bottom() - gap));
    let text = egui::RichText::new(class.letter()).size((rect.height() - 1.0).clamp(8.0, 11.5));
    let mut small = ui.new_child(egui::UiBuilder::new().max_rect(place));
    small.spacing_mut().button_padding = vec2(0.0, 0.0);
    small.spacing_mut().interact_size.y = 0.0;
    let response = small.put(place, egui::Button::new(text).selected(cached).min_size(place.size()));
    theme::named(&response, Role::Button, format!("Block {block}, {}", class.meaning()));
    let other = if cached { "foreground" } else { "background" };
    let tip =
        format!("Block {block} by ProfilingDiT: {}. Click: make it {other}, and choose ProfilingDiT.", class.meaning());
    if response.on_hover_text(tip).clicked() {
        actions.form(move |form| form.cache_block(block, !cached));
    }
}

/// Moves the selection by steps and blocks, or extends it.
fn move_selection(selection: &mut Selection, [dx, dy]: [i64; 2], extend: bool, cells: &Cells) {
    let move_by =
        |from: usize, by: i64, count: usize| (from as i64).saturating_add(by).clamp(0, count as i64 - 1) as usize;
    // The end that moves is the one away from the cell where the selection began.
    let moving = |low: usize, high: usize, began: Option<usize>| if began == Some(high) { low } else { high };
    let fixed = |low: usize, high: usize, began: Option<usize>| if began == Some(high) { high } else { low };
    match selection.cells.filter(|_| extend) {
        Some(CellArea { first: a, last: b }) => {
            let ends = |end: fn(usize, usize, Option<usize>) -> usize| MapCell {
                step: end(a.step, b.step, selection.step),
                block: end(a.block, b.block, selection.block),
            };
            let (fixed, moving) = (ends(fixed), ends(moving));
            let moved =
                MapCell { step: move_by(moving.step, dx, cells.steps), block: move_by(moving.block, dy, cells.blocks) };
            selection.cells = Some(CellArea::between(fixed, moved));
        }
        None => selection.select(MapCell {
            step: move_by(selection.step.unwrap_or(0), dx, cells.steps),
            block: move_by(selection.block.unwrap_or(0), dy, cells.blocks),
        }),
    }
}

const FIRST_STEP: &str = "Step 0 is always computed: there is nothing to reuse yet.";

/// Chooses an edited plan for the next run.
fn use_edited(shared: &Shared, actions: &mut Actions, plans: Vec<StepPlan>) {
    match shared.form.strategy().own_plan() {
        // The chosen plan can run here, so it is the plan that was edited.
        Some(own) if own.plans.len() == plans.len() && shared.prediction.trouble.is_none() => {
            let title = own.title.clone();
            actions.form(move |form| form.use_plan(&title, Origin::Hand, plans));
        }
        // A new plan. It replaces no plan of the user's.
        _ => {
            let plan = StrategyConfig::plan(plan_edit::TITLE, Origin::Hand, plans);
            actions.form(move |form| form.use_strategy(plan));
        }
    }
}
