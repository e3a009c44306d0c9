//! Pane "Blocks x steps": one cell a block and step, coloured by what was measured or is planned. Click shows a block's attention,
//! drag selects, space switches reuse in the plan of the next run.

pub mod cells;
pub mod colouring;
pub mod export;

use egui::accesskit::Role;
use egui::{
    Align2, Color32, EventFilter, FontId, Key, Mesh, Rect, Response, Sense, Stroke, StrokeKind, Ui, pos2, vec2,
};

use crate::caching::{Cell, Origin, StrategyConfig};
use crate::engine::limits;
use crate::media::Colormap;

use crate::app::data::plan_edit;
use crate::app::data::state::{Action, Level, State};
use crate::app::draw::legend;
use crate::app::draw::theme::{self, Palette};
use crate::app::panes::map::cells::{Cells, Value};
use crate::app::panes::map::colouring::Colouring;

/// Points for a block's name and its F/B button, and for its hit rate.
const LEFT: f32 = 66.0;
const RIGHT: f32 = 46.0;
const AXIS: f32 = 18.0;
const LEGEND: f32 = 38.0;
const LOWEST_ROW: f32 = 18.0;
const HIGHEST_ROW: f32 = 34.0;

/// Draws the pane.
pub fn ui(ui: &mut Ui, state: &mut State) {
    controls(ui, state);
    let cells = Cells::of(state);
    if cells.steps == 0 || cells.blocks == 0 {
        let first = match state.ready() {
            Ok(()) => "Press Generate, or choose a strategy whose plan is known.".to_owned(),
            Err(why) => why,
        };
        theme::empty(ui, "No blocks and steps yet", &format!("{first} Blocks and steps then appear here."));
        return;
    }
    if !cells.any() && cells.colouring != Colouring::Reuse {
        let title = format!("Nothing was measured for \"{}\"", state.view.colouring.name());
        theme::empty(ui, &title, state.view.colouring.how_to(state.runs.current()));
        return;
    }
    let space = ui.available_size();
    let row = ((space.y - AXIS - LEGEND - 6.0) / cells.blocks as f32).clamp(LOWEST_ROW, HIGHEST_ROW);
    let height = (row * cells.blocks as f32).min(space.y - AXIS - LEGEND - 6.0).max(LOWEST_ROW);
    egui::ScrollArea::vertical().id_salt("map rows").max_height(height).auto_shrink([false, true]).show_viewport(
        ui,
        |ui, viewport| {
            let size = vec2(ui.available_width(), row * cells.blocks as f32);
            let (area, _) = ui.allocate_exact_size(size, Sense::hover());
            grid(ui, state, &cells, area, row, viewport);
        },
    );
    let (axis_rect, _) = ui.allocate_exact_size(vec2(space.x, AXIS), Sense::hover());
    axis(ui, &cells, columns(axis_rect));
    let (legend_rect, _) = ui.allocate_exact_size(vec2(space.x, LEGEND - 4.0), Sense::hover());
    show_legend(ui, state, &cells, legend_rect);
}

fn columns(area: Rect) -> Rect {
    Rect::from_x_y_ranges(area.left() + LEFT..=(area.right() - RIGHT).max(area.left() + LEFT + 8.0), area.y_range())
}

