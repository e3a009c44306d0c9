//! Pane "Preview": frames as they denoise and the clip, with attention and mask over them, beside
//! other runs.

pub mod attention;
pub mod brush;
mod compare;
mod controls;
pub mod picture;
mod transport;
pub mod view;

use egui::accesskit::Role;
use egui::{Color32, Rect, Sense, Ui, Vec2, pos2, vec2};

use crate::app::actions::Actions;
use crate::app::data::job::Job;
use crate::app::data::likeness::ClipPair;
use crate::app::data::runs::{MOST_SHOWN, Run};
use crate::app::data::shared::Shared;
use crate::app::draw::legend::{self, Legend};
use crate::app::draw::textures::UV;
use crate::app::draw::theme;
use crate::app::panes::{News, Pane, Place};
use crate::app::save::{self, Saveable};
use crate::engine::limits;

use attention::Overlay;
use brush::Brush;
use picture::{Textures, fit, frames, picture, places, shown_latent_frame};
use view::{Compare, View};

/// The pane.
#[derive(Default)]
pub struct PreviewPane {
    /// Its settings, and its place in the clip.
    pub view: View,
    /// The brush that paints the mask.
    pub brush: Brush,
    textures: Textures,
    /// Height of the transport in the frame before, in points.
    transport_height: f32,
    /// The greatest difference of a channel that the pictures of a comparison show.
    difference: Option<GreatestDifference>,
}

/// The greatest difference of a channel over all frames of two runs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct GreatestDifference {
    pair: ClipPair,
    /// The step, or `None` for the clip.
    step: Option<usize>,
    /// 0 to 255.
    greatest: u8,
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
        let look = self.view.look(&shared.selection);
        let Some((run, shown)) = run.and_then(|run| Some((run, frames(run, look.step(run))?))) else {
            let Waiting { title, text } = waiting(&shared.job, run.map(|run| run.live), shared.ready());
            theme::empty(ui, &title, &text);
            return;
        };
        let (count, info) = (shown.frames.frames.len(), &run.capture.run);
        let fps =
            f64::from(info.clip.fps.clamp(1, limits::MOST_FPS)) * count as f64 / info.clip.num_frames.max(count) as f64;
        let aspect = shown.frames.width as f32 / shown.frames.height.max(1) as f32;
        self.view.frame = self.view.frame.min(count - 1);
        let clip = transport::Clip { count, fps };
        let room = ui.available_rect_before_wrap();
        if controls::fit_beside(room.size(), self.pictures_on_show(shared, run), aspect) {
            let (left, right) = room.split_left_right_at_x(room.right() - controls::COLUMN);
            let legend = self.stage(ui, shared, actions, left.with_max_x(left.right() - 8.0), clip);
            let column = egui::UiBuilder::new().max_rect(right).layout(egui::Layout::top_down(egui::Align::Min));
            let mut column = ui.new_child(column);
            self.controls_in_column(&mut column, shared, actions, run, legend);
            ui.advance_cursor_after_rect(room);
        } else {
            self.controls_in_rows(ui, shared, actions, run);
            let mut area = ui.available_rect_before_wrap();
            let below = Rect::from_min_max(pos2(area.left(), area.bottom() - legend::LINE), area.max);
            if self.has_legend(shared, run) {
                area.max.y = below.top() - 2.0;
            }
            if let Some(legend) = self.stage(ui, shared, actions, area, clip) {
                legend.line(ui, below);
            }
        }
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

/// Least height of the pictures, in points, over which the transport is laid. Lower pictures have
/// it below them.
const ROOM_FOR_TRANSPORT: f32 = 220.0;

impl PreviewPane {
    /// The greatest difference of a channel, of 255, that the difference of two runs shows.
    #[cfg(test)]
    pub fn greatest(&self) -> Option<u8> {
        self.difference.map(|difference| difference.greatest)
    }

    /// The number of pictures beside each other.
    fn pictures_on_show(&self, shared: &Shared, run: &Run) -> usize {
        match self.view.mode(&shared.runs) {
            Compare::Single if self.view.opacity > 0.0 => {
                attention::overlays(run, self.view.look(&shared.selection)).len().max(1)
            }
            Compare::SideBySide => shared.runs.shown().len().clamp(1, MOST_SHOWN),
            _ => 1,
        }
    }

