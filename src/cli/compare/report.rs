//! What a comparison leaves: settings, rows as CSV and JSON, a table of means in Markdown, figures, and a contact sheet of every prompt.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::media::figure::{Plot, Series};
use crate::media::{self, Clip, write_bytes};

use super::{Entry, Row, Settings};

/// What is compared, and all rows so far.
const SETTINGS: &str = "settings.json";
const ROWS: &str = "rows.json";
/// Bytes of a file that `--resume` reads, at most.
const MOST_BYTES: u64 = 256 << 20;
/// Above this, clips are as good as equal, and a mean would be the largest value's alone.
const MOST_DECIBELS: f64 = 80.0;

/// Mean and standard deviation over the rows of one strategy.
struct Summary<'a> {
    name: &'a str,
    target: Option<f64>,
    expected: Option<f64>,
    rows: Vec<&'a Row>,
}

impl Summary<'_> {
    fn mean(&self, value: impl Fn(&Row) -> f64) -> f64 {
        self.rows.iter().map(|row| value(row)).sum::<f64>() / self.rows.len().max(1) as f64
    }

    /// The standard deviation of what the rows are a sample of; one row tells nothing of it.
    fn spread(&self, value: impl Fn(&Row) -> f64) -> Option<f64> {
        let (mean, others) = (self.mean(&value), self.rows.len().checked_sub(1).filter(|others| *others > 0)?);
        Some((self.rows.iter().map(|row| (value(row) - mean).powi(2)).sum::<f64>() / others as f64).sqrt())
    }

    /// Mean and standard deviation with so many digits.
    fn both(&self, digits: usize, value: impl Fn(&Row) -> f64) -> String {
        let mean = format!("{:.digits$}", self.mean(&value));
        self.spread(&value).map_or(mean.clone(), |spread| format!("{mean} ± {spread:.digits$}"))
    }
}

fn psnr(row: &Row) -> f64 {
    row.fidelity.psnr.min(MOST_DECIBELS)
}

fn summaries<'a>(entries: &'a [Entry], rows: &'a [Row]) -> Vec<Summary<'a>> {
    let of = |name: &'a str, target: Option<f64>, expected: Option<f64>| Summary {
        name,
        target,
        expected,
        rows: rows.iter().filter(|row| row.strategy == name && row.target == target).collect(),
    };
    let strategies = entries.iter().map(|entry| of(&entry.name, entry.target, entry.expected));
    strategies.chain([of("off again", None, None)]).collect()
}

/// What `--resume` reads: the settings and, where a prompt was finished, the rows.
pub fn read_settings_and_rows(folder: &Path) -> anyhow::Result<(Settings, Vec<Row>)> {
    let settings = read_json(&folder.join(SETTINGS))?;
    let rows = folder.join(ROWS);
    Ok((settings, if rows.exists() { read_json(&rows)? } else { Vec::new() }))
}

/// Whether a folder holds rows of a comparison, which a new one would replace.
pub fn has_rows(folder: &Path) -> bool {
    const EMPTY: u64 = "[]".len() as u64;
    std::fs::metadata(folder.join(ROWS)).is_ok_and(|file| file.len() > EMPTY)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
    file.with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not of a comparison of this version of the program", path.display()))
}

/// One line a run, for people; and as JSON for `--resume`.
pub fn write_rows(folder: &Path, rows: &[Row]) -> anyhow::Result<()> {
    write_bytes(&folder.join(ROWS), &serde_json::to_vec(rows)?)?;
    let mut csv = String::from(
        "strategy,target,prompt,seed,flop_speedup,denoise_speedup,total_speedup,hit_rate,peak_memory,delta_memory,psnr,ssim,lpips,ssimulacra2\n",
    );
    for row in rows {
        let target = row.target.map_or(String::new(), |target| target.to_string());
        let f = &row.fidelity;
        writeln!(
            csv,
            "{},{target},\"{}\",{},{:.4},{:.4},{:.4},{:.4},{},{},{:.3},{:.5},{:.5},{:.3}",
            row.strategy.replace(',', ";"),
            row.prompt.replace('"', "'"),
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
        )?;
    }
    Ok(write_bytes(&folder.join("rows.csv"), csv.as_bytes())?)
}

/// What is compared.
pub fn write_settings(folder: &Path, settings: &Settings) -> anyhow::Result<()> {
    Ok(write_bytes(&folder.join(SETTINGS), &serde_json::to_vec_pretty(settings)?)?)
}

