//! Speed-up against likeness, a point for each compared run.

use egui::Ui;
use egui::accesskit::Role;
use egui_plot::{HoverPosition, Plot, Points};

use crate::app::actions::Actions;
use crate::app::data::run_table::{Row, Source};
use crate::app::data::shared::Shared;
use crate::app::draw::theme::{self, Palette};

/// A point of the plot.
struct Point {
    run: u64,
    name: String,
    /// Work without reuse divided by work with it, and PSNR in dB.
    at: [f64; 2],
}

fn points(rows: &[Row]) -> Vec<Point> {
    let point = |row: &Row| {
        let Source::Run(run) = row.source else { return None };
        // Identical clips have no finite PSNR, and no place on the axis.
        let psnr = row.psnr.filter(|psnr| psnr.is_finite())?;
        Some(Point { run, name: format!("#{run} {}", row.title), at: [row.flop_speedup?, psnr] })
    };
    rows.iter().filter_map(point).collect()
}

/// Draws the plot. A click shows the nearest run.
pub fn ui(ui: &mut Ui, shared: &Shared, rows: &[Row], actions: &mut Actions) {
    let points = points(rows);
    if points.is_empty() {
        let what = "Choose a run without reuse as the baseline, and generate the same clip with strategies.";
        return theme::empty(ui, "No run was compared with a baseline yet", what);
    }
    let palette = Palette::of(ui);
    let current = shared.runs.current().map(|run| run.id);
    let plot = Plot::new("speed and likeness")
        .height(ui.available_height().max(60.0))
        .allow_scroll(false)
        .allow_drag(false)
        .allow_zoom(false)
        .allow_boxed_zoom(false)
        .show_background(false)
        .set_margin_fraction(egui::vec2(0.12, 0.16))
        .x_axis_label("speed-up by FLOPs")
        .y_axis_label("PSNR, dB")
        .label_formatter(|at| match at {
            HoverPosition::NearDataPoint { plot_name, position, .. } => {
                Some(format!("{plot_name}\n{:.2}x, {:.1} dB", position.x, position.y))
            }
            HoverPosition::Elsewhere { .. } => None,
        });
    let shown = plot.show(ui, |plot| {
        for point in &points {
            let (color, radius) = if Some(point.run) == current { (palette.accent, 6.0) } else { (palette.text, 4.0) };
            plot.points(Points::new(point.name.clone(), vec![point.at]).color(color).radius(radius));
        }
        let at = plot.pointer_coordinate().filter(|_| plot.response().clicked())?;
        let place = |of: [f64; 2]| plot.screen_from_plot(egui_plot::PlotPoint::new(of[0], of[1]));
        let here = plot.screen_from_plot(at);
        let far = |point: &&Point| place(point.at).distance(here);
        let nearest = points.iter().min_by(|a, b| far(a).total_cmp(&far(b)))?;
        Some(nearest.run)
    });
    let told: Vec<String> =
        points.iter().map(|point| format!("{} {:.2}x {:.1} dB", point.name, point.at[0], point.at[1])).collect();
    theme::named(&shown.response, Role::Image, format!("Speed-up against PSNR: {}", told.join("; ")));
    if let Some(run) = shown.inner {
        actions.runs(move |runs| runs.show(run));
    }
}
