//! The foreground painted by hand, token by token. Block scores are then computed again from the
//! maps in the capture.

use std::ops::Range;

use egui::accesskit::Role;
use egui::{
    Color32, EventFilter, Key, KeyboardShortcut, Modifiers, Painter, PointerButton, Pos2, Rect, Response, Stroke,
    StrokeKind, Ui, pos2, vec2,
};

use super::attention::token_at;
use crate::app::actions::{Action, Actions};
use crate::app::data::runs::Run;
use crate::app::draw::theme::{self, Palette};
use crate::app::save;
use crate::media::Clip;
use crate::profiling::mask::Mask;

/// A token of a latent frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its row in the grid.
    pub row: usize,
    /// Its column in the grid.
    pub column: usize,
}

/// The settings of the brush.
#[derive(Clone, Debug, PartialEq)]
pub struct Brush {
    /// Whether the picture is painted on.
    pub on: bool,
    /// Whether it erases in place of adding.
    pub erase: bool,
    /// Width in tokens.
    pub size: usize,
    /// Whether it paints in all latent frames at once.
    pub every_frame: bool,
    /// The token that the keys moved it to.
    pub cursor: Option<Token>,
    /// Whether the pointer is painting.
    pub stroking: bool,
}

impl Default for Brush {
    fn default() -> Self {
        Self { on: false, erase: false, size: 1, every_frame: false, cursor: None, stroking: false }
    }
}

/// Undoes the last stroke.
pub const UNDO: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Z);

/// Widest brush, in tokens.
const WIDEST: usize = 16;

/// The picture that is painted on.
pub struct Canvas<'a> {
    /// Its latent frame.
    pub frame: usize,
    /// Its place.
    pub rect: Rect,
    /// Its response.
    pub response: &'a Response,
}

/// Sets the tokens of a round brush around a token, in the frames of a range.
pub fn dab(bits: &mut [bool], grid: [usize; 3], frames: Range<usize>, Token { row, column }: Token, brush: &Brush) {
    let [_, height, width] = grid;
    let reach = brush.size.saturating_sub(1) as f32 / 2.0;
    let near = |a: usize, count: usize| a.saturating_sub(brush.size)..(a + brush.size + 1).min(count);
    for frame in frames {
        for y in near(row, height) {
            for x in near(column, width) {
                let far = vec2(x as f32 - column as f32, y as f32 - row as f32).length();
                if far <= reach + 0.25
                    && let Some(bit) = bits.get_mut((frame * height + y) * width + x)
                {
                    *bit = !brush.erase;
                }
            }
        }
    }
}

impl Brush {
    /// Draws the settings, in a row of their own.
    pub fn controls(&mut self, ui: &mut Ui, run: &Run, actions: &mut Actions) {
        let (id, tokens, painted) = (run.id, run.capture.run.tokens(), run.painted.is_some());
        let undoable = run.painted_before.as_ref().is_some_and(|before| *before != run.painted);
        let estimated = run.estimated_mask().is_some();
        let mut change: Option<Option<Vec<bool>>> = None;
        // A text field has an undo of its own.
        let mut undo = !ui.ctx().text_edit_focused() && ui.input_mut(|input| input.consume_shortcut(&UNDO));
        ui.horizontal_wrapped(|ui| {
            self.settings(ui);
            if ui.button("Clear").on_hover_text("Start from no foreground at all").clicked() {
                change = Some(Some(vec![false; tokens]));
            }
            let tip = format!("The mask before the last stroke ({})", ui.ctx().format_shortcut(&UNDO));
            let button = ui.add_enabled(undoable, egui::Button::new("Undo")).on_hover_text(tip);
            theme::named(&button, Role::Button, "Undo painting");
            undo |= button.clicked();
            let button = ui.add_enabled(painted && estimated, egui::Button::new("Use estimated mask"));
            if button.on_disabled_hover_text("The estimated mask is in use, or there is none").clicked() {
                change = Some(None);
            }
            let tip = "An animated PNG or GIF, or one picture for all frames";
            if ui.button("Load mask...").on_hover_text(tip).clicked() {
                actions.ask(Action::ChooseMask);
            }
            let save = ui.add_enabled(run.mask().is_some(), egui::Button::new("Save mask..."));
            if save.on_hover_text("As an animated PNG, for `ditscope profile --mask file:...`").clicked() {
                actions.ask(Action::Save(&save::MASK));
            }
            ui.label(egui::RichText::new(status(run)).size(11.5).color(Palette::of(ui).weak));
        });
        if undo && undoable {
            actions.runs(move |runs| runs.undo_mask(id));
        }
        if let Some(mask) = change {
            actions.runs(move |runs| {
                runs.keep_mask(id);
                runs.paint(id, mask);
            });
        }
    }

