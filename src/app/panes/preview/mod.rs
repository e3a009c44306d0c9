//! Pane "Preview": frames as they denoise and the clip, with attention and mask over them, beside other runs.

pub mod attention;
pub mod brush;
pub mod compare;
pub mod transport;

use std::collections::HashMap;

use egui::accesskit::Role;
use egui::{Color32, ColorImage, Pos2, Rect, Sense, TextureHandle, TextureOptions, Ui, Vec2, pos2, vec2};

use crate::engine::{Frames, limits};

use crate::app::data::runs::Run;
use crate::app::data::state::{Action, Compare, Job, State, View};
use crate::app::draw::theme;
use crate::app::panes::preview::attention::Overlay;

/// What a texture shows: a new one is made when this changes.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::app) enum Content {
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
    pub(in crate::app) fn get(
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
pub(in crate::app) fn frames(run: &Run, step: Option<usize>) -> Option<(&Frames, Option<usize>)> {
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
pub(in crate::app) fn latent_frame(frame: usize, frames: usize, latent_frames: usize) -> usize {
    let last = latent_frames.saturating_sub(1);
    if frames <= latent_frames { frame.min(last) } else { (frame * last).div_ceil(frames - 1).min(last) }
}

/// Draws the pane.
pub fn ui(ui: &mut Ui, state: &mut State) {
    let run = state.runs.current();
    let Some((run, (shown, step))) = run.and_then(|run| Some((run, frames(run, state.view.step)?))) else {
        let (title, text) = waiting(&state.job, run.map(|run| run.live), state.ready());
        theme::empty(ui, &title, &text);
        return;
    };
    let count = shown.frames.len();
    let fps = f64::from(run.capture.run.clip.fps.clamp(1, limits::MOST_FPS)) * count as f64
        / run.capture.run.clip.num_frames.max(count) as f64;
    state.view.frame = state.view.frame.min(count - 1);
    controls(ui, state, step);
    if state.brush.on && compare::mode(state) == Compare::Single {
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
fn waiting(job: &Job, live: Option<bool>, ready: Result<(), String>) -> (String, String) {
    let (title, text) = match (job, live) {
        (_, Some(false)) => {
            ("This run has no pictures", "It ended before its first step, or was recorded without previews.")
        }
        (Job::Idle, _) => {
            let text = match ready {
                Ok(()) => "Press Generate above, or drop a capture file on the window.".into(),
                Err(why) => format!("{why} Or drop a capture file on the window."),
            };
            return ("No run yet".into(), text);
        }
        (_, None) => ("Loading the model and encoding the prompt", "The first estimate appears after the first step."),
        (_, Some(true)) => (
            "Computing the first step",
            "Its estimate appears here. In a first run the driver compiles the shaders meanwhile.",
        ),
    };
    let title = match job.seconds().filter(|_| live != Some(false)) {
        Some(seconds) => format!("{title}: {seconds} s"),
        None => title.into(),
    };
    (title, text.into())
}

/// Below this width, in points, controls that are elsewhere too are left out.
const NARROW: f32 = 520.0;

fn controls(ui: &mut Ui, state: &mut State, step: Option<usize>) {
    let several = state.runs.shown().len() > 1;
    let has_clip = state.runs.current().is_some_and(|run| run.capture.clip.is_some());
    let narrow = ui.available_width() < NARROW;
    let mode = compare::mode(state);
    // A row of its own where there is much to set.
    let attends = state.view.pinned.is_some() || attention::selected(state).is_some() || state.view.paid;
    let attends = attends && mode != Compare::Difference;
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
            compare::controls(ui, state, narrow);
        }
        if !below {
            mask_controls(ui, state, mode);
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
        // What differs has neither a map nor a mask.
        if mode != Compare::Difference {
            attention_controls(ui, state, mode);
        }
        mask_controls(ui, state, mode);
    });
}

fn mask_controls(ui: &mut Ui, state: &mut State, mode: Compare) {
    let run = state.runs.current();
    let (has_mask, tokens) = run.map_or((false, 0), |run| (run.mask().is_some(), run.capture.run.tokens()));
    if has_mask && mode != Compare::Difference {
        ui.checkbox(&mut state.view.outline, "Mask outline");
    }
    if tokens == 0 {
        return;
    }
    let tip = "Paint the foreground by hand; block scores follow at once, without running again";
    let painting = state.brush.on && mode == Compare::Single;
    if ui.add(egui::Button::selectable(painting, "Paint mask")).on_hover_text(tip).clicked() {
        state.brush.on = !painting;
        state.view.compare = Compare::Single;
    }
}

/// Opacity and kind of the attention, and what it is compared with.
fn attention_controls(ui: &mut Ui, state: &mut State, mode: Compare) {
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
    // Two cells of one run beside each other: not beside other runs as well.
    if mode == Compare::Single {
        pin_controls(ui, view, selected);
    }
}

fn pin_controls(ui: &mut Ui, view: &mut View, selected: Option<[usize; 2]>) {
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
pub(in crate::app) fn fit(area: Rect, width: usize, height: usize) -> Rect {
    let scale = (area.width() / width.max(1) as f32).min(area.height() / height.max(1) as f32).max(0.0);
    Rect::from_center_size(area.center(), vec2(width as f32 * scale, height as f32 * scale))
}

fn color_image(frames: &Frames, frame: usize) -> ColorImage {
    ColorImage::from_rgb([frames.width, frames.height], &frames.frames[frame])
}

/// A picture of a run in a slot, or `None` where it has no such frame.
pub(in crate::app) fn picture(
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
    match compare::mode(state) {
        Compare::Single => single(ui, state, area),
        Compare::Split => compare::split(ui, state, area),
        Compare::Difference => compare::difference(ui, state, area),
        Compare::SideBySide => compare::side_by_side(ui, state, area),
    }
}

/// The frame of a run's token grid that the frame on show comes from.
pub(in crate::app) fn shown_latent_frame(run: &Run, view: &View) -> usize {
    let count = frames(run, view.step).map_or(0, |(shown, _)| shown.frames.len());
    latent_frame(view.frame.min(count.saturating_sub(1)), count, run.capture.run.token_grid[0])
}

/// Height of a legend below the pictures.
pub(in crate::app) const LEGEND: f32 = 34.0;

/// All of a texture.
pub(in crate::app) const UV: Rect = Rect { min: Pos2::ZERO, max: pos2(1.0, 1.0) };

/// The current run alone, with what lies over it; twice where two cells are compared.
fn single(ui: &mut Ui, state: &mut State, area: Rect) {
    let maps = if state.view.opacity > 0.0 { attention::overlays(state) } else { Vec::new() };
    let (area, below) = if maps.is_empty() { (area, area) } else { area.split_top_bottom_at_y(area.bottom() - LEGEND) };
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
        one(ui, state, index, place, maps.get(index));
        if number > 1
            && let Some(map) = maps.get(index)
        {
            compare::tag(ui, place.left_top() + Vec2::splat(5.0), egui::Align2::LEFT_TOP, &map.title);
        }
    }
    attention::show_legend(ui, &state.view, maps.iter(), below);
}

/// One picture of the current run.
fn one(ui: &mut Ui, state: &mut State, index: usize, place: Rect, map: Option<&Overlay>) {
    let step = state.shown_step().unwrap_or(0);
    let State { runs, view, pictures, brush, .. } = state;
    let Some(run) = runs.current() else { return };
    let Some((id, width, height)) = picture(ui, pictures, index, run, view) else { return };
    let rect = fit(place, width, height);
    let painting = brush.on;
    let response = ui.allocate_rect(rect, if painting { Sense::click_and_drag() } else { Sense::hover() });
    ui.painter().image(id, rect, UV, Color32::WHITE);
    let frame = shown_latent_frame(run, view);
    if let Some(map) = map {
        attention::draw(ui.painter(), pictures, (index, rect), run, view, frame, map);
    }
    if view.outline || painting {
        brush::outline(ui.painter(), run, frame, rect, painting);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::data::state::Wish;

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
        let job = |wish| Job::Running { run: None, stage: None, wish, since: begun, held: None };
        let title = |job: &Job, live| waiting(job, live, Ok(())).0;
        assert_eq!(title(&job(Wish::GoOn), None), "Loading the model and encoding the prompt: 3 s");
        assert_eq!(title(&job(Wish::GoOn), Some(true)), "Computing the first step: 3 s");
        assert_eq!(title(&job(Wish::Pause), Some(true)), "Computing the first step");
        assert_eq!(title(&job(Wish::GoOn), Some(false)), "This run has no pictures");
        assert_eq!(title(&Job::Idle, None), "No run yet");
        let why = waiting(&Job::Idle, None, Err("Choose a model first.".into())).1;
        assert!(why.starts_with("Choose a model first.") && !why.contains("Generate"), "{why}");
    }

    #[test]
    fn pictures_keep_their_shape() {
        let area = Rect::from_min_size(pos2(10.0, 10.0), vec2(200.0, 100.0));
        assert_eq!(fit(area, 64, 64).size(), vec2(100.0, 100.0));
        assert_eq!(fit(area, 0, 0).size(), Vec2::ZERO);
    }
}
