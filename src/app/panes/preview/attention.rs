//! Attention maps over the frame: of the selected cell, of a pinned one beside it, or of their
//! difference.

use egui::{Color32, ColorImage, Painter, Rect, Response, TextureOptions, vec2};

use super::brush::Token;
use super::picture::{Shows, Slot, Textures};
use super::view::{Look, View};
use crate::app::data::runs::Run;
use crate::app::data::selection::MapCell;
use crate::app::draw::legend::Legend;
use crate::app::draw::textures::UV;
use crate::engine::StepRecord;
use crate::media::Colormap;
use crate::media::figure::{ColorScale, MapGrid, MapPanel};

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

impl CellMap<'_> {
    fn cell(&self) -> MapCell {
        MapCell { step: self.step, block: self.block }
    }
}

/// The map of a block on a step, or on the last step before on which the block ran: a reused block
/// repeats what it attended to then.
fn of_cell<'a>(run: &'a Run, look: Look<'_>, MapCell { step, block }: MapCell) -> Option<CellMap<'a>> {
    let ran = run.capture.steps.iter().rev().filter(|record| record.step <= step);
    let map = |record: &'a StepRecord| {
        let block = record.branch(look.selection.uncond).get(block)?;
        let values = if look.view.paid { block.paid.as_deref()? } else { block.received.as_deref()? };
        Some((record.step, values))
    };
    let (step, values) = ran.filter_map(map).next()?;
    (values.len() == run.capture.run.tokens() && !values.is_empty()).then_some(CellMap { values, step, block })
}

/// The map of the selected block on the step on show.
pub fn selected<'a>(run: Option<&'a Run>, look: Look<'_>) -> Option<CellMap<'a>> {
    let (run, selection) = (run?, look.selection);
    of_cell(run, look, MapCell { step: run.shown_step(selection.step)?, block: selection.block? })
}

/// Whether a run recorded the attention paid to the subject's words.
pub fn has_paid(run: &Run) -> bool {
    let mut blocks = run.capture.steps.iter().flat_map(|step| step.cond.iter().chain(&step.uncond));
    blocks.any(|block| block.paid.is_some())
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
    /// The cell.
    pub cell: MapCell,
    /// The cell that is subtracted.
    pub minus: Option<MapCell>,
}

impl Overlay {
    fn of(map: &CellMap<'_>, top: f32) -> Self {
        Self {
            title: format!("block {}, step {}", map.block, map.step),
            values: map.values.to_vec(),
            colors: Colormap::Sequential,
            range: [0.0, top],
            cell: map.cell(),
            minus: None,
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
            cell: map.cell(),
            minus: Some(pinned.cell()),
        }
    }
}

fn top(values: &[f32]) -> f32 {
    values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f32::max).max(f32::MIN_POSITIVE)
}

