//! Pane "Preview": frames as they denoise and the clip, with attention and mask over them, beside other runs.

use std::collections::HashMap;

use egui::accesskit::Role;
use egui::{Color32, ColorImage, Pos2, Rect, Sense, Stroke, TextureHandle, TextureOptions, Ui, Vec2, pos2, vec2};

use crate::engine::Frames;
use crate::media::Colormap;

use super::attention::{self, Overlay};
use super::runs::{MOST_SHOWN, Run};
use super::state::{Action, Compare, Job, State, View, Wish};
use super::theme;
use super::{brush, legend, transport};

/// What a texture shows: a new one is made when this changes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Frame {
        run: u64,
        version: u64,
        step: Option<usize>,
        frame: usize,
    },
    Difference {
        runs: [(u64, u64); 2],
        step: Option<usize>,
        frame: usize,
    },
    Attention {
        run: u64,
        version: u64,
        of: [Option<[usize; 2]>; 2],
        branch: [bool; 2],
        frame: usize,
        opacity: u8,
        range: [u32; 2],
    },
}

/// The textures in use, one a slot.
#[derive(Default)]
pub struct Pictures(HashMap<(u8, usize), (Content, TextureHandle)>);

impl Pictures {
    /// The texture of a slot, made anew where its content changed.
    pub(super) fn get(
        &mut self,
        ctx: &egui::Context,
        slot: (u8, usize),
        content: Content,
        options: TextureOptions,
        make: impl FnOnce() -> ColorImage,
    ) -> egui::TextureId {
        if let Some((shown, texture)) = self.0.get(&slot)
            && *shown == content
        {
            return texture.id();
        }
        let texture = ctx.load_texture(format!("preview {slot:?}"), make(), options);
        let id = texture.id();
        self.0.insert(slot, (content, texture));
        id
    }
}

/// The frames of a run that the view asks for: the clip, or the estimate of a step.
pub(super) fn frames(run: &Run, step: Option<usize>) -> Option<(&Frames, Option<usize>)> {
    let usable = |frames: &&Frames| !frames.frames.is_empty();
    let clip = run.capture.clip.as_ref().filter(usable).map(|clip| (clip, None));
    let upto = |limit: usize| {
        let steps = run.capture.steps.iter().rev().filter(|record| record.step <= limit);
        steps.filter_map(|record| Some((record.preview.as_ref().filter(usable)?, Some(record.step)))).next()
    };
    match step {
        Some(step) => upto(step).or(clip),
        None => clip.or_else(|| upto(usize::MAX)),
    }
}

/// The frame of the token grid that a frame of the clip comes from: the first one has its own, later ones come in groups.
pub(super) fn latent_frame(frame: usize, frames: usize, latent_frames: usize) -> usize {
    let last = latent_frames.saturating_sub(1);
    if frames <= latent_frames { frame.min(last) } else { (frame * last).div_ceil(frames - 1).min(last) }
}

/// Draws the pane.
pub fn ui(ui: &mut Ui, state: &mut State) {
    let run = state.runs.current();
    let Some((run, (shown, step))) = run.and_then(|run| Some((run, frames(run, state.view.step)?))) else {
        let (title, text) = waiting(ui.ctx(), &state.job, run.map(|run| run.live));
        theme::empty(ui, &title, text);
        return;
    };
    let count = shown.frames.len();
    let fps =
        f64::from(run.capture.run.fps.clamp(1, 240)) * count as f64 / run.capture.run.num_frames.max(count) as f64;
    state.view.frame = state.view.frame.min(count - 1);
    controls(ui, state, step);
    if state.brush.on {
        brush::controls(ui, state);
    }
    egui::Panel::bottom("preview transport")
        .frame(egui::Frame::NONE)
        .show_separator_line(false)
        .show(ui, |ui| transport::ui(ui, state, count, fps));
    pictures(ui, state);
}

/// What to say where there is no picture: of no run, or of one that is live or not. The seconds tell that something goes on while the
/// model loads and the first step compiles, which can take long.
fn waiting(ctx: &egui::Context, job: &Job, live: Option<bool>) -> (String, &'static str) {
    let (title, text) = match (job, live) {
        (_, Some(false)) => {
            ("This run has no pictures", "It ended before its first step, or was recorded without previews.")
        }
        (Job::Idle, _) => ("No run yet", "Press Generate above, or drop a capture file on the window."),
        (_, None) => ("Loading the model and encoding the prompt", "The first estimate appears after the first step."),
        (_, Some(true)) => (
            "Computing the first step",
            "Its estimate appears here. In a first run the driver compiles the shaders meanwhile.",
        ),
    };
    let Job::Running { since, wish: Wish::GoOn, .. } = job else { return (title.into(), text) };
    ctx.request_repaint_after_secs(1.0);
    match since.elapsed().as_secs() {
        seconds @ 1.. if live != Some(false) => (format!("{title}: {seconds} s"), text),
        _ => (title.into(), text),
    }
}

