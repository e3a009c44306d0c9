//! Matrices and maps drawn in colour.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::canvas::{Anchor, Canvas, FAINT, INK, LABEL, NUMBER, Svg, TITLE, text_width};
use super::color::ColorScale;
use super::ticks::{index_ticks, number, short, span, ticks};

/// Number of shades in a map. The eye cannot distinguish more.
const LEVELS: usize = 160;
/// Space around a figure, in pixels.
const MARGIN: f64 = 18.0;
/// Width of a colour bar.
const BAR: f64 = 16.0;

/// A matrix drawn in colour, with one cell for each value.
#[derive(Clone, Debug, Default)]
pub struct Heatmap {
    /// Title above the figure.
    pub title: String,
    /// Second line: the measured quantity and its subject.
    pub subtitle: String,
    /// Meaning of the columns.
    pub x_label: String,
    /// Meaning of the rows.
    pub y_label: String,
    /// Meaning of the colours, with the unit.
    pub value_label: String,
    /// Number of cells in a row.
    pub columns: usize,
    /// Values row by row, with row 0 on top. `None` was not measured; its cell is crossed out.
    pub values: Vec<Option<f64>>,
    /// Letters at the right of the rows, such as the class of a block: none, or one for each row.
    pub row_marks: Vec<String>,
    /// Meaning of the letters.
    pub marks_label: String,
    /// The colours.
    pub colors: ColorScale,
    /// Values of the first and last colour. `None` takes the range of the values.
    pub range: Option<(f64, f64)>,
    /// A value that gets the middle colour, such as chance or no change. The range is widened until
    /// it is symmetric about this value.
    pub middle: Option<f64>,
}

impl Heatmap {
    /// The figure.
    pub fn svg(&self) -> Svg {
        let columns = self.columns.max(1);
        let rows = self.values.len().div_ceil(columns).max(1);
        let cell_width = (620.0 / columns as f64).clamp(3.0, 34.0);
        let cell_height = (440.0 / rows as f64).clamp(3.0, 24.0);
        let [width, height] = [cell_width * columns as f64, cell_height * rows as f64];
        let scale = Scale::new(self.values.iter().flatten().copied(), self.range, self.middle, self.colors);
        let marks = if self.row_marks.is_empty() { 0.0 } else { 26.0 };
        let (left, top) = (MARGIN + 58.0, MARGIN + header_height(&self.title, &self.subtitle));
        let bar_x = left + width + marks + 22.0;
        let total = [
            (bar_x + BAR + 92.0)
                .max(left + text_width(&self.title, TITLE).max(text_width(&self.subtitle, NUMBER)) + MARGIN),
            top + height.max(120.0) + 60.0 + if marks > 0.0 { 22.0 } else { 0.0 },
        ];
        let mut canvas = Canvas::new(total[0], total[1], &self.title);
        header(&mut canvas, left, &self.title, &self.subtitle);
        cells(&mut canvas, [left, top], [cell_width, cell_height], columns, &self.values, &scale);
        self.tips(&mut canvas, [left, top], [cell_width, cell_height]);
        canvas.frame([left, top], [width, height]);
        self.axes(&mut canvas, [left, top], [cell_width, cell_height], [columns, rows]);
        for (row, mark) in self.row_marks.iter().enumerate().take(rows) {
            let size = NUMBER.min(cell_height * 1.05);
            let y = top + (row as f64 + 0.5) * cell_height + size * 0.35;
            canvas.label([left + width + 14.0, y], size, INK, Anchor::Middle, mark);
        }
        if marks > 0.0 {
            canvas.label([left, top + height + 66.0], NUMBER, FAINT, Anchor::Start, &self.marks_label);
        }
        scale.bar(&mut canvas, [bar_x, top], height.max(120.0), &self.value_label);
        canvas.finish()
    }

