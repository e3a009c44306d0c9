//! Several runs at once: split by a line that can be moved, as their difference, or side by side.
//! Each has its own map of the selected block over it, with colours in common, and its own mask.

use egui::accesskit::Role;
use egui::{Color32, ColorImage, Painter, Pos2, Rect, Response, Sense, Stroke, TextureOptions, Ui, Vec2, pos2};

use super::attention::{self, Overlay};
use super::picture::{Shown, Shows, Slot, Textures, fit, frames, picture, places, shown_latent_frame};
use super::view::{Compare, Look, View};
use super::{GreatestDifference, PreviewPane, brush};
use crate::app::data::likeness::ClipPair;
use crate::app::data::runs::{MOST_SHOWN, Run};
use crate::app::data::shared::Shared;
use crate::app::draw::legend::Legend;
use crate::app::draw::textures::UV;
use crate::app::draw::theme;
use crate::media::Colormap;

/// The choice of the comparison: in a row of buttons, or in a list if there is little room.
pub fn controls(ui: &mut Ui, mode: &mut Compare, comparable: bool, narrow: bool) {
    let modes = [
        (Compare::Single, "One", true),
        (Compare::Split, "Split", comparable),
        (Compare::Difference, "Difference", comparable),
        (Compare::SideBySide, "Side by side", true),
    ];
    let buttons = |ui: &mut Ui, mode: &mut Compare| {
        for (each, text, enabled) in modes {
            if ui.add_enabled(enabled, egui::Button::selectable(*mode == each, text)).clicked() {
                *mode = each;
            }
        }
    };
    if !narrow {
        return buttons(ui, mode);
    }
    let name = modes.iter().find(|(each, ..)| each == mode).map_or("", |(_, text, _)| text);
    let list = egui::ComboBox::from_id_salt("compare").selected_text(name).width(90.0);
    let response = list.show_ui(ui, |ui| buttons(ui, mode)).response;
    theme::named(&response, Role::ComboBox, format!("Compare runs: {name}"));
}

/// A name on a picture.
pub fn tag(ui: &Ui, at: Pos2, align: egui::Align2, text: &str) {
    let font = egui::FontId::proportional(12.0);
    let galley = ui.painter().layout_no_wrap(text.into(), font, Color32::WHITE);
    let rect = align.anchor_size(at, galley.size() + Vec2::splat(8.0));
    ui.painter().rect_filled(rect, 3.0, Color32::from_black_alpha(190));
    ui.painter().galley(rect.min + Vec2::splat(4.0), galley, Color32::WHITE);
}

/// A picture of a run in its place.
struct Placed<'a> {
    run: &'a Run,
    /// Its index in the pane.
    index: usize,
    rect: Rect,
    map: Option<&'a Overlay>,
}

/// Draws the map and the outline of the mask over a picture.
fn draw_over(painter: &Painter, textures: &mut Textures, placed: &Placed<'_>, look: Look<'_>) {
    let Placed { run, index, rect, map } = *placed;
    let frame = shown_latent_frame(run, look);
    if let Some(map) = map {
        attention::draw(painter, textures, attention::At { index, rect, frame }, run, look, map);
    }
    if look.view.outline {
        brush::outline(painter, run, frame, rect, false);
    }
}

/// The title of a run's picture. It names the step of the map if that is an earlier one, because
/// the block was reused.
fn titled(run: &Run, look: Look<'_>, map: Option<&Overlay>) -> String {
    match map.map(|map| map.cell.step) {
        Some(step) if Some(step) != run.shown_step(look.selection.step) => {
            format!("{}, map of step {step}", run.title())
        }
        _ => run.title(),
    }
}

