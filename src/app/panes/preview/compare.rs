//! Part of pane "Preview": several runs at once, by a line that can be moved, by what differs, or side by side. Each has its own map of
//! the selected block over it, with colours in common, and its own mask.

use egui::accesskit::Role;
use egui::{Color32, ColorImage, Painter, Pos2, Rect, Response, Sense, Stroke, TextureOptions, Ui, Vec2, pos2, vec2};

use crate::media::Colormap;

use crate::app::data::runs::{MOST_SHOWN, Run};
use crate::app::data::state::{Compare, State, View};
use crate::app::draw::legend;
use crate::app::draw::theme;
use crate::app::panes::preview::attention::{self, Overlay};
use crate::app::panes::preview::brush;
use crate::app::panes::preview::{Content, LEGEND, Pictures, UV, fit, frames, picture, shown_latent_frame};

/// How runs are compared: as the view wants it, where there is something to compare with.
pub(in crate::app) fn mode(state: &State) -> Compare {
    match state.view.compare {
        Compare::Split | Compare::Difference if state.runs.comparable().is_none() => Compare::Single,
        other => other,
    }
}

/// How runs are compared: in a row of buttons, or in a list where there is no room for it.
pub(in crate::app) fn controls(ui: &mut Ui, state: &mut State, narrow: bool) {
    let comparable = state.runs.comparable().is_some();
    let mode = &mut state.view.compare;
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
        ui.separator();
        return buttons(ui, mode);
    }
    let name = modes.iter().find(|(each, ..)| each == mode).map_or("", |(_, text, _)| text);
    let list = egui::ComboBox::from_id_salt("compare").selected_text(name).width(90.0);
    let response = list.show_ui(ui, |ui| buttons(ui, mode)).response;
    theme::named(&response, Role::ComboBox, format!("Compare runs: {name}"));
}

/// A name on a picture.
pub(in crate::app) fn tag(ui: &Ui, at: Pos2, align: egui::Align2, text: &str) {
    let font = egui::FontId::proportional(12.0);
    let galley = ui.painter().layout_no_wrap(text.into(), font, Color32::WHITE);
    let rect = align.anchor_size(at, galley.size() + Vec2::splat(8.0));
    ui.painter().rect_filled(rect, 3.0, Color32::from_black_alpha(190));
    ui.painter().galley(rect.min + Vec2::splat(4.0), galley, Color32::WHITE);
}

/// What lies over a run's picture, which has a texture slot and a place: its map and the outline of its mask.
fn over(
    painter: &Painter,
    pictures: &mut Pictures,
    place: (usize, Rect),
    run: &Run,
    view: &View,
    map: Option<&Overlay>,
) {
    let frame = shown_latent_frame(run, view);
    if let Some(map) = map {
        attention::draw(painter, pictures, place, run, view, frame, map);
    }
    if view.outline {
        brush::outline(painter, run, frame, place.1, false);
    }
}

/// What a run's picture is called; with the step of its map where a block that was reused has that of an earlier one.
fn titled(run: &Run, view: &View, map: Option<&Overlay>) -> String {
    match map.and_then(|map| map.of[0]) {
        Some([step, _]) if Some(step) != run.shown_step(view.step) => format!("{}, map of step {step}", run.title()),
        _ => run.title(),
    }
}

/// The maps of the selected block, one a run, and the area that their legend leaves.
fn maps(runs: &[&Run], view: &View, area: Rect) -> (Vec<Option<Overlay>>, Rect, Rect) {
    let maps = attention::beside(runs, view);
    let (area, below) = match maps.iter().any(Option::is_some) {
        true => area.split_top_bottom_at_y(area.bottom() - LEGEND),
        false => (area, area),
    };
    (maps, area, below)
}

