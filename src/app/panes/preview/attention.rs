//! Attention maps over the frame: of the selected cell, of a pinned one beside it, or of their difference.

use egui::{Color32, ColorImage, Painter, Rect, Response, TextureOptions, Ui, vec2};

use crate::media::Colormap;

use crate::app::data::runs::Run;
use crate::app::data::state::{State, View};
use crate::app::draw::legend;
use crate::app::panes::preview::{Content, Pictures, UV};

/// One block's map on one step.
#[derive(Clone, Copy, Debug)]
pub struct CellMap<'a> {
    /// One value a token.
    pub values: &'a [f32],
    /// The step on which the block ran last.
    pub step: usize,
    /// The block.
    pub block: usize,
}

/// The map of a block on a step, or on the last one before on which it ran: a reused block attends to nothing, what it attended to
/// then is what is reused.
pub fn of_cell<'a>(run: &'a Run, view: &View, step: usize, block: usize) -> Option<CellMap<'a>> {
    let ran = run.capture.steps.iter().rev().filter(|record| record.step <= step);
    let map = |record: &'a crate::engine::StepRecord| {
        let block = record.branch(view.uncond).get(block)?;
        let values = if view.paid { block.paid.as_deref()? } else { block.received.as_deref()? };
        Some((record.step, values))
    };
    let (step, values) = ran.filter_map(map).next()?;
    (values.len() == run.capture.run.tokens() && !values.is_empty()).then_some(CellMap { values, step, block })
}

/// That of the selected block on the step on show.
pub fn selected(state: &State) -> Option<CellMap<'_>> {
    of_cell(state.runs.current()?, &state.view, state.shown_step()?, state.view.block?)
}

/// That of the pinned cell.
pub fn pinned(state: &State) -> Option<CellMap<'_>> {
    let [step, block] = state.view.pinned?;
    of_cell(state.runs.current()?, &state.view, step, block)
}

/// Whether the run on show says what was paid to the subject's words.
pub fn has_paid(state: &State) -> bool {
    let steps = state.runs.current().map(|run| run.capture.steps.as_slice()).unwrap_or_default();
    steps.iter().flat_map(|step| step.cond.iter().chain(&step.uncond)).any(|block| block.paid.is_some())
}

/// What the values are, with their unit.
pub fn meaning(view: &View) -> &'static str {
    if view.paid {
        "share of its cross-attention that a token pays to the subject's words"
    } else {
        "attention received by a token (mean 1)"
    }
}

/// A map as it is drawn.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// Above it.
    pub title: String,
    /// One value a token.
    pub values: Vec<f32>,
    /// The colours.
    pub colors: Colormap,
    /// Values at both ends of them.
    pub range: [f32; 2],
    /// Step and block, and those it is minus.
    pub of: [Option<[usize; 2]>; 2],
}

impl Overlay {
    fn of(map: &CellMap<'_>, top: f32) -> Self {
        Self {
            title: format!("block {}, step {}", map.block, map.step),
            values: map.values.to_vec(),
            colors: Colormap::Sequential,
            range: [0.0, top],
            of: [Some([map.step, map.block]), None],
        }
    }

    fn difference(map: &CellMap<'_>, pinned: &CellMap<'_>) -> Self {
        let values: Vec<f32> = map.values.iter().zip(pinned.values).map(|(a, b)| a - b).collect();
        let reach = top(&values.iter().map(|value| value.abs()).collect::<Vec<_>>());
        let of = |map: &CellMap<'_>| format!("block {}, step {}", map.block, map.step);
        Self {
            title: format!("{} minus {}", of(map), of(pinned)),
            values,
            colors: Colormap::Diverging,
            range: [-reach, reach],
            of: [Some([map.step, map.block]), Some([pinned.step, pinned.block])],
        }
    }
}

fn top(values: &[f32]) -> f32 {
    values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f32::max).max(f32::MIN_POSITIVE)
}

