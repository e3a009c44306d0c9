//! What a pane's menu offers: its picture (PNG), and its maps and curves as figures (SVG).

use std::collections::HashMap;
use std::sync::Arc;

use egui::accesskit::Role;
use egui::{ColorImage, Rect, Ui, ViewportCommand};

use crate::media::Clip;
use crate::media::figure::{ColorScale, MapGrid, MapPanel, Plot, Series, Svg};

use crate::app::data::runs::Run;
use crate::app::data::state::{Action, State};
use crate::app::draw::theme;
use crate::app::layout::Pane;
use crate::app::panes::preview::attention;

/// Pictures that are asked for, and where panes were drawn last.
#[derive(Debug, Default)]
pub struct Shots {
    places: HashMap<Pane, Rect>,
    /// The pane (the whole window if `None`), and frames of the window to wait until its menu is gone.
    wanted: Option<(Option<Pane>, u8)>,
}

/// Frames of the window that pass until a menu that was clicked is gone.
const SETTLE: u8 = 3;

impl Shots {
    /// Remembers where a pane is.
    pub fn place(&mut self, pane: Pane, rect: Rect) {
        self.places.insert(pane, rect);
    }

    /// Asks for a picture of a pane, or of the window.
    pub fn want(&mut self, pane: Option<Pane>) {
        self.wanted = Some((pane, SETTLE));
    }

    /// Takes a picture once it is time; `then` gets it.
    pub fn take(&mut self, ctx: &egui::Context, then: impl FnOnce(Result<Clip, String>) + Send + 'static) {
        let Some((pane, wait)) = self.wanted else { return };
        ctx.request_repaint();
        if wait > 0 {
            self.wanted = Some((pane, wait - 1));
            return;
        }
        self.wanted = None;
        let all = ctx.content_rect();
        let rect = pane.map_or(Some(all), |pane| self.places.get(&pane).copied());
        let scale = ctx.pixels_per_point();
        let callback = move |image: Arc<ColorImage>| {
            then(rect.and_then(|rect| crop(&image, rect, scale)).ok_or_else(|| "The pane cannot be seen.".into()));
        };
        ctx.send_viewport_cmd(ViewportCommand::Screenshot(egui::ScreenshotCallback::new(callback)));
    }
}

/// A part of a picture of the window; `None` where nothing is left of it.
pub fn crop(image: &ColorImage, rect: Rect, scale: f32) -> Option<Clip> {
    let [width, height] = image.size;
    let pixel = |at: f32, most: usize| (at * scale).round().clamp(0.0, most as f32) as usize;
    let (left, right) = (pixel(rect.left(), width), pixel(rect.right(), width));
    let (top, bottom) = (pixel(rect.top(), height), pixel(rect.bottom(), height));
    let rows = (top..bottom).map(|row| image.pixels.get(row * width + left..row * width + right));
    let rows: Vec<&[egui::Color32]> = rows.collect::<Option<_>>()?;
    let rgb = rows.into_iter().flatten().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    Clip::new(right.checked_sub(left)? as u32, bottom.checked_sub(top)? as u32, 1, vec![rgb]).ok()
}

/// Which figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// How much each step changed the prediction.
    Change,
    /// Time of each step.
    Times,
    /// The selected cell's attention, one map a latent frame.
    Attention,
}

/// The menu at the right end of a pane's tabs.
pub fn menu(ui: &mut Ui, state: &mut State, pane: Pane) {
    let button = ui.menu_button("\u{2026}", |ui| {
        let mut item = |enabled: bool, text: &str, action: Action| {
            if ui.add_enabled(enabled, egui::Button::new(text)).clicked() {
                state.actions.push(action);
            }
        };
        let run = state.runs.current();
        let recorded = run.is_some();
        match pane {
            Pane::Map => item(recorded, "Save figure (SVG) or table (CSV)...", Action::SaveMap),
            Pane::Steps => {
                item(recorded, "Save curve of changes (SVG)...", Action::SaveFigure(Figure::Change));
                item(recorded, "Save times (SVG)...", Action::SaveFigure(Figure::Times));
            }
            Pane::Preview => {
                item(run.is_some_and(|run| run.capture.clip.is_some()), "Save clip...", Action::SaveClip);
                item(run.is_some_and(|run| run.mask().is_some()), "Save mask...", Action::SaveMask);
                let maps = state.view.block.is_some() || state.view.pinned.is_some();
                item(maps, "Save attention maps (SVG)...", Action::SaveFigure(Figure::Attention));
            }
            _ => {}
        }
        item(true, "Save picture of the pane (PNG)...", Action::SavePicture(Some(pane)));
    });
    theme::named(&button.response, Role::Button, format!("Menu of the pane {}", pane.title()));
    button.response.on_hover_text("Pictures and figures of this pane");
}