    /// Lays an invisible box over each measured cell, which shows the cell's value under the
    /// pointer.
    fn tips(&self, canvas: &mut Canvas, [left, top]: [f64; 2], [width, height]: [f64; 2]) {
        let columns = self.columns.max(1);
        // "step (0 is the noisiest)" is called "step".
        let word = |label: &str| label.split(" (").next().unwrap_or_default().to_owned();
        let (of_row, of_column) = (word(&self.y_label), word(&self.x_label));
        for (index, value) in self.values.iter().enumerate() {
            let Some(value) = value.filter(|value| value.is_finite()) else { continue };
            let (row, column) = (index / columns, index % columns);
            let (x, y) = (left + column as f64 * width, top + row as f64 * height);
            canvas.with_tip(&format!("{of_row} {row}, {of_column} {column}: {}", short(value)), |canvas| {
                canvas.put(format_args!(
                    "<path d=\"M{x:.1} {y:.1}h{width:.1}v{height:.1}h-{width:.1}z\" fill=\"none\" pointer-events=\"all\"/>"
                ));
            });
        }
    }

    fn axes(&self, canvas: &mut Canvas, [left, top]: [f64; 2], cell: [f64; 2], [columns, rows]: [usize; 2]) {
        let [width, height] = [cell[0] * columns as f64, cell[1] * rows as f64];
        for column in index_ticks(columns, ((width / 44.0) as usize).max(2)) {
            let x = left + (column as f64 + 0.5) * cell[0];
            canvas.line([x, top + height], [x, top + height + 4.0], FAINT, 1.0);
            canvas.label([x, top + height + 18.0], NUMBER, INK, Anchor::Middle, &column.to_string());
        }
        for row in index_ticks(rows, ((height / 17.0) as usize).max(2)) {
            let y = top + (row as f64 + 0.5) * cell[1];
            canvas.line([left - 4.0, y], [left, y], FAINT, 1.0);
            canvas.label([left - 8.0, y + NUMBER * 0.35], NUMBER, INK, Anchor::End, &row.to_string());
        }
        canvas.label([left + width / 2.0, top + height + 42.0], LABEL, INK, Anchor::Middle, &self.x_label);
        canvas.upright([left - 40.0, top + height / 2.0], LABEL, INK, &self.y_label);
    }
}

/// One map of a [`MapGrid`].
#[derive(Clone, Debug)]
pub struct MapPanel {
    /// Values row by row, one for each cell of the map.
    pub values: Vec<f64>,
    /// Whether to outline each cell, for example because it lies in a mask. May be empty.
    pub outline: Vec<bool>,
}

/// Small maps of one size in rows and columns. All maps share one colour scale.
#[derive(Clone, Debug, Default)]
pub struct MapGrid {
    /// Title above the figure.
    pub title: String,
    /// Second line.
    pub subtitle: String,
    /// Meaning of the colours, with the unit.
    pub value_label: String,
    /// Height and width of a map in cells.
    pub extents: [usize; 2],
    /// Names of the rows.
    pub row_names: Vec<String>,
    /// Names of the columns.
    pub column_names: Vec<String>,
    /// Maps row by row. `None` was not measured.
    pub panels: Vec<Option<MapPanel>>,
    /// The colours.
    pub colors: ColorScale,
    /// Values of the first and last colour. `None` takes the range of the values.
    pub range: Option<(f64, f64)>,
}

