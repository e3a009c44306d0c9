//! Pane "Preview": frames as they denoise and the clip, with attention and mask over them, beside
//! other runs.

pub mod attention;
pub mod brush;
mod compare;
pub mod picture;
mod transport;
pub mod view;

use egui::accesskit::Role;
use egui::{Color32, Rect, Sense, Ui, Vec2, vec2};

use crate::app::actions::{Action, Actions};
use crate::app::data::job::Job;
use crate::app::data::runs::Run;
use crate::app::data::selection::MapCell;
use crate::app::data::shared::Shared;
use crate::app::draw::textures::UV;
use crate::app::draw::theme;
use crate::app::panes::{News, Pane, Place};
use crate::app::save::{self, Saveable};
use crate::engine::limits;

use attention::Overlay;
use brush::Brush;
use picture::{Textures, fit, frames, picture, shown_latent_frame};
use view::{Compare, View};

/// The pane.
#[derive(Default)]
pub struct PreviewPane {
    /// Its settings, and its place in the clip.
    pub view: View,
    /// The brush that paints the mask.
    pub brush: Brush,
    textures: Textures,
}

impl Pane for PreviewPane {
    fn key(&self) -> &'static str {
        "preview"
    }

    fn title(&self) -> &'static str {
        "Preview"
    }

    fn place(&self) -> Place {
        Place::Middle
    }

    fn saves(&self) -> Vec<&'static Saveable> {
        vec![&save::CLIP, &save::MASK, &save::ATTENTION]
    }

    fn settings(&self) -> Option<String> {
        serde_json::to_string(&self.view).ok()
    }

    fn restore(&mut self, settings: &str) {
        self.view = serde_json::from_str(settings).unwrap_or_default();
    }

    fn notice(&mut self, news: News) {
        match news {
            News::RunOpened { play } => {
                self.view.frame = 0;
                self.view.playing |= play;
            }
            News::MaskOpened => self.brush.on = true,
        }
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        let run = shared.runs.current();
        let Some((run, shown)) = run.and_then(|run| Some((run, frames(run, shared.selection.step)?))) else {
            let Waiting { title, text } = waiting(&shared.job, run.map(|run| run.live), shared.ready());
            theme::empty(ui, &title, &text);
            return;
        };
        let (count, info) = (shown.frames.frames.len(), &run.capture.run);
        let fps =
            f64::from(info.clip.fps.clamp(1, limits::MOST_FPS)) * count as f64 / info.clip.num_frames.max(count) as f64;
        self.view.frame = self.view.frame.min(count - 1);
        self.controls(ui, shared, actions, run, shown.step);
        if self.brush.on && self.view.mode(&shared.runs) == Compare::Single {
            self.brush.controls(ui, run, actions);
        }
        egui::Panel::bottom("preview transport")
            .frame(egui::Frame::NONE)
            .show_separator_line(false)
            .show(ui, |ui| transport::ui(ui, &mut self.view, shared, actions, transport::Clip { count, fps }));
        self.pictures(ui, shared, actions);
    }
}

/// A text in place of pictures.
struct Waiting {
    title: String,
    text: String,
}

