//! The report of a comparison as one HTML page: verdicts, the sortable table, figures and clips.

use crate::media::{Page, Table, TableCell};

use super::report::{self, Summary, psnr};
use super::verdict::verdicts;
use super::{OFF_AGAIN, Row, Settings};

/// Most bytes of clips in a page. Browsers become slow with larger pages.
const MOST_CLIPS: usize = 48 << 20;

/// A contact sheet for the page.
pub(super) struct PageSheet {
    /// The clips as MP4.
    pub mp4: Vec<u8>,
    /// The middle frame as PNG.
    pub png: Vec<u8>,
    /// The prompt and the seed.
    pub caption: String,
}

/// The page. `sheets` are the contact sheets in the order of the report. Sheets beyond
/// [`MOST_CLIPS`] are left out, and the page says how many.
pub(super) fn page(settings: &Settings, rows: &[Row], sheets: impl Iterator<Item = PageSheet>) -> String {
    let mut page = Page::new(&report::title(settings), &report::conditions(settings, rows));
    for verdict in verdicts(&settings.strategies, rows) {
        page.paragraph(&verdict.sentence());
    }
    if let Some(note) = report::flattered(settings, rows) {
        page.warning(note);
    }
    page.heading("Means over all runs");
    page.paragraph(report::MEANING);
    page.table(&table(&report::summaries(&settings.strategies, rows)));
    page.heading("Speed against fidelity");
    for measure in report::MEASURES {
        page.figure(&report::pareto(&measure, &settings.strategies, rows).svg());
    }
    clips(&mut page, sheets);
    page.heading("Settings");
    page.facts(&facts(settings));
    page.finish()
}

fn clips(page: &mut Page, sheets: impl Iterator<Item = PageSheet>) {
    let (mut bytes, mut left_out) = (0, 0);
    let mut begun = false;
    for PageSheet { mp4, png, caption } in sheets {
        bytes += mp4.len() + png.len();
        if bytes > MOST_CLIPS {
            left_out += 1;
            continue;
        }
        if !std::mem::replace(&mut begun, true) {
            page.heading("Clips");
        }
        page.video(&mp4, Some(&png), &caption);
    }
    if left_out > 0 {
        page.paragraph(&format!("{left_out} more contact sheets are in the report's folder, in sheets/."));
    }
}

fn table(summaries: &[Summary]) -> Table {
    let columns = ["strategy", "target", "by FLOPs", "denoising", "whole job", "hit rate", "PSNR dB"];
    let others = ["expected dB", "SSIM", "LPIPS", "SSIMULACRA2", "runs"];
    let row = |summary: &Summary| {
        let number = |digits: usize, unit: &str, value: fn(&Row) -> f64| {
            TableCell::number(format!("{}{unit}", summary.both(digits, value)), summary.mean(value))
        };
        let or_dash = |value: Option<f64>, text: String| match value {
            Some(value) => TableCell::number(text, value),
            None => TableCell::number("-", f64::NEG_INFINITY),
        };
        let expected = summary.expected.map(|psnr| psnr.min(report::MOST_DECIBELS));
        vec![
            TableCell::text(summary.name),
            or_dash(summary.target, format!("{}x", summary.target.unwrap_or_default())),
            number(2, "x", |row| row.flop_speedup),
            number(2, "x", |row| row.denoise_speedup),
            number(2, "x", |row| row.total_speedup),
            number(0, " %", |row| 100.0 * row.hit_rate),
            number(1, "", psnr),
            or_dash(expected, format!("{:.1}", expected.unwrap_or_default())),
            number(4, "", |row| row.fidelity.ssim),
            number(5, "", |row| row.fidelity.lpips),
            number(1, "", |row| row.fidelity.ssimulacra2),
            TableCell::number(summary.rows.len().to_string(), summary.rows.len() as f64),
        ]
    };
    let measured = summaries.iter().filter(|summary| !summary.rows.is_empty());
    Table { columns: columns.into_iter().chain(others).map(str::to_owned).collect(), rows: measured.map(row).collect() }
}

fn facts(settings: &Settings) -> Vec<(&str, String)> {
    let clip = &settings.clip;
    let mut facts = vec![
        ("program", settings.program.clone()),
        ("adapter", settings.adapter.clone()),
        ("driver", settings.driver.clone()),
        ("model", settings.model_id.clone()),
        ("VAE", settings.vae_id.clone()),
        ("size", format!("{}x{} pixels, {} frames", clip.width, clip.height, clip.num_frames)),
        ("steps", format!("{}, {}", clip.num_inference_steps, settings.scheduler)),
        ("shift", clip.flow_shift.map_or("-".into(), |shift| shift.to_string())),
        ("guidance", clip.guidance_scale.to_string()),
    ];
    for entry in settings.strategies.iter().filter(|entry| entry.name != OFF_AGAIN) {
        let target = entry.target.map_or(String::new(), |target| format!("at {target}x: "));
        facts.push((&entry.name, format!("{target}{}", entry.config.to_json())));
    }
    facts
}