/// Below this width, in points, controls that are elsewhere too are left out.
const NARROW: f32 = 520.0;

fn controls(ui: &mut Ui, state: &mut State, step: Option<usize>) {
    let several = state.runs.shown().len() > 1;
    let has_clip = state.runs.current().is_some_and(|run| run.capture.clip.is_some());
    let narrow = ui.available_width() < NARROW;
    // A row of its own where there is much to set.
    let attends = state.view.pinned.is_some() || attention::selected(state).is_some() || state.view.paid;
    let below = narrow || attends;
    ui.horizontal_wrapped(|ui| {
        let view = &mut state.view;
        if has_clip && ui.selectable_label(step.is_none(), "Clip").clicked() {
            view.step = None;
        }
        match step {
            Some(step) => ui.label(format!("estimate after step {step}")),
            None => ui.label("the decoded frames"),
        };
        if several {
            compare_controls(ui, state, narrow);
        }
        if !below {
            mask_controls(ui, state);
        }
        let tip = "MP4, APNG, GIF or PNG frames";
        if has_clip && !narrow && ui.button("Save clip...").on_hover_text(tip).clicked() {
            state.actions.push(Action::SaveClip);
        }
    });
    if !below {
        return;
    }
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().slider_width = if narrow { 60.0 } else { 110.0 };
        attention_controls(ui, state);
        mask_controls(ui, state);
    });
}