/// Table and figures.
pub fn write(folder: &Path, settings: &Settings, rows: &[Row]) -> anyhow::Result<()> {
    let summaries = summaries(&settings.strategies, rows);
    let table = table(settings, &summaries)?;
    print!("{table}");
    write_bytes(&folder.join("report.md"), table.as_bytes())?;
    for (file, label, value) in [
        ("psnr", "PSNR (dB), higher is closer", psnr as fn(&Row) -> f64),
        ("ssim", "SSIM, higher is closer", |row| row.fidelity.ssim),
        ("lpips", "LPIPS, lower is closer", |row| row.fidelity.lpips),
    ] {
        let svg = pareto(label, &summaries, value).svg();
        write_bytes(&folder.join(format!("pareto-{file}.svg")), svg.as_str().as_bytes())?;
        write_bytes(&folder.join(format!("pareto-{file}.png")), &svg.to_png(2.0)?)?;
    }
    Ok(())
}

/// Contact sheets: what every strategy made of a prompt, to play and as the frame in the middle.
pub struct Sheets(PathBuf);

impl Sheets {
    /// In a folder of their own.
    pub fn new(output: &Path) -> anyhow::Result<Self> {
        let folder = output.join("sheets");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// That of a prompt and seed; `clips` are without reuse, then one a strategy.
    pub fn write(
        &self,
        number: usize,
        seed: u64,
        prompt: &str,
        entries: &[Entry],
        clips: &[Clip],
    ) -> anyhow::Result<()> {
        /// Wider sheets are hard to look at, and much wider ones no video can hold.
        const WIDEST: u32 = 2000;
        /// Narrower clips are enlarged: to be seen, and for their captions.
        const NARROWEST: u32 = 128;
        let named = |entry: &Entry| match entry.target {
            Some(target) => format!("{target}x {}", entry.name),
            None => entry.name.clone(),
        };
        let names: Vec<String> = std::iter::once("off".into()).chain(entries.iter().map(named)).collect();
        let cells: Vec<_> = clips.iter().zip(names.iter().map(String::as_str)).collect();
        let width = clips.first().map_or(1, Clip::width);
        let scale = (NARROWEST / width).max(1);
        let columns = ((WIDEST / (width * scale)) as usize).clamp(1, cells.len().max(1));
        let contact = media::grid(&cells, columns, scale)?;
        let file = |end: &str| self.0.join(format!("{:03}-seed{seed}.{end}", number + 1));
        media::write(&file("mp4"), &contact, prompt)?;
        let frame = contact.frames()[contact.frames().len() / 2].clone();
        let middle = Clip::new(contact.width(), contact.height(), contact.fps(), vec![frame])?;
        Ok(media::write(&file("png"), &middle, prompt)?)
    }
}

fn table(settings: &Settings, summaries: &[Summary]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "{} runs a strategy, {}x{} pixels, {} frames, {} {} steps, shift {}, guidance {}, {}{} ({}).\n",
        summaries.iter().map(|summary| summary.rows.len()).max().unwrap_or(0),
        settings.size[0],
        settings.size[1],
        settings.num_frames,
        settings.num_inference_steps,
        settings.scheduler,
        settings.flow_shift,
        settings.guidance_scale,
        settings.adapter,
        if settings.driver.is_empty() { String::new() } else { format!(", {}", settings.driver) },
        settings.program
    )?;
    writeln!(
        text,
        "Mean and standard deviation over the runs, on raw frames, against the same model, prompt and seed without reuse. \
         PSNR above {MOST_DECIBELS} dB counts as {MOST_DECIBELS}. The whole job: denoising and decoding.\n"
    )?;
    writeln!(
        text,
        "| strategy | target | by FLOPs | denoising | whole job | hit rate | PSNR dB | SSIM | LPIPS | SSIMULACRA2 | deltas MiB |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|")?;
    for summary in summaries.iter().filter(|summary| !summary.rows.is_empty()) {
        writeln!(
            text,
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
        )?;
    }
    let known = |row: &&Row| settings.known_prompts.contains(&row.prompt);
    if summaries.iter().any(|summary| summary.rows.iter().any(known)) {
        writeln!(
            text,
            "\nSome of the prompts are those that strategies were profiled or tuned on, where they flatter themselves."
        )?;
    }
    Ok(text)
}

fn pareto(label: &str, summaries: &[Summary], value: fn(&Row) -> f64) -> Plot {
    let mut series: Vec<Series> = Vec::new();
    for summary in summaries.iter().filter(|summary| summary.name != "off again" && !summary.rows.is_empty()) {
        let point = (summary.mean(|row| row.flop_speedup), summary.mean(value));
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
        y_label: label.into(),
        series,
        from_zero: false,
    }
}
