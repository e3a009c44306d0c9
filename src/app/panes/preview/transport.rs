//! The row over the lower edge of the pictures: plays and chooses frames of the clip, or the steps
//! that made it.

use egui::Ui;
use egui::accesskit::Role;

use super::view::View;
use crate::app::actions::Actions;
use crate::app::data::shared::Shared;
use crate::app::draw::theme;

/// Number of steps that are played in a second.
const STEPS_A_SECOND: f64 = 5.0;

/// The least width, in points, of a slider with its name and value. With less room they have a row
/// of their own.
const SLIDER: f32 = 130.0;

/// The frames that can be played.
#[derive(Clone, Copy)]
pub struct Clip {
    /// Number of frames.
    pub count: usize,
    /// Frames a second.
    pub fps: f64,
}

/// Draws the row.
pub fn ui(ui: &mut Ui, view: &mut View, shared: &Shared, actions: &mut Actions, Clip { count, fps }: Clip) {
    let run = shared.runs.current();
    let steps: Vec<usize> = run.map(|run| run.capture.steps.iter().map(|step| step.step).collect()).unwrap_or_default();
    let through_steps = view.through_steps && steps.len() > 1;
    let many = if through_steps { steps.len() } else { count };
    let at = if through_steps { place(&steps, shared.shown_step()) } else { view.frame };
    let rate = if through_steps { STEPS_A_SECOND } else { fps };
    let next = go_on(ui, view, at, many, rate);
    ui.add_space(4.0);
    let slide = |ui: &mut Ui| {
        let label = ui.label(if through_steps { "Step" } else { "Frame" });
        ui.spacing_mut().slider_width = (ui.available_width() - 90.0).max(36.0);
        if through_steps { slider(ui, at, &steps, label.id) } else { frame_slider(ui, at, count, label.id) }
    };
    let (restart, slid) = ui
        .horizontal(|ui| {
            let restart = play_button(ui, view, at, many);
            ui.checkbox(&mut view.looping, "Loop");
            if steps.len() > 1 {
                let tip = "Play and choose frames of the clip";
                kind_button(ui, view, false, "by frame", tip);
                let tip = "Play and choose denoising steps: the picture and its attention as they formed";
                kind_button(ui, view, true, "by step", tip);
            }
            let room = ui.available_width() >= SLIDER;
            (restart, room.then(|| slide(ui)))
        })
        .inner;
    let slid = slid.unwrap_or_else(|| ui.horizontal(slide).inner);
    view.playing &= slid.is_none();
    match slid.or(restart).or(next) {
        Some(to) if through_steps => {
            let step = steps.get(to).copied();
            actions.select(move |selection| selection.step = step);
        }
        Some(to) => view.frame = to,
        None => {}
    }
}

/// The button that chooses between frames and steps.
fn kind_button(ui: &mut Ui, view: &mut View, steps: bool, text: &str, tip: &str) {
    if ui.selectable_label(view.through_steps == steps, text).on_hover_text(tip).clicked() {
        view.through_steps = steps;
    }
}

fn place(steps: &[usize], shown: Option<usize>) -> usize {
    steps.iter().position(|step| Some(*step) == shown).unwrap_or(0)
}

/// The next frame or step while it plays. Asks for a repaint when that is due.
fn go_on(ui: &Ui, view: &mut View, at: usize, count: usize, rate: f64) -> Option<usize> {
    if !view.playing || count < 2 {
        return None;
    }
    let now = ui.input(|input| input.time);
    ui.ctx().request_repaint_after_secs((1.0 / rate) as f32);
    if (now - view.frame_since) * rate < 1.0 {
        return None;
    }
    view.frame_since = now;
    view.playing = view.looping || at + 1 < count;
    let next = if at + 1 < count || !view.looping { (at + 1).min(count - 1) } else { 0 };
    Some(next)
}

/// The button that starts and stops. Returns the place to start from, if that is not the place on
/// show.
fn play_button(ui: &mut Ui, view: &mut View, at: usize, count: usize) -> Option<usize> {
    let (text, name) = if view.playing { ("Stop", "Stop playback") } else { ("Play", "Play") };
    let play = ui.add_enabled(count > 1, egui::Button::new(text)).on_hover_text(format!("{name} (K)"));
    theme::named(&play, Role::Button, name);
    let typing = ui.ctx().text_edit_focused();
    if play.clicked() || (!typing && ui.input(|input| input.key_pressed(egui::Key::K))) {
        view.playing = !view.playing && count > 1;
        view.frame_since = ui.input(|input| input.time);
        // At the end there is nothing left to play.
        return (view.playing && !view.looping && at + 1 >= count).then_some(0);
    }
    None
}

fn frame_slider(ui: &mut Ui, at: usize, count: usize, label: egui::Id) -> Option<usize> {
    let mut number = at + 1;
    let slider =
        egui::Slider::new(&mut number, 1..=count.max(1)).custom_formatter(move |v, _| format!("{v} / {count}"));
    ui.add(slider).labelled_by(label).changed().then(|| number - 1)
}

fn slider(ui: &mut Ui, at: usize, steps: &[usize], label: egui::Id) -> Option<usize> {
    let mut index = at;
    let names = steps.to_vec();
    let format = move |value: f64, _: std::ops::RangeInclusive<usize>| {
        names.get(value as usize).map_or_else(String::new, |step| format!("step {step}"))
    };
    let slider = egui::Slider::new(&mut index, 0..=steps.len().saturating_sub(1)).custom_formatter(format);
    ui.add(slider).labelled_by(label).changed().then_some(index)
}