/// What lies over the pictures, from left to right: none, one, or a pinned cell and another with colours in common.
pub fn overlays(state: &State) -> Vec<Overlay> {
    match (selected(state), pinned(state)) {
        (Some(map), Some(pinned)) if state.view.minus_pinned => vec![Overlay::difference(&map, &pinned)],
        (Some(map), Some(pinned)) => {
            let top = top(map.values).max(top(pinned.values));
            let mut first = Overlay::of(&pinned, top);
            first.title.push_str(" (pinned)");
            vec![first, Overlay::of(&map, top)]
        }
        (Some(map), None) | (None, Some(map)) => vec![Overlay::of(&map, top(map.values))],
        (None, None) => Vec::new(),
    }
}

/// The map of the selected block for each of several runs, at the step that each shows, with colours in common. None where nothing is
/// to lie over the pictures.
pub fn beside(runs: &[&Run], view: &View) -> Vec<Option<Overlay>> {
    let block = view.block.filter(|_| view.opacity > 0.0);
    let map = |run: &&Run| {
        let map = of_cell(run, view, run.shown_step(view.step)?, block?)?;
        Some(Overlay { title: format!("block {}", map.block), ..Overlay::of(&map, 0.0) })
    };
    let mut maps: Vec<Option<Overlay>> = runs.iter().map(map).collect();
    let highest = maps.iter().flatten().map(|map| top(&map.values)).fold(f32::MIN_POSITIVE, f32::max);
    for map in maps.iter_mut().flatten() {
        map.range[1] = highest;
    }
    maps
}

/// Draws a map over the picture of a frame, which has a texture slot and a place.
pub fn draw(
    painter: &Painter,
    pictures: &mut Pictures,
    (slot, rect): (usize, Rect),
    run: &Run,
    view: &View,
    frame: usize,
    map: &Overlay,
) {
    let [_, height, width] = run.capture.run.token_grid;
    let Some(values) = map.values.get(frame * height * width..(frame + 1) * height * width) else { return };
    let [low, high] = map.range;
    let make = || {
        let pixel = |value: &f32| {
            let t = (value - low) / (high - low).max(f32::MIN_POSITIVE);
            let [r, g, b] = map.colors.color(t);
            // Where little is received, or nothing differs, the frame stays visible.
            let strong = if map.colors == Colormap::Diverging { (2.0 * t - 1.0).abs() } else { t };
            let alpha = (0.25 + 0.75 * strong.clamp(0.0, 1.0)) * view.opacity;
            Color32::from_rgba_unmultiplied(r, g, b, (alpha * 255.0) as u8)
        };
        ColorImage::new([width, height], values.iter().map(pixel).collect())
    };
    let content = Content::Attention {
        run: run.id,
        version: run.version,
        of: map.of,
        branch: [view.uncond, view.paid],
        frame,
        opacity: (view.opacity * 255.0) as u8,
        range: map.range.map(f32::to_bits),
    };
    let id = pictures.get(painter.ctx(), (1, slot), content, TextureOptions::NEAREST, make);
    painter.image(id, rect, UV, Color32::WHITE);
}

/// The colour bar of the maps.
pub fn show_legend<'a>(ui: &Ui, view: &View, maps: impl Iterator<Item = &'a Overlay> + Clone, area: Rect) {
    let Some(map) = maps.clone().last() else { return };
    let mut titles: Vec<&str> = maps.map(|map| map.title.as_str()).collect();
    titles.dedup();
    let text = format!("{}: {}", meaning(view), titles.join(" | "));
    let digits = if map.range[1] < 1.0 { 3 } else { 1 };
    legend::bar(ui, area.shrink2(vec2(4.0, 0.0)), map.colors, &text, map.range, &|value| format!("{value:.digits$}"));
}