/// How runs are compared: in a row of buttons, or in a list where there is no room for it.
fn compare_controls(ui: &mut Ui, state: &mut State, narrow: bool) {
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

fn mask_controls(ui: &mut Ui, state: &mut State) {
    let run = state.runs.current();
    let (has_mask, tokens) = run.map_or((false, 0), |run| (run.mask().is_some(), run.capture.run.tokens()));
    if has_mask {
        ui.checkbox(&mut state.view.outline, "Mask outline");
    }
    if tokens == 0 {
        return;
    }
    let tip = "Paint the foreground by hand; block scores follow at once, without running again";
    if ui.add(egui::Button::selectable(state.brush.on, "Paint mask")).on_hover_text(tip).clicked() {
        state.brush.on = !state.brush.on;
        state.view.compare = Compare::Single;
    }
}

/// Opacity and kind of the attention, and what it is compared with.
fn attention_controls(ui: &mut Ui, state: &mut State) {
    let selected = attention::selected(state).map(|map| [map.step, map.block]);
    let paid = attention::has_paid(state);
    let view = &mut state.view;
    if !paid && view.paid {
        view.paid = false;
    }
    if selected.is_none() && view.pinned.is_none() && !view.paid {
        return;
    }
    let label = ui.label("Attention");
    let slider = egui::Slider::new(&mut view.opacity, 0.0..=1.0).show_value(false);
    ui.add(slider).labelled_by(label.id).on_hover_text("Opacity of the attention map over the frame");
    if paid {
        ui.selectable_value(&mut view.paid, false, "received").on_hover_text("Self-attention that a token receives");
        let tip = "Cross-attention that a token pays to the words of the prompt's subject";
        ui.selectable_value(&mut view.paid, true, "to subject").on_hover_text(tip);
    }
    let pinned = view.pinned;
    let tip = "Keep this cell's map on show and click another cell of the map to compare";
    if ui
        .add_enabled(selected.is_some() || pinned.is_some(), egui::Button::selectable(pinned.is_some(), "Pin cell"))
        .on_hover_text(tip)
        .clicked()
    {
        view.pinned = if pinned.is_some() { None } else { selected };
    }
    if pinned.is_some() {
        ui.checkbox(&mut view.minus_pinned, "Minus pinned")
            .on_hover_text("The selected cell's map minus the pinned one's");
    }
}

/// The largest rectangle of a picture's shape in the middle of another.
fn fit(area: Rect, width: usize, height: usize) -> Rect {
    let scale = (area.width() / width.max(1) as f32).min(area.height() / height.max(1) as f32).max(0.0);
    Rect::from_center_size(area.center(), vec2(width as f32 * scale, height as f32 * scale))
}

fn color_image(frames: &Frames, frame: usize) -> ColorImage {
    ColorImage::from_rgb([frames.width, frames.height], &frames.frames[frame])
}

/// A picture of a run in a slot, or `None` where it has no such frame.
fn picture(
    ui: &Ui,
    pictures: &mut Pictures,
    slot: usize,
    run: &Run,
    view: &View,
) -> Option<(egui::TextureId, usize, usize)> {
    let (shown, step) = frames(run, view.step)?;
    let frame = view.frame.min(shown.frames.len() - 1);
    let content = Content::Frame { run: run.id, version: if step.is_some() { 0 } else { run.version }, step, frame };
    let id = pictures.get(ui.ctx(), (0, slot), content, TextureOptions::LINEAR, || color_image(shown, frame));
    Some((id, shown.width, shown.height))
}

fn pictures(ui: &mut Ui, state: &mut State) {
    let area = ui.available_rect_before_wrap().shrink2(vec2(0.0, 2.0));
    if area.width() < 20.0 || area.height() < 20.0 {
        return;
    }
    let compare = match state.view.compare {
        Compare::Split | Compare::Difference if state.runs.comparable().is_none() => Compare::Single,
        other => other,
    };
    match compare {
        Compare::Single => single(ui, state, area),
        Compare::Split => split(ui, state, area),
        Compare::Difference => difference(ui, state, area),
        Compare::SideBySide => side_by_side(ui, state, area),
    }
}

/// All of a texture.
pub(super) const UV: Rect = Rect { min: Pos2::ZERO, max: pos2(1.0, 1.0) };

/// The current run alone, with what lies over it; twice where two cells are compared.
fn single(ui: &mut Ui, state: &mut State, area: Rect) {
    let maps = if state.view.opacity > 0.0 { attention::overlays(state) } else { Vec::new() };
    let (area, below) = if maps.is_empty() { (area, area) } else { area.split_top_bottom_at_y(area.bottom() - 34.0) };
    let Some((step, count)) = state.runs.current().and_then(|run| {
        let (shown, _) = frames(run, state.view.step)?;
        Some((state.shown_step(), shown.frames.len()))
    }) else {
        return;
    };
    let number = maps.len().max(1);
    let across = area.width() >= area.height();
    let size = if across {
        vec2(area.width() / number as f32, area.height())
    } else {
        vec2(area.width(), area.height() / number as f32)
    };
    for index in 0..number {
        let at = area.min + if across { vec2(size.x * index as f32, 0.0) } else { vec2(0.0, size.y * index as f32) };
        let place = Rect::from_min_size(at, size).shrink(if number > 1 { 3.0 } else { 0.0 });
        one(ui, state, index, place, maps.get(index), [step.unwrap_or(0), count]);
        if number > 1
            && let Some(map) = maps.get(index)
        {
            tag(ui, place.left_top() + Vec2::splat(5.0), egui::Align2::LEFT_TOP, &map.title);
        }
    }
    attention::show_legend(ui, &state.view, &maps, below);
}

/// One picture of the current run.
fn one(ui: &mut Ui, state: &mut State, index: usize, place: Rect, map: Option<&Overlay>, [step, count]: [usize; 2]) {
    let State { runs, view, pictures, brush, .. } = state;
    let Some(run) = runs.current() else { return };
    let Some((id, width, height)) = picture(ui, pictures, index, run, view) else { return };
    let rect = fit(place, width, height);
    let painting = brush.on;
    let response = ui.allocate_rect(rect, if painting { Sense::click_and_drag() } else { Sense::hover() });
    ui.painter().image(id, rect, UV, Color32::WHITE);
    let frame = latent_frame(view.frame, count, run.capture.run.token_grid[0]);
    if let Some(map) = map {
        attention::draw(ui, pictures, (index, rect), run, view, frame, map);
    }
    if view.outline || painting {
        brush::outline(ui, run, frame, rect, painting);
    }
    let mut name = format!("Preview of run {}, frame {}", run.title(), view.frame + 1);
    if painting {
        let at = brush.cursor.map_or(String::new(), |[row, column]| format!(", brush at row {row}, column {column}"));
        name = format!("Mask of run {} to paint on, step {step}, latent frame {frame}{at}", run.title());
    }
    theme::named(&response, if painting { Role::Canvas } else { Role::Image }, name);
    if painting {
        brush::paint(ui, state, frame, rect, &response);
    } else {
        attention::hover(response, run, frame, view, map, rect);
    }
}

/// A name on a picture.
fn tag(ui: &Ui, at: Pos2, align: egui::Align2, text: &str) {
    let font = egui::FontId::proportional(12.0);
    let galley = ui.painter().layout_no_wrap(text.into(), font, Color32::WHITE);
    let rect = align.anchor_size(at, galley.size() + Vec2::splat(8.0));
    ui.painter().rect_filled(rect, 3.0, Color32::from_black_alpha(190));
    ui.painter().galley(rect.min + Vec2::splat(4.0), galley, Color32::WHITE);
}

fn split(ui: &mut Ui, state: &mut State, area: Rect) {
    let State { runs, view, pictures, .. } = state;
    let Some((baseline, current)) = runs.comparable() else { return };
    let (left, right) = (picture(ui, pictures, 0, baseline, view), picture(ui, pictures, 1, current, view));
    let (Some((left, width, height)), Some((right, ..))) = (left, right) else {
        theme::empty(ui, "Nothing to compare yet", "The two runs have no frame in common so far.");
        return;
    };
    let rect = fit(area, width, height);
    let mut response = ui.allocate_rect(rect, Sense::click_and_drag());
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
    response = response.on_hover_cursor(egui::CursorIcon::ResizeHorizontal);
    response
        .widget_info(|| egui::WidgetInfo::slider(true, view.split.into(), "Split between baseline and current run"));
    let x = rect.left() + rect.width() * view.split;
    let part = |from: f32, to: f32| {
        let place =
            Rect::from_x_y_ranges(rect.left() + rect.width() * from..=rect.left() + rect.width() * to, rect.y_range());
        (place, Rect::from_min_max(pos2(from, 0.0), pos2(to, 1.0)))
    };
    let ((left_rect, left_uv), (right_rect, right_uv)) = (part(0.0, view.split), part(view.split, 1.0));
    ui.painter().image(left, left_rect, left_uv, Color32::WHITE);
    ui.painter().image(right, right_rect, right_uv, Color32::WHITE);
    for (width, color) in [(4.0, Color32::BLACK), (2.0, Color32::WHITE)] {
        ui.painter().vline(x, rect.y_range(), Stroke::new(width, color));
    }
    ui.painter().circle(pos2(x, rect.center().y), 8.0, Color32::WHITE, Stroke::new(2.0, Color32::BLACK));
    tag(ui, rect.left_top() + Vec2::splat(6.0), egui::Align2::LEFT_TOP, &format!("baseline {}", baseline.title()));
    tag(ui, rect.right_top() + vec2(-6.0, 6.0), egui::Align2::RIGHT_TOP, &current.title());
}

/// Largest difference of a channel that the colours tell apart.
const DIFFERENCE_TOP: f32 = 64.0;

fn difference(ui: &mut Ui, state: &mut State, area: Rect) {
    let (area, below) = area.split_top_bottom_at_y(area.bottom() - 34.0);
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

fn side_by_side(ui: &mut Ui, state: &mut State, area: Rect) {
    let State { runs, view, pictures, .. } = state;
    let shown = runs.shown();
    let count = shown.len().clamp(1, MOST_SHOWN);
    let columns = if area.width() / area.height() > 1.2 || count <= 2 { count } else { 2 };
    let rows = count.div_ceil(columns);
    let size = vec2(area.width() / columns as f32, area.height() / rows as f32);
    for (index, run) in shown.iter().enumerate() {
        let at = area.min + vec2((index % columns) as f32 * size.x, (index / columns) as f32 * size.y);
        let Some((id, width, height)) = picture(ui, pictures, index, run, view) else { continue };
        let rect = fit(Rect::from_min_size(at, size).shrink(3.0), width, height);
        let response = ui.allocate_rect(rect, Sense::hover());
        ui.painter().image(id, rect, UV, Color32::WHITE);
        theme::named(&response, Role::Image, format!("Preview of run {}", run.title()));
        tag(ui, rect.left_top() + Vec2::splat(5.0), egui::Align2::LEFT_TOP, &run.title());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_clip_find_their_latent_frame() {
        let found: Vec<usize> = (0..17).map(|frame| latent_frame(frame, 17, 5)).collect();
        assert_eq!(found, [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]);
        assert_eq!((0..5).map(|frame| latent_frame(frame, 5, 5)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!((latent_frame(0, 1, 1), latent_frame(9, 3, 0), latent_frame(7, 8, 1)), (0, 0, 0));
    }

    #[test]
    fn what_is_waited_for_is_said_with_its_seconds() {
        let begun = std::time::Instant::now().checked_sub(std::time::Duration::from_secs(3)).unwrap();
        let job = |wish| Job::Running { run: None, stage: None, wish, since: begun };
        let title = |job: &Job, live| waiting(&egui::Context::default(), job, live).0;
        assert_eq!(title(&job(Wish::GoOn), None), "Loading the model and encoding the prompt: 3 s");
        assert_eq!(title(&job(Wish::GoOn), Some(true)), "Computing the first step: 3 s");
        assert_eq!(title(&job(Wish::Pause), Some(true)), "Computing the first step");
        assert_eq!(title(&job(Wish::GoOn), Some(false)), "This run has no pictures");
        assert_eq!(title(&Job::Idle, None), "No run yet");
    }

    #[test]
    fn pictures_keep_their_shape() {
        let area = Rect::from_min_size(pos2(10.0, 10.0), vec2(200.0, 100.0));
        assert_eq!(fit(area, 64, 64).size(), vec2(100.0, 100.0));
        assert_eq!(fit(area, 0, 0).size(), Vec2::ZERO);
    }
}
