//! Plots of lines and points on two axes.

use std::fmt::Write;

use super::canvas::{Anchor, Canvas, FAINT, GRID, INK, LABEL, NUMBER, Svg, TITLE, text_width};
use super::color::series as series_color;
use super::ticks::{number, short, span, ticks};

/// Dashes of series, in pixels. The first line is solid.
const DASHES: [&str; 5] = ["", "7 4", "2 3", "9 3 2 3", "4 2"];
/// Number of shapes of markers.
const MARKERS: usize = 6;
const MARGIN: f64 = 18.0;

/// Points that belong together. The index of a series determines its colour, marker and dash.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// x and y of each point. A point that is not finite leaves a gap.
    pub points: Vec<(f64, f64)>,
    /// Texts beside the points: none, or one for each point.
    pub labels: Vec<String>,
    /// Uncertainty of each y, up and down, drawn as a band: none, or one for each point.
    pub spread: Vec<f64>,
    /// Whether a line joins the points.
    pub joined: bool,
}

/// Series on two axes.
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// Title above the figure.
    pub title: String,
    /// Second line.
    pub subtitle: String,
    /// Meaning of x, with the unit.
    pub x_label: String,
    /// Meaning of y, with the unit.
    pub y_label: String,
    /// The series to draw.
    pub series: Vec<Series>,
    /// Whether the y axis begins at 0, for amounts that are compared by height.
    pub from_zero: bool,
    /// Least lengths of both axes, in their units. Without them a difference that means nothing
    /// would fill the figure.
    pub least: (f64, f64),
}

/// The area of the data: its position in pixels, and the values of x and y at its edges.
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    x: (f64, f64),
    y: (f64, f64),
}

impl Area {
    fn at(&self, (x, y): (f64, f64)) -> [f64; 2] {
        [
            self.left + (x - self.x.0) / (self.x.1 - self.x.0) * self.width,
            self.top + (1.0 - (y - self.y.0) / (self.y.1 - self.y.0)) * self.height,
        ]
    }
}

impl Plot {
    /// The figure.
    pub fn svg(&self) -> Svg {
        let header = TITLE + 12.0 + if self.subtitle.is_empty() { 0.0 } else { NUMBER + 8.0 };
        let (x, y) = self.ranges();
        let area = Area { left: MARGIN + 72.0, top: MARGIN + header, width: 560.0, height: 330.0, x, y };
        let names = self.series.iter().map(|series| text_width(&series.name, NUMBER)).fold(0.0, f64::max);
        // A single series needs no legend, because the axis names it.
        let legend = if self.series.len() > 1 { 58.0 + names } else { 0.0 };
        let right = area.left + area.width + legend.max(24.0) + MARGIN;
        let title = area.left + text_width(&self.title, TITLE).max(text_width(&self.subtitle, NUMBER)) + MARGIN;
        let mut canvas = Canvas::new(right.max(title), area.top + area.height + 64.0, &self.title);
        canvas.label([area.left, MARGIN + TITLE * 0.8], TITLE, INK, Anchor::Start, &self.title);
        canvas.label([area.left, MARGIN + TITLE + NUMBER + 4.0], NUMBER, FAINT, Anchor::Start, &self.subtitle);
        self.axes(&mut canvas, &area);
        for (index, series) in self.series.iter().enumerate() {
            draw_band(&mut canvas, &area, series, index);
        }
        for (index, series) in self.series.iter().enumerate() {
            draw(&mut canvas, &area, series, index);
        }
        for series in &self.series {
            draw_labels(&mut canvas, &area, series);
        }
        if self.series.len() > 1 {
            for (index, series) in self.series.iter().enumerate() {
                let (x, y) = (area.left + area.width + 18.0, area.top + 12.0 + 22.0 * index as f64);
                if series.joined {
                    stroke(&mut canvas, &format!("M{x:.1} {y:.1}h26"), index);
                }
                marker(&mut canvas, [x + 13.0, y], index);
                canvas.label([x + 33.0, y + NUMBER * 0.35], NUMBER, INK, Anchor::Start, &series.name);
            }
        }
        canvas.finish()
    }

    /// Ranges of both axes, with some space around the points.
    fn ranges(&self) -> ((f64, f64), (f64, f64)) {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let (left, right) = widened(span(points().map(|point| point.0)), self.least.0);
        let ends = self.series.iter().flat_map(|series| {
            series.points.iter().enumerate().flat_map(|(i, point)| {
                let spread = series.spread.get(i).copied().filter(|spread| spread.is_finite()).unwrap_or(0.0);
                [point.1 - spread, point.1 + spread]
            })
        });
        let (bottom, top) = widened(span(ends), self.least.1);
        let (x_air, y_air) = ((right - left) * 0.03, (top - bottom) * 0.07);
        let bottom = if self.from_zero && bottom >= 0.0 { 0.0 } else { bottom - y_air };
        ((left - x_air, right + x_air), (bottom, top + y_air))
    }