/// The token under the pointer: frame, row and column of the grid, and its number.
pub fn token_at(run: &Run, frame: usize, rect: Rect, at: egui::Pos2) -> Option<([usize; 3], usize)> {
    let [_, height, width] = run.capture.run.token_grid;
    if !rect.contains(at) || height == 0 || width == 0 {
        return None;
    }
    let place = |at: f32, low: f32, length: f32, count: usize| {
        (((at - low) / length.max(1e-3) * count as f32).max(0.0) as usize).min(count - 1)
    };
    let row = place(at.y, rect.top(), rect.height(), height);
    let column = place(at.x, rect.left(), rect.width(), width);
    Some(([frame, row, column], (frame * height + row) * width + column))
}

/// Says the exact value under the pointer.
pub fn hover(response: Response, run: &Run, frame: usize, view: &View, map: Option<&Overlay>, rect: Rect) {
    let Some(at) = response.hover_pos() else { return };
    let Some(([frame, row, column], token)) = token_at(run, frame, rect, at) else { return };
    let value = map.and_then(|map| map.values.get(token));
    if value.is_none() && run.mask().is_none() {
        return;
    }
    response.on_hover_ui_at_pointer(|ui| {
        let place = format!("token: latent frame {frame}, row {row}, column {column}");
        ui.label(egui::RichText::new(place).strong());
        if let (Some(value), Some(map)) = (value, map) {
            ui.label(format!("{value:.4}: {}, {}", meaning(view), map.title));
        }
        if let Some(mask) = run.mask() {
            let inside = mask.get(token).copied().unwrap_or(false);
            let how = if run.painted.is_some() { "painted" } else { "estimated" };
            ui.label(format!("{} by the {how} mask", if inside { "foreground" } else { "background" }));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::sample::{self, Kind};

    fn state() -> State {
        let mut state = State::default();
        state.runs.add(sample::capture(Kind::Uniform), false, None);
        (state.view.step, state.view.block) = (Some(10), Some(5));
        state
    }

    #[test]
    fn a_cell_is_compared_with_a_pinned_one() {
        let mut state = state();
        assert_eq!(overlays(&state).len(), 1);
        state.view.pinned = Some([3, 7]);
        let both = overlays(&state);
        assert_eq!((both.len(), both[0].range), (2, both[1].range));
        assert!(both[0].title.contains("block 7") && both[1].title.contains("block 5"));
        state.view.minus_pinned = true;
        let one = overlays(&state);
        let token = 77;
        assert_eq!(one[0].values[token], both[1].values[token] - both[0].values[token]);
        assert_eq!((one.len(), one[0].range[0]), (1, -one[0].range[1]));
    }

    #[test]
    fn runs_beside_each_other_have_maps_of_their_own_in_common_colours() {
        let mut state = state();
        state.runs.add(sample::capture(Kind::Off), false, None);
        let runs: Vec<&Run> = state.runs.iter().collect();
        let maps = beside(&runs, &state.view);
        let [Some(reused), Some(computed)] = &maps[..] else { panic!("{maps:?}") };
        assert_eq!(
            (reused.of[0], computed.of[0]),
            (Some([9, 5]), Some([10, 5])),
            "a reused block shows what it reuses"
        );
        assert_eq!(reused.range, computed.range);
        assert!(reused.values != computed.values && top(&reused.values).max(top(&computed.values)) == reused.range[1]);
        state.view.block = None;
        assert!(beside(&runs, &state.view).iter().all(Option::is_none));
    }

    #[test]
    fn the_pointer_finds_its_token() {
        let state = state();
        let run = state.runs.current().unwrap();
        let rect = Rect::from_min_size(egui::pos2(10.0, 20.0), vec2(80.0, 160.0));
        let [_, height, width] = run.capture.run.token_grid;
        assert_eq!(token_at(run, 2, rect, rect.min), Some(([2, 0, 0], 2 * height * width)));
        let last = ([2, height - 1, width - 1], 3 * height * width - 1);
        assert_eq!(token_at(run, 2, rect, rect.max), Some(last));
        assert_eq!(token_at(run, 2, rect, egui::pos2(0.0, 0.0)), None);
    }
}