impl PreviewPane {
    /// The baseline left of a line, the current run right of it.
    pub fn split(&mut self, ui: &mut Ui, shared: &Shared, area: Rect) -> Option<Legend<'static>> {
        let (baseline, current) = (shared.runs.shown_baseline()?, shared.runs.current()?);
        let (both, look) = ([baseline, current], self.view.look(&shared.selection));
        let maps = attention::beside(&both, look);
        let [left, right] =
            [0, 1].map(|index| picture(ui, &mut self.textures, index, both[index], look, maps[index].is_some()));
        let (Some(left), Some(right)) = (left, right) else {
            theme::empty(ui, "Nothing to compare yet", "The two runs have no frame in common so far.");
            return None;
        };
        let rect = fit(area, left.width, left.height);
        let response = split_handle(ui, &mut self.view, rect);
        let look = self.view.look(&shared.selection);
        let x = rect.left() + rect.width() * self.view.split;
        let sides = [rect.left()..=x, x..=rect.right()].map(|side| Rect::from_x_y_ranges(side, rect.y_range()));
        for (index, texture) in [left.texture, right.texture].into_iter().enumerate() {
            // Both lie in the same place, each cut to its side.
            let painter = ui.painter_at(sides[index]);
            painter.image(texture, rect, UV, Color32::WHITE);
            let placed = Placed { run: both[index], index, rect, map: maps[index].as_ref() };
            draw_over(&painter, &mut self.textures, &placed, look);
        }
        for (width, color) in [(4.0, Color32::BLACK), (2.0, Color32::WHITE)] {
            ui.painter().vline(x, rect.y_range(), Stroke::new(width, color));
        }
        ui.painter().circle(pos2(x, rect.center().y), 8.0, Color32::WHITE, Stroke::new(2.0, Color32::BLACK));
        let names = [0, 1].map(|index| titled(both[index], look, maps[index].as_ref()));
        tag(ui, rect.left_top() + Vec2::splat(6.0), egui::Align2::LEFT_TOP, &format!("baseline {}", names[0]));
        // The other name is in the other corner, so that both find room on a small picture.
        tag(ui, rect.right_bottom() - Vec2::splat(6.0), egui::Align2::RIGHT_BOTTOM, &names[1]);
        if let Some(at) = response.hover_pos().filter(|_| !response.dragged()) {
            let index = usize::from(at.x >= x);
            let frame = shown_latent_frame(both[index], look);
            attention::hover(response, both[index], frame, look.view, maps[index].as_ref(), rect);
        }
        attention::legend(look.view, maps.iter().flatten())
    }

    /// The difference of the current run and the baseline. The end of the colours is the greatest
    /// difference in any frame, so that small differences are seen too.
    pub fn difference(&mut self, ui: &mut Ui, shared: &Shared, area: Rect) -> Option<Legend<'static>> {
        let (baseline, current) = (shared.runs.shown_baseline()?, shared.runs.current()?);
        let step = shared.selection.step;
        let (a, b) = (frames(baseline, step)?, frames(current, step)?);
        let shape = |shown: &Shown<'_>| (shown.frames.width, shown.frames.height, shown.frames.frames.len());
        if shape(&a) != shape(&b) || a.step.is_some() != b.step.is_some() {
            theme::empty(ui, "Nothing to compare yet", "The two runs have no frame in common so far.");
            return None;
        }
        let (width, height, count) = shape(&a);
        let frame = self.view.frame.min(count - 1);
        let greatest = self.greatest_difference(ClipPair::of(baseline, current), &a, &b);
        let shows = Shows::Difference { pair: ClipPair::of(baseline, current), step: b.step, frame, greatest };
        let image = || {
            let pixels = differences(&a.frames.frames[frame], &b.frames.frames[frame]);
            let share = |most: u8| f32::from(most) / f32::from(greatest.max(1));
            ColorImage::new(
                [width, height],
                pixels.map(|most| theme::mapped(Colormap::Sequential, share(most))).collect(),
            )
        };
        let id = self.textures.get(ui.ctx(), Slot::Difference, shows, TextureOptions::LINEAR, image);
        let rect = fit(area, width, height);
        let response = ui.allocate_rect(rect, Sense::hover());
        ui.painter().image(id, rect, UV, Color32::WHITE);
        theme::named(&response, Role::Image, "Difference between baseline and current run");
        let text = match greatest {
            0 => format!("{} and {} are identical in every frame", current.title(), baseline.title()),
            _ => format!(
                "{} minus {}: largest difference of a channel, of 255; the colours end at the largest of all frames",
                current.title(),
                baseline.title()
            ),
        };
        Some(Legend {
            map: Colormap::Sequential,
            text,
            range: [0.0, f32::from(greatest)],
            middle: None,
            format: Box::new(|value| format!("{value:.0}")),
        })
    }

    /// The greatest difference of a channel in all frames. It is kept until other frames are on
    /// show.
    fn greatest_difference(&mut self, pair: ClipPair, a: &Shown<'_>, b: &Shown<'_>) -> u8 {
        if let Some(known) = self.difference.filter(|known| (known.pair, known.step) == (pair, b.step)) {
            return known.greatest;
        }
        let frames = a.frames.frames.iter().zip(&b.frames.frames);
        let greatest = frames.flat_map(|(a, b)| differences(a, b)).max().unwrap_or(0);
        self.difference = Some(GreatestDifference { pair, step: b.step, greatest });
        greatest
    }

    /// The baseline, the current run and the runs that the user put beside it.
    pub fn side_by_side(&mut self, ui: &mut Ui, shared: &Shared, area: Rect) -> Option<Legend<'static>> {
        let (shown, look) = (shared.runs.shown(), self.view.look(&shared.selection));
        let maps = attention::beside(&shown, look);
        let count = shown.len().clamp(1, MOST_SHOWN);
        let aspect = shown.iter().find_map(|run| frames(run, look.step(run))).map_or(1.0, |shown| shown.aspect());
        let places = places(area, count, aspect);
        for (index, ((run, map), place)) in shown.iter().zip(&maps).zip(places).enumerate() {
            let gray = map.is_some();
            let Some(picture) = picture(ui, &mut self.textures, index, run, look, gray) else { continue };
            let rect = fit(place, picture.width, picture.height);
            let response = ui.allocate_rect(rect, Sense::hover());
            ui.painter().image(picture.texture, rect, UV, Color32::WHITE);
            let placed = Placed { run, index, rect, map: map.as_ref() };
            draw_over(ui.painter(), &mut self.textures, &placed, look);
            theme::named(&response, Role::Image, format!("Preview of run {}", run.title()));
            tag(ui, rect.left_top() + Vec2::splat(5.0), egui::Align2::LEFT_TOP, &titled(run, look, map.as_ref()));
            attention::hover(response, run, shown_latent_frame(run, look), look.view, map.as_ref(), rect);
        }
        attention::legend(look.view, maps.iter().flatten())
    }
}