/// A figure of the run on show, and a name for its file.
pub fn figure(state: &State, which: Figure) -> Result<(Svg, &'static str), String> {
    let run = state.runs.current().ok_or("There is no run to draw.")?;
    let baseline = state.runs.comparable().map(|(baseline, _)| baseline);
    match which {
        Figure::Change => Ok((changes(run, baseline).svg(), "changes.svg")),
        Figure::Times => Ok((times(run, baseline).svg(), "times.svg")),
        Figure::Attention => Ok((attention_maps(state, run)?.svg(), "attention.svg")),
    }
}

/// What was run, in a line.
pub(in crate::app) fn subtitle(run: &Run) -> String {
    let info = &run.capture.run;
    format!("\"{}\", seed {}, {} steps, {}", info.prompt, info.clip.seed, info.steps(), info.strategy.name())
}

fn series(name: &str, run: &Run, value: impl Fn(&crate::engine::StepRecord) -> Option<f64>) -> Series {
    let points = run.capture.steps.iter().filter_map(|step| Some((step.step as f64, value(step)?))).collect();
    Series { name: name.into(), points, joined: true, ..Series::default() }
}

fn plot(title: &str, y_label: &str, run: &Run, series: Vec<Series>) -> Plot {
    Plot {
        title: title.into(),
        subtitle: subtitle(run),
        x_label: "step".into(),
        y_label: y_label.into(),
        series,
        from_zero: true,
    }
}

fn changes(run: &Run, baseline: Option<&Run>) -> Plot {
    let of = |name: &str, run: &Run| series(name, run, |step| step.prediction_change);
    let mut all = vec![of(run.capture.run.strategy.name(), run)];
    all.extend(baseline.map(|baseline| of("baseline", baseline)));
    plot("Change of the prediction from step to step", "L1 distance to the step before", run, all)
}

fn times(run: &Run, baseline: Option<&Run>) -> Plot {
    let of = |name: &str, run: &Run| series(name, run, |step| Some(step.seconds * 1e3));
    let mut all = vec![of(run.capture.run.strategy.name(), run)];
    all.extend(baseline.map(|baseline| of("baseline", baseline)));
    plot("Time of each step", "time, ms", run, all)
}

fn attention_maps(state: &State, run: &Run) -> Result<MapGrid, String> {
    let maps = attention::overlays(state);
    let first = maps.first().ok_or("No attention is on show: click a cell of the map whose block was profiled.")?;
    let [frames, height, width] = run.capture.run.token_grid;
    let cells = (height * width).max(1);
    let panel = |values: &[f32], frame: usize| {
        let mask = run.mask().and_then(|mask| mask.get(frame * cells..(frame + 1) * cells));
        let outline = mask.filter(|_| state.view.outline).map(<[bool]>::to_vec).unwrap_or_default();
        Some(MapPanel { values: values.iter().map(|value| f64::from(*value)).collect(), outline })
    };
    let panels =
        maps.iter().flat_map(|map| map.values.chunks_exact(cells).enumerate().map(|(f, values)| panel(values, f)));
    let diverging = first.colors == crate::media::Colormap::Diverging;
    Ok(MapGrid {
        title: "Attention over the latent frames".into(),
        subtitle: subtitle(run),
        value_label: attention::meaning(&state.view).into(),
        extents: [height, width],
        row_names: maps.iter().map(|map| map.title.clone()).collect(),
        column_names: (0..frames).map(|frame| format!("frame {frame}")).collect(),
        panels: panels.collect(),
        colors: if diverging { ColorScale::Diverging } else { ColorScale::Viridis },
        range: Some((f64::from(first.range[0]), f64::from(first.range[1]))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::sample::{self, Kind};

    #[test]
    fn parts_of_a_picture_are_cut_to_it() {
        let mut image = ColorImage::filled([8, 6], egui::Color32::BLACK);
        image.pixels[2 * 8 + 4] = egui::Color32::WHITE;
        let part = |x0: f32, y0: f32, x1: f32, y1: f32| {
            crop(&image, Rect::from_min_max(egui::pos2(x0, y0), egui::pos2(x1, y1)), 2.0)
        };
        let cut = part(2.0, 1.0, 3.0, 2.0).unwrap();
        assert_eq!((cut.width(), cut.height(), cut.frames()[0][0]), (2, 2, 255));
        let whole = part(-5.0, -5.0, 99.0, 99.0).unwrap();
        assert_eq!((whole.width(), whole.height()), (8, 6));
        assert!(part(9.0, 0.0, 12.0, 2.0).is_none() && part(3.0, 0.0, 1.0, 2.0).is_none());
    }

    #[test]
    fn figures_show_the_run() {
        let mut state = State::default();
        assert!(figure(&state, Figure::Change).is_err());
        state.runs.add(sample::capture(Kind::Uniform), false, None);
        assert!(figure(&state, Figure::Attention).is_err());
        (state.view.block, state.view.step) = (Some(5), Some(10));
        for (which, words) in
            [(Figure::Change, "L1 distance"), (Figure::Times, "time, ms"), (Figure::Attention, "block 5, step 9")]
        {
            let (svg, name) = figure(&state, which).unwrap();
            assert!(svg.as_str().contains(words), "{name}: {}", svg.as_str());
            assert!(name.ends_with(".svg"));
        }
    }
}
