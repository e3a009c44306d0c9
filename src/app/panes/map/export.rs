//! The map as a figure (SVG) and as a table (CSV).

use std::fmt::Write;

use super::MapPane;
use super::cells::Cells;
use super::class::Class;
use super::colouring::Colouring;
use crate::app::data::runs::Run;
use crate::app::data::shared::Shared;
use crate::app::draw::cell::cell_color;
use crate::app::draw::theme::LIGHT;
use crate::caching::Cell;
use crate::media::Colormap;
use crate::media::figure::{ColorScale, Heatmap};

const SIDE: usize = 14;
const LEFT: usize = 40;
const TOP: usize = 42;
const TITLE: usize = 12;
const SMALL: usize = 10;

/// The texts of a figure.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// The quantity of the cells.
    pub title: String,
    /// The run, its branch, and the run that was subtracted.
    pub subtitle: String,
    /// A letter for every block, if the classes of blocks are known.
    pub classes: Vec<String>,
}

impl Labels {
    /// The texts for the map on show.
    pub fn of(map: &MapPane, shared: &Shared, run: &Run, cells: &Cells) -> Self {
        let title = match (cells.colouring, map.shows_plan(shared)) {
            (Colouring::Reuse, true) => "What each block will do, by step".into(),
            (Colouring::Reuse, false) => "What each block did, by step".into(),
            (colouring, _) => format!("{}, by block and step", colouring.name()),
        };
        let class = |block| Class::of(shared, block);
        let known = cells.blocks == shared.blocks() && (0..cells.blocks).all(|block| class(block) != Class::Unknown);
        let classes = (0..cells.blocks).filter(|_| known).map(|block| class(block).letter().into()).collect();
        Self { title, subtitle: subtitle(map, shared, run, cells), classes }
    }
}

fn subtitle(map: &MapPane, shared: &Shared, run: &Run, cells: &Cells) -> String {
    if map.shows_plan(shared) {
        return format!("plan of {}, {} steps", shared.form.strategy().name(), cells.steps);
    }
    let mut text = run.subtitle();
    if run.capture.run.guided() {
        text.push_str(if cells.uncond { "; branch of the negative prompt" } else { "; branch of the prompt" });
    }
    if let (true, Some(baseline)) = (cells.subtracted, shared.runs.shown_baseline()) {
        write!(text, "; minus baseline {}", baseline.title()).ok();
    }
    text
}

/// The map of a run as it is on show: a figure, and a table of its values.
pub fn figure_and_table(map: &MapPane, shared: &Shared, run: &Run) -> (String, String) {
    let cells = Cells::of(map, shared);
    (svg(&cells, &Labels::of(map, shared, run, &cells)), csv(&cells))
}

/// A figure on white, with axes and legend.
fn svg(cells: &Cells, labels: &Labels) -> String {
    match cells.colouring {
        Colouring::Reuse => reuse(cells, labels),
        _ => measured(cells, labels).svg().as_str().into(),
    }
}

fn measured(cells: &Cells, labels: &Labels) -> Heatmap {
    let (label, [low, high]) = (cells.colouring.label(), cells.range.map(f64::from));
    let value = |block: usize, step: usize| cells.get(step, block)?.value.map(f64::from);
    let neutral = cells.neutral().map(f64::from);
    Heatmap {
        title: labels.title.clone(),
        subtitle: labels.subtitle.clone(),
        x_label: "step (0 is the noisiest)".into(),
        y_label: "block".into(),
        value_label: if cells.subtracted { format!("{label}, minus baseline") } else { label.into() },
        columns: cells.steps,
        values: (0..cells.blocks).flat_map(|block| (0..cells.steps).map(move |step| value(block, step))).collect(),
        row_marks: labels.classes.clone(),
        marks_label: "F: foreground block, B: background block".into(),
        colors: if cells.map == Colormap::Diverging { ColorScale::Diverging } else { ColorScale::Viridis },
        // With a middle, the figure makes its own scale.
        range: neutral.is_none().then_some((low, high)),
        middle: neutral,
    }
}

fn hex(color: egui::Color32) -> String {
    format!("#{:02x}{:02x}{:02x}", color.r(), color.g(), color.b())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// An estimate of the width of a text.
fn wide(text: &str, size: usize) -> usize {
    text.chars().count() * size * 3 / 5
}

const KINDS: [(Cell, &str); 3] =
    [(Cell::Computed, "computed"), (Cell::Stored, "computed and kept"), (Cell::Reused, "reused")];

/// The figure of what each block did, with the colours and marks of the window.
fn reuse(cells: &Cells, labels: &Labels) -> String {
    let grid = [cells.steps * SIDE, cells.blocks * SIDE];
    let legend: usize = KINDS.iter().map(|(_, name)| wide(name, SMALL) + 34).sum();
    let text = wide(&labels.title, TITLE).max(wide(&labels.subtitle, SMALL)).max(legend + 120);
    let (width, height) = (LEFT + text.max(grid[0] + 16) + 20, TOP + grid[1] + 64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"{SMALL}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"17\" font-size=\"{TITLE}\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"32\">{}</text>\n",
        escape(&labels.title),
        escape(&labels.subtitle)
    );
    for block in 0..cells.blocks {
        let y = TOP + block * SIDE;
        writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">b{block}</text>", LEFT - 4, y + 11).ok();
        for step in 0..cells.steps {
            if let Some(value) = cells.get(step, block) {
                cell(&mut out, [LEFT + step * SIDE, y], value.cell, value.planned);
            }
        }
        if let Some(class) = labels.classes.get(block) {
            writeln!(out, "<text x=\"{}\" y=\"{}\">{class}</text>", LEFT + grid[0] + 4, y + 11).ok();
        }
    }
    let bottom = TOP + grid[1];
    for step in (0..cells.steps).step_by(5) {
        let x = LEFT + step * SIDE + SIDE / 2;
        writeln!(out, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{step}</text>", bottom + 12).ok();
    }
    legend_of_kinds(&mut out, cells, bottom + 26);
    out.push_str("</svg>\n");
    out
}

/// One cell. The shape tells the kinds apart as well as the colour: a reused cell is thin, a stored
/// cell has a bar below.
fn cell(out: &mut String, [x, y]: [usize; 2], kind: Cell, planned: bool) {
    let side = SIDE - 1;
    let (inset, tall) = if kind == Cell::Reused { (4, SIDE - 9) } else { (0, side) };
    let (color, faint) = (hex(cell_color(&LIGHT, kind)), if planned { " fill-opacity=\"0.45\"" } else { "" });
    writeln!(out, "<rect x=\"{x}\" y=\"{}\" width=\"{side}\" height=\"{tall}\" fill=\"{color}\"{faint}/>", y + inset)
        .ok();
    if kind == Cell::Stored {
        let (y, color) = (y + side - 3, hex(LIGHT.text));
        writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"3\" fill=\"{color}\"{faint}/>").ok();
    }
}