fn controls(ui: &mut Ui, state: &mut State) {
    let guided = state.runs.current().is_some_and(|run| run.capture.run.guided());
    let comparable = state.runs.comparable().is_some();
    let recorded = state.runs.current().is_some();
    // The pane's menu and the window's have it too.
    let narrow = ui.available_width() < 780.0;
    let plan = state.shows_plan();
    let view = &mut state.view;
    ui.horizontal_wrapped(|ui| {
        let button = ui.add_enabled(recorded, egui::Button::selectable(!plan, "Recorded"));
        let button =
            button.on_hover_text("What the run on show did").on_disabled_hover_text("Nothing was recorded yet");
        if button.clicked() {
            view.plan = false;
        }
        let button = ui.selectable_label(plan, "Next plan").on_hover_text("What the next run will do; space edits it");
        if button.clicked() {
            view.plan = true;
        }
        ui.separator();
        for colouring in Colouring::ALL {
            // Of a plan nothing is measured.
            let drawn = if plan { Colouring::Reuse } else { view.colouring };
            let button = egui::Button::selectable(drawn == colouring, colouring.name());
            let enabled = !plan || colouring == Colouring::Reuse;
            if ui.add_enabled(enabled, button).on_hover_text(colouring.meaning()).clicked() {
                view.colouring = colouring;
            }
        }
        if guided && !plan {
            ui.separator();
            ui.selectable_value(&mut view.uncond, false, "Prompt").on_hover_text("The branch of the prompt (cond)");
            ui.selectable_value(&mut view.uncond, true, "Negative")
                .on_hover_text("The branch of the negative prompt (uncond)");
        }
        if comparable && !plan && view.colouring != Colouring::Reuse {
            ui.checkbox(&mut view.subtract, "Minus baseline");
        }
        if recorded && !narrow && ui.button("Export...").on_hover_text("The map as SVG, its values as CSV").clicked() {
            state.actions.push(Action::SaveMap);
        }
    });
}

fn grid(ui: &mut Ui, state: &mut State, cells: &Cells, area: Rect, row: f32, viewport: Rect) {
    let palette = Palette::of(ui);
    let inner = columns(area);
    let id = ui.scope_id().with("map grid");
    let response = ui.interact(inner, id, Sense::click_and_drag());
    let first = (viewport.top() / row).floor().max(0.0) as usize;
    let last = ((viewport.bottom() / row).ceil() as usize).min(cells.blocks);
    // Never thinner than 2 points: what would be is left out.
    let stride = (cells.steps as f32 * 2.0 / inner.width()).ceil().max(1.0) as usize;
    let width = inner.width() / cells.steps as f32;
    let painter = ui.painter_at(inner);
    painter.rect_filled(inner, 2.0, palette.well);
    let pixels = Pixels::of(ui, width);
    let mut mesh = Mesh::default();
    for block in first..last {
        let top = area.top() + block as f32 * row;
        for step in (0..cells.steps).step_by(stride) {
            let left = inner.left() + step as f32 * width;
            let rect = Rect::from_min_size(pos2(left, top), vec2(width * stride as f32, row));
            draw_cell(&mut mesh, &palette, cells, pixels.inside(rect), step, block);
        }
        block_label(ui, state, block, Rect::from_min_size(pos2(area.left(), top), vec2(LEFT, row)));
        let rate = format!("{:.0} %", cells.hit_rate(block) * 100.0);
        let at = pos2(area.right() - 4.0, top + row / 2.0);
        ui.painter().text(at, Align2::RIGHT_CENTER, rate, FontId::proportional(11.5), palette.weak);
    }
    painter.add(mesh);
    let place = Place { inner, top: area.top(), width, row };
    marks(&painter, &palette, state, &place);
    pointer(ui, state, &response, cells, &place);
    keys(ui, state, &response, cells, &place);
    let name = cells::describe(state, cells);
    theme::named(&response, Role::Canvas, format!("Blocks by steps map. {name}"));
    hover(state, response, cells, &place);
}

/// Where cells lie.
struct Place {
    inner: Rect,
    top: f32,
    width: f32,
    row: f32,
}

impl Place {
    fn cell(&self, at: egui::Pos2, cells: &Cells) -> (usize, usize) {
        let step = ((at.x - self.inner.left()) / self.width).max(0.0) as usize;
        let block = ((at.y - self.top) / self.row).max(0.0) as usize;
        (step.min(cells.steps - 1), block.min(cells.blocks - 1))
    }

    fn rect(&self, [s0, s1, b0, b1]: [usize; 4]) -> Rect {
        let x = |step: usize| self.inner.left() + step as f32 * self.width;
        let y = |block: usize| self.top + block as f32 * self.row;
        Rect::from_min_max(pos2(x(s0), y(b0)), pos2(x(s1 + 1), y(b1 + 1)))
    }
}

/// How cells fall on pixels: with edges on whole pixels they need no smoothing, which draws ten triangles for each one that it smooths.
pub(in crate::app) struct Pixels {
    per_point: f32,
    /// Between two columns, in points.
    gap: f32,
}