impl MapGrid {
    /// The figure.
    pub fn svg(&self) -> Svg {
        const GAP: f64 = 6.0;
        let [map_rows, map_columns] = self.extents.map(|n| n.max(1));
        let columns = self.column_names.len().max(1);
        let side = (132.0 / map_columns.max(map_rows) as f64).max(1.0);
        let (map_width, map_height) = (side * map_columns as f64, side * map_rows as f64);
        let names = self.row_names.iter().map(|name| text_width(name, LABEL)).fold(0.0, f64::max);
        let (left, top) = (MARGIN + names + 12.0, MARGIN + header_height(&self.title, &self.subtitle) + 22.0);
        let width = columns as f64 * (map_width + GAP) - GAP;
        let height = self.row_names.len().max(1) as f64 * (map_height + GAP) - GAP;
        let values = self.panels.iter().flatten().flat_map(|panel| panel.values.iter().copied());
        let scale = Scale::new(values, self.range, None, self.colors);
        let bar_x = left + width + 24.0;
        let title = MARGIN + text_width(&self.title, TITLE).max(text_width(&self.subtitle, NUMBER)) + MARGIN;
        let mut canvas =
            Canvas::new((bar_x + BAR + 92.0).max(title), top + height.max(120.0) + MARGIN + 8.0, &self.title);
        header(&mut canvas, MARGIN, &self.title, &self.subtitle);
        for (column, name) in self.column_names.iter().enumerate() {
            let x = left + column as f64 * (map_width + GAP) + map_width / 2.0;
            canvas.label([x, top - 9.0], LABEL, INK, Anchor::Middle, name);
        }
        for (row, name) in self.row_names.iter().enumerate() {
            let y = top + row as f64 * (map_height + GAP);
            canvas.label([left - 10.0, y + map_height / 2.0 + LABEL * 0.35], LABEL, INK, Anchor::End, name);
            for column in 0..columns {
                let at = [left + column as f64 * (map_width + GAP), y];
                let panel = self.panels.get(row * columns + column).and_then(Option::as_ref);
                let values: Vec<Option<f64>> = match panel {
                    Some(panel) => panel.values.iter().copied().map(Some).collect(),
                    None => vec![None; map_rows * map_columns],
                };
                cells(&mut canvas, at, [side; 2], map_columns, &values, &scale);
                if let Some(panel) = panel {
                    outline(&mut canvas, at, side, map_columns, &panel.outline);
                }
                canvas.frame(at, [map_width, map_height]);
            }
        }
        scale.bar(&mut canvas, [bar_x, top], height.max(120.0), &self.value_label);
        canvas.finish()
    }
}

/// A colour scale over a range of values.
struct Scale {
    low: f64,
    high: f64,
    /// The part of the range that the bar shows. A range that was widened to be symmetric extends
    /// beyond the values and may include impossible values.
    shown: (f64, f64),
    colors: ColorScale,
}

impl Scale {
    fn new(
        values: impl Iterator<Item = f64>,
        range: Option<(f64, f64)>,
        middle: Option<f64>,
        colors: ColorScale,
    ) -> Self {
        let (mut low, mut high) = range.unwrap_or_else(|| span(values));
        let mut shown = (low, high);
        if let Some(middle) = middle {
            shown = (low.min(middle), high.max(middle));
            let reach = (high - middle).abs().max((middle - low).abs()).max(1e-6);
            (low, high) = (middle - reach, middle + reach);
        }
        // A caller may give an empty range.
        let wide = |(low, high): (f64, f64)| if high > low { (low, high) } else { (low, low + 1.0) };
        (low, high) = wide((low, high));
        Self { low, high, shown: wide(shown), colors }
    }