    fn settings(&mut self, ui: &mut Ui) {
        ui.selectable_value(&mut self.erase, false, "Add").on_hover_text("The brush adds to the foreground");
        ui.selectable_value(&mut self.erase, true, "Erase").on_hover_text("The brush takes away from the foreground");
        let label = ui.label("width");
        let size = egui::DragValue::new(&mut self.size).range(1..=WIDEST).speed(0.1);
        ui.add(size).labelled_by(label.id).on_hover_text("Width of the brush in tokens");
        ui.checkbox(&mut self.every_frame, "every frame").on_hover_text("Paint in all latent frames at once");
    }

    /// Paints with the pointer and the keys, and draws the brush.
    pub fn paint(&mut self, ui: &Ui, run: &Run, canvas: Canvas<'_>, actions: &mut Actions) {
        let Canvas { frame, rect, response } = canvas;
        let grid = run.capture.run.token_grid;
        if grid.contains(&0) || frame >= grid[0] {
            return;
        }
        let token = |at: Pos2| Some(token_at(run, frame, rect, at)?.token);
        let stroked_before = std::mem::replace(&mut self.stroking, paints(ui, response));
        let mut begins = self.stroking && !stroked_before;
        let mut places: Vec<Token> = Vec::new();
        if let Some(at) = response.interact_pointer_pos().filter(|_| self.stroking) {
            response.request_focus();
            places.extend(stroke(ui, at, rect, grid).filter_map(token));
        }
        let by_keys = response.has_focus().then(|| self.keys(ui, grid, response)).flatten();
        begins |= by_keys.is_some();
        places.extend(by_keys);
        let cursor = response.hover_pos().and_then(token).or(self.cursor.filter(|_| response.has_focus()));
        if !places.is_empty() {
            let id = run.id;
            let mut bits = run.mask().map_or_else(|| vec![false; grid.iter().product()], <[bool]>::to_vec);
            let frames = if self.every_frame { 0..grid[0] } else { frame..frame + 1 };
            for place in places {
                dab(&mut bits, grid, frames.clone(), place, self);
            }
            actions.runs(move |runs| {
                if begins {
                    runs.keep_mask(id);
                }
                runs.paint(id, Some(bits));
            });
        }
        if let Some(at) = cursor {
            draw_brush(ui, self, grid, at, rect);
        }
    }

    /// Moves the brush by the arrow keys. Returns the token that space or enter paints.
    fn keys(&mut self, ui: &Ui, grid: [usize; 3], response: &Response) -> Option<Token> {
        let filter = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..EventFilter::default() };
        ui.memory_mut(|memory| memory.set_focus_lock_filter(response.id, filter));
        let (down, right, dab) = ui.input(|input| {
            let one = |key| i64::from(input.key_pressed(key));
            let dab = input.key_pressed(Key::Space) || input.key_pressed(Key::Enter);
            (one(Key::ArrowDown) - one(Key::ArrowUp), one(Key::ArrowRight) - one(Key::ArrowLeft), dab)
        });
        let Token { row, column } = self.cursor.unwrap_or(Token { row: grid[1] / 2, column: grid[2] / 2 });
        let by =
            |from: usize, by: i64, count: usize| (from as i64).saturating_add(by).clamp(0, count as i64 - 1) as usize;
        let at = Token { row: by(row, down, grid[1]), column: by(column, right, grid[2]) };
        self.cursor = Some(at);
        dab.then_some(at)
    }
}

