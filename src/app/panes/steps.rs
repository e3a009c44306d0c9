//! Pane "Steps": how much each step changes the prediction, and how long it takes.

use egui::accesskit::Role;
use egui::{Color32, Id, RichText, Ui};
use egui_plot::{
    AxisHints, Bar, BarChart, GridMark, HoverPosition, Line, MarkerShape, Plot, PlotPoints, Points, VLine,
};

use crate::app::actions::Actions;
use crate::app::data::runs::Run;
use crate::app::data::shared::Shared;
use crate::app::draw::cell::cell_color;
use crate::app::draw::theme::{self, Palette};
use crate::app::panes::{Pane, Place};
use crate::app::save::{self, Saveable};
use crate::caching::Cell;
use crate::engine::StepRecord;
use crate::media::figure::{self, Series};

/// The pane.
#[derive(Default)]
pub struct StepsPane;

impl Pane for StepsPane {
    fn key(&self) -> &'static str {
        "steps"
    }

    fn title(&self) -> &'static str {
        "Steps"
    }

    fn place(&self) -> Place {
        Place::BelowRight
    }

    fn saves(&self) -> Vec<&'static Saveable> {
        vec![&save::CHANGES, &save::TIMES]
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        let Some(run) = shared.runs.current().filter(|run| !run.capture.steps.is_empty()) else {
            theme::empty(ui, "No steps yet", "Curves of change and time grow here while a run goes on.");
            return;
        };
        let palette = Palette::of(ui);
        let half = ((ui.available_height() - 66.0) / 2.0).max(48.0);
        let (shown, baseline) = (shared.shown_step(), shared.runs.shown_baseline());
        ui.label(RichText::new("L1 distance between predictions").size(11.5).color(palette.weak));
        let changed = change_plot(ui, run, baseline, shown, half);
        ui.label(RichText::new("ms per step").size(11.5).color(palette.weak));
        let timed = time_plot(ui, run, shown, half);
        if let Some(step) = changed.or(timed) {
            actions.select(move |selection| selection.step = Some(step));
        }
    }
}

/// The kind of a step: reused if any block of the prompt's branch was reused, else stored or
/// computed.
fn kind(run: &Run, index: usize) -> Cell {
    let Some(plan) = run.capture.steps.get(index).and_then(|step| step.plan.as_ref()) else { return Cell::Computed };
    let cells = plan.cond.cells(run.capture.run.blocks);
    let reused = cells.iter().filter(|cell| **cell == Cell::Reused).count();
    match reused {
        0 if cells.contains(&Cell::Stored) => Cell::Stored,
        0 => Cell::Computed,
        _ => Cell::Reused,
    }
}

/// About three round values between the ends of an axis, so that also a low plot has some.
fn marks((low, high): (f64, f64)) -> Vec<GridMark> {
    let rough = (high - low) / 3.0;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10f64.powf(rough.log10().floor());
    let step_size = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|n| *n >= rough).unwrap_or(rough);
    let first = (low / step_size).ceil();
    (0..6)
        .map(|n| GridMark { value: (first + f64::from(n)) * step_size, step_size })
        .filter(|m| m.value <= high)
        .collect()
}

/// Formats a mark with enough digits to tell it from the next one.
fn number(value: f64, step_size: f64) -> String {
    let digits = (-step_size.abs().max(1e-9).log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.digits$}")
}

fn plot(name: &str, height: f32) -> Plot<'_> {
    Plot::new(name)
        .height(height)
        .include_y(0.0)
        .link_axis(Id::unique("steps"), [true, false])
        .allow_scroll(false)
        .allow_drag(false)
        .allow_zoom(false)
        .allow_boxed_zoom(false)
        .show_background(false)
        .set_margin_fraction(egui::vec2(0.02, 0.14))
        .custom_y_axes(vec![
            AxisHints::new_y()
                .min_thickness(34.0)
                .label_spacing(egui::Rangef::new(8.0, 14.0))
                .formatter(|mark, _| number(mark.value, mark.step_size)),
        ])
        .y_grid_spacer(|input| marks(input.bounds))
        .label_formatter(|at| match at {
            HoverPosition::NearDataPoint { plot_name, position, .. } => {
                Some(format!("step {:.0}\n{plot_name}: {:.4}", position.x, position.y))
            }
            HoverPosition::Elsewhere { .. } => None,
        })
}

/// Shows all steps of a run, also if the run before had fewer.
fn show_all(plot: &mut egui_plot::PlotUi<'_>, steps: usize) {
    plot.set_plot_bounds_x(-0.6..=steps.max(1) as f64 - 0.4);
}

/// The accessible name of a plot, with the value of the step on show.
fn name(what: &str, shown: Option<usize>, value: Option<String>) -> String {
    let value = value.unwrap_or_else(|| "no value".into());
    shown.map_or_else(|| what.into(), |step| format!("{what}; step {step}: {value}"))
}

/// The step that was clicked.
fn clicked(plot: &egui_plot::PlotUi<'_>, steps: usize) -> Option<usize> {
    let at = plot.pointer_coordinate().filter(|_| plot.response().clicked())?;
    Some((at.x.round().max(0.0) as usize).min(steps.saturating_sub(1)))
}