/// The maps over the pictures of a run, from left to right: none, one, or those of the pinned cell
/// and of another with colours in common.
pub fn overlays(run: &Run, look: Look<'_>) -> Vec<Overlay> {
    let pinned = look.selection.pinned.and_then(|cell| of_cell(run, look, cell));
    match (selected(Some(run), look), pinned) {
        (Some(map), Some(pinned)) if look.view.minus_pinned => vec![Overlay::difference(&map, &pinned)],
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

/// The map of the selected block for each of several runs, at the step that each shows, with
/// colours in common. `None` for a run without such a map.
pub fn beside(runs: &[&Run], look: Look<'_>) -> Vec<Option<Overlay>> {
    let block = look.selection.block.filter(|_| look.view.opacity > 0.0);
    let map = |run: &&Run| {
        let map = of_cell(run, look, MapCell { step: run.shown_step(look.selection.step)?, block: block? })?;
        Some(Overlay { title: format!("block {}", map.block), ..Overlay::of(&map, 0.0) })
    };
    let mut maps: Vec<Option<Overlay>> = runs.iter().map(map).collect();
    let highest = maps.iter().flatten().map(|map| top(&map.values)).fold(f32::MIN_POSITIVE, f32::max);
    for map in maps.iter_mut().flatten() {
        map.range[1] = highest;
    }
    maps
}

/// The place of a map in the pane.
#[derive(Clone, Copy)]
pub struct At {
    /// Index of the picture.
    pub index: usize,
    /// The place of the picture.
    pub rect: Rect,
    /// The latent frame.
    pub frame: usize,
}

/// Draws a map over a picture of a run.
pub fn draw(painter: &Painter, textures: &mut Textures, at: At, run: &Run, look: Look<'_>, map: &Overlay) {
    let At { index, rect, frame } = at;
    let [_, height, width] = run.capture.run.token_grid;
    let Some(values) = map.values.get(frame * height * width..(frame + 1) * height * width) else { return };
    let [low, high] = map.range;
    let opacity = look.view.opacity;
    let make = || {
        let pixel = |value: &f32| {
            let t = (value - low) / (high - low).max(f32::MIN_POSITIVE);
            let [r, g, b] = map.colors.color(t);
            // The frame stays visible where little is received, or where nothing differs.
            let strong = if map.colors == Colormap::Diverging { (2.0 * t - 1.0).abs() } else { t };
            let alpha = (0.4 + 0.6 * strong.clamp(0.0, 1.0)) * opacity;
            Color32::from_rgba_unmultiplied(r, g, b, (alpha * 255.0) as u8)
        };
        ColorImage::new([width, height], values.iter().map(pixel).collect())
    };
    let shows = Shows::Attention {
        run: run.id,
        version: run.version,
        cell: map.cell,
        minus: map.minus,
        uncond: look.selection.uncond,
        paid: look.view.paid,
        frame,
        opacity: (opacity * 255.0) as u8,
        range: map.range.map(f32::to_bits),
    };
    let id = textures.get(painter.ctx(), Slot::Attention(index), shows, TextureOptions::NEAREST, make);
    painter.image(id, rect, UV, Color32::WHITE);
    let cell = vec2(rect.width() / width.max(1) as f32, rect.height() / height.max(1) as f32);
    let corner = |row: usize, column: usize| rect.min + vec2(column as f32 * cell.x, row as f32 * cell.y);
    if cell.min_elem() >= LEAST_NUMBER {
        for (index, value) in values.iter().enumerate() {
            let place = Rect::from_min_size(corner(index / width, index % width), cell);
            number(painter, place, *value, high);
        }
    } else if map.colors == Colormap::Sequential && !look.view.paid {
        let lines = isolines(values, [height, width], MEAN).map(|line| line.map(|(row, column)| corner(row, column)));
        let lines: Vec<[egui::Pos2; 2]> = lines.collect();
        for (width, color) in [(3.0, Color32::from_black_alpha(160)), (1.2, Color32::WHITE)] {
            for line in &lines {
                painter.line_segment(*line, egui::Stroke::new(width, color));
            }
        }
    }
}

/// Least side of a token on screen, in points, for its value in figures.
const LEAST_NUMBER: f32 = 34.0;
/// The mean of received attention. The border of the tokens that receive more is drawn.
const MEAN: f32 = 1.0;

/// Writes the value of a token into its place.
fn number(painter: &Painter, place: Rect, value: f32, high: f32) {
    let text = if high < 1.0 { format!("{value:.2}") } else { format!("{value:.1}") };
    let font = egui::FontId::proportional((place.height() * 0.24).clamp(10.5, 15.0));
    for (offset, color) in [(1.0, Color32::from_black_alpha(200)), (0.0, Color32::WHITE)] {
        let at = place.center() + egui::Vec2::splat(offset);
        painter.text(at, egui::Align2::CENTER_CENTER, &text, font.clone(), color);
    }
}

/// The borders between tokens below and from a level on, as corners (row, column) of the grid.
fn isolines(
    values: &[f32],
    [height, width]: [usize; 2],
    level: f32,
) -> impl Iterator<Item = [(usize, usize); 2]> + use<'_> {
    let above = move |row: usize, column: usize| values.get(row * width + column).is_some_and(|value| *value >= level);
    let cells = (0..height).flat_map(move |row| (0..width).map(move |column| (row, column)));
    cells.flat_map(move |(row, column)| {
        let here = above(row, column);
        let left = (column > 0 && above(row, column - 1) != here).then_some([(row, column), (row + 1, column)]);
        let upper = (row > 0 && above(row - 1, column) != here).then_some([(row, column), (row, column + 1)]);
        [left, upper].into_iter().flatten()
    })
}

/// The legend of the maps on show; `None` if there are none.
pub fn legend<'a>(view: &View, maps: impl Iterator<Item = &'a Overlay> + Clone) -> Option<Legend<'static>> {
    let map = maps.clone().last()?;
    let mut titles: Vec<&str> = maps.map(|map| map.title.as_str()).collect();
    titles.dedup();
    let digits = if map.range[1] < 1.0 { 3 } else { 1 };
    Some(Legend {
        map: map.colors,
        text: format!("{}: {}", meaning(view), titles.join(" | ")),
        range: map.range,
        middle: None,
        format: Box::new(move |value| format!("{value:.digits$}")),
    })
}