/// The mask in use in words.
fn status(run: &Run) -> String {
    let share = run.mask().map(|bits| bits.iter().filter(|bit| **bit).count() as f32 / bits.len().max(1) as f32);
    match share {
        Some(share) if share == 0.0 || share == 1.0 => "all tokens are of one class: nothing can be scored".to_owned(),
        Some(share) => {
            let how = if run.painted.is_some() { "painted" } else { "estimated" };
            format!("{how} mask: {:.1} % of the tokens", share * 100.0)
        }
        None => "no mask yet: paint on the picture".into(),
    }
}

/// Whether the primary button draws: it is held, or was let go just now.
fn paints(ui: &Ui, response: &Response) -> bool {
    let held = response.is_pointer_button_down_on() && ui.input(|input| input.pointer.primary_down());
    held || response.drag_stopped_by(PointerButton::Primary) || response.clicked_by(PointerButton::Primary)
}

/// The places of the pointer since the last frame of the window, close enough that no token is
/// skipped.
fn stroke(ui: &Ui, at: Pos2, rect: Rect, grid: [usize; 3]) -> impl Iterator<Item = Pos2> {
    let moved = ui.input(|input| if input.pointer.any_pressed() { egui::Vec2::ZERO } else { input.pointer.delta() });
    let cell = (rect.width() / grid[2] as f32).min(rect.height() / grid[1] as f32).max(1.0);
    let parts = (moved.length() / cell * 2.0).ceil().clamp(1.0, 512.0) as usize;
    (0..parts).map(move |part| at - moved * (part as f32 / parts as f32))
}

fn draw_brush(ui: &Ui, brush: &Brush, grid: [usize; 3], Token { row, column }: Token, rect: Rect) {
    let cell = vec2(rect.width() / grid[2] as f32, rect.height() / grid[1] as f32);
    let middle = rect.min + vec2((column as f32 + 0.5) * cell.x, (row as f32 + 0.5) * cell.y);
    let side = Rect::from_center_size(middle, cell * brush.size.max(1) as f32);
    let radius = if brush.size > 2 { side.width() / 2.0 } else { 2.0 };
    for (width, color) in [(3.5, Color32::BLACK), (1.5, Color32::WHITE)] {
        ui.painter().rect_stroke(side, radius, Stroke::new(width, color), StrokeKind::Middle);
    }
    // A plus or a minus tells without colour whether the brush adds or erases.
    let arm = cell.min_elem().clamp(4.0, 16.0) * 0.3;
    for (width, color) in [(3.5, Color32::BLACK), (1.5, Color32::WHITE)] {
        ui.painter().line_segment([middle - vec2(arm, 0.0), middle + vec2(arm, 0.0)], Stroke::new(width, color));
        if !brush.erase {
            ui.painter().line_segment([middle - vec2(0.0, arm), middle + vec2(0.0, arm)], Stroke::new(width, color));
        }
    }
}