    fn unit(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// A colour bar with its ticks and label.
    fn bar(&self, canvas: &mut Canvas, [x, y]: [f64; 2], height: f64, label: &str) {
        const STEPS: usize = 64;
        canvas.put(format_args!("<g shape-rendering=\"crispEdges\">\n"));
        let (low, high) = self.shown;
        for step in 0..STEPS {
            let value = low + (high - low) * (step as f64 + 0.5) / STEPS as f64;
            let color = self.colors.hex(self.unit(value));
            let top = y + height * (1.0 - (step + 1) as f64 / STEPS as f64);
            canvas.put(format_args!(
                "<rect x=\"{x:.1}\" y=\"{top:.2}\" width=\"{BAR}\" height=\"{:.2}\" fill=\"{color}\"/>\n",
                height / STEPS as f64 + 0.5
            ));
        }
        canvas.put(format_args!("</g>\n"));
        canvas.frame([x, y], [BAR, height]);
        let marks = ticks(low, high, ((height / 42.0) as usize).max(4));
        let step = marks.get(1).map_or(0.0, |second| second - marks[0]);
        let mut widest: f64 = 0.0;
        for mark in marks {
            let at = y + height * (1.0 - (mark - low) / (high - low));
            let text = number(mark, step);
            widest = widest.max(text_width(&text, NUMBER));
            canvas.line([x + BAR, at], [x + BAR + 4.0, at], FAINT, 1.0);
            canvas.label([x + BAR + 7.0, at + NUMBER * 0.35], NUMBER, INK, Anchor::Start, &text);
        }
        canvas.upright([x + BAR + 7.0 + widest + 22.0, y + height / 2.0], LABEL, INK, label);
    }
}

/// Draws title and subtitle, starting at `x`.
fn header(canvas: &mut Canvas, x: f64, title: &str, subtitle: &str) {
    canvas.label([x, MARGIN + TITLE * 0.8], TITLE, INK, Anchor::Start, title);
    canvas.label([x, MARGIN + TITLE + NUMBER + 4.0], NUMBER, FAINT, Anchor::Start, subtitle);
}

fn header_height(title: &str, subtitle: &str) -> f64 {
    let line = |text: &str, height: f64| if text.is_empty() { 0.0 } else { height };
    line(title, TITLE + 12.0) + line(subtitle, NUMBER + 8.0)
}

/// Draws the cells of a matrix. All cells of one shade form one path, and neighbours in a row form
/// one rectangle.
fn cells(
    canvas: &mut Canvas,
    [left, top]: [f64; 2],
    [width, height]: [f64; 2],
    columns: usize,
    values: &[Option<f64>],
    scale: &Scale,
) {
    let shade = |value: f64| (scale.unit(value).clamp(0.0, 1.0) * (LEVELS - 1) as f64).round() as usize;
    let mut paths: BTreeMap<Option<usize>, String> = BTreeMap::new();
    for (row, values) in values.chunks(columns).enumerate() {
        let shades: Vec<Option<usize>> =
            values.iter().map(|value| value.filter(|value| value.is_finite()).map(shade)).collect();
        let mut column = 0;
        for run in shades.chunk_by(|a, b| a == b) {
            let path = paths.entry(run[0]).or_default();
            let (x, y) = (left + column as f64 * width, top + row as f64 * height);
            let _ = write!(path, "M{x:.2} {y:.2}h{0:.2}v{height:.2}h-{0:.2}z", run.len() as f64 * width);
            column += run.len();
        }
    }
    canvas.put(format_args!("<g shape-rendering=\"crispEdges\">\n"));
    for (shade, path) in paths {
        match shade {
            Some(shade) => {
                let color = scale.colors.hex(shade as f64 / (LEVELS - 1) as f64);
                canvas.put(format_args!("<path fill=\"{color}\" d=\"{path}\"/>\n"));
            }
            None => canvas.put(format_args!("<path fill=\"#e4e8ec\" d=\"{path}\"/>\n")),
        }
    }
    canvas.put(format_args!("</g>\n"));
    for (index, _) in values.iter().enumerate().filter(|(_, value)| !value.is_some_and(f64::is_finite)) {
        let (x, y) = (left + (index % columns) as f64 * width, top + (index / columns) as f64 * height);
        canvas.line([x, y + height], [x + width, y], "#8d96a0", 0.8);
    }
}

/// Draws the border between outlined and other cells as a white line over a dark line, which is
/// visible on every colour.
fn outline(canvas: &mut Canvas, [left, top]: [f64; 2], side: f64, columns: usize, cells: &[bool]) {
    let rows = cells.len() / columns.max(1);
    let at = |row: usize, column: usize| cells[row * columns + column];
    let mut path = String::new();
    for row in 0..rows {
        for column in 0..columns {
            let (x, y) = (left + column as f64 * side, top + row as f64 * side);
            if column > 0 && at(row, column) != at(row, column - 1) {
                let _ = write!(path, "M{x:.2} {y:.2}v{side:.2}");
            }
            if row > 0 && at(row, column) != at(row - 1, column) {
                let _ = write!(path, "M{x:.2} {y:.2}h{side:.2}");
            }
        }
    }
    if !path.is_empty() {
        for (color, width) in [("#000000", 2.6), ("#ffffff", 1.2)] {
            canvas.put(format_args!(
                "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" stroke-linecap=\"square\"/>\n"
            ));
        }
    }
}
