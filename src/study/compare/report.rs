//! The report of a comparison: rows as CSV, a table of means in Markdown, and figures of speed
//! against fidelity.

use crate::media::csv_cell;
use crate::media::figure::{Plot, Series};

use super::verdict::{Verdict, verdicts};
use super::{Entry, OFF_AGAIN, Row, Settings};

/// Upper limit of PSNR in means, in decibels. Clips with a higher PSNR are practically equal, and
/// without the limit the largest value would dominate a mean.
pub const MOST_DECIBELS: f64 = 80.0;

/// A measure of fidelity.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// The name in files.
    pub name: &'static str,
    /// The label of an axis.
    pub label: &'static str,
    /// The value of a row.
    pub value: fn(&Row) -> f64,
    /// Least range of the figure's axis. Smaller differences cannot be seen in clips.
    least: f64,
}

/// The measures that have a figure of speed against fidelity.
pub const MEASURES: [Measure; 3] = [
    Measure { name: "psnr", label: "PSNR (dB), higher is closer", value: psnr, least: 3.0 },
    Measure { name: "ssim", label: "SSIM, higher is closer", value: |row| row.fidelity.ssim, least: 0.01 },
    Measure { name: "lpips", label: "LPIPS, lower is closer", value: |row| row.fidelity.lpips, least: 0.01 },
];

/// All rows of one strategy at one speed-up.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    /// The strategy's name.
    pub name: &'a str,
    /// The speed-up to which the strategy was tuned.
    pub target: Option<f64>,
    /// The PSNR in decibels that the planner expects.
    pub expected: Option<f64>,
    /// The rows.
    pub rows: Vec<&'a Row>,
}

impl Summary<'_> {
    /// The mean over the rows. 0 without rows.
    pub fn mean(&self, value: impl Fn(&Row) -> f64) -> f64 {
        self.rows.iter().map(|row| value(row)).sum::<f64>() / self.rows.len().max(1) as f64
    }

    /// The sample standard deviation over the rows. `None` for fewer than two rows.
    pub fn spread(&self, value: impl Fn(&Row) -> f64) -> Option<f64> {
        let (mean, others) = (self.mean(&value), self.rows.len().checked_sub(1).filter(|others| *others > 0)?);
        Some((self.rows.iter().map(|row| (value(row) - mean).powi(2)).sum::<f64>() / others as f64).sqrt())
    }

    /// Mean and standard deviation with `digits` decimal places.
    pub fn both(&self, digits: usize, value: impl Fn(&Row) -> f64) -> String {
        let mean = format!("{:.digits$}", self.mean(&value));
        self.spread(&value).map_or(mean.clone(), |spread| format!("{mean} ± {spread:.digits$}"))
    }
}

/// PSNR of a row in decibels, limited to [`MOST_DECIBELS`].
pub fn psnr(row: &Row) -> f64 {
    row.fidelity.psnr.min(MOST_DECIBELS)
}

/// One summary for each strategy, in the order of the list, and one for the second baseline.
pub fn summaries<'a>(entries: &'a [Entry], rows: &'a [Row]) -> Vec<Summary<'a>> {
    let of = |name: &'a str, target: Option<f64>, expected: Option<f64>| Summary {
        name,
        target,
        expected,
        rows: rows.iter().filter(|row| row.strategy == name && row.target == target).collect(),
    };
    let strategies = entries.iter().map(|entry| of(&entry.name, entry.target, entry.expected));
    strategies.chain([of(OFF_AGAIN, None, None)]).collect()
}

/// The rows as CSV, with one line for each run.
pub fn csv(rows: &[Row]) -> String {
    let mut csv = String::from(
        "strategy,target,prompt,seed,flop_speedup,denoise_speedup,total_speedup,hit_rate,peak_memory,delta_memory,psnr,ssim,lpips,ssimulacra2\n",
    );
    for row in rows {
        let target = row.target.map_or(String::new(), |target| target.to_string());
        let f = &row.fidelity;
        let line = format!(
            "{},{target},{},{},{:.4},{:.4},{:.4},{:.4},{},{},{:.3},{:.5},{:.5},{:.3}\n",
            csv_cell(&row.strategy),
            csv_cell(&row.prompt),
            row.seed,
            row.flop_speedup,
            row.denoise_speedup,
            row.total_speedup,
            row.hit_rate,
            row.peak_memory,
            row.delta_memory,
            f.psnr,
            f.ssim,
            f.lpips,
            f.ssimulacra2
        );
        csv.push_str(&line);
    }
    csv
}

/// The meaning of the numbers in tables.
pub(super) const MEANING: &str = "Mean and standard deviation over the runs, on raw frames, against the same model, \
    prompt and seed without reuse. PSNR above 80 dB counts as 80. The whole job: denoising and decoding.";

/// The title of a report.
pub(super) fn title(settings: &Settings) -> String {
    let mut names: Vec<&str> = settings.strategies.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match names.len() {
        1 => format!("{} against no reuse", names[0]),
        count => format!("Comparison of {count} strategies"),
    }
}

/// The conditions of the runs, in one line.
pub(super) fn conditions(settings: &Settings, rows: &[Row]) -> String {
    let (clip, summaries) = (&settings.clip, summaries(&settings.strategies, rows));
    format!(
        "{} runs a strategy, {}x{} pixels, {} frames, {} {} steps, shift {}, guidance {}, {}{} ({})",
        summaries.iter().map(|summary| summary.rows.len()).max().unwrap_or(0),
        clip.width,
        clip.height,
        clip.num_frames,
        clip.num_inference_steps,
        settings.scheduler,
        clip.flow_shift.unwrap_or_default(),
        clip.guidance_scale,
        settings.adapter,
        if settings.driver.is_empty() { String::new() } else { format!(", {}", settings.driver) },
        settings.program
    )
}