/// Draws the border of a mask's frame, black and white so that it shows on anything. With `shade`
/// the background is darkened.
pub fn outline(painter: &Painter, run: &Run, frame: usize, rect: Rect, shade: bool) {
    let Some(mask) = run.mask() else { return };
    let [_, height, width] = run.capture.run.token_grid;
    let Some(bits) = mask.get(frame * height * width..(frame + 1) * height * width) else { return };
    let cell = vec2(rect.width() / width.max(1) as f32, rect.height() / height.max(1) as f32);
    let corner = |y: usize, x: usize| pos2(rect.left() + x as f32 * cell.x, rect.top() + y as f32 * cell.y);
    let inside = |y: Option<usize>, x: Option<usize>| match (y, x) {
        (Some(y), Some(x)) if y < height && x < width => bits[y * width + x],
        _ => false,
    };
    let mut lines = Vec::new();
    for y in 0..=height {
        for x in 0..=width {
            if inside(y.checked_sub(1), Some(x)) != inside(Some(y), Some(x)) {
                lines.push([corner(y, x), corner(y, x + 1)]);
            }
            if inside(Some(y), x.checked_sub(1)) != inside(Some(y), Some(x)) {
                lines.push([corner(y, x), corner(y + 1, x)]);
            }
            if shade && y < height && x < width && !bits[y * width + x] {
                let tile = Rect::from_min_max(corner(y, x), corner(y + 1, x + 1));
                painter.rect_filled(tile, 0.0, Color32::from_black_alpha(110));
            }
        }
    }
    for (width, color) in [(3.5, Color32::BLACK), (1.5, Color32::WHITE)] {
        for line in &lines {
            painter.line_segment(*line, Stroke::new(width, color));
        }
    }
}

/// The largest side of a token in a saved mask, in pixels.
const TOKEN_PIXELS: usize = 16;

/// A mask as pictures, one a latent frame, white where the foreground is: what `profile --mask
/// file:` reads.
///
/// # Errors
/// No frame has tokens of both classes, or the grid is too large for a picture.
pub fn pictures(bits: &[bool], [frames, height, width]: [usize; 3]) -> Result<Clip, String> {
    if Mask::new([frames, height, width], bits.to_vec()).map_err(|error| error.to_string())?.is_trivial() {
        return Err("The mask is not saved: no frame has foreground and background, so it can score nothing.".into());
    }
    let largest = crate::media::MAX_SIDE as usize / height.max(width).max(1);
    let scale = TOKEN_PIXELS.min(largest).max(1);
    let frame = |bits: &[bool]| -> Vec<u8> {
        let row = |y: usize| (0..width * scale).map(move |x| (y, x));
        let pixels = (0..height * scale).flat_map(row);
        pixels.flat_map(|(y, x)| [if bits[y / scale * width + x / scale] { 255 } else { 0 }; 3]).collect()
    };
    let all: Vec<Vec<u8>> = bits.chunks_exact((height * width).max(1)).take(frames).map(frame).collect();
    Clip::new((width * scale) as u32, (height * scale) as u32, 2, all).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{read_gray, write};
    use crate::profiling::mask;

    const GRID: [usize; 3] = [5, 4, 6];

    #[test]
    fn dabs_are_round_and_stay_inside() {
        let mut bits = vec![false; 120];
        let count = |bits: &[bool]| bits.iter().filter(|bit| **bit).count();
        let brush = Brush::default();
        dab(&mut bits, GRID, 2..3, Token { row: 1, column: 1 }, &brush);
        assert_eq!((count(&bits), bits[2 * 24 + 7]), (1, true));
        let wide = Brush { size: 3, ..Brush::default() };
        dab(&mut bits, GRID, 0..5, Token { row: 0, column: 0 }, &wide);
        assert_eq!(count(&bits[..24]), 3);
        dab(&mut bits, GRID, 0..1, Token { row: 3, column: 5 }, &wide);
        assert_eq!(count(&bits[..24]), 6);
        dab(&mut bits, GRID, 0..5, Token { row: 2, column: 2 }, &Brush { erase: true, size: 16, ..Brush::default() });
        assert_eq!(count(&bits), 0);
    }

    #[test]
    fn a_saved_mask_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        let mut bits = vec![false; 120];
        for frame in 0..5 {
            dab(
                &mut bits,
                GRID,
                frame..frame + 1,
                Token { row: 1, column: frame },
                &Brush { size: 3, ..Brush::default() },
            );
        }
        write(&path, &pictures(&bits, GRID).unwrap(), "").unwrap();
        let read = mask::file(&read_gray(&path).unwrap(), GRID).unwrap();
        assert_eq!(read.mask.bits(), bits);
        assert!(pictures(&[true; 120], GRID).is_err() && pictures(&[false; 120], GRID).is_err());
    }
}