/// The text in place of pictures: for no run, or for a run that is live or not. It counts the
/// seconds, because loading the model and compiling the first step can take long.
fn waiting(job: &Job, live: Option<bool>, ready: Result<(), String>) -> Waiting {
    let (title, text) = match (job, live) {
        (_, Some(false)) => {
            ("This run has no pictures", "It ended before its first step, or was recorded without previews.")
        }
        (Job::Idle, _) => {
            let text = match ready {
                Ok(()) => "Press Generate above, or drop a capture file on the window.".into(),
                Err(why) => format!("{why} Or drop a capture file on the window."),
            };
            return Waiting { title: "No run yet".into(), text };
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
    Waiting { title, text: text.into() }
}

/// Below this width, in points, controls that are elsewhere too are left out.
const NARROW: f32 = 520.0;

/// Height of a legend below the pictures.
const LEGEND: f32 = 34.0;

impl PreviewPane {
    fn controls(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions, run: &Run, step: Option<usize>) {
        let has_clip = run.capture.clip.is_some();
        let narrow = ui.available_width() < NARROW;
        let mode = self.view.mode(&shared.runs);
        let look = self.view.look(&shared.selection);
        // The settings of attention have a row of their own.
        let attends =
            shared.selection.pinned.is_some() || attention::selected(Some(run), look).is_some() || self.view.paid;
        let attends = attends && mode != Compare::Difference;
        let below = narrow || attends;
        ui.horizontal_wrapped(|ui| {
            if has_clip && ui.selectable_label(step.is_none(), "Clip").clicked() {
                actions.select(|selection| selection.step = None);
            }
            match step {
                Some(step) => ui.label(format!("estimate after step {step}")),
                None => ui.label("the decoded frames"),
            };
            if shared.runs.shown().len() > 1 {
                compare::controls(ui, &mut self.view.compare, shared.runs.shown_baseline().is_some(), narrow);
            }
            if !below {
                self.mask_controls(ui, run, mode);
            }
            let tip = "MP4, APNG, GIF or PNG frames";
            if has_clip && !narrow && ui.button("Save clip...").on_hover_text(tip).clicked() {
                actions.ask(Action::Save(&save::CLIP));
            }
        });
        if !below {
            return;
        }
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().slider_width = if narrow { 60.0 } else { 110.0 };
            // A difference has neither a map nor a mask.
            if mode != Compare::Difference {
                self.attention_controls(ui, shared, actions, run, mode);
            }
            self.mask_controls(ui, run, mode);
        });
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

    fn pictures(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        let area = ui.available_rect_before_wrap().shrink2(vec2(0.0, 2.0));
        if area.width() < 20.0 || area.height() < 20.0 {
            return;
        }
        match self.view.mode(&shared.runs) {
            Compare::Single => self.single(ui, shared, actions, area),
            Compare::Split => self.split(ui, shared, area),
            Compare::Difference => self.difference(ui, shared, area),
            Compare::SideBySide => self.side_by_side(ui, shared, area),
        }
    }

    /// The current run alone, with its attention and mask; twice if two cells are compared.
    fn single(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions, area: Rect) {
        let Some(run) = shared.runs.current() else { return };
        let look = self.view.look(&shared.selection);
        let maps = if self.view.opacity > 0.0 { attention::overlays(run, look) } else { Vec::new() };
        let (area, below) =
            if maps.is_empty() { (area, area) } else { area.split_top_bottom_at_y(area.bottom() - LEGEND) };
        let number = maps.len().max(1);
        let across = area.width() >= area.height();
        let size = if across {
            vec2(area.width() / number as f32, area.height())
        } else {
            vec2(area.width(), area.height() / number as f32)
        };
        for index in 0..number {
            let offset = if across { vec2(size.x * index as f32, 0.0) } else { vec2(0.0, size.y * index as f32) };
            let place = Rect::from_min_size(area.min + offset, size).shrink(if number > 1 { 3.0 } else { 0.0 });
            self.one(ui, shared, actions, Single { run, index, place, map: maps.get(index) });
            if number > 1
                && let Some(map) = maps.get(index)
            {
                compare::tag(ui, place.left_top() + Vec2::splat(5.0), egui::Align2::LEFT_TOP, &map.title);
            }
        }
        attention::show_legend(ui, &self.view, maps.iter(), below);
    }

    /// One picture of the current run.
    fn one(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions, single: Single<'_>) {
        let Single { run, index, place, map } = single;
        let look = self.view.look(&shared.selection);
        let Some(shown) = picture(ui, &mut self.textures, index, run, look) else { return };
        let rect = fit(place, shown.width, shown.height);
        let painting = self.brush.on;
        let response = ui.allocate_rect(rect, if painting { Sense::click_and_drag() } else { Sense::hover() });
        ui.painter().image(shown.texture, rect, UV, Color32::WHITE);
        let frame = shown_latent_frame(run, look);
        if let Some(map) = map {
            attention::draw(ui.painter(), &mut self.textures, attention::At { index, rect, frame }, run, look, map);
        }
        if self.view.outline || painting {
            brush::outline(ui.painter(), run, frame, rect, painting);
        }
        let mut name = format!("Preview of run {}, frame {}", run.title(), self.view.frame + 1);
        if painting {
            let at = self.brush.cursor;
            let at = at.map_or(String::new(), |at| format!(", brush at row {}, column {}", at.row, at.column));
            let step = shared.shown_step().unwrap_or(0);
            name = format!("Mask of run {} to paint on, step {step}, latent frame {frame}{at}", run.title());
        }
        theme::named(&response, if painting { Role::Canvas } else { Role::Image }, name);
        if painting {
            self.brush.paint(ui, run, brush::Canvas { frame, rect, response: &response }, actions);
        } else {
            attention::hover(response, run, frame, &self.view, map, rect);
        }
    }
}

/// A picture of the current run.
struct Single<'a> {
    run: &'a Run,
    /// Its index in the pane.
    index: usize,
    place: Rect,
    /// The map over it.
    map: Option<&'a Overlay>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::data::job::Wanted;

    #[test]
    fn what_is_waited_for_is_said_with_its_seconds() {
        let begun = std::time::Instant::now().checked_sub(std::time::Duration::from_secs(3)).unwrap();
        let job = |wanted| Job::Running { run: None, stage: None, wanted, since: begun, paused: None };
        let title = |job: &Job, live| waiting(job, live, Ok(())).title;
        assert_eq!(title(&job(Wanted::Run), None), "Loading the model and encoding the prompt: 3 s");
        assert_eq!(title(&job(Wanted::Run), Some(true)), "Computing the first step: 3 s");
        assert_eq!(title(&job(Wanted::Pause), Some(true)), "Computing the first step");
        assert_eq!(title(&job(Wanted::Run), Some(false)), "This run has no pictures");
        assert_eq!(title(&Job::Idle, None), "No run yet");
        let why = waiting(&Job::Idle, None, Err("Choose a model first.".into())).text;
        assert!(why.starts_with("Choose a model first.") && !why.contains("Generate"), "{why}");
    }
}