/// The baseline left of a line, the current run right of it.
pub(in crate::app) fn split(ui: &mut Ui, state: &mut State, area: Rect) {
    let State { runs, view, pictures, .. } = state;
    let Some((baseline, current)) = runs.comparable() else { return };
    let both = [baseline, current];
    let (maps, area, below) = maps(&both, view, area);
    let (left, right) = (picture(ui, pictures, 0, baseline, view), picture(ui, pictures, 1, current, view));
    let (Some((left, width, height)), Some((right, ..))) = (left, right) else {
        theme::empty(ui, "Nothing to compare yet", "The two runs have no frame in common so far.");
        return;
    };
    let rect = fit(area, width, height);
    let response = split_handle(ui, view, rect);
    let x = rect.left() + rect.width() * view.split;
    let sides = [rect.left()..=x, x..=rect.right()].map(|side| Rect::from_x_y_ranges(side, rect.y_range()));
    for (index, texture) in [left, right].into_iter().enumerate() {
        // The same place for both, so that they lie over each other, each cut to its side.
        let painter = ui.painter_at(sides[index]);
        painter.image(texture, rect, UV, Color32::WHITE);
        over(&painter, pictures, (index, rect), both[index], view, maps[index].as_ref());
    }
    for (width, color) in [(4.0, Color32::BLACK), (2.0, Color32::WHITE)] {
        ui.painter().vline(x, rect.y_range(), Stroke::new(width, color));
    }
    ui.painter().circle(pos2(x, rect.center().y), 8.0, Color32::WHITE, Stroke::new(2.0, Color32::BLACK));
    let names = [0, 1].map(|index| titled(both[index], view, maps[index].as_ref()));
    tag(ui, rect.left_top() + Vec2::splat(6.0), egui::Align2::LEFT_TOP, &format!("baseline {}", names[0]));
    // In the other corner: both find room on a small picture.
    tag(ui, rect.right_bottom() - Vec2::splat(6.0), egui::Align2::RIGHT_BOTTOM, &names[1]);
    if let Some(at) = response.hover_pos().filter(|_| !response.dragged()) {
        let index = usize::from(at.x >= x);
        let frame = shown_latent_frame(both[index], view);
        attention::hover(response, both[index], frame, view, maps[index].as_ref(), rect);
    }
    attention::show_legend(ui, view, maps.iter().flatten(), below);
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

/// Largest difference of a channel that the colours tell apart.
const DIFFERENCE_TOP: f32 = 64.0;

pub(in crate::app) fn difference(ui: &mut Ui, state: &mut State, area: Rect) {
    let (area, below) = area.split_top_bottom_at_y(area.bottom() - LEGEND);
    let State { runs, view, pictures, .. } = state;
    let Some((baseline, current)) = runs.comparable() else { return };
    let (Some((a, step_a)), Some((b, step_b))) = (frames(baseline, view.step), frames(current, view.step)) else {
        return;
    };
    let alike = (a.width, a.height, a.frames.len()) == (b.width, b.height, b.frames.len());
    if !alike || step_a.is_some() != step_b.is_some() {
        theme::empty(ui, "Nothing to compare yet", "The two runs have no frame in common so far.");
        return;
    }
    let frame = view.frame.min(a.frames.len() - 1);
    let runs = [(baseline.id, baseline.version), (current.id, current.version)];
    let content = Content::Difference { runs, step: step_b, frame };
    let id = pictures.get(ui.ctx(), (2, 0), content, TextureOptions::LINEAR, || {
        let pairs = a.frames[frame].chunks_exact(3).zip(b.frames[frame].chunks_exact(3));
        let most = |(a, b): (&[u8], &[u8])| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        let pixels = pairs.map(|pair| theme::mapped(Colormap::Sequential, f32::from(most(pair)) / DIFFERENCE_TOP));
        ColorImage::new([a.width, a.height], pixels.collect())
    });
    let rect = fit(area, a.width, a.height);
    let response = ui.allocate_rect(rect, Sense::hover());
    ui.painter().image(id, rect, UV, Color32::WHITE);
    theme::named(&response, Role::Image, "Difference between baseline and current run");
    let text = format!("{} minus {}: largest difference of a channel, of 255", current.title(), baseline.title());
    let format =
        |value: f32| if value >= DIFFERENCE_TOP { format!("{value:.0} and more") } else { format!("{value:.0}") };
    legend::bar(ui, below.shrink2(vec2(4.0, 0.0)), Colormap::Sequential, &text, [0.0, DIFFERENCE_TOP], &format);
}

/// The baseline, the current run and those that the user put beside it.
pub(in crate::app) fn side_by_side(ui: &mut Ui, state: &mut State, area: Rect) {
    let State { runs, view, pictures, .. } = state;
    let shown = runs.shown();
    let (maps, area, below) = maps(&shown, view, area);
    let count = shown.len().clamp(1, MOST_SHOWN);
    let columns = if area.width() / area.height() > 1.2 || count <= 2 { count } else { 2 };
    let rows = count.div_ceil(columns);
    let size = vec2(area.width() / columns as f32, area.height() / rows as f32);
    for (index, (run, map)) in shown.iter().zip(&maps).enumerate() {
        let at = area.min + vec2((index % columns) as f32 * size.x, (index / columns) as f32 * size.y);
        let Some((id, width, height)) = picture(ui, pictures, index, run, view) else { continue };
        let rect = fit(Rect::from_min_size(at, size).shrink(3.0), width, height);
        let response = ui.allocate_rect(rect, Sense::hover());
        ui.painter().image(id, rect, UV, Color32::WHITE);
        over(ui.painter(), pictures, (index, rect), run, view, map.as_ref());
        theme::named(&response, Role::Image, format!("Preview of run {}", run.title()));
        tag(ui, rect.left_top() + Vec2::splat(5.0), egui::Align2::LEFT_TOP, &titled(run, view, map.as_ref()));
        attention::hover(response, run, shown_latent_frame(run, view), view, map.as_ref(), rect);
    }
    attention::show_legend(ui, view, maps.iter().flatten(), below);
}