/// A token of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its row and column.
    pub token: Token,
    /// Its index in maps and masks.
    pub index: usize,
}

/// The token of a latent frame under the pointer.
pub fn token_at(run: &Run, frame: usize, rect: Rect, at: egui::Pos2) -> Option<Found> {
    let [_, height, width] = run.capture.run.token_grid;
    if !rect.contains(at) || height == 0 || width == 0 {
        return None;
    }
    let place = |at: f32, low: f32, length: f32, count: usize| {
        (((at - low) / length.max(1e-3) * count as f32).max(0.0) as usize).min(count - 1)
    };
    let row = place(at.y, rect.top(), rect.height(), height);
    let column = place(at.x, rect.left(), rect.width(), width);
    Some(Found { token: Token { row, column }, index: (frame * height + row) * width + column })
}

/// Shows the exact value under the pointer.
pub fn hover(response: Response, run: &Run, frame: usize, view: &View, map: Option<&Overlay>, rect: Rect) {
    let Some(at) = response.hover_pos() else { return };
    let Some(Found { token: Token { row, column }, index }) = token_at(run, frame, rect, at) else { return };
    let value = map.and_then(|map| map.values.get(index));
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
            let inside = mask.get(index).copied().unwrap_or(false);
            let how = if run.painted.is_some() { "painted" } else { "estimated" };
            ui.label(format!("{} by the {how} mask", if inside { "foreground" } else { "background" }));
        }
    });
}