impl Pixels {
    /// For columns so many points wide.
    pub(in crate::app) fn of(ui: &Ui, width: f32) -> Self {
        Self { per_point: ui.pixels_per_point(), gap: if width > 3.0 { 1.0 } else { 0.0 } }
    }

    /// What is drawn of a cell.
    pub(in crate::app) fn inside(&self, cell: Rect) -> Rect {
        let round = |x: f32| (x * self.per_point).round() / self.per_point;
        let (min, max) = (cell.min, cell.max);
        Rect::from_min_max(pos2(round(min.x), round(min.y)), pos2(round(max.x) - self.gap, round(max.y) - 1.0))
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

/// Draws what a block did, `strength` being how far its colour stands out.
pub(in crate::app) fn draw_kind(mesh: &mut Mesh, palette: &Palette, rect: Rect, cell: Cell, strength: f32) {
    mesh.add_colored_rect(rect, theme::mix(palette.well, cell_color(palette, cell), strength));
    cell_mark(mesh, palette, rect, cell);
}

/// The colour of what a block did.
pub(in crate::app) fn cell_color(palette: &Palette, cell: Cell) -> Color32 {
    match cell {
        Cell::Computed => palette.computed,
        Cell::Stored => palette.stored,
        Cell::Reused => palette.reused,
    }
}

/// What tells the kinds apart without colour: a reused cell is thin, a stored one has a bar below.
fn cell_mark(mesh: &mut Mesh, palette: &Palette, rect: Rect, cell: Cell) {
    let [whole, bar, hole] = [1.0, 0.22, 0.28].map(|share| (rect.height() * share).round().max(2.0));
    let part = |from: f32, height: f32| {
        Rect::from_min_max(pos2(rect.left(), rect.top() + from), pos2(rect.right(), rect.top() + from + height))
    };
    match cell {
        Cell::Computed => {}
        Cell::Stored => mesh.add_colored_rect(part(whole - bar, bar), palette.text),
        Cell::Reused => {
            mesh.add_colored_rect(part(0.0, hole), palette.well);
            mesh.add_colored_rect(part(whole - hole, hole), palette.well);
        }
    }
}

fn block_label(ui: &mut Ui, state: &mut State, block: usize, rect: Rect) {
    let palette = Palette::of(ui);
    let selected = state.view.block == Some(block);
    let color = if selected { palette.accent } else { palette.text };
    let at = pos2(rect.left() + 2.0, rect.center().y);
    ui.painter().text(at, Align2::LEFT_CENTER, format!("b{block}"), FontId::monospace(12.0), color);
    let class = Class::of(state, block);
    let cached = class == Class::Background;
    let place =
        Rect::from_min_max(pos2(rect.right() - 32.0, rect.top() + 1.5), pos2(rect.right() - 7.0, rect.bottom() - 1.5));
    let text = egui::RichText::new(class.letter()).size(11.5);
    let mut small = ui.new_child(egui::UiBuilder::new().max_rect(place));
    small.spacing_mut().button_padding = vec2(0.0, 0.0);
    small.spacing_mut().interact_size.y = 0.0;
    let response = small.put(place, egui::Button::new(text).selected(cached).min_size(place.size()));
    theme::named(&response, Role::Button, format!("Block {block}, {}", class.meaning()));
    let other = if cached { "foreground" } else { "background" };
    let tip =
        format!("Block {block} by ProfilingDiT: {}. Click: make it {other}, and choose ProfilingDiT.", class.meaning());
    if response.on_hover_text(tip).clicked() {
        state.form.cache_block(block, !cached);
    }
}

/// What a block is to ProfilingDiT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum Class {
    /// It attends to the foreground.
    Foreground,
    /// It attends to the background.
    Background,
    /// Neither the model's profile nor the user has said.
    Unknown,
}

impl Class {
    /// That of a block of the form's model.
    pub(in crate::app) fn of(state: &State, block: usize) -> Self {
        match state.form.cached_blocks() {
            None => Self::Unknown,
            Some(cached) if cached.contains(&block) => Self::Background,
            Some(_) => Self::Foreground,
        }
    }