/// A warning if the strategies were made on some of the compared prompts.
pub(super) fn flattered(settings: &Settings, rows: &[Row]) -> Option<&'static str> {
    let known = rows.iter().any(|row| settings.known_prompts.contains(&row.prompt));
    known.then_some(
        "Some of the prompts are those that strategies were profiled or tuned on, where they flatter themselves.",
    )
}

/// The whole report in Markdown. `sheets` are the names of the contact sheets without ending, with
/// their captions.
pub(super) fn markdown(settings: &Settings, rows: &[Row], sheets: &[(String, String)]) -> String {
    let mut text = format!("# {}\n\n{}\n## Speed against fidelity\n\n", title(settings), table(settings, rows));
    for measure in MEASURES {
        text.push_str(&format!("![{}](pareto-{}.svg)\n", measure.label, measure.name));
    }
    if !sheets.is_empty() {
        text.push_str("\n## Clips\n\n");
    }
    for (name, caption) in sheets {
        // Prompts may hold Markdown.
        let caption: String = caption.chars().map(|c| if "[]()<>\n\r".contains(c) { ' ' } else { c }).collect();
        text.push_str(&format!("- [{caption}](sheets/{name}.mp4) ([still](sheets/{name}.png))\n"));
    }
    text
}

/// Means and standard deviations as a Markdown table, with a description of the runs and verdicts.
pub fn table(settings: &Settings, rows: &[Row]) -> String {
    let mut text = format!("{}.\n\n{MEANING}\n\n", conditions(settings, rows));
    text.push_str(
        "| strategy | target | by FLOPs | denoising | whole job | hit rate | PSNR dB | SSIM | LPIPS | SSIMULACRA2 | deltas MiB |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for summary in summaries(&settings.strategies, rows).iter().filter(|summary| !summary.rows.is_empty()) {
        text.push_str(&table_row(summary));
        text.push('\n');
    }
    let verdicts = verdicts(&settings.strategies, rows);
    let sentences = verdicts.iter().map(Verdict::sentence).chain(flattered(settings, rows).map(str::to_owned));
    for sentence in sentences {
        text.push_str(&format!("\n{sentence}\n"));
    }
    text
}

fn table_row(summary: &Summary) -> String {
    format!(
        "| {} | {} | {}x | {}x | {}x | {:.0} % | {}{} | {} | {} | {} | {:.1} |",
        summary.name,
        summary.target.map_or("-".into(), |target| format!("{target}x")),
        summary.both(2, |row| row.flop_speedup),
        summary.both(2, |row| row.denoise_speedup),
        summary.both(2, |row| row.total_speedup),
        100.0 * summary.mean(|row| row.hit_rate),
        summary.both(1, psnr),
        summary.expected.map_or(String::new(), |psnr| format!(" ({:.1} expected)", psnr.min(MOST_DECIBELS))),
        summary.both(4, |row| row.fidelity.ssim),
        summary.both(5, |row| row.fidelity.lpips),
        summary.both(1, |row| row.fidelity.ssimulacra2),
        summary.mean(|row| row.delta_memory as f64) / (1 << 20) as f64
    )
}

/// The speed of every strategy against one measure of its fidelity, in means over all rows.
pub fn pareto(measure: &Measure, entries: &[Entry], rows: &[Row]) -> Plot {
    let mut series: Vec<Series> = Vec::new();
    let summaries = summaries(entries, rows);
    for summary in summaries.iter().filter(|summary| summary.name != OFF_AGAIN && !summary.rows.is_empty()) {
        let point = (summary.mean(|row| row.flop_speedup), summary.mean(measure.value));
        match series.iter_mut().find(|series| series.name == summary.name) {
            Some(series) => series.points.push(point),
            None => series.push(Series {
                name: summary.name.into(),
                points: vec![point],
                joined: true,
                ..Series::default()
            }),
        }
    }
    Plot {
        title: "Speed against fidelity".into(),
        subtitle: "means over all runs, against the same run without reuse".into(),
        x_label: "speed-up of the denoising by FLOPs (times)".into(),
        y_label: measure.label.into(),
        series,
        least: (0.5, measure.least),
        ..Plot::default()
    }
}

#[cfg(test)]
pub(in crate::study) mod tests {
    use super::*;
    use crate::study::compare::Scores;

    /// A row whose numbers differ from those of other rows.
    pub fn row(strategy: &str, target: Option<f64>, prompt: &str, seed: u64) -> Row {
        let number = prompt.len() as f64 + seed as f64 + target.unwrap_or(1.0);
        Row {
            strategy: strategy.into(),
            target,
            prompt: prompt.into(),
            seed,
            flop_speedup: target.unwrap_or(1.0),
            denoise_speedup: 1.0,
            total_speedup: 1.0,
            hit_rate: 0.5,
            peak_memory: 1,
            delta_memory: 2,
            fidelity: Scores { psnr: 20.0 + number, ssim: 0.9, lpips: 0.1, ssimulacra2: 50.0 },
        }
    }

    #[test]
    fn one_row_has_no_spread() {
        let rows = [row("a", None, "x", 0), row("a", None, "x", 2)];
        let of = |rows: &[Row]| {
            Summary { name: "a", target: None, expected: None, rows: rows.iter().collect() }.both(1, psnr)
        };
        assert_eq!((of(&rows[..1]), of(&rows)), ("22.0".into(), "23.0 ± 1.4".into()));
    }
}