fn legend_of_kinds(out: &mut String, cells: &Cells, y: usize) {
    let mut x = LEFT;
    for (kind, name) in KINDS {
        cell(out, [x, y], kind, false);
        writeln!(out, "<text x=\"{}\" y=\"{}\">{name}</text>", x + SIDE + 4, y + 10).ok();
        x += wide(name, SMALL) + 34;
    }
    if cells.planned {
        writeln!(out, "<text x=\"{x}\" y=\"{}\">(faint: planned)</text>", y + 10).ok();
    }
}

/// A table with one line a cell: step, block, branch, action, value.
fn csv(cells: &Cells) -> String {
    let (name, minus) = (cells.colouring.name().to_lowercase(), if cells.subtracted { "_minus_baseline" } else { "" });
    let branch = if cells.uncond { "uncond" } else { "cond" };
    let mut out = format!("step,block,branch,done,{name}{minus}\n");
    for step in 0..cells.steps {
        for block in 0..cells.blocks {
            let Some(value) = cells.get(step, block) else { continue };
            let number = value.value.map_or(String::new(), |number| number.to_string());
            writeln!(out, "{step},{block},{branch},{},{number}", kind(value.cell)).ok();
        }
    }
    out
}

fn kind(cell: Cell) -> &'static str {
    match cell {
        Cell::Computed => "computed",
        Cell::Stored => "stored",
        Cell::Reused => "reused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::sample;

    fn shared() -> Shared {
        let mut shared = Shared::default();
        let off = shared.runs.add(sample::capture(sample::Kind::Off), false, None);
        shared.runs.set_baseline(Some(off));
        let mut capture = sample::capture(sample::Kind::Uniform);
        capture.run.prompt = "a < b & \"c\"".repeat(12);
        shared.runs.add(capture, false, None);
        shared
    }

    fn exported(map: &MapPane, shared: &Shared) -> (String, String) {
        figure_and_table(map, shared, shared.runs.current().unwrap())
    }

    #[test]
    fn every_cell_is_in_figure_and_table() {
        let (mut map, shared) = (MapPane::default(), shared());
        for colouring in Colouring::ALL {
            map.settings.colouring = colouring;
            let (figure, table) = exported(&map, &shared);
            assert!(figure.contains("a &lt; b &amp; &quot;c&quot;") && figure.ends_with("</svg>\n"));
            assert!(figure.contains("branch of the prompt") && !figure.contains("minus"));
            assert_eq!(table.lines().count(), 1 + 16 * 8);
        }
        // Every cell and the legend's; stored ones have a bar, reused ones are thin.
        let (figure, table) = exported(&map, &shared);
        let drawn = |height: &str| figure.matches(&format!("height=\"{height}\" fill")).count();
        let listed = |kind: &str| table.lines().filter(|line| line.contains(kind)).count();
        assert_eq!((drawn("13") + drawn("5"), drawn("5")), (16 * 8 + 3, listed("reused") + 1));
        assert_eq!(drawn("3"), listed("stored") + 1);
    }

    #[test]
    fn figures_say_what_they_show_and_are_as_wide_as_that() {
        let (mut map, mut shared) = (MapPane::default(), shared());
        let (figure, _) = exported(&map, &shared);
        let width: usize =
            figure.split("width=\"").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok()).unwrap();
        let prompt = shared.runs.current().unwrap().capture.run.prompt.chars().count();
        assert!(width > LEFT + prompt * SMALL / 2, "{width}");
        assert!(figure.contains("What each block did") && figure.contains("computed and kept"));
        (map.settings.colouring, map.settings.subtract) = (Colouring::Time, true);
        shared.selection.uncond = true;
        let (figure, table) = exported(&map, &shared);
        assert!(figure.contains("Time, by block and step") && figure.contains("GPU time, ms, minus baseline"));
        assert!(figure.contains("branch of the negative prompt; minus baseline #1 off"));
        assert!(table.starts_with("step,block,branch,done,time_minus_baseline\n0,0,uncond,stored,"));
        // A plan is no measurement, whatever is chosen for the run.
        map.settings.plan = true;
        let (figure, table) = exported(&map, &shared);
        assert!(figure.contains("What each block will do") && !figure.contains("GPU time"));
        assert!(table.starts_with("step,block,branch,done,reuse\n"));
    }
}