    /// Whether the pictures have a legend.
    fn has_legend(&self, shared: &Shared, run: &Run) -> bool {
        let look = self.view.look(&shared.selection);
        match self.view.mode(&shared.runs) {
            Compare::Difference => true,
            Compare::Single => self.view.opacity > 0.0 && !attention::overlays(run, look).is_empty(),
            Compare::Split | Compare::SideBySide => {
                attention::beside(&shared.runs.shown(), look).iter().any(Option::is_some)
            }
        }
    }

    /// Draws the pictures with the transport over their lower edge. Returns their legend.
    fn stage(
        &mut self,
        ui: &mut Ui,
        shared: &Shared,
        actions: &mut Actions,
        area: Rect,
        clip: transport::Clip,
    ) -> Option<Legend<'static>> {
        if area.width() < 20.0 || area.height() < 20.0 {
            return None;
        }
        let height = self.transport_height.max(28.0);
        let bar = Rect::from_min_max(pos2(area.left(), area.bottom() - height), area.max);
        // The brush reaches the lower edge of the picture.
        let painting = self.brush.on && self.view.mode(&shared.runs) == Compare::Single;
        let over = area.height() >= ROOM_FOR_TRANSPORT && !painting;
        let pictures = if over { area } else { area.with_max_y(bar.top() - 2.0) };
        let legend = match self.view.mode(&shared.runs) {
            Compare::Single => self.single(ui, shared, actions, pictures),
            Compare::Split => self.split(ui, shared, pictures),
            Compare::Difference => self.difference(ui, shared, pictures),
            Compare::SideBySide => self.side_by_side(ui, shared, pictures),
        };
        let fill = theme::Palette::of(ui).pane;
        let pointer = ui.rect_contains_pointer(area);
        let mut child =
            ui.new_child(egui::UiBuilder::new().max_rect(bar).layout(egui::Layout::top_down(egui::Align::Min)));
        if over {
            // A playing clip is covered only while the pointer is over it or a key has come here.
            let focused = child.memory(|memory| memory.focused()).and_then(|id| child.ctx().read_response(id));
            let focus = focused.is_some_and(|response| bar.contains(response.rect.center()));
            let shown = pointer || focus || !self.view.playing;
            child.set_opacity(if shown { 1.0 } else { 0.0 });
            child.painter().rect_filled(bar, 3.0, fill.gamma_multiply(0.86));
        }
        let inner = child.scope_builder(egui::UiBuilder::new().max_rect(bar.shrink2(vec2(6.0, 0.0))), |ui| {
            transport::ui(ui, &mut self.view, shared, actions, clip)
        });
        self.transport_height = inner.response.rect.height() + 4.0;
        legend
    }

    /// The current run alone, with its attention and mask; twice if two cells are compared.
    fn single(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions, area: Rect) -> Option<Legend<'static>> {
        let run = shared.runs.current()?;
        let look = self.view.look(&shared.selection);
        let maps = if self.view.opacity > 0.0 { attention::overlays(run, look) } else { Vec::new() };
        let number = maps.len().max(1);
        let aspect = frames(run, look.step(run)).map_or(1.0, |shown| shown.aspect());
        for (index, place) in places(area, number, aspect).into_iter().enumerate() {
            self.one(ui, shared, actions, Single { run, index, place, map: maps.get(index) });
            if number > 1
                && let Some(map) = maps.get(index)
            {
                compare::tag(ui, place.left_top() + Vec2::splat(5.0), egui::Align2::LEFT_TOP, &map.title);
            }
        }
        attention::legend(&self.view, maps.iter())
    }

    /// One picture of the current run.
    fn one(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions, single: Single<'_>) {
        let Single { run, index, place, map } = single;
        let look = self.view.look(&shared.selection);
        let Some(shown) = picture(ui, &mut self.textures, index, run, look, map.is_some()) else { return };
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