/// The largest difference of a channel, pixel by pixel, of two frames in RGB.
fn differences(a: &[u8], b: &[u8]) -> impl Iterator<Item = u8> {
    let most = |(a, b): (&[u8], &[u8])| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    a.chunks_exact(3).zip(b.chunks_exact(3)).map(most)
}

/// The line between both sides: moved by the pointer or the arrow keys.
fn split_handle(ui: &mut Ui, view: &mut View, rect: Rect) -> Response {
    let response = ui.allocate_rect(rect, Sense::click_and_drag());
    if let Some(pointer) = response.interact_pointer_pos() {
        view.split = ((pointer.x - rect.left()) / rect.width()).clamp(0.0, 1.0);
    }
    if response.has_focus() {
        let by = ui.input(|input| {
            f32::from(
                i8::from(input.key_pressed(egui::Key::ArrowRight)) - i8::from(input.key_pressed(egui::Key::ArrowLeft)),
            )
        });
        view.split = (view.split + by * 0.05).clamp(0.0, 1.0);
        let filter = egui::EventFilter { horizontal_arrows: true, ..Default::default() };
        ui.memory_mut(|memory| memory.set_focus_lock_filter(response.id, filter));
    }
    let response = response.on_hover_cursor(egui::CursorIcon::ResizeHorizontal);
    response
        .widget_info(|| egui::WidgetInfo::slider(true, view.split.into(), "Split between baseline and current run"));
    response
}