    /// One letter.
    pub(in crate::app) fn letter(self) -> &'static str {
        match self {
            Self::Foreground => "F",
            Self::Background => "B",
            Self::Unknown => "-",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Foreground => "foreground: computed",
            Self::Background => "background: cached",
            Self::Unknown => "foreground or background: not known without a profile",
        }
    }
}

/// Selection and position.
fn marks(painter: &egui::Painter, palette: &Palette, state: &State, place: &Place) {
    if !state.shows_plan()
        && let Some(step) = state.shown_step()
    {
        let x = place.inner.left() + (step as f32 + 0.5) * place.width;
        let tip = pos2(x, place.inner.bottom());
        let triangle = vec![tip + vec2(-5.0, 0.0), tip + vec2(5.0, 0.0), tip + vec2(0.0, -6.0)];
        painter.add(egui::Shape::convex_polygon(triangle, palette.text, Stroke::new(1.0, palette.pane)));
    }
    if let Some(selection) = state.view.selection {
        let rect = place.rect(selection).expand(0.5);
        painter.rect_stroke(rect, 2.0, Stroke::new(4.0, palette.pane), StrokeKind::Inside);
        painter.rect_stroke(rect, 2.0, Stroke::new(2.0, palette.text), StrokeKind::Inside);
    }
}

fn select(state: &mut State, step: usize, block: usize) {
    state.view.step = Some(step);
    state.view.block = Some(block);
    state.view.selection = Some([step, step, block, block]);
}

fn pointer(ui: &Ui, state: &mut State, response: &Response, cells: &Cells, place: &Place) {
    let Some(at) = response.interact_pointer_pos() else { return };
    let (step, block) = place.cell(at, cells);
    if response.clicked() || response.drag_started() {
        response.request_focus();
        // A drag is known for one only after the pointer has moved: it began where the button was pressed.
        let from = ui.input(|input| input.pointer.press_origin()).unwrap_or(at);
        let (step, block) = place.cell(from, cells);
        select(state, step, block);
    }
    if response.dragged()
        && let (Some(s), Some(b)) = (state.view.step, state.view.block)
    {
        state.view.selection = Some([s.min(step), s.max(step), b.min(block), b.max(block)]);
    }
}

fn keys(ui: &Ui, state: &mut State, response: &Response, cells: &Cells, place: &Place) {
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
        let move_by =
            |from: usize, by: i64, count: usize| (from as i64).saturating_add(by).clamp(0, count as i64 - 1) as usize;
        // The end that moves is the one away from the cell where the selection began.
        let extended = |low: usize, high: usize, began: Option<usize>, by: i64, count: usize| {
            let (fixed, moving) = if began == Some(high) { (high, low) } else { (low, high) };
            let moved = move_by(moving, by, count);
            [fixed.min(moved), fixed.max(moved)]
        };
        match state.view.selection.filter(|_| extend) {
            Some([s0, s1, b0, b1]) => {
                let [s0, s1] = extended(s0, s1, state.view.step, dx, cells.steps);
                let [b0, b1] = extended(b0, b1, state.view.block, dy, cells.blocks);
                state.view.selection = Some([s0, s1, b0, b1]);
            }
            None => {
                let step = move_by(state.view.step.unwrap_or(0), dx, cells.steps);
                let block = move_by(state.view.block.unwrap_or(0), dy, cells.blocks);
                select(state, step, block);
            }
        }
        // Where the rows do not all fit, the selection stays in sight.
        if let Some(selection) = state.view.selection {
            ui.scroll_to_rect(place.rect(selection), None);
        }
    }
    if space {
        toggle_reuse(state, cells);
    }
}