fn change_plot(ui: &mut Ui, run: &Run, baseline: Option<&Run>, shown: Option<usize>, height: f32) -> Option<usize> {
    let palette = Palette::of(ui);
    let curve = |run: &Run| -> Vec<[f64; 2]> {
        run.capture.steps.iter().filter_map(|step| Some([step.step as f64, step.prediction_change?])).collect()
    };
    let own = curve(run);
    // Marks on the axis show the kind of each step.
    let ticks = |wanted: Cell| -> Vec<[f64; 2]> {
        let steps = run.capture.steps.iter().enumerate().filter(|(index, _)| kind(run, *index) == wanted);
        steps.map(|(_, step)| [step.step as f64, 0.0]).collect()
    };
    let steps = run.capture.run.steps();
    let shown_plot = plot("change of predictions", height).show_axes([false, true]).show(ui, |plot| {
        show_all(plot, steps);
        if let Some(step) = shown {
            plot.vline(VLine::new("step on show", step as f64).color(palette.line).allow_hover(false));
        }
        if let Some(baseline) = baseline {
            let line = Line::new("baseline", PlotPoints::from(curve(baseline)));
            plot.line(line.color(palette.weak).width(1.0).style(egui_plot::LineStyle::dashed_loose()));
        }
        plot.line(Line::new("change", PlotPoints::from(own.clone())).color(palette.accent).width(2.0));
        plot.points(Points::new("change", PlotPoints::from(own)).color(palette.accent).radius(2.5));
        for (cell, shape) in [
            (Cell::Computed, MarkerShape::Square),
            (Cell::Stored, MarkerShape::Square),
            (Cell::Reused, MarkerShape::Cross),
        ] {
            let marks = Points::new("plan", PlotPoints::from(ticks(cell))).shape(shape);
            plot.points(marks.color(cell_color(&palette, cell)).radius(4.0).allow_hover(false));
        }
        clicked(plot, steps)
    });
    let value = shown.and_then(|step| run.step(step)?.prediction_change);
    let text = name("L1 distance between predictions", shown, value.map(|value| format!("{value:.4}")));
    theme::named(&shown_plot.response, Role::Image, text);
    shown_plot.inner
}

fn time_plot(ui: &mut Ui, run: &Run, shown: Option<usize>, height: f32) -> Option<usize> {
    let palette = Palette::of(ui);
    let bar = |(index, step): (usize, &StepRecord)| {
        let color: Color32 = cell_color(&palette, kind(run, index));
        let width = if kind(run, index) == Cell::Reused { 0.45 } else { 0.8 };
        Bar::new(step.step as f64, step.seconds * 1e3).width(width).fill(color).stroke(egui::Stroke::NONE)
    };
    let bars = run.capture.steps.iter().enumerate().map(bar).collect();
    let steps = run.capture.run.steps();
    let shown_plot = plot("time of steps", height)
        .x_axis_formatter(|mark, _| {
            if mark.value.fract() == 0.0 && mark.value >= 0.0 { format!("{:.0}", mark.value) } else { String::new() }
        })
        .show(ui, |plot| {
            show_all(plot, steps);
            if let Some(step) = shown {
                plot.vline(VLine::new("step on show", step as f64).color(palette.line).allow_hover(false));
            }
            let label = |bar: &Bar, _: &BarChart| format!("step {:.0}\n{:.0} ms", bar.argument, bar.value);
            plot.bar_chart(BarChart::new("ms", bars).element_formatter(Box::new(label)));
            clicked(plot, steps)
        });
    let value = shown.and_then(|step| Some(run.step(step)?.seconds));
    let text = name("Time of steps", shown, value.map(theme::seconds));
    theme::named(&shown_plot.response, Role::Image, text);
    shown_plot.inner
}

fn series(name: &str, run: &Run, value: impl Fn(&StepRecord) -> Option<f64>) -> Series {
    let points = run.capture.steps.iter().filter_map(|step| Some((step.step as f64, value(step)?))).collect();
    Series { name: name.into(), points, joined: true, ..Series::default() }
}

fn figure(title: &str, y_label: &str, run: &Run, series: Vec<Series>) -> figure::Plot {
    figure::Plot {
        title: title.into(),
        subtitle: run.subtitle(),
        x_label: "step".into(),
        y_label: y_label.into(),
        series,
        from_zero: true,
        ..figure::Plot::default()
    }
}

/// The change of the prediction from step to step, as a figure.
pub fn changes(run: &Run, baseline: Option<&Run>) -> figure::Plot {
    let of = |name: &str, run: &Run| series(name, run, |step| step.prediction_change);
    let mut all = vec![of(run.capture.run.strategy.name(), run)];
    all.extend(baseline.map(|baseline| of("baseline", baseline)));
    figure("Change of the prediction from step to step", "L1 distance to the step before", run, all)
}

/// The time of each step, as a figure.
pub fn times(run: &Run, baseline: Option<&Run>) -> figure::Plot {
    let of = |name: &str, run: &Run| series(name, run, |step| Some(step.seconds * 1e3));
    let mut all = vec![of(run.capture.run.strategy.name(), run)];
    all.extend(baseline.map(|baseline| of("baseline", baseline)));
    figure("Time of each step", "time, ms", run, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_a_few_round_marks() {
        let values = |low, high| marks((low, high)).into_iter().map(|mark| mark.value).collect::<Vec<_>>();
        assert_eq!(values(-10.0, 230.0), [0.0, 100.0, 200.0]);
        assert_eq!(values(0.0, 5.0), [0.0, 2.0, 4.0]);
        assert_eq!(
            (number(0.05, 0.05), number(200.0, 100.0), number(0.0, 0.5)),
            ("0.05".into(), "200".into(), "0.0".into())
        );
        assert!(values(0.0, 0.0).is_empty() && values(0.0, f64::INFINITY).is_empty());
    }
}