/// The maps on show of a run as a figure, one panel a latent frame.
///
/// # Errors
/// No map is on show. The error is a text for the user.
pub fn figure(run: &Run, look: Look<'_>) -> Result<MapGrid, String> {
    let maps = overlays(run, look);
    let first = maps.first().ok_or("No attention is on show: click a cell of the map whose block was profiled.")?;
    let [frames, height, width] = run.capture.run.token_grid;
    let cells = (height * width).max(1);
    let panel = |values: &[f32], frame: usize| {
        let mask = run.mask().and_then(|mask| mask.get(frame * cells..(frame + 1) * cells));
        let outline = mask.filter(|_| look.view.outline).map(<[bool]>::to_vec).unwrap_or_default();
        Some(MapPanel { values: values.iter().map(|value| f64::from(*value)).collect(), outline })
    };
    let panels =
        maps.iter().flat_map(|map| map.values.chunks_exact(cells).enumerate().map(|(f, values)| panel(values, f)));
    let diverging = first.colors == Colormap::Diverging;
    Ok(MapGrid {
        title: "Attention over the latent frames".into(),
        subtitle: run.subtitle(),
        value_label: meaning(look.view).into(),
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
    use crate::app::data::shared::Shared;
    use crate::app::tests::sample::{self, Kind};

    fn shared() -> Shared {
        let mut shared = Shared::default();
        shared.runs.add(sample::capture(Kind::Uniform), false, None);
        shared.selection.select(MapCell { step: 10, block: 5 });
        shared
    }

    #[test]
    fn a_cell_is_compared_with_a_pinned_one() {
        let (mut view, mut shared) = (View::default(), shared());
        let maps =
            |view: &View, shared: &Shared| overlays(shared.runs.current().unwrap(), view.look(&shared.selection));
        assert_eq!(maps(&view, &shared).len(), 1);
        shared.selection.pinned = Some(MapCell { step: 3, block: 7 });
        let both = maps(&view, &shared);
        assert_eq!((both.len(), both[0].range), (2, both[1].range));
        assert!(both[0].title.contains("block 7") && both[1].title.contains("block 5"));
        view.minus_pinned = true;
        let one = maps(&view, &shared);
        let token = 77;
        assert_eq!(one[0].values[token], both[1].values[token] - both[0].values[token]);
        assert_eq!((one.len(), one[0].range[0]), (1, -one[0].range[1]));
    }

    #[test]
    fn runs_beside_each_other_have_maps_of_their_own_in_common_colours() {
        let (view, mut shared) = (View::default(), shared());
        shared.runs.add(sample::capture(Kind::Off), false, None);
        let runs: Vec<&Run> = shared.runs.iter().collect();
        let maps = beside(&runs, view.look(&shared.selection));
        let [Some(reused), Some(computed)] = &maps[..] else { panic!("{maps:?}") };
        let cell = |step| MapCell { step, block: 5 };
        assert_eq!((reused.cell, computed.cell), (cell(9), cell(10)), "a reused block shows what it reuses");
        assert_eq!(reused.range, computed.range);
        assert!(reused.values != computed.values && top(&reused.values).max(top(&computed.values)) == reused.range[1]);
        shared.selection.block = None;
        let runs: Vec<&Run> = shared.runs.iter().collect();
        assert!(beside(&runs, view.look(&shared.selection)).iter().all(Option::is_none));
    }

    #[test]
    fn the_figure_shows_the_maps_of_the_run() {
        let (view, mut shared) = (View::default(), shared());
        let svg = |shared: &Shared| figure(shared.runs.current().unwrap(), view.look(&shared.selection));
        assert!(svg(&shared).unwrap().svg().as_str().contains("block 5, step 9"));
        shared.selection.clear();
        assert!(svg(&shared).is_err());
    }

    #[test]
    fn isolines_go_round_what_receives_more() {
        let values = [0.5, 0.5, 0.5, 0.5, 2.0, 0.5, 0.5, 0.5, 0.5];
        let lines: Vec<_> = isolines(&values, [3, 3], MEAN).collect();
        assert_eq!(lines.len(), 4, "the middle token has four sides: {lines:?}");
        assert_eq!(isolines(&[2.0; 9], [3, 3], MEAN).count() + isolines(&[], [0, 0], MEAN).count(), 0);
    }

    #[test]
    fn the_pointer_finds_its_token() {
        let shared = shared();
        let run = shared.runs.current().unwrap();
        let rect = Rect::from_min_size(egui::pos2(10.0, 20.0), vec2(80.0, 160.0));
        let [_, height, width] = run.capture.run.token_grid;
        assert_eq!(
            token_at(run, 2, rect, rect.min),
            Some(Found { token: Token { row: 0, column: 0 }, index: 2 * height * width })
        );
        let token = Token { row: height - 1, column: width - 1 };
        let last = Found { token, index: 3 * height * width - 1 };
        assert_eq!(token_at(run, 2, rect, rect.max), Some(last));
        assert_eq!(token_at(run, 2, rect, egui::pos2(0.0, 0.0)), None);
    }
}