    fn axes(&self, canvas: &mut Canvas, area: &Area) {
        let (bottom, right) = (area.top + area.height, area.left + area.width);
        let step = |marks: &[f64]| marks.get(1).map_or(0.0, |second| second - marks[0]);
        let marks = ticks(area.x.0, area.x.1, 8);
        for mark in &marks {
            let [x, _] = area.at((*mark, area.y.0));
            canvas.line([x, area.top], [x, bottom], GRID, 1.0);
            canvas.line([x, bottom], [x, bottom + 4.0], FAINT, 1.0);
            canvas.label([x, bottom + 19.0], NUMBER, INK, Anchor::Middle, &number(*mark, step(&marks)));
        }
        let marks = ticks(area.y.0, area.y.1, 6);
        for mark in &marks {
            let [_, y] = area.at((area.x.0, *mark));
            canvas.line([area.left, y], [right, y], GRID, 1.0);
            canvas.line([area.left - 4.0, y], [area.left, y], FAINT, 1.0);
            canvas.label([area.left - 8.0, y + NUMBER * 0.35], NUMBER, INK, Anchor::End, &number(*mark, step(&marks)));
        }
        canvas.frame([area.left, area.top], [area.width, area.height]);
        canvas.label([area.left + area.width / 2.0, bottom + 44.0], LABEL, INK, Anchor::Middle, &self.x_label);
        canvas.upright([area.left - 58.0, area.top + area.height / 2.0], LABEL, INK, &self.y_label);
    }
}

/// A range about the same middle with at least this length.
fn widened((low, high): (f64, f64), least: f64) -> (f64, f64) {
    let missing = (least - (high - low)).max(0.0) / 2.0;
    (low - missing, high + missing)
}

fn finite(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

fn draw_band(canvas: &mut Canvas, area: &Area, series: &Series, index: usize) {
    let spread = |i: usize| series.spread.get(i).copied().filter(|spread| spread.is_finite()).unwrap_or(0.0);
    let ends = series.points.iter().enumerate().filter(|(_, point)| finite(point));
    let above = ends.clone().map(|(i, (x, y))| area.at((*x, y + spread(i))));
    let below = ends.rev().map(|(i, (x, y))| area.at((*x, y - spread(i))));
    let corners: Vec<String> = above.chain(below).map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
    if !series.spread.is_empty() && corners.len() > 2 {
        let color = series_color(index);
        canvas
            .put(format_args!("<polygon points=\"{}\" fill=\"{color}\" fill-opacity=\"0.16\"/>\n", corners.join(" ")));
    }
}

fn draw(canvas: &mut Canvas, area: &Area, series: &Series, index: usize) {
    if series.joined {
        let mut path = String::new();
        let mut pen_up = true;
        for point in &series.points {
            if finite(point) {
                let [x, y] = area.at(*point);
                let _ = write!(path, "{}{x:.1} {y:.1}", if pen_up { "M" } else { "L" });
            }
            pen_up = !finite(point);
        }
        stroke(canvas, &path, index);
    }
    for point in series.points.iter().filter(|point| finite(point)) {
        let tip = format!("{}: {}, {}", series.name, short(point.0), short(point.1));
        canvas.with_tip(&tip, |canvas| marker(canvas, area.at(*point), index));
    }
}

/// Draws the labels. This happens after all markers, so that no marker covers a label.
fn draw_labels(canvas: &mut Canvas, area: &Area, series: &Series) {
    for (point, label) in series.points.iter().zip(&series.labels) {
        let at = area.at(*point);
        if finite(point) {
            // A point near the right edge has its label on the left, where there is room.
            let near_edge = at[0] + 16.0 + text_width(label, NUMBER) > area.left + area.width;
            let (shift, anchor) = if near_edge { (-8.0, Anchor::End) } else { (8.0, Anchor::Start) };
            canvas.halo_label([at[0] + shift, at[1] - 7.0], NUMBER, INK, anchor, label);
        }
    }
}

fn stroke(canvas: &mut Canvas, path: &str, index: usize) {
    let (color, dash) = (series_color(index), DASHES[index % DASHES.len()]);
    if !path.is_empty() {
        canvas.put(format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-dasharray=\"{}\" \
             stroke-linejoin=\"round\"/>\n",
            if dash.is_empty() { "none" } else { dash }
        ));
    }
}

/// Draws a marker of series `index`. Its white rim separates it from lines.
fn marker(canvas: &mut Canvas, [x, y]: [f64; 2], index: usize) {
    let color = series_color(index);
    let path = match index % MARKERS {
        0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", x - 4.0),
        1 => format!("M{:.1} {:.1}h7.2v7.2h-7.2z", x - 3.6, y - 3.6),
        2 => format!("M{x:.1} {:.1}l4.8 8.3h-9.6z", y - 5.2),
        3 => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5z", y - 5.0),
        4 => format!("M{x:.1} {:.1}l-4.8 -8.3h9.6z", y + 5.2),
        _ => format!("M{:.1} {:.1}h3v3.4h3.4v3h-3.4v3.4h-3v-3.4h-3.4v-3h3.4z", x - 1.5, y - 4.9),
    };
    canvas.put(format_args!("<path d=\"{path}\" fill=\"{color}\" stroke=\"#ffffff\" stroke-width=\"1\"/>\n"));
}
