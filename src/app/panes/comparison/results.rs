//! The pictures of a comparison: speed against fidelity, and clips side by side.

use egui::accesskit::Role;
use egui::{Color32, ColorImage, RichText, TextureOptions, Ui, vec2};
use egui_plot::{Legend, Line, Plot, PlotPoints, Points};

use crate::app::data::study::StrategyComparison;
use crate::app::draw::textures::Textures;
use crate::app::draw::theme::{self, Palette};
use crate::study::compare::report;

/// The colours of strategies, which also people who see no red or green can tell apart.
const SERIES: [Color32; 7] = [
    Color32::from_rgb(0x00, 0x72, 0xb2),
    Color32::from_rgb(0xd5, 0x5e, 0x00),
    Color32::from_rgb(0x00, 0x9e, 0x73),
    Color32::from_rgb(0xcc, 0x79, 0xa7),
    Color32::from_rgb(0x56, 0xb4, 0xe9),
    Color32::from_rgb(0xe6, 0x9f, 0x00),
    Color32::from_rgb(0x80, 0x80, 0x80),
];

/// What is on show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Results {
    /// The measure of fidelity.
    measure: usize,
    /// The contact sheet, counted from the newest.
    sheet: usize,
}

impl Results {
    /// Draws speed against fidelity. A strategy is a line through its speed-ups.
    pub fn plot(&mut self, ui: &mut Ui, comparison: &StrategyComparison) {
        ui.horizontal(|ui| {
            for (index, measure) in report::MEASURES.iter().enumerate() {
                ui.selectable_value(&mut self.measure, index, measure.name.to_uppercase());
            }
        });
        let measure = &report::MEASURES[self.measure.min(report::MEASURES.len() - 1)];
        let figure = report::pareto(measure, &comparison.settings.strategies, &comparison.rows);
        let text = Palette::of(ui).text;
        let plot = Plot::new("speed against fidelity")
            .legend(Legend::default())
            .x_axis_label("speed-up by FLOPs")
            .y_axis_label(measure.label)
            .allow_scroll(false)
            .show_background(false)
            .show(ui, |plot| {
                for (series, color) in figure.series.iter().zip(SERIES.into_iter().cycle()) {
                    // Lighter in the dark theme, darker in the light one.
                    let color = theme::mix(color, text, 0.25);
                    let points: Vec<[f64; 2]> = series.points.iter().map(|(x, y)| [*x, *y]).collect();
                    let line = Line::new(series.name.clone(), PlotPoints::from(points.clone()));
                    plot.line(line.color(color).width(1.5));
                    let marks = Points::new(series.name.clone(), PlotPoints::from(points));
                    plot.points(marks.color(color).radius(4.0));
                }
            });
        let count = figure.series.len();
        theme::named(&plot.response, Role::Image, format!("Speed against {}: {count} strategies", measure.name));
    }

    /// Draws a contact sheet: the frame in the middle of every strategy's clip.
    pub fn sheets(
        &mut self,
        ui: &mut Ui,
        comparison: &StrategyComparison,
        textures: &mut Textures<&'static str, String>,
    ) {
        let count = comparison.sheets.len();
        self.sheet = self.sheet.min(count.saturating_sub(1));
        let Some(sheet) = count.checked_sub(1 + self.sheet).and_then(|index| comparison.sheets.get(index)) else {
            return theme::empty(ui, "No sheets yet", "They come when all strategies were run on a prompt and seed.");
        };
        ui.horizontal(|ui| {
            if ui.add_enabled(self.sheet + 1 < count, egui::Button::new("Earlier").small()).clicked() {
                self.sheet += 1;
            }
            if ui.add_enabled(self.sheet > 0, egui::Button::new("Later").small()).clicked() {
                self.sheet -= 1;
            }
            ui.label(RichText::new(&sheet.title).color(Palette::of(ui).weak));
        });
        let options = TextureOptions::NEAREST;
        let make = || ColorImage::from_rgb(sheet.size, &sheet.pixels);
        let texture = textures.get(ui.ctx(), "contact sheet", sheet.title.clone(), options, make);
        egui::ScrollArea::both().id_salt("comparison sheet").auto_shrink(false).show(ui, |ui| {
            let size = vec2(sheet.size[0] as f32, sheet.size[1] as f32);
            let image = ui.add(egui::Image::new((texture, size)));
            theme::named(&image, Role::Image, format!("Contact sheet: {}", sheet.title));
        });
    }
}