/// Switches reuse of the selected cells in the plan of the next run.
fn toggle_reuse(state: &mut State, cells: &Cells) {
    let Some([s0, s1, b0, b1]) = state.view.selection else {
        state.log.add(Level::Note, "Select cells of the map first: click, drag or use the arrow keys.");
        return;
    };
    if s1 == 0 {
        return state.log.add(Level::Note, FIRST_STEP);
    }
    let blocks = state.blocks();
    let mut plans = state.prediction.plans.clone();
    if plans.len() != state.form.clip.num_inference_steps || blocks != cells.blocks {
        // The strategy decides on the way, or makes fewer steps: the plan starts from nothing reused.
        plans = vec![
            crate::caching::StepPlan::compute(blocks);
            state.form.clip.num_inference_steps.min(limits::MOST_STEPS)
        ];
    }
    let edit = plan_edit::toggle(&plans, blocks, s0..s1 + 1, b0..b1 + 1);
    if let Some(text) = edit.simplified() {
        state.log.add(Level::Note, text);
    }
    match state.form.strategy().own_plan() {
        // The plan can run here, so this is the plan that was edited.
        Some(own) if own.plans.len() == edit.plans.len() && state.prediction.trouble.is_none() => {
            let title = own.title.clone();
            state.form.use_plan(&title, Origin::Hand, edit.plans);
        }
        // A plan of its own: it replaces none that the user has made.
        _ => state.form.use_strategy(StrategyConfig::plan(plan_edit::TITLE, Origin::Hand, edit.plans)),
    }
    if !state.view.plan {
        state.view.plan = true;
        state
            .log
            .add(Level::Note, "The map now shows the plan of the next run: space switches reuse of the selection.");
    }
    if s0 == 0 {
        state.log.add(Level::Note, FIRST_STEP);
    }
}

const FIRST_STEP: &str = "Step 0 is always computed: there is nothing to reuse yet.";

fn hover(state: &State, response: Response, cells: &Cells, place: &Place) {
    let Some(at) = response.hover_pos() else { return };
    let (step, block) = place.cell(at, cells);
    response.on_hover_ui_at_pointer(|ui| {
        ui.label(egui::RichText::new(format!("block {block}, step {step}")).strong());
        for line in cells::details(state, cells, step, block) {
            ui.label(line);
        }
    });
}

fn axis(ui: &Ui, cells: &Cells, area: Rect) {
    let palette = Palette::of(ui);
    let width = area.width() / cells.steps as f32;
    let every =
        [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].into_iter().find(|n| *n as f32 * width >= 26.0).unwrap_or(2000);
    for step in (0..cells.steps).step_by(every) {
        let at = pos2(area.left() + (step as f32 + 0.5) * width, area.top() + 3.0);
        ui.painter().text(at, Align2::CENTER_TOP, step.to_string(), FontId::proportional(11.0), palette.weak);
    }
    let left = pos2(area.left() - 8.0, area.top() + 3.0);
    ui.painter().text(left, Align2::RIGHT_TOP, "step", FontId::proportional(11.0), palette.weak);
    let right = pos2(area.right() + RIGHT - 4.0, area.top() + 3.0);
    ui.painter().text(right, Align2::RIGHT_TOP, "hit rate", FontId::proportional(11.0), palette.weak);
}

fn show_legend(ui: &mut Ui, state: &State, cells: &Cells, area: Rect) {
    let palette = Palette::of(ui);
    if cells.colouring != Colouring::Reuse {
        let text = if cells.subtracted {
            format!("{}, minus the baseline's", cells.colouring.meaning())
        } else {
            cells.colouring.meaning().into()
        };
        legend::bar(ui, area, cells.map, &text, cells.range, &|value| cells.colouring.format(value));
        return;
    }
    let mut ui =
        ui.new_child(egui::UiBuilder::new().max_rect(area).layout(egui::Layout::left_to_right(egui::Align::Min)));
    for (cell, text) in
        [(Cell::Computed, "computed"), (Cell::Stored, "computed, delta stored"), (Cell::Reused, "reused")]
    {
        legend::swatch(&mut ui, cell_color(&palette, cell), text, |mesh, rect| cell_mark(mesh, &palette, rect, cell));
    }
    if cells.planned && !state.view.plan {
        ui.label(egui::RichText::new("(faint: planned)").size(11.5).color(palette.weak));
    }
}

/// The range of a sequential or diverging map over values.
pub(in crate::app) fn range(values: impl Iterator<Item = f32>, middle: Option<f32>) -> (Colormap, [f32; 2]) {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for value in values {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    match middle {
        Some(middle) => {
            let reach = (high - middle).max(middle - low).max(1e-6);
            (Colormap::Diverging, [middle - reach, middle + reach])
        }
        None => (Colormap::Sequential, [0.0, high.max(1e-9)]),
    }
}
