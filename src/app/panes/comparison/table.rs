//! The table of a comparison: means of every strategy at every speed-up, sorted by any column.

use egui::accesskit::Role;
use egui::{RichText, Ui};

use crate::app::data::study::StrategyComparison;
use crate::app::draw::theme::{self, Palette};
use crate::study::compare::Row;
use crate::study::compare::report::{self, Summary};

/// A column with numbers.
struct Column {
    title: &'static str,
    digits: usize,
    unit: &'static str,
    value: fn(&Row) -> f64,
}

const COLUMNS: [Column; 8] = [
    Column { title: "by FLOPs", digits: 2, unit: "x", value: |row| row.flop_speedup },
    Column { title: "denoising", digits: 2, unit: "x", value: |row| row.denoise_speedup },
    Column { title: "whole job", digits: 2, unit: "x", value: |row| row.total_speedup },
    Column { title: "hit rate", digits: 0, unit: " %", value: |row| 100.0 * row.hit_rate },
    Column { title: "PSNR dB", digits: 1, unit: "", value: report::psnr },
    Column { title: "SSIM", digits: 3, unit: "", value: |row| row.fidelity.ssim },
    Column { title: "LPIPS", digits: 4, unit: "", value: |row| row.fidelity.lpips },
    Column { title: "SSIMULACRA2", digits: 1, unit: "", value: |row| row.fidelity.ssimulacra2 },
];

/// The order of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The column that counts; the order of the strategies' list if `None`.
    column: Option<usize>,
    /// The largest value first.
    descending: bool,
}

impl Order {
    /// The order after a click on a column: descending, ascending, then as listed.
    fn clicked(self, column: usize) -> Self {
        match (self.column == Some(column), self.descending) {
            (false, _) => Self { column: Some(column), descending: true },
            (true, true) => Self { descending: false, ..self },
            (true, false) => Self::default(),
        }
    }

    fn sort(self, summaries: &mut [Summary]) {
        let Some(column) = self.column.and_then(|column| COLUMNS.get(column)) else { return };
        let value = |summary: &Summary| summary.mean(column.value);
        summaries.sort_by(|a, b| value(a).total_cmp(&value(b)));
        if self.descending {
            summaries.reverse();
        }
    }
}

/// Draws the table.
pub fn ui(ui: &mut Ui, comparison: &StrategyComparison, order: &mut Order) {
    let mut summaries = report::summaries(&comparison.settings.strategies, &comparison.rows);
    summaries.retain(|summary| !summary.rows.is_empty());
    if summaries.is_empty() {
        return theme::empty(ui, "No rows yet", "They come when all strategies were run on a prompt and seed.");
    }
    order.sort(&mut summaries);
    egui::ScrollArea::both().id_salt("comparison table").auto_shrink(false).show(ui, |ui| {
        let grid = egui::Grid::new("comparison table grid").num_columns(COLUMNS.len() + 3).spacing([14.0, 3.0]);
        grid.striped(true).show(ui, |ui| {
            header(ui, order);
            summaries.iter().for_each(|summary| summary_row(ui, summary));
        });
    });
}

fn header(ui: &mut Ui, order: &mut Order) {
    let weak = Palette::of(ui).weak;
    for title in ["strategy", "target", "runs"] {
        ui.label(RichText::new(title).size(11.5).color(weak));
    }
    for (index, column) in COLUMNS.iter().enumerate() {
        let arrow = match (order.column == Some(index), order.descending) {
            (false, _) => "",
            (true, true) => " \u{2193}",
            (true, false) => " \u{2191}",
        };
        let text = RichText::new(format!("{}{arrow}", column.title)).size(11.5).color(weak);
        let button = ui.add(egui::Button::new(text).frame(false));
        theme::named(&button, Role::Button, format!("Sort by {}", column.title));
        if button.on_hover_text("Mean over all runs. Click to sort").clicked() {
            *order = order.clicked(index);
        }
    }
    ui.end_row();
}

fn summary_row(ui: &mut Ui, summary: &Summary) {
    ui.label(summary.name);
    ui.label(summary.target.map_or("-".into(), |target| format!("{target}x")));
    ui.label(summary.rows.len().to_string());
    for column in &COLUMNS {
        let label = ui.label(format!("{:.*}{}", column.digits, summary.mean(column.value), column.unit));
        label.on_hover_text(summary.both(column.digits, column.value));
    }
    ui.end_row();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_sorts_down_then_up_then_not() {
        let order = Order::default();
        let down = order.clicked(4);
        let up = down.clicked(4);
        assert!(down.descending && !up.descending && up.column == Some(4));
        assert_eq!((up.clicked(4), up.clicked(2)), (order, Order { column: Some(2), descending: true }));
    }
}
